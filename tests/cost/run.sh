#!/usr/bin/env bash
# Measures seconds and memory of compilations and writes docs/cost.md.
# Usage: bash tests/cost/run.sh MODELS_DIR [REGEX]   (QCC=PROGRAM: not a release build, but that one;
# PYTHON=PROGRAM: one with numpy and onnx, which makes the large models)
# REGEX: only rows in whose line it is found (`7B`, `depth`, flags); the others keep their lines.
# MODELS_DIR holds docs-llama.onnx and calib_tokens.npy.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
models=$(cd "${1:?usage: run.sh MODELS_DIR}" && pwd)
cd "$here/../.."
if [ -z "${QCC:-}" ]; then
    cargo build --release --package qcc --bin qcc
    QCC=${CARGO_TARGET_DIR:-target}/release/qcc
fi
"${PYTHON:-python3}" -B "$here/measure.py" "$(realpath "$QCC")" "$models" docs/cost.md "${2:-}"

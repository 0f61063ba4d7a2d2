#!/usr/bin/env bash
# Measures the accuracy of the schemes on language models and writes docs/accuracy.md.
# Usage: bash tests/accuracy/run.sh MODELS_DIR [REGEX]   (QCC=PROGRAM: not a release build, but that one)
# REGEX: only rows in whose flags it is found; the others keep their lines.
# MODELS_DIR holds docs-{llama,llama-outlier,gpt-outlier}.onnx, calib_tokens.npy, eval_tokens.npy.
# Ends with an error when a bound is missed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
models=$(cd "${1:?usage: run.sh MODELS_DIR}" && pwd)
cd "$here/../.."
if [ -z "${QCC:-}" ]; then
    cargo build --release --package qcc
    QCC=${CARGO_TARGET_DIR:-target}/release/qcc
fi
python3 "$here/measure.py" "$QCC" "$models" docs/accuracy.md "${2:-}"

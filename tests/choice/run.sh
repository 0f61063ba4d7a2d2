#!/usr/bin/env bash
# Writes docs/choice-table.md.
# Usage: bash tests/choice/run.sh MODELS_DIR
# MODELS_DIR holds docs-{llama,llama-outlier,gpt-outlier}.onnx and calib_tokens.npy.
# Ends with an error when the joint choice is slower than another.
set -euo pipefail
models=$(cd "${1:?usage: run.sh MODELS_DIR}" && pwd)
cd "$(dirname "$0")/../.."
cargo run --release --package qcc-tests --example choice_table -- "$models" >docs/choice-table.md

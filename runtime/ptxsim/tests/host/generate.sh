#!/bin/sh
# Compiles convert.cc against NVIDIA's headers, taken from their Python wheels, and writes goldens.txt.
# Needs g++, python3 and pip; no GPU and no CUDA installation.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download -q --no-deps -d "$work" nvidia-cuda-runtime==13.0.48 nvidia-cuda-crt==13.0.48 nvidia-cuda-cccl==13.0.50
for wheel in "$work"/*.whl; do python3 -m zipfile -e "$wheel" "$work"; done
include=$(dirname "$(find "$work" -name cuda_fp8.h | head -n 1)")
g++ -std=c++17 -O1 -ffp-contract=off -I"$include" -I"$include/cccl" convert.cc -o "$work/convert"
"$work/convert" > goldens.txt

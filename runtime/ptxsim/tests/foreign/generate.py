#!/usr/bin/env python3
"""Compiles our Triton and CUDA C++ sources to PTX with the tools of others, and writes goldens.

    pip install numpy ml_dtypes triton==3.9.0 nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl
    python3 generate.py            # rewrites cases/

No GPU and no driver are needed. Inputs are small multiples of powers of two, so that every order of
summation gives the same bits and goldens compare exactly; where a function is approximate, `case.txt`
states a relative tolerance.
"""
import os
import pathlib
import shutil

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "0")
import numpy as np

from case import Case
import cuda_sources
import triton_sources

HERE = pathlib.Path(__file__).parent


def main():
    out = HERE / "cases"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    Case.root = out
    triton_sources.generate(np.random.default_rng(7))
    cuda_sources.generate(np.random.default_rng(11))


if __name__ == "__main__":
    main()

"""The calls of `torch_layers.py` without PyTorch and without a GPU: shapes and types are checked as
PyTorch does, nothing is computed, and every measurement takes a millisecond."""

from . import cuda  # noqa: F401

__version__ = "0.0-fake"
float16, float32, int8, int32, float8_e4m3fn = "f16", "f32", "i8", "i32", "e4m3"


class version:
    cuda = "13.0"


class Tensor:
    def __init__(self, shape, dtype):
        self.shape, self.dtype = tuple(shape), dtype

    def __truediv__(self, number):
        return Tensor(self.shape, self.dtype)

    __mul__ = __truediv__

    def to(self, dtype):
        return Tensor(self.shape, dtype)

    def half(self):
        return self.to(float16)

    def clamp(self, low, high):
        return Tensor(self.shape, self.dtype)

    def t(self):
        rows, columns = self.shape
        return Tensor((columns, rows), self.dtype)

    def __matmul__(self, other):
        return product(self, other, (float16,), self.dtype)


def product(a, b, dtypes, out):
    if a.dtype not in dtypes or a.dtype != b.dtype or a.shape[1] != b.shape[0]:
        raise RuntimeError(f"{a.dtype}{a.shape} by {b.dtype}{b.shape}\nsecond line")
    return Tensor((a.shape[0], b.shape[1]), out)


def randn(*shape, device, dtype=float32):
    assert device == "cuda"
    return Tensor(shape, dtype)


def randint(low, high, shape, device, dtype):
    assert device == "cuda" and low < high
    return Tensor(shape, dtype)


def ones(shape, device):
    return Tensor(shape, float32)


def _scaled_mm(a, b, scale_a, scale_b, out_dtype):
    assert scale_a.shape == scale_b.shape == ()
    return product(a, b, (float8_e4m3fn,), out_dtype)


def _int_mm(a, b):
    if a.shape[0] <= 16:
        raise RuntimeError("self.size(0) needs to be greater than 16")
    return product(a, b, (int8,), int32)



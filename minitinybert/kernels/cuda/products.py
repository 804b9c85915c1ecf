"""Products of matrices by cuBLAS, given by addresses: what `cupy.matmul` comes to in the end,
without its checks and views.

Matrices lie row after row without gaps. cuBLAS reads them column after column, as their transposes;
so y = x Wᵀ is to it yᵀ = W xᵀ.
"""

from __future__ import annotations

import cupy
import numpy as np
from cupy._core._routines_linalg import COMPUTE_TYPE_PEDANTIC, COMPUTE_TYPE_TF32
from cupy.cuda import cublas, device

_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}  # cudaDataType
_ONE, _ZERO = ({dtype: np.full(1, value, dtype) for dtype in ("float32", "float64")} for value in (1, 0))
_N, _T = cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_T


class Products:
    """Of matrices of one dtype, summed in float32 or float64, on the current device and stream;
    TF32 where CuPy has it."""

    def __init__(self, dtype: np.dtype):
        self._type = _TYPES[dtype.name]
        scalars = "float64" if dtype == np.float64 else "float32"
        self._one, self._zero = _ONE[scalars].ctypes.data, _ZERO[scalars].ctypes.data
        self._compute = cublas.CUBLAS_COMPUTE_64F
        if scalars == "float32":
            compute_type = cupy._core.get_compute_type(dtype)
            tf32 = dtype == np.float32 and compute_type == COMPUTE_TYPE_TF32
            pedantic = compute_type == COMPUTE_TYPE_PEDANTIC
            fast, exact = cublas.CUBLAS_COMPUTE_32F_FAST_TF32, cublas.CUBLAS_COMPUTE_32F_PEDANTIC
            self._compute = fast if tf32 else exact if pedantic else cublas.CUBLAS_COMPUTE_32F
        self.begin()

    def begin(self) -> None:
        """Before the first of a row of products: a thread that is no more has taken its handle with
        it."""
        self._handle = device.get_cublas_handle()

    def x_Wt(self, x: int, W: int, y: int, rows: int, inner: int, outer: int) -> None:
        """y (rows, outer) = x Wᵀ:  x (rows, inner), W (outer, inner)."""
        self._gemm(_T, _N, outer, rows, inner, W, inner, x, inner, y, self._zero)

    def dy_W(self, dy: int, W: int, dx: int, rows: int, inner: int, outer: int, add: bool = False) -> None:
        """dx (rows, inner) = dy W, or added to what is there:  dy (rows, outer), W (outer, inner)."""
        self._gemm(_N, _N, inner, rows, outer, W, inner, dy, outer, dx, self._one if add else self._zero)

    def dyt_x(self, dy: int, x: int, dW: int, rows: int, inner: int, outer: int) -> None:
        """dW (outer, inner) = dyᵀ x:  dy (rows, outer), x (rows, inner)."""
        self._gemm(_N, _T, inner, outer, rows, x, inner, dy, outer, dW, self._zero)

    def _gemm(self, of_a: int, of_b: int, m: int, n: int, k: int, a: int, lda: int, b: int, ldb: int, c: int, beta: int) -> None:
        t = self._type
        cublas.gemmEx(
            self._handle, of_a, of_b, m, n, k, self._one, a, t, lda, b, t, ldb, beta, c, t, m, self._compute, cublas.CUBLAS_GEMM_DEFAULT
        )

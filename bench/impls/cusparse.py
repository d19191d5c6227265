"""cuSPARSE's own block formats through nvmath-python's bindings (extra ``nvmath``).

Shared by ``cusparse_bsr`` and ``cusparse_ell``. Not run on a GPU yet: the arguments are tested
against a stand-in that computes from the pointers it is given.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.impls.unfolded import Unfolding, prepare_product, tried
from bench.problem import Prepared, Problem, Unsupported
from hrbp_core.shapes import Pass

CUDA_TYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}  # of cudaDataType_t
ONE = np.array([1.0], dtype=np.float32)
ZERO = np.array([0.0], dtype=np.float32)
Matrix = Callable[[Any, Tensor, tuple[int, int]], tuple[int, Tensor, list[Tensor]]]


def bindings(problem: Problem) -> Any:
    """Return nvmath's cuSPARSE bindings.

    Raises:
        Unsupported: no CUDA, no bindings, a dtype or pattern that has no such matrix.
    """
    if problem.case.device != "cuda":
        raise Unsupported("cuSPARSE runs on CUDA alone")
    if problem.x.dtype not in CUDA_TYPES:
        raise Unsupported(f"no kernel: cuSPARSE has no block formats in {problem.case.dtype}")
    (block_k, block_c), shape = problem.pattern.block, problem.case.shape
    if problem.case.layout != "canonical" or shape.K % block_k or shape.C % block_c:
        raise Unsupported("needs a canonical pattern whose groups are whole")
    if block_k != block_c:
        raise Unsupported(f"needs square blocks, got {block_k}x{block_c}")
    try:
        from nvmath.bindings import cusparse
    except ImportError as error:
        raise Unsupported(f"nvmath-python is not installed (extra nvmath): {error}") from error
    return cusparse


class Library:
    """A handle, and the descriptors made with it; all are destroyed with this object."""

    def __init__(self, library: Any, stream: int = 0) -> None:
        self.library = library
        self.handle = library.create()
        library.set_stream(self.handle, stream)
        self._ends: list[tuple[Callable[[int], Any], int]] = [(library.destroy, self.handle)]
        weakref.finalize(self, _end, self._ends)

    def sparse(self, descriptor: int) -> int:
        """Keep a sparse descriptor."""
        self._ends.append((self.library.destroy_sp_mat, descriptor))
        return descriptor

    def dense(self, matrix: Tensor) -> int:
        """Return the descriptor of a row-major matrix."""
        rows, columns = matrix.shape
        made = self.library.create_dn_mat(
            rows, columns, columns, matrix.data_ptr(), CUDA_TYPES[matrix.dtype],
            int(self.library.Order.ROW),
        )  # fmt: skip
        self._ends.append((self.library.destroy_dn_mat, made))
        return int(made)

    def constants(self) -> tuple[int, int]:
        """Return the addresses of 1 and 0, on the host, in the type that sums are kept in."""
        return ONE.ctypes.data, ZERO.ctypes.data


def _end(ends: list[tuple[Callable[[int], Any], int]]) -> None:
    for destroy, descriptor in reversed(ends):
        destroy(descriptor)


def spmm(
    lib: Library, sparse: int, rows: int, algorithm: int, like: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return the product of a sparse matrix with a dense one [.., n] of the kind of ``like``.

    Descriptors, workspace and preprocessing are made once a dense matrix, and kept.
    """
    library, plain = lib.library, int(lib.library.Operation.NON_TRANSPOSE)
    one, zero = lib.constants()
    # a plan keeps its dense matrix: another one at the same address would get the wrong plan
    made: dict[int, tuple[tuple[Any, ...], Tensor, Tensor]] = {}

    def plan(dense: Tensor) -> tuple[tuple[Any, ...], Tensor, Tensor]:
        out = torch.empty(rows, dense.shape[1], dtype=dense.dtype, device=dense.device)
        operands = (
            lib.handle, plain, plain, one, sparse, lib.dense(dense), zero, lib.dense(out),
            CUDA_TYPES[torch.float32], algorithm,
        )  # fmt: skip
        size = library.sp_mm_buffer_size(*operands)
        space = torch.empty(max(size, 1), dtype=torch.uint8, device=dense.device)
        call = (*operands, space.data_ptr(), space)
        library.sp_mm_preprocess(*call[:-1])
        return call, out, dense

    def product(dense: Tensor) -> Tensor:
        key = dense.data_ptr()
        if key not in made:
            made[key] = plan(dense)
        call, out, _ = made[key]
        library.sp_mm(*call[:-1])
        return out

    return product


def sddmm(
    lib: Library, sparse: int, values: Tensor, pixels: Tensor, columns: Tensor
) -> Callable[[], Tensor]:
    """Return pixels @ columns^T, sampled into ``values`` of a sparse matrix."""
    library = lib.library
    one, zero = lib.constants()
    operands = (
        lib.handle, int(library.Operation.NON_TRANSPOSE), int(library.Operation.TRANSPOSE), one,
        lib.dense(pixels), lib.dense(columns), zero, sparse, CUDA_TYPES[torch.float32],
        int(library.SDDMMAlg.DEFAULT),
    )  # fmt: skip
    size = np.zeros(1, dtype=np.uint64)
    library.sddmm_buffer_size(*operands, size.ctypes.data)
    space = torch.empty(max(int(size[0]), 1), dtype=torch.uint8, device=pixels.device)
    library.sddmm_preprocess(*operands, space.data_ptr())

    def product() -> Tensor:
        library.sddmm(*operands, space.data_ptr())
        return values

    return product


def blocks_of(matrix: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (row starts [rows+1], block columns [n], values [n, block, block]), int32 indices."""
    rows, columns = matrix.shape
    grid = matrix.view(rows // block, block, columns // block, block).transpose(1, 2)
    kept = (grid != 0).any(3).any(2)
    starts = torch.zeros(len(kept) + 1, dtype=torch.int32, device=matrix.device)
    starts[1:] = kept.sum(1).cumsum(0)
    return starts, kept.nonzero()[:, 1].int().contiguous(), grid[kept].contiguous()


def prepare_spmm(problem: Problem, library: Any, make: Matrix, algorithm: int) -> Prepared:
    """Return the product alone of fprop or dgrad with a matrix that ``make`` describes."""
    unfolding, block = Unfolding(problem), problem.pattern.block
    matrix = unfolding.matrix()
    if problem.case.conv_pass is Pass.DGRAD:
        matrix = matrix.t().contiguous()
    stream = torch.cuda.current_stream().cuda_stream if problem.x.is_cuda else 0
    lib = Library(library, stream)
    descriptor, values, kept = make(library, matrix, block)
    product = spmm(lib, lib.sparse(descriptor), len(matrix), algorithm, matrix)
    probe = matrix.new_zeros(matrix.shape[1], 16)
    tried(lambda: product(probe), "cuSPARSE SpMM")

    def call(dense: Tensor, _alive: Any = (lib, values, kept)) -> Tensor:
        return product(dense)

    return prepare_product(problem, unfolding, call, {"backend": "cuSPARSE"}, alone=True)

"""What the GPU kernels take, and the words for what they do not."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hrbp_core.kernels.problem import Problem
from hrbp_core.kernels.tiles import TILED, check_block
from hrbp_core.launch_tables import MAX_GROUPS, MAX_SHIFT, MAX_TAPS

LEAST_CAPABILITY = (8, 0)
LEAST_TRITON = (3, 6)


def check_problem(problem: Problem, dtype: torch.dtype, device: int) -> None:
    """Raise unless the kernels take this problem on this device."""
    if dtype not in TILED and not (device < 0 and dtype == torch.float64):
        names = ", ".join(str(d).removeprefix("torch.") for d in TILED)
        raise TypeError(f"expected {names}, got {str(dtype).removeprefix('torch.')}")
    check_block(problem.block)
    taps = problem.shape[2] * problem.shape[3]
    if taps > MAX_TAPS:
        raise ValueError(f"expected a kernel of at most {MAX_TAPS} taps on a GPU, got {taps}")
    stride, padding, dilation = problem.geometry
    reach = max(padding[i] + dilation[i] * problem.shape[2 + i] + stride[i] for i in (0, 1))
    if reach > MAX_SHIFT or max(problem.groups) >= MAX_GROUPS:
        raise ValueError(
            f"expected padding + dilation * kernel + stride of at most {MAX_SHIFT} and fewer than "
            f"{MAX_GROUPS} groups on a GPU, got {reach} and {max(problem.groups)}"
        )
    _check_extents(problem)
    if device >= 0:
        _check_device(device)


def _check_extents(problem: Problem) -> None:
    """Refuse what 32-bit numbers inside an image, or of stored weights, cannot hold."""
    sizes = {
        "elements an image of x": problem.shape[1] * problem.size[0] * problem.size[1],
        "elements an image of y": problem.shape[0] * problem.out_size[0] * problem.out_size[1],
        "pixels": problem.batch * max(
            problem.size[0] * problem.size[1], problem.out_size[0] * problem.out_size[1]
        ),
        "stored weights": problem.entries * problem.block[0] * problem.block[1],
    }  # fmt: skip
    for name, count in sizes.items():
        if count >= 2**31 - 2**16:
            raise ValueError(f"expected fewer than 2**31 - 2**16 {name} on a GPU, got {count}")
    if min(problem.out_size) < 1:
        raise ValueError(f"expected an output with pixels, got {problem.out_size}")


@lru_cache(maxsize=64)
def _check_device(device: int) -> None:
    try:
        import triton
    except ImportError as error:
        raise RuntimeError("expected Triton beside torch: pip install triton") from error
    found = torch.cuda.get_device_capability(device)
    if found < LEAST_CAPABILITY:
        raise RuntimeError(
            f"expected a GPU of compute capability {LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]} or "
            f"newer (A100, H100, ...), got {torch.cuda.get_device_name(device)} with "
            f"{found[0]}.{found[1]}"
        )
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < LEAST_TRITON:
        raise RuntimeError(f"expected Triton 3.6 or newer, got {triton.__version__}")


def check_dy(dy: Tensor, problem: Problem) -> None:
    expected = (problem.batch, problem.shape[0], *problem.out_size)
    if tuple(dy.shape) != expected:
        raise ValueError(f"expected dy {list(expected)}, got {list(dy.shape)}")

"""The machine code itself, for processors that need not be here: no spill in any hot loop."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import pytest

from hrbp_core.kernels.native import machine

if machine.obstacle():
    pytest.skip(machine.obstacle(), allow_module_level=True)

import llvmlite.binding as llvm

from hrbp_core.kernels.native.gather import UNROLL, GatherSpec, gather_module
from hrbp_core.kernels.native.layout import TILES
from hrbp_core.kernels.native.wgrad import WgradSpec, wgrad_module

PROCESSORS = {"haswell": 8, "znver3": 8, "skylake-avx512": 16, "znver4": 16}
DTYPES = ("float32", "bfloat16", "float16")


@lru_cache(maxsize=1)
def known() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def hot_loops(module: Any, processor: str) -> list[list[str]]:
    """Return the instructions of each innermost loop that multiplies."""
    known()
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    compiler = target.create_target_machine(cpu=processor, opt=3)
    lines = compiler.emit_assembly(machine.optimized(module, compiler)).splitlines()
    labels: dict[str, int] = {}
    found = []
    for at, line in enumerate(lines):
        if label := re.match(r"(\.LBB\w+):", line):
            labels[label[1]] = at
        jump = re.match(r"\s+j\w+\s+(\.LBB\w+)", line)
        if jump and jump[1] in labels:
            body = lines[labels[jump[1]] + 1 : at + 1]
            if not any(each.startswith(".LBB") for each in body) and "vfmadd" in "".join(body):
                found.append(body)
    return found


def count(body: list[str], part: str) -> int:
    return sum(part in line for line in body)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_gather_loops_hold_their_sums_in_registers(processor: str, block: int, dtype: str) -> None:
    lanes = PROCESSORS[processor]
    spec = GatherSpec(dtype, lanes, block, block)
    loops = hot_loops(gather_module(spec)[0], processor)
    vectors = spec.chunk // lanes
    products = sorted(count(body, "vfmadd") for body in loops)
    assert products == sorted(UNROLL * size * vectors for size in TILES)
    for body in loops:
        assert count(body, "(%rsp") == 0, "a sum was spilled"
        assert count(body, "zmm" if lanes == 16 else "ymm") >= count(body, "vfmadd")
        size = count(body, "vfmadd") // (UNROLL * vectors)
        useful = UNROLL * (size * vectors + size + vectors)  # products, inputs, weights
        assert len(body) <= useful + 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_wgrad_loops_hold_their_sums_in_registers(processor: str, block: int, dtype: str) -> None:
    lanes = PROCESSORS[processor]
    spec = WgradSpec(dtype, lanes, block, block)
    loops = hot_loops(wgrad_module(spec)[0], processor)
    vectors = spec.chunk // lanes
    products = sorted(count(body, "vfmadd") for body in loops)
    assert products == sorted(filters * vectors for _, filters, _ in spec.parts)
    for body in loops:
        assert count(body, "(%rsp") == 0, "a sum was spilled"
        filters = count(body, "vfmadd") // vectors
        assert len(body) <= filters * vectors + filters + vectors + 8

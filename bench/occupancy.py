"""How many programs of a kernel share a multiprocessor.

Limits: CUDA C++ Programming Guide, "Compute Capabilities", table "Technical Specifications per
Compute Capability" (compute capabilities 8.0, 9.0, 10.0). Units in which registers and shared
memory are given out: ``cuda_occupancy.h`` of the CUDA toolkit.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
WARP = 32
THREADS = 2048
PROGRAMS = 32
REGISTERS = 65536
REGISTER_UNIT = 256  # registers are given to a warp in runs of so many,
WARP_UNIT = 4  # and warps fill the four quarters of a multiprocessor evenly
SHARED_UNIT = 128
SHARED_RESERVED = 1 * KIB  # bytes that CUDA takes for itself from each program's shared memory


@dataclass(frozen=True)
class Arch:
    """What differs between the architectures.

    Attributes:
        name: as the compiler calls it; capability: the same as a number.
        shared_bytes: of a multiprocessor; program_shared_bytes: the most a program may have.
    """

    name: str
    capability: int
    shared_bytes: int
    program_shared_bytes: int


ARCHS = {
    arch.name: arch
    for arch in (
        Arch("sm_80", 80, 164 * KIB, 163 * KIB),
        Arch("sm_90", 90, 228 * KIB, 227 * KIB),
        Arch("sm_100", 100, 228 * KIB, 227 * KIB),
    )
}


def arch_of(name: str) -> Arch:
    """Return the architecture, or raise a ValueError that names those that are known."""
    if name not in ARCHS:
        raise ValueError(f"expected an arch of {', '.join(ARCHS)}; got {name!r}")
    return ARCHS[name]


def programs(arch: Arch, registers: int, shared_bytes: int, warps: int) -> int:
    """Return how many programs fit a multiprocessor at once; 0 when not one does.

    An upper limit on sm_100, where tensor memory is a limit too and is not looked at.

    Args:
        registers: of a thread.
        shared_bytes: of a program, without what CUDA reserves.
        warps: of a program.
    """
    if shared_bytes > arch.program_shared_bytes:
        return 0
    by_warp = _round_up(registers * WARP, REGISTER_UNIT)
    resident = REGISTERS // by_warp // WARP_UNIT * WARP_UNIT
    taken = _round_up(shared_bytes + SHARED_RESERVED, SHARED_UNIT)
    return min(
        PROGRAMS,
        THREADS // (warps * WARP),
        resident // warps,
        arch.shared_bytes // taken,
    )


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit

"""The reader of SASS on small texts, and occupancy on cases worked out by hand."""

from __future__ import annotations

import pytest

from bench import occupancy, sass

HEAD = """
Resource usage:
 Common:
  GLOBAL:0
 Function gather_conv:
  REG:168 STACK:80 SHARED:1024 LOCAL:0 CONSTANT[0]:696 TEXTURE:0 SURFACE:0 SAMPLER:0

\tcode for sm_90a
\t\tFunction : gather_conv
\t.headerflags\t@"EF_CUDA_TEXMODE_UNIFIED EF_CUDA_SM90"
"""


def listing(*lines: str) -> str:
    """Number instructions as cuobjdump prints them, each with its two lines of encoding."""
    code = [
        f"        /*{16 * n:04x}*/ {line:>60} ;   /* 0x00000a00ff017b82 */\n"
        f"{' ' * 90}/* 0x000e700000000800 */"
        for n, line in enumerate(lines)
    ]
    return HEAD + "\n".join(code) + "\n\t\t..........\n"


def code(*lines: str) -> list[sass.Instruction]:
    return sass.instructions(listing(*lines))


def test_an_instruction_is_taken_apart() -> None:
    plain, guarded, last = code("MOV R1, RZ", "@!P0 LDG.E.64 R2, desc[UR4][R6.64+0x8]", "EXIT")
    assert (plain.address, plain.predicate, plain.opcode) == (0, "", "MOV")
    assert (guarded.address, guarded.predicate, guarded.opcode) == (16, "@!P0", "LDG.E.64")
    assert guarded.operands == "R2, desc[UR4][R6.64+0x8]"
    assert (last.opcode, last.operands) == ("EXIT", "")


def test_what_is_no_single_function_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one function"):
        sass.instructions("nothing here")
    with pytest.raises(ValueError, match="expected one function"):
        sass.instructions(listing("EXIT") + listing("EXIT"))


def test_registers_and_stack() -> None:
    assert sass.usage(HEAD) == sass.Usage(168, 80)
    with pytest.raises(ValueError, match="REG: and STACK:"):
        sass.usage("LOCAL:0")


def test_widths_of_loads() -> None:
    found = code(
        "LDG.E R1, [R2]",
        "LDG.E.U16 R1, [R2]",
        "@P1 LDG.E.U16.CONSTANT R1, [R2]",
        "LDG.E.S8 R1, [R2]",
        "LDG.E.64 R4, [R2]",
        "LDG.E.LTC128B R1, [R2]",  # 128 belongs to the L2 hint
        "LDG.E.128.CONSTANT R4, [R2]",
        "LDGSTS.E.BYPASS.128 [R153+0x800], desc[UR16][R36.64], P0",
        "LDGSTS.E [R153], desc[UR16][R36.64], P0",
        "LDGDEPBAR",
        "LDS.128 R4, [R2]",
        "STG.E.128 [R2], R4",
    )
    assert sass.load_widths(found, "LDG") == {128: 1, 64: 1, 32: 2, 16: 2, 8: 1}
    assert sass.load_widths(found, "LDGSTS") == {128: 1, 32: 1}


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        (["HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8]", "FFMA R1, R2, R3, R1"], {"HGMMA": 1}),
        (["HMMA.16816.F32 R4, R8, R9, R4", "HMMA.16816.F32 R4, R8, R9, R4"], {"HMMA": 2}),
        (["UTCHMMA gdesc[UR6], gdesc[UR12], tmem[UR19]", "UTCBAR [UR8]"], {"UTCHMMA": 1}),
        (["FFMA R1, R2, R3, R1", "FFMA2 R2, R4, R6, R2"], {"FFMA": 1, "FFMA2": 1}),
        (["FADD R1, R2, R3"], {}),
    ],
)
def test_matrix_instructions(lines: list[str], counts: dict[str, int]) -> None:
    assert sass.matrix_counts(code(*lines)) == counts


def addresses(lines: list[str]) -> list[int] | None:
    loop = sass.hot_loop(code(*lines))
    return None if loop is None else [each.address // 16 for each in loop]


@pytest.mark.parametrize(
    ("branch", "is_loop"),
    [
        ("@P0 BRA 0x10", True),
        ("@!P0 BRA 0x10", True),
        ("BRA.U UP0, 0x10", True),
        ("BRA 0x10", True),
        ("@P0 BRA 0x40", False),  # forwards
        ("EXIT", False),
    ],
)
def test_a_branch_back_makes_a_loop(branch: str, is_loop: bool) -> None:
    lines = ["MOV R1, RZ", "HMMA R4, R8", "IADD3 R1, R1", branch, "EXIT"]
    assert addresses(lines) == ([1, 2, 3] if is_loop else None)


def test_an_unconditional_branch_is_not_passed() -> None:
    """What follows it is reached by nobody: no way into the product, so no loop."""
    assert addresses(["BRA 0x40", "HMMA R4", "@P0 BRA 0x10", "NOP", "EXIT"]) is None
    assert addresses(["@P1 BRA 0x40", "HMMA R4", "@P0 BRA 0x10", "NOP", "EXIT"]) == [1, 2]
    assert addresses(["BRA.U UP1, 0x40", "HMMA R4", "@P0 BRA 0x10", "NOP", "EXIT"]) == [1, 2]
    assert addresses(["@!PT EXIT", "HMMA R4", "@P0 BRA 0x10", "EXIT"]) == [1, 2]
    assert addresses(["@PT EXIT", "HMMA R4", "@P0 BRA 0x10", "EXIT"]) is None


def test_the_innermost_loop_with_the_most_products() -> None:
    lines = [
        "MOV R1, RZ",
        "HMMA R4",  # 1: the outer loop begins
        "HMMA R4",  # 2: the first inner loop, one product
        "@P0 BRA 0x20",
        "HMMA R4",  # 4: the second, two
        "HMMA R4",
        "NOP",
        "@P1 BRA 0x40",
        "LDS R1, [R2]",  # 8: a wait without products is no loop of interest
        "@P2 BRA 0x80",
        "@P3 BRA 0x10",
        "EXIT",
        "BRA 0xc0",
    ]
    assert addresses(lines) == [4, 5, 6, 7]


def test_a_wait_moved_behind_the_end_belongs_to_its_loop() -> None:
    """The branch back from behind is no loop of its own; by addresses alone it looks like one."""
    lines = [
        "MOV R1, RZ",
        "UTCHMMA gdesc[UR6]",  # 1: the loop
        "@!P2 BRA 0x70",
        "IADD3 R1, R1",
        "@P0 BRA 0x10",
        "UTCHMMA gdesc[UR6]",
        "EXIT",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT P2, [UR17], R58",  # 7
        "@!P2 BRA 0x70",
        "BRA 0x30",
    ]
    assert addresses(lines) == [1, 2, 3, 4, 7, 8, 9]


def test_a_wait_behind_the_end_without_a_loop_makes_none() -> None:
    lines = [
        "UTCHMMA gdesc[UR6]",
        "@!P2 BRA 0x40",
        "UTCHMMA gdesc[UR6]",  # 2: reached from above, too, so no head of a loop
        "EXIT",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT P2, [UR17], R58",
        "@!P2 BRA 0x40",
        "BRA 0x20",
    ]
    assert addresses(lines) is None


def test_of_equal_loops_the_shorter_one() -> None:
    lines = ["HMMA R4", "NOP", "@P0 BRA 0x0", "HMMA R4", "@P1 BRA 0x30", "EXIT"]
    assert addresses(lines) == [3, 4]


@pytest.mark.parametrize(
    ("arch", "registers", "shared_bytes", "warps", "programs"),
    [
        # 168 * 32 = 21 * 256 registers a warp: 12 warps of 65536, so 3 programs;
        # 65536 + 1024 bytes of 233472: 3 programs
        ("sm_90", 168, 65536, 4, 3),
        # 255 * 32 = 8160, in units 8192 registers a warp: 8 warps, one program of 8;
        # 81920 + 1024 bytes of 167936 would allow 2
        ("sm_80", 255, 81920, 8, 1),
        # 40 registers: 1280 a warp, 51 warps, 48 by fours, so 12 programs; shared allows 76
        ("sm_100", 40, 2048, 4, 12),
        # the same by 2 warps: 51 would be 25 programs, 48 are 24
        ("sm_90", 40, 2048, 2, 24),
        # 41 registers: 1312, in units 1536 a warp: 42 warps, 40 by fours, so 10 programs
        ("sm_90", 41, 2048, 4, 10),
        # shared alone: 100 KiB + 1 KiB, 2 of 228 KiB, 1 of 164 KiB
        ("sm_90", 32, 102400, 4, 2),
        ("sm_80", 32, 102400, 4, 1),
        # 2048 threads alone, then 32 programs alone
        ("sm_90", 16, 0, 16, 4),
        ("sm_90", 16, 0, 1, 32),
        # one byte more than a program may have
        ("sm_90", 32, 227 * 1024, 4, 1),
        ("sm_90", 32, 227 * 1024 + 1, 4, 0),
        ("sm_80", 32, 163 * 1024 + 1, 4, 0),
    ],
)
def test_programs_a_multiprocessor(
    arch: str, registers: int, shared_bytes: int, warps: int, programs: int
) -> None:
    found = occupancy.programs(occupancy.arch_of(arch), registers, shared_bytes, warps)
    assert found == programs


def test_an_unknown_arch_names_the_known() -> None:
    with pytest.raises(ValueError, match="sm_80, sm_90, sm_100; got 'sm_75'"):
        occupancy.arch_of("sm_75")

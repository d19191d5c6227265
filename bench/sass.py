"""Reads what ``cuobjdump -sass -res-usage`` prints about one kernel. Text in, numbers out.

SASS has no loops, only branches: the control flow is rebuilt from them, and a loop is a natural
loop (a branch to an instruction that every way to the branch passes), so that a wait moved
behind the end of the kernel, with its branch back, is no loop around half of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_LINE = re.compile(
    r"^\s+/\*(?P<address>[0-9a-f]{4,})\*/\s+(?P<predicate>@!?\w+)?\s*"
    r"(?P<opcode>[A-Z][\w.]*)\s*(?P<operands>[^;]*?)\s*;",
    re.MULTILINE,
)
_TARGET = re.compile(r"^(?P<condition>.*?),?\s*0x(?P<address>[0-9a-f]+)$")
_ENDS = (
    "EXIT",
    "RET",
    "BRX",
    "JMX",
    "KILL",
)  # no way on; where an indirect branch leads is unknown
_BITS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}


@dataclass(frozen=True)
class Instruction:
    """One instruction, e.g. ``/*41f0*/ @P0 BRA 0x39f0 ;``."""

    address: int
    predicate: str
    opcode: str
    operands: str

    @property
    def base(self) -> str:
        """The opcode without its modifiers: LDG of LDG.E.128."""
        return self.opcode.partition(".")[0]

    @property
    def bits(self) -> int:
        """How wide a load is, by thread."""
        return next((_BITS[part] for part in self.opcode.split(".") if part in _BITS), 32)

    @property
    def target(self) -> int | None:
        """The address a direct branch leads to."""
        match = _TARGET.match(self.operands) if self.base in ("BRA", "JMP") else None
        return int(match["address"], 16) if match else None

    @property
    def conditional(self) -> bool:
        """True when a branch or an end may be passed: ``@P0 BRA 0x..`` or ``BRA.U UP0, 0x..``."""
        if self.predicate and self.predicate not in ("@PT", "@UPT"):
            return True
        match = _TARGET.match(self.operands) if self.base in ("BRA", "JMP") else None
        return bool(match and match["condition"].strip())


@dataclass(frozen=True)
class Usage:
    """Registers a thread and bytes of stack a thread."""

    registers: int
    stack_bytes: int


def instructions(text: str) -> list[Instruction]:
    """Return the kernel's instructions in order of address.

    Raises:
        ValueError: no instruction, or more than one function.
    """
    found = [
        Instruction(int(m["address"], 16), m["predicate"] or "", m["opcode"], m["operands"])
        for m in _LINE.finditer(text)
    ]
    if sum(each.address == 0 for each in found) != 1:
        raise ValueError(f"expected one function in SASS, got {len(found)} instructions: {text!r}")
    return found


def usage(text: str) -> Usage:
    """Return registers and stack. LOCAL stays 0 where a kernel spills: STACK tells.

    Raises:
        ValueError: no such line.
    """
    match = re.search(r"\bREG:(\d+) STACK:(\d+)", text)
    if match is None:
        raise ValueError(f"expected a line with REG: and STACK:, got {text!r}")
    return Usage(int(match[1]), int(match[2]))


def matrix_counts(code: Sequence[Instruction]) -> dict[str, int]:
    """Return matrix instructions by kind, or, where there is none, multiply-adds (FFMA).

    HGMMA is wgmma (sm_90), HMMA mma.sync, UTC..MMA tcgen05.mma (sm_100); FFMA2 does two FFMAs.
    """
    counts = Counter(each.base for each in code)
    units = {kind: n for kind, n in counts.items() if kind.endswith("MMA")}
    return dict(sorted(units.items())) or {
        kind: counts[kind] for kind in ("DFMA", "FFMA", "FFMA2") if counts[kind]
    }


def load_widths(code: Sequence[Instruction], base: str) -> dict[int, int]:
    """Return how many loads of a kind there are by width in bits a thread, widest first.

    Args:
        base: "LDG" (global memory to registers) or "LDGSTS" (asynchronous, to shared memory).
    """
    counts = Counter(each.bits for each in code if each.base == base)
    return dict(sorted(counts.items(), reverse=True))


def hot_loop(code: Sequence[Instruction]) -> list[Instruction] | None:
    """Return the innermost loop with the most matrix instructions; None where no loop has any."""
    blocks = _basic_blocks(code)
    weighed = []
    for body in _natural_loops(_successors(code, blocks)):
        inside = [each for n in sorted(body) for each in code[slice(*blocks[n])]]
        if counts := matrix_counts(inside):
            weighed.append((sum(counts.values()), body, inside))
    innermost = [
        (weight, -len(inside), inside)
        for weight, body, inside in weighed
        if not any(other < body for _, other, _ in weighed)
    ]
    return max(innermost, key=lambda each: each[:2])[2] if innermost else None


def _basic_blocks(code: Sequence[Instruction]) -> list[tuple[int, int]]:
    """Return (first, end) places of the runs of instructions that nothing enters or leaves."""
    at = {each.address: place for place, each in enumerate(code)}
    starts = {0}
    for place, each in enumerate(code):
        if each.target is not None or each.base in _ENDS:
            starts.add(place + 1)
        if each.target in at:
            starts.add(at[each.target])
    ordered = sorted(start for start in starts if start < len(code))
    return list(zip(ordered, [*ordered[1:], len(code)], strict=True))


def _successors(
    code: Sequence[Instruction], blocks: Sequence[tuple[int, int]]
) -> list[tuple[int, ...]]:
    numbers = {code[first].address: number for number, (first, _) in enumerate(blocks)}
    found = []
    for number, (_, end) in enumerate(blocks):
        last, after = code[end - 1], []
        if last.target in numbers:
            after.append(numbers[last.target])
        ends = last.target is not None or last.base in _ENDS
        if (last.conditional or not ends) and number + 1 < len(blocks):
            after.append(number + 1)
        found.append(tuple(after))
    return found


def _natural_loops(successors: Sequence[tuple[int, ...]]) -> list[frozenset[int]]:
    """Return the blocks of each loop; loops with one head are one.

    Aho, Lam, Sethi, Ullman, Compilers, 2nd edition, section 9.6.
    """
    dominators = _dominators(successors)
    before: list[set[int]] = [set() for _ in successors]
    for number, after in enumerate(successors):
        for each in after:
            before[each].add(number)
    loops: dict[int, set[int]] = {}
    for number, after in enumerate(successors):
        for head in after:
            if number in dominators and head in dominators[number]:
                loops.setdefault(head, {head}).update(_reaching(number, head, before))
    return [frozenset(body & dominators.keys()) for body in loops.values()]


def _reaching(number: int, head: int, before: Sequence[set[int]]) -> set[int]:
    """Return the blocks from which ``number`` can be reached without passing ``head``."""
    found, waiting = {head}, [number]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += before[each]
    return found


def _dominators(successors: Sequence[tuple[int, ...]]) -> dict[int, set[int]]:
    """Return, for each block that is reached, the blocks that every way to it passes."""
    order, waiting = [], [0]
    while waiting:
        number = waiting.pop()
        if number not in order:
            order.append(number)
            waiting += successors[number]
    dominators = {number: set(order) for number in order} | {0: {0}}
    changed = True
    while changed:
        changed = False
        for number in order[1:]:
            ways = [dominators[b] for b in order if number in successors[b]]
            now = {number} | set.intersection(*ways)
            changed |= now != dominators[number]
            dominators[number] = now
    return dominators

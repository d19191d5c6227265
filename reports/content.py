"""What a report says, in order: sections of paragraphs, lists, tables and pictures.

The renderers (``document``, ``page``) know these four kinds and nothing of measurements. A part
for which nothing was measured has no section of its own: one short section names them all, each
with the command that would measure it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reports.absent import absent_blocks
from reports.arms import accuracy_blocks
from reports.breakeven import break_even_blocks
from reports.data import ReportData
from reports.energy import energy_blocks
from reports.failures import failure_blocks
from reports.figures import kernel_pictures
from reports.first_page import FirstPage, first_page
from reports.gating import gate_blocks
from reports.kernels import block_blocks, implementation_blocks, sparsity_blocks
from reports.limits import limit_blocks
from reports.method import method_blocks
from reports.parts import Block
from reports.picture import Picture
from reports.quality import quality_blocks
from reports.steps import step_blocks

FINDINGS = "Findings"


@dataclass(frozen=True)
class Section:
    """A part of the report; ``blocks`` in reading order."""

    title: str
    blocks: tuple[Block, ...]


def sections(data: ReportData) -> list[Section]:
    """Return the whole report: findings first, then what was measured, method and failures."""
    pictures = kernel_pictures(data)
    measured = _there(
        ("Speed-up against accuracy", accuracy_blocks(data)),
        ("Break-even", break_even_blocks(data)),
        ("Speed-up against sparsity", sparsity_blocks(data, pictures)),
        ("Block against sparsity", block_blocks(pictures)),
        ("Every implementation", implementation_blocks(data, pictures)),
        ("How near to the limit", limit_blocks(data)),
        ("Groupings compared", quality_blocks(data)),
        ("Whole training steps", step_blocks(data)),
        ("Energy", energy_blocks(data)),
        ("Gate", gate_blocks(data)),
    )
    front = first_page(data, [p for s in measured for p in s.blocks if isinstance(p, Picture)])
    return [
        Section(FINDINGS, front.blocks),
        *_there(("Findings in figures", front.rest)),
        *_without(measured, front),
        *_there(
            ("Not measured here", absent_blocks(data)),
            ("Machine and method", method_blocks(data)),
            ("Cells without a time", failure_blocks(data)),
        ),
    ]


def _there(*named: tuple[str, Iterable[Block]]) -> list[Section]:
    """Return a section for each that has something in it."""
    found = [Section(title, tuple(blocks)) for title, blocks in named]
    return [section for section in found if section.blocks]


def _without(found: list[Section], front: FirstPage) -> list[Section]:
    """Return the sections without the picture that the findings page has taken from them."""
    left = [Section(s.title, tuple(b for b in s.blocks if b is not front.taken)) for s in found]
    return [section for section in left if section.blocks]

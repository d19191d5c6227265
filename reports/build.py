"""Folders of results become pages: the functions that write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from bench.store import StoreError
from reports import compare, compare_content, compare_findings, data, findings, style
from reports.cells import FILE, write_csv
from reports.content import Section, sections
from reports.document import write_pdf
from reports.page import write_html, write_markdown
from reports.picture import Picture


@dataclass(frozen=True)
class ReportFiles:
    """What was written, and the findings as lines of at most 100 characters.

    ``cells`` is None where no cell is stored.
    """

    pdf: Path
    html: Path
    markdown: Path
    cells: Path | None
    figures: list[Path]
    headline: list[str]


def build_report(folder: Path, out: Path | None = None) -> ReportFiles:
    """Write report.pdf, report.html, report.md, cells.csv and figures/*.png.

    The same stored results give the same bytes. Pictures of an older report that this one does
    not have are removed.

    Args:
        folder: holds results.jsonl, accuracy.jsonl or both.
        out: the folder for the files; ``folder``/report when left out.

    Raises:
        StoreError: files that cannot be read, or neither of them there; no place to write.
    """
    folder = Path(folder)
    loaded = data.load(folder)
    target = folder / "report" if out is None else Path(out)
    with _place(target, own=out is None) as stale, _look():
        parts = sections(loaded)
        figures = _write_figures(target / "figures", parts, stale)
        write_pdf(target / "report.pdf", parts)
        write_html(target / "report.html", loaded, parts)
        write_markdown(target / "report.md", parts)
        write_csv(target / FILE, loaded)
    return _files(target, figures, findings.headline(loaded))


def build_comparison(folders: Sequence[Path], out: Path) -> ReportFiles:
    """Write the same files about several folders, side by side, into ``out``.

    The page has every shared cell; PDF and Markdown have the first of many, and say how many
    they leave out. The same stored results and names give the same bytes.

    Raises:
        StoreError: fewer than two folders, one twice, one that cannot be read; no place to write.
    """
    found = compare.load([Path(folder) for folder in folders])
    cells = compare.shared_cells(found)
    target = Path(out)
    with _place(target) as stale, _look():
        brief, whole = (
            compare_content.sections(found, cells, whole=whole) for whole in (False, True)
        )
        figures = _write_figures(target / "figures", brief, stale)
        write_pdf(target / "report.pdf", brief)
        every = compare_content.every_cell(found)
        write_html(target / "report.html", every, whole)
        write_csv(target / FILE, every)
        write_markdown(target / "report.md", brief)
    return _files(target, figures, compare_findings.headline(found, cells))


def _files(target: Path, figures: list[Path], headline: list[str]) -> ReportFiles:
    return ReportFiles(
        pdf=target / "report.pdf",
        html=target / "report.html",
        markdown=target / "report.md",
        cells=target / FILE if (target / FILE).exists() else None,
        figures=figures,
        headline=headline,
    )


@contextmanager
def _look() -> Iterator[None]:
    """Draw within as the style says, whatever the caller's settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.RC)
        yield


@contextmanager
def _place(target: Path, own: bool = False) -> Iterator[set[Path]]:
    """Make the folder; yield the pictures that an older report left there.

    Args:
        own: every picture there is a report's; else those that the report.md there shows.

    Raises:
        StoreError: it cannot be written to.
    """
    try:
        (target / "figures").mkdir(parents=True, exist_ok=True)
        there = set((target / "figures").glob("*.png"))
        page = target / "report.md"
        if not own:
            text = page.read_text(encoding="utf-8") if page.exists() else ""
            shown = set(re.findall(r"\]\(figures/([^)]+)\)", text))
            there = {path for path in there if path.name in shown}
        yield there
    except OSError as error:
        raise StoreError(
            f"expected to write into {target}, got {error.strerror or error}: name another folder "
            "with --out DIR"
        ) from error


def _write_figures(target: Path, parts: Sequence[Section], stale: set[Path]) -> list[Path]:
    pictures = [b for section in parts for b in section.blocks if isinstance(b, Picture)]
    written = []
    for picture in pictures:
        path = target / f"{picture.name}.png"
        picture.standalone(titled=True).savefig(
            path, dpi=style.PNG_DPI, metadata={"Software": None}
        )
        written.append(path)
    for path in sorted(stale - set(written)):
        path.unlink()
    return written

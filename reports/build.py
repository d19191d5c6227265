"""Folders of results become pages: the functions that write."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.store import StoreError
from reports import compare, compare_content, compare_findings, data, findings, style
from reports.cells import FILE, write_csv
from reports.content import Section, sections
from reports.drawing import Drawing, drawings
from reports.page import write_html, write_markdown
from reports.picture import Picture
from reports.press import Press

LARGE_BYTES = 4 << 20


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
    target = folder / "report" if out is None else Path(out)
    with Press() as press, style.look(), _many_objects():
        if _is_large(folder):
            press.start()
        loaded = data.load(folder)
        with _place(target, own=out is None) as stale:
            parts = sections(loaded)
            press.take(parts)
            drawn = drawings(_pictures(parts))
            figures = _write_figures(target / "figures", drawn, stale)
            press.write(target / "report.pdf")
            write_html(target / "report.html", loaded, parts, drawn)
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
    with Press() as press, style.look(), _place(target) as stale:
        brief, whole = (
            compare_content.sections(found, cells, whole=whole) for whole in (False, True)
        )
        press.take(brief)
        drawn = drawings(_pictures(whole))
        figures = _write_figures(target / "figures", drawn, stale)
        press.write(target / "report.pdf")
        every = compare_content.every_cell(found)
        write_html(target / "report.html", every, whole, drawn)
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


def _is_large(folder: Path) -> bool:
    """Return whether reading the folder takes as long as starting a process."""
    sizes = [path.stat().st_size for path in folder.glob("*.jsonl") if path.is_file()]
    return sum(sizes) > LARGE_BYTES


@contextmanager
def _many_objects() -> Iterator[None]:
    """Do not look for garbage: of 10,000 cells a million objects stay, and it took a fifth."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


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


def _pictures(parts: Sequence[Section]) -> list[Picture]:
    return [b for section in parts for b in section.blocks if isinstance(b, Picture)]


def _write_figures(target: Path, drawn: Mapping[str, Drawing], stale: set[Path]) -> list[Path]:
    written = [target / f"{name}.png" for name in drawn]
    for path, found in zip(written, drawn.values(), strict=True):
        path.write_bytes(found.png)
    for path in sorted(stale - set(written)):
        path.unlink()
    return written

"""A folder of results becomes a report: the one function that writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from reports import data, findings, style
from reports.content import Section, sections
from reports.document import write_pdf
from reports.page import write_html, write_markdown
from reports.picture import Picture


@dataclass(frozen=True)
class ReportFiles:
    """What was written, and the findings as lines of at most 100 characters."""

    pdf: Path
    html: Path
    markdown: Path
    figures: list[Path]
    headline: list[str]


def build_report(folder: Path) -> ReportFiles:
    """Write ``folder``/report/: report.pdf, report.html, report.md and figures/*.png.

    The same stored results give the same bytes. Pictures of an older report that this one does
    not have are removed.

    Args:
        folder: holds results.jsonl, accuracy.jsonl or both.

    Raises:
        StoreError: files that cannot be read, or neither of them there.
    """
    folder = Path(folder)
    loaded = data.load(folder)
    target = folder / "report"
    (target / "figures").mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.RC)
        parts = sections(loaded)
        figures = _write_figures(target / "figures", parts)
        write_pdf(target / "report.pdf", parts)
        write_html(target / "report.html", loaded, parts)
        write_markdown(target / "report.md", parts)
    return ReportFiles(
        pdf=target / "report.pdf",
        html=target / "report.html",
        markdown=target / "report.md",
        figures=figures,
        headline=findings.headline(loaded),
    )


def _write_figures(target: Path, parts: Sequence[Section]) -> list[Path]:
    pictures = [b for section in parts for b in section.blocks if isinstance(b, Picture)]
    written = []
    for picture in pictures:
        path = target / f"{picture.name}.png"
        picture.standalone(titled=True).savefig(
            path, dpi=style.PNG_DPI, metadata={"Software": None}
        )
        written.append(path)
    for stale in sorted(set(target.glob("*.png")) - set(written)):
        stale.unlink()
    return written

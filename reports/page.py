"""The report as one HTML file that needs no network, and as Markdown. Templates: jinja2."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.frames import Record, records
from reports import style
from reports.content import Section
from reports.data import ReportData
from reports.document import TITLE
from reports.parts import Block, Bullets, Paragraph, Table
from reports.picture import Picture

TEMPLATES = Path(__file__).parent / "templates"
FILTERS = ("pass", "impl", "status")
BEFORE = ("suite", "layer", "shape", "pass", "impl", "block")
AFTER = ("dtype", "layout", "mode", "pattern", "status")
CELL_COLUMNS = (
    "machine", "suite", "layer", "shape", "pass", "implementation", "block", "sparsity", "type",
    "layout", "mode", "pattern", "status", "median", "95 % interval", "speed-up", "95 % interval",
    "GFLOP/s", "attainment", "samples", "flags", "reason",
)  # fmt: skip


def write_html(path: Path, data: ReportData, sections: Sequence[Section]) -> None:
    """Write the page. Names of layers and everything else stored are escaped."""
    every = list(_cell_rows(data))
    chosen = {f: sorted({row["keys"][f] for row in every}) for f in FILTERS}
    page = _environment(autoescape=True).get_template("report.html.j2")
    text = page.render(
        title=TITLE, sections=sections, columns=CELL_COLUMNS, cells=every, filters=chosen
    )
    path.write_text(text, encoding="utf-8", newline="\n")


def write_markdown(path: Path, sections: Sequence[Section]) -> None:
    """Write the summary; pictures are those in ``figures/`` beside it."""
    page = _environment(autoescape=False).get_template("report.md.j2")
    text = page.render(title=TITLE, sections=sections)
    path.write_text(text, encoding="utf-8", newline="\n")


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"kind": kind, "svg": svg, "md": markdown_text}
    return environment


def kind(block: Block) -> str:
    """Return what a template asks of a block."""
    names = {Paragraph: "paragraph", Bullets: "bullets", Table: "table", Picture: "picture"}
    return names[type(block)]


def markdown_text(text: str) -> str:
    """Return ``text`` so that Markdown and the HTML within it say just that."""
    line = " ".join(text.split())
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        line = line.replace(sign, entity)
    return re.sub(r"([\\`*|\[\]~])", r"\\\1", line)


def svg(picture: Picture) -> Markup:
    """Return the picture as inline SVG whose ink follows the page's colours.

    Its ids are made unique, since one page holds several.
    """
    target = io.StringIO()
    facts = {"Date": None, "Creator": None, "Format": None, "Type": None}
    picture.standalone().savefig(target, format="svg", transparent=True, metadata=facts)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{picture.name}-", text)
    for colour, variable in ((style.INK, "ink"), (style.FAINT, "faint"), (style.RULE, "rule")):
        text = text.replace(colour, f"var(--{variable})")
    text = text.replace(style.PAPER, "var(--paper)")
    name = str(Markup.escape(picture.title))
    opening = f'<svg role="img" aria-label="{name}"'
    return Markup(text.replace("<svg", opening, 1))  # drawn here; names within are glyphs


def _cell_rows(data: ReportData) -> Iterator[dict[str, Any]]:
    """Yield each cell, missing ones too, as texts and the values to sort them by."""
    for frame in (data.rows, data.missing):
        for r in records(frame):
            plain = [data.names[r["environment"]], *(str(r[f]) for f in BEFORE)]
            texts = [(text, text) for text in plain]
            texts.append((style.percent(1 - r["density"]), _key(1 - r["density"])))
            texts += [(str(r[f]), str(r[f])) for f in AFTER]
            texts += [*_numbers(r), *((str(r[f]), str(r[f])) for f in ("flags", "reason"))]
            yield {"cells": texts, "keys": {f: str(r[f]) for f in FILTERS}}


def _numbers(row: Record) -> Iterator[tuple[str, str]]:
    """Yield (text, value to sort by) of times, speed-up, rate, attainment and samples."""
    median, low, high = row["median_s"], row["low_s"], row["high_s"]
    yield style.duration(median), _key(median)
    yield _pair(style.duration(low), style.duration(high)), _key(high - low)
    yield style.times(row["speedup"]), _key(row["speedup"])
    yield (
        _pair(style.times(row["speedup_low"]), style.times(row["speedup_high"])),
        _key(row["speedup_high"] - row["speedup_low"]),
    )
    rate = row["gflops"]
    yield ("—" if math.isnan(rate) else f"{rate:.3g}"), _key(rate)
    near = row["attainment"]
    yield ("—" if math.isnan(near) else f"{100 * near:.3g} %"), _key(near)
    count = 0 if math.isnan(row["samples"]) else int(row["samples"])
    yield str(count), _key(count)


def _pair(low: str, high: str) -> str:
    return low if low == high == "—" else f"{low} to {high}"


def _key(value: float) -> str:
    """Return what the page sorts by; '' for NaN, which stays at the end."""
    return "" if math.isnan(value) else f"{value:.9g}"

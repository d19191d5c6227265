"""The report as one HTML file that needs no network, and as Markdown. Templates: jinja2."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from reports import style
from reports.cells import FILE, page_table
from reports.content import Section
from reports.data import ReportData
from reports.document import TITLE
from reports.drawing import Drawing, drawings
from reports.parts import Block, Bullets, Paragraph, Table
from reports.picture import Picture

TEMPLATES = Path(__file__).parent / "templates"
DARK_INK = "#ececf1"  # --ink of report.css on dark paper


def write_html(
    path: Path,
    data: ReportData,
    sections: Sequence[Section],
    drawn: Mapping[str, Drawing] | None = None,
) -> None:
    """Write the page. Names of layers and everything else stored are escaped.

    Args:
        drawn: by the names of the sections' pictures; drawn here when left out.
    """
    if drawn is None:
        drawn = drawings(b for s in sections for b in s.blocks if isinstance(b, Picture))
    table = page_table(data)
    theme, script = _script("theme.js"), _script("cells.js", "report.js")
    page = _environment(autoescape=True).get_template("report.html.j2")
    text = page.render(
        title=TITLE,
        sections=sections,
        drawn={name: found.svg for name, found in drawn.items()},
        table=table,
        table_json=htmlsafe_json_dumps(table, separators=(",", ":"), allow_nan=False),
        csv=FILE,
        policy=_policy(theme, script),
        theme_script=theme,
        cells_script=script,
    )
    path.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def _script(*names: str) -> Markup:
    texts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in names]
    return Markup("\n" + "".join(texts))


def _policy(*scripts: str) -> str:
    """Return a content security policy: these scripts alone run, and nothing is fetched."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"


def write_markdown(path: Path, sections: Sequence[Section]) -> None:
    """Write the summary; pictures are those in ``figures/`` beside it."""
    page = _environment(autoescape=False).get_template("report.md.j2")
    text = page.render(title=TITLE, sections=sections)
    path.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"kind": kind, "inline": inline, "md": markdown_text}
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


@cache
def _on_page() -> dict[str, str]:
    """Return what colours of a drawing become: the page's variables, and letters for dark paper.

    Lines and marks of the palette stand out from dark paper, too (3.4 to 7.9 : 1). Letters in
    them are darkened for white paper, which leaves 2.0 : 1 on dark; there they are lightened.
    """
    ink, faint, rule, paper = style.INK, style.FAINT, style.RULE, style.PAPER
    found = {ink: "var(--ink)", faint: "var(--faint)", rule: "var(--rule)", paper: "var(--paper)"}
    for colour in (*style.PALETTE, faint):
        dark, light = (style.lettering(colour, ink) for ink in (style.INK, DARK_INK))
        found.setdefault(dark, f"light-dark({dark}, {light})")
    return found


def inline(text: str, picture: Picture) -> Markup:
    """Return a picture's SVG for a page: its ink follows the page's colours.

    Its ids are made unique, since one page holds several.
    """
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{picture.name}-", text)
    text = re.sub("#[0-9a-f]{6}", lambda found: _on_page().get(found[0], found[0]), text)
    name = str(Markup.escape(picture.title))
    opening = f'<svg role="img" aria-label="{name}"'
    return Markup(text.replace("<svg", opening, 1))  # drawn here; names within are glyphs

"""A picture drawn once for two files: PNG with its title, SVG without."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.transforms import Bbox

from reports import style
from reports.picture import Picture


@dataclass(frozen=True)
class Drawing:
    """What the files of one picture hold; the SVG starts at its ``<svg`` tag."""

    png: bytes
    svg: str


def drawings(pictures: Iterable[Picture]) -> dict[str, Drawing]:
    """Return the drawing of each picture by name. Call it within ``style.look``."""
    return {picture.name: drawing(picture) for picture in pictures}


def drawing(picture: Picture) -> Drawing:
    """Return both forms of one figure: laying it out takes about as long as writing one file."""
    figure = picture.standalone(titled=True)
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=style.PNG_DPI, metadata={"Software": None})
    (title,) = figure.texts
    title.set_visible(False)
    below = Bbox.from_bounds(0, 0, style.WIDTH_IN, picture.height_in)
    facts = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(svg, format="svg", bbox_inches=below, transparent=True, metadata=facts)
    text = svg.getvalue()
    return Drawing(png.getvalue(), text[text.index("<svg") :])

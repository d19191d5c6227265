"""Ceilings as a table for people."""

from __future__ import annotations

from rich.table import Table

from bench.ceilings import MIB, Ceiling, best


def table(found: list[Ceiling]) -> Table:
    """Return the sizes as a table; the best of each name is marked."""
    shown = Table("ceiling", "size", "rate", "")
    top = best(found)
    for each in found:
        size = " x ".join(map(str, each.size))
        if each.name == "copy":
            size = f"{each.size[0] // MIB} MiB"
        mark = "best" if top[each.name] is each and each.rate is not None else ""
        shown.add_row(each.name, size, rate_text(each), mark)
    return shown


def rate_text(ceiling: Ceiling) -> str:
    """Return a rate with its unit, or the reason why there is none."""
    if ceiling.rate is None:
        return ceiling.reason or "not measured"
    if ceiling.name == "copy":
        return f"{ceiling.rate / 1e9:.1f} GB/s"
    if ceiling.name.endswith("launch"):
        return f"{ceiling.rate * 1e6:.2f} µs"
    return f"{ceiling.rate / 1e12:.3g} TFLOP/s"

"""What ``list`` shows: plain rows of suites, layers and implementations. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

from bench.impls import IMPLS, available
from bench.suites import SUITES, Sweep, cases, layer_table

Row = dict[str, Any]


def suite_rows() -> list[Row]:
    """Return one row a suite; cells are those of a CPU run without options."""
    return [
        {
            "suite": suite.name,
            "layers": len(suite.layers),
            "cells": len(cases(Sweep(suite.name, "cpu"))[0]) * len(suite.impls or IMPLS),
            "source": suite.source,
        }
        for suite in SUITES.values()
    ]


def layer_rows() -> list[Row]:
    """Return one row a layer of every suite."""
    return [
        {
            "suite": suite,
            "layer": layer.name,
            "image": f"{layer.shape.H}x{layer.shape.W}",
            "channels": layer.shape.C,
            "filters": layer.shape.K,
            "kernel": f"{layer.shape.R}x{layer.shape.S}",
            "stride": layer.shape.stride[0],
            "mflops_an_image": round(layer.shape.flops() / 1e6),
        }
        for suite, layer in layer_table()
    ]


def impl_rows() -> list[Row]:
    """Return one row an implementation."""
    return [{"impl": name, "what": about} for name, about in available().items()]


ROWS: dict[str, Callable[[], list[Row]]] = {
    "suites": suite_rows,
    "layers": layer_rows,
    "impls": impl_rows,
}


def table(title: str, rows: list[Row]) -> Table:
    """Return rows as a rich table."""
    drawn = Table(title=title)
    for name in rows[0]:
        drawn.add_column(name, justify="right" if isinstance(rows[0][name], int) else "left")
    for row in rows:
        drawn.add_row(*(str(v) for v in row.values()))
    return drawn

"""Measures the same cells in fresh processes, and tells how far their medians lie apart.

::

    python -m tests.fresh --times 10 --layers conv3_3x3,conv4_3x3

One process after another, nothing else on the machine. Prints for each cell, and for the
speed-up over dense, the median over processes and the furthest process below and above it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from bench.stats import median
from bench.store import read_results
from bench.table import rows

ROOT = Path(__file__).parents[1]
NEAR = 0.05


def measure(folder: Path, layers: str, device: str) -> pd.DataFrame:
    """Run a small sweep in a process of its own; return its rows."""
    words = ["--suite", "quick", "--device", device, "--layers", layers, "--densities", "0.25"]
    words += ["--blocks", "32", "--impls", "dense,block_sparse", "--out", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "bench", "run", *words], cwd=ROOT, check=True, capture_output=True
    )
    return rows(read_results(folder))


def lines(found: pd.DataFrame) -> Iterator[str]:
    """Yield a line a cell and quantity: processes within 5 %, median, furthest below and above."""
    for (layer, name, impl), group in found.groupby(["layer", "pass", "impl"]):
        what = {"median_s": 1e3, "speedup": 1.0} if impl != "dense" else {"median_s": 1e3}
        for column, scale in what.items():
            values = [float(v) for v in group[column]]
            middle = median(values)
            near = sum(abs(value / middle - 1) <= NEAR for value in values)
            unit = " ms" if scale != 1 else "x"
            yield (
                f"{layer} {name} {impl} {column}: {middle * scale:.3f}{unit}, "
                f"{min(values) / middle - 1:+.1%} to {max(values) / middle - 1:+.1%}, "
                f"{near} of {len(values)} within 5 %"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--layers", default="conv4_3x3")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        tables = [
            measure(Path(base, str(number)), asked.layers, asked.device)
            for number in range(asked.times)
        ]
    for line in lines(pd.concat(tables, ignore_index=True)):
        print(line)


if __name__ == "__main__":
    main()

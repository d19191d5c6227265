"""The implementations a sweep compares, one file each.

A file offers ``NAME``, ``ABOUT`` (one line) and ``prepare(problem) -> Prepared``, which raises
``Unsupported`` with the reason when it cannot run the case. Packing, indexing and compiling
belong in ``prepare``: it is timed apart and never inside a sample.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

# what `bench list` shows needs no torch, so names stand here and modules load when used
IMPLS = {
    "dense": "the vendor's dense convolution: oneDNN on a CPU, cuDNN on CUDA; the reference",
    "masked_dense": "dense with weights multiplied by the mask in every call: no speed-up",
    "gather_grouped": "channels gathered, then the vendor's grouped convolution, padded",
    "block_sparse": "ours: hrbp_core's three passes",
}


def load(name: str) -> ModuleType:
    """Return the implementation's module.

    Raises:
        ValueError: unknown; names those that exist.
    """
    check([name])
    return importlib.import_module(f"bench.impls.{name}")


def check(names: Sequence[str]) -> None:
    """Raise a ValueError that lists what exists when a name is unknown."""
    for name in names:
        if name not in IMPLS:
            raise ValueError(f"expected an implementation of {', '.join(IMPLS)}; got {name!r}")

"""The implementations a sweep compares, one file each.

A file offers ``NAME``, ``ABOUT`` (one line) and ``prepare(problem) -> Prepared``, which raises
``Unsupported`` with the reason when it cannot run the case. Packing, indexing and compiling
belong in ``prepare``: it is timed apart and never inside a sample.

A third party adds one without touching this project: an entry point of the group ``hrbp.impls``,
whose name is the implementation's and whose object (a module, or anything else) has the same
``prepare`` and, if it likes, ``ABOUT``.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

GROUP = "hrbp.impls"
# what `bench list` shows needs no torch, so names stand here and modules load when used
IMPLS = {
    "dense": "the vendor's dense convolution: oneDNN on a CPU, cuDNN on CUDA; the reference",
    "masked_dense": "dense with weights multiplied by the mask in every call: no speed-up",
    "gather_grouped": "channels gathered, then the vendor's grouped convolution, padded",
    "plain_grouped": "another function: the vendor's grouped convolution of about equal FLOPs",
    "thin_dense": "another function: a dense layer of fewer channels, of about equal FLOPs",
    "csr": "unfold + the vendor's CSR product + fold: MKL on a CPU, cuSPARSE on CUDA",
    "csr_product": "the CSR product alone, without unfold and fold",
    "torch_bsr": "unfold + torch's BSR product + fold: MKL on a CPU, Triton on CUDA",
    "torch_bsr_product": "torch's BSR product alone, without unfold and fold",
    "cusparse_bsr": "cuSPARSE's BSR product alone (SpMM, SDDMM), by nvmath-python",
    "cusparse_ell": "cuSPARSE's Blocked-ELL product alone (SpMM), by nvmath-python",
    "two_four": "another mask: cuSPARSELt's 2:4 product, for 1x1 layers at density 0.5",
    "block_sparse": "ours: hrbp_core's three passes",
}


def plug_ins() -> dict[str, EntryPoint]:
    """Return the implementations of other distributions, not loaded yet.

    Raises:
        ValueError: a name that is taken.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in IMPLS or point.name in found:
            raise ValueError(
                f"expected a new name for the implementation {point.name!r} of "
                f"{_origin(point)}, got one that is taken"
            )
        found[point.name] = point
    return found


def available() -> dict[str, str]:
    """Return what can be measured: name -> one line about it."""
    return IMPLS | {n: f"plug-in of {_origin(p)}: {p.value}" for n, p in plug_ins().items()}


def load(name: str) -> Any:
    """Return the object that offers the implementation's ``prepare``.

    Raises:
        ValueError: unknown; names those that exist. ImportError: a plug-in that cannot be loaded.
    """
    if name in IMPLS:
        return importlib.import_module(f"bench.impls.{name}")
    check([name])
    point = plug_ins()[name]
    try:
        found = point.load()
    except Exception as error:
        raise ImportError(f"expected to load {point.value} of {_origin(point)}: {error}") from error
    if not callable(getattr(found, "prepare", None)):
        raise ImportError(f"expected {point.value} of {_origin(point)} to offer prepare(problem)")
    return found


def check(names: Sequence[str]) -> None:
    """Raise a ValueError that lists what exists when a name is unknown."""
    known = available()
    for name in names:
        if name not in known:
            raise ValueError(f"expected an implementation of {', '.join(known)}; got {name!r}")


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unnamed distribution"

"""Block-sparse convolution for training sparse CNNs (HRBP, Ma et al., CPAL 2024).

Scores become a pattern, a pattern becomes three fast passes::

    scores [K, C, R, S] --regroup--> BlockPattern --pack--> values --block_sparse_conv2d--> y

and a model becomes a sparse one, and dense again::

    model --scores--> --allocate--> --convert--> --absorb--> train --to_dense--> model

======================  ==================================================================
``ConvShape``           extents and costs of one convolution layer
``least_density``       the sparsest a layer can be while every group keeps a block
``BlockPattern``        which blocks are kept; masks, packing, the transposed twin
``regroup``             scores + density + block -> BlockPattern, or a rival's WeightMask
``retained``            the share of the score that a pattern or mask keeps
``block_sparse_conv2d`` the operator, differentiable twice
``BlockSparseConv2d``   the module
``scores``              random, magnitude, SNIP, GraSP, SynFlow: keep-scores of a model's layers
``allocate``            uniform, ERK, global: a density for each layer
``convert``             a model's convolutions become sparse layers
``absorb``              channel orders move into the neighbours: nothing is permuted any more
``calibrate``           layers of policy "auto" run densely where that is faster, and say so
``SET``, ``RigL``       dynamic sparse training: blocks move while they are trained
``ITOP``                the same, rarer and larger, with what was explored
``CosineDrop``          its schedule
``to_dense``            plain convolutions again
``reference``           masked dense passes in float64, the oracle of the tests
======================  ==================================================================

Names are imported when first used, so that ``hrbp_core.shapes`` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "ConvShape": "shapes",
    "Pass": "shapes",
    "least_density": "shapes",
    "BlockPattern": "pattern",
    "WeightMask": "mask",
    "regroup": "regrouping",
    "retained": "mask",
    "block_sparse_conv2d": "ops",
    "BlockSparseConv2d": "nn",
    "convert": "conversion",
    "to_dense": "conversion",
    "absorb": "permute",
    "calibrate": "calibration",
    "SET": "dynamic",
    "RigL": "dynamic",
    "ITOP": "dynamic",
    "CosineDrop": "dynamic",
    "allocate": "allocate",
    "scores": "scores",
    "reference": "reference",
}
__all__ = [
    "ITOP",
    "SET",
    "BlockPattern",
    "BlockSparseConv2d",
    "ConvShape",
    "CosineDrop",
    "Pass",
    "RigL",
    "WeightMask",
    "absorb",
    "allocate",
    "block_sparse_conv2d",
    "calibrate",
    "convert",
    "least_density",
    "reference",
    "regroup",
    "retained",
    "scores",
    "to_dense",
]

if TYPE_CHECKING:
    from hrbp_core import allocate, reference, scores
    from hrbp_core.calibration import calibrate
    from hrbp_core.conversion import convert, to_dense
    from hrbp_core.dynamic import ITOP, SET, CosineDrop, RigL
    from hrbp_core.mask import WeightMask, retained
    from hrbp_core.nn import BlockSparseConv2d
    from hrbp_core.ops import block_sparse_conv2d
    from hrbp_core.pattern import BlockPattern
    from hrbp_core.permute import absorb
    from hrbp_core.regrouping import regroup
    from hrbp_core.shapes import ConvShape, Pass, least_density


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hrbp_core' has no attribute {name!r}")
    module = importlib.import_module(f"hrbp_core.{_HOME[name]}")
    value = module if name == _HOME[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

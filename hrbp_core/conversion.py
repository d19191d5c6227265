"""``convert`` and ``to_dense``: convolutions become sparse layers, and plain ones again.

::

    sparse, report = convert(model, 0.25, block=32)   # model stays as it is
    print(report)
    dense = to_dense(sparse)                           # loadable into the stock model
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hrbp_core.allocate import Allocation, costs, uniform
from hrbp_core.conversion_report import Conversion, SparseLayer
from hrbp_core.convs import (
    check_names,
    convolutions,
    dense_by_default,
    filter_shape,
    shared_parameters,
    why_dense,
)
from hrbp_core.mask import retained
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.pattern import BlockPattern
from hrbp_core.policy import checked_policy
from hrbp_core.regrouping.tied import Ties, regroup_tied
from hrbp_core.shapes import pair
from hrbp_core.spaces import CHANNELS, FILTERS, Spaces, channel_spaces

Scores = Mapping[str, Tensor]
ON_UNSUPPORTED = ("dense", "raise")
SEPARATE = Spaces(untraced="joint=False was asked for")


def convert(
    model: nn.Module,
    densities: float | Mapping[str, float],
    *,
    method: str = "hrbp2",
    block: int | Sequence[int] = (32, 32),
    scores: Scores | None = None,
    keep_dense: Collection[str] = (),
    on_unsupported: str = "dense",
    balance: str = "none",
    coverage: bool = True,
    taps: int | str | None = None,
    seed: int = 0,
    rescale: bool = False,
    joint: bool = True,
    policy: str = "sparse",
    example: Any = None,
) -> tuple[nn.Module, Conversion]:
    """Return (a copy of ``model`` with sparse layers, what was done); ``model`` stays as it is.

    Each layer keeps the weights that its pattern keeps, its bias, its mode and whether it is
    trained. Make the optimizer of the copy's parameters. Layers that see the same channels are
    regrouped together and share a partition (``joint``), so that
    :func:`hrbp_core.permute.absorb` can leave nothing to permute at run time; a model that
    torch.fx cannot trace is converted layer by layer.

    Args:
        model: any module with Conv2d layers; they are replaced by name.
        densities: layer name -> density, such as :mod:`hrbp_core.allocate` returns; layers not
            named stay dense, and so do those of density 1. One number: that density in all,
            spread uniformly, with the first convolution and the classifier dense, and layers
            lifted to their least density.
        method: one of ``hrbp_core.regrouping.BLOCK_METHODS``.
        block: (block_k, block_c), or one int for both.
        scores: layer name -> keep-scores [K, C, R, S], such as :mod:`hrbp_core.scores` returns;
            None: the magnitudes of the weights.
        keep_dense: names of convolutions that stay dense whatever ``densities`` says.
        on_unsupported: "dense": layers that no blocks can replace (grouped, smaller than a
            block, with a forward of their own, ...) stay dense and are reported; "raise".
        balance, coverage, taps, seed: as in ``regroup``.
        rescale: multiply each filter's kept weights by sqrt(weights / kept weights), so that an
            initialisation for the dense fan-in fits the real one (Evci et al., arXiv:2010.03533).
        joint: False regroups each layer for itself: more of its score is kept, but its orders
            fit nobody else's.
        policy: of the layers: "sparse", "dense", or "auto" for
            :func:`hrbp_core.calibration.calibrate` to choose.
        example: the model's input, or a tuple of its arguments: then FLOPs are reported.

    Raises:
        TypeError: a model that is no module; scores or densities of a wrong type.
        ValueError: a model without convolutions; names that do not exist, or that have no
            score; scores of another shape; what ``regroup`` refuses, with the layer's name;
            with "raise", a layer that cannot be sparse.
    """
    convs = _checked_model(model)
    if on_unsupported not in ON_UNSUPPORTED:
        raise ValueError(
            f"expected on_unsupported as one of {', '.join(ON_UNSUPPORTED)}, got {on_unsupported!r}"
        )
    checked_policy(policy)
    check_names("keep_dense", keep_dense, convs)
    kept_out = set(keep_dense)
    impossible = _impossible(model, convs, block)
    wanted, unasked = _wanted(model, densities, block, taps, kept_out)
    left = _left_dense(convs, wanted, kept_out, impossible, unasked)
    if on_unsupported == "raise":
        _raise_unsupported({n: why for n, why in left.items() if why == impossible.get(n)})
    sparse = {name: wanted[name] for name in convs if name not in left}
    taken = _scores(scores, convs, sparse)
    # a tie too many costs some score, never the function: what no trace calls stops nothing here
    spaces = channel_spaces(model, [n for n, _ in model.named_children()]) if joint else SEPARATE
    patterns = regroup_tied(
        taken, sparse, _ties(spaces, sparse), method=method, block=block, seed=seed,
        coverage=coverage, balance=balance, taps=taps,
    )  # fmt: skip
    made = {n: _layer(convs[n], p, rescale, policy) for n, p in patterns.items()}
    network = _replaced(model, made)
    layers = {
        name: SparseLayer(name, sparse[name], retained(taken[name], pattern), pattern)
        for name, pattern in patterns.items()
    }
    total = costs(model, {name: p.density for name, p in patterns.items()}, example)
    return network, Conversion(method, layers, left, total, spaces.untraced, dict(spaces.boxes))


def to_dense(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` with plain ``Conv2d`` layers of the same function.

    Its state_dict has the stock model's names and shapes. After
    :func:`hrbp_core.permute.absorb` the channels inside stand in other orders; the function of
    the whole is the same. A model without sparse layers comes back as a copy.
    """
    layers = {n: m.to_dense() for n, m in _sparse_layers(model).items()}
    return _replaced(model, layers)


def _sparse_layers(model: nn.Module) -> dict[str, BlockSparseConv2d]:
    return {n: m for n, m in model.named_modules() if isinstance(m, BlockSparseConv2d)}


def _checked_model(model: nn.Module) -> dict[str, nn.Conv2d]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model as a torch.nn.Module, got {type(model).__name__}")
    convs = convolutions(model)
    if not convs:
        sparse = len(_sparse_layers(model))
        has = f"{sparse} that are sparse already" if sparse else "none"
        kind = type(model).__name__
        raise ValueError(f"expected a model with Conv2d layers, got {kind} with {has}")
    return convs


def _impossible(
    model: nn.Module, convs: Mapping[str, nn.Conv2d], block: int | Sequence[int]
) -> dict[str, str]:
    """Return {name: why} of the convolutions that no blocks can replace."""
    pair(block, "block", least=1)
    shared = shared_parameters(model)
    found = {}
    for name, conv in convs.items():
        why = why_dense(conv, block)
        if why is None and name in shared:
            why = f"it shares a parameter with {shared[name]}"
        if why is not None:
            found[name] = why
    return found


def _wanted(
    model: nn.Module,
    densities: float | Mapping[str, float],
    block: int | Sequence[int],
    taps: int | str | None,
    kept_out: set[str],
) -> tuple[dict[str, float], dict[str, str]]:
    """Return (densities by name, why there is none of the others); a number is spread uniformly."""
    convs = convolutions(model)
    if isinstance(densities, Mapping):
        check_names("densities", densities, convs)
        for name, density in densities.items():
            if isinstance(density, bool) or not isinstance(density, int | float):
                raise TypeError(f"{name}: expected a density as a number, got {density!r}")
        unasked = {name: "no density is given" for name in convs if name not in densities}
        if isinstance(densities, Allocation):
            unasked |= {name: why for name, why in densities.left_dense.items() if name in unasked}
        return {name: float(density) for name, density in densities.items()}, unasked
    if isinstance(densities, bool) or not isinstance(densities, int | float):
        raise TypeError(f"expected densities as a number or by name, got {densities!r}")
    unasked = dense_by_default(model)
    out = {*kept_out, *unasked, *shared_parameters(model)}
    names = tuple(name for name in convs if name in out)
    return dict(uniform(model, float(densities), block=block, taps=taps, keep_dense=names)), unasked


def _left_dense(
    convs: Mapping[str, nn.Conv2d],
    wanted: Mapping[str, float],
    kept_out: set[str],
    impossible: Mapping[str, str],
    unasked: Mapping[str, str],
) -> dict[str, str]:
    """Return {name: why} of all convolutions that stay dense, in the model's order."""
    left = {}
    for name in convs:
        if name in kept_out:
            left[name] = "asked for (keep_dense)"
        elif name in unasked:
            left[name] = unasked[name]
        elif name in impossible:
            left[name] = impossible[name]
        elif wanted[name] == 1:
            left[name] = "density 1"
    return left


def _raise_unsupported(refused: Mapping[str, str]) -> None:
    if refused:
        told = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise ValueError(f"expected layers that blocks can replace, got {len(refused)}: {told}")


def _scores(
    scores: Scores | None, convs: Mapping[str, nn.Conv2d], sparse: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return the scores of the layers that become sparse."""
    if scores is None:
        return {name: convs[name].weight.detach().abs() for name in sparse}
    if not isinstance(scores, Mapping):
        raise TypeError(f"expected scores by layer name, got {type(scores).__name__}")
    check_names("scores", scores, convs)
    for name in sparse:
        if name not in scores:
            raise ValueError(f"expected scores of every sparse layer, got none of {name}")
        shape, got = filter_shape(convs[name]), scores[name]
        if not isinstance(got, Tensor) or tuple(got.shape) != shape:
            what = list(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise ValueError(f"{name}: expected scores {list(shape)}, got {what}")
    return {name: scores[name] for name in sparse}


def _ties(spaces: Spaces, names: Iterable[str]) -> dict[str, Ties]:
    """Return what the named layers tie to; nothing of one that the graph does not show."""
    ties = {}
    for name in names:
        roles = spaces.roles.get(name, {})
        if FILTERS in roles and CHANNELS in roles:
            channels = tuple((spaces.find(n), spaces.size(n)) for n in roles[CHANNELS])
            ties[name] = Ties(spaces.find(roles[FILTERS][0]), channels)
    return ties


@torch.no_grad()
def _layer(conv: nn.Conv2d, pattern: BlockPattern, rescale: bool, policy: str) -> BlockSparseConv2d:
    layer = BlockSparseConv2d.from_dense(conv, pattern, policy=policy)
    if rescale:
        mask = pattern.mask().to(conv.weight.device)
        kept = mask.sum((1, 2, 3), dtype=torch.float32).clamp(min=1)
        scale = (mask[0].numel() / kept).sqrt().to(conv.weight.dtype)
        layer.values.copy_(layer.pattern.pack(conv.weight * scale.view(-1, 1, 1, 1)))
    return layer


def _replaced(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Return a copy of the model with these modules in place of others, wherever they stand.

    What is replaced is not copied first.
    """
    modules = dict(model.named_modules())
    memo = {id(modules[name]): layer for name, layer in layers.items()}
    return copy.deepcopy(model, memo)  # type: ignore[arg-type]

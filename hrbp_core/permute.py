"""``absorb``: channel orders move into the neighbours, so that nothing is permuted at run time.

A sparse layer whose groups are not contiguous permutes its input and output in every call. An
order of a layer's filters can instead be carried into everything that reads them: BatchNorm,
the next convolution, the classifier. Where an addition ties several layers, one order serves all.
The function of the whole stays, up to the rounding of sums in another order.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hrbp_core.convs import check_names
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.pattern import BlockPattern
from hrbp_core.spaces import (
    CHANNELS,
    EACH,
    FEATURES_IN,
    FEATURES_OUT,
    FILTERS,
    Spaces,
    channel_spaces,
)
from hrbp_core.tables import sort_keys

Orders = dict[int, Tensor]  # space -> the old channel at each new place
CHOSEN = "its filter groups choose their own channels, which are gathered"


@dataclass(frozen=True, eq=False)
class Absorption:
    """What ``absorb`` reached.

    Attributes:
        canonical: sparse layers that permute nothing.
        standalone: sparse layers that still permute or gather in every call, and why.
        moved: channel spaces whose order was carried into the neighbours.
        untraced: why nothing could be done, or None.
        boxes: submodules that torch.fx could not look into, and why.
    """

    canonical: tuple[str, ...]
    standalone: Mapping[str, str]
    moved: int
    untraced: str | None
    boxes: Mapping[str, str]

    def __str__(self) -> str:
        total = len(self.canonical) + len(self.standalone)
        lines = [f"{len(self.canonical)} of {total} sparse layers permute nothing"]
        lines += [f"  {name}: {why}" for name, why in self.standalone.items()]
        if self.untraced is not None:
            lines.append(f"nothing could be absorbed: {self.untraced}")
        lines += [f"closed to torch.fx: {name} ({why})" for name, why in self.boxes.items()]
        return "\n".join(lines)


@torch.no_grad()
def absorb(model: nn.Module, *, unused: Collection[str] = ()) -> tuple[nn.Module, Absorption]:
    """Return (a copy of ``model`` whose sparse layers are canonical where they can be, a report).

    ``model`` stays as it is. Weights change places, never values: outputs differ by rounding
    alone. Orders pass through BatchNorm and other norms of single channels, activations,
    dropout, pooling, concatenation, flatten and linear layers, depthwise convolutions and
    additions. They stay where the model's input, its output, or an operation of unknown effect
    would see them. Make the optimizer of the copy's parameters.

    The forward is traced with images [N, C, H, W], in train and eval mode, with and without each
    optional argument. A layer with weights that none of these traces calls may be called by a
    branch that they do not take: nothing around it moves then. What no trace can show is a branch
    without a layer of its own, taken by dice, by the kind of an input, by a count of calls or where
    gradients are off, that treats channels differently.

    Args:
        unused: names of submodules that are never called, so that they do not stop anything.

    Raises:
        TypeError: not a module; one string in place of names.
        ValueError: names in ``unused`` that the model does not have.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model as a torch.nn.Module, got {type(model).__name__}")
    check_names("unused", unused, dict(model.named_modules()))
    network = copy.deepcopy(model)
    spaces = channel_spaces(network, unused)
    sparse = {n: m for n, m in network.named_modules() if isinstance(m, BlockSparseConv2d)}
    orders = _choose(spaces, sparse)
    modules = dict(network.named_modules())
    for name, roles in spaces.roles.items():
        moves = {
            role: order
            for role, numbers in roles.items()
            if (order := _order(spaces, numbers, orders, _repeat(spaces, name, role))) is not None
        }
        if moves:
            _move(modules[name], moves)
    canonical = tuple(name for name, layer in sparse.items() if layer.pattern.is_canonical)
    left = {n: _why(spaces, n, m) for n, m in sparse.items() if n not in canonical}
    return network, Absorption(canonical, left, len(orders), spaces.untraced, dict(spaces.boxes))


# which order each space takes ----------------------------------------------------------------


def _choose(spaces: Spaces, sparse: Mapping[str, BlockSparseConv2d]) -> Orders:
    """Return the order of each space that takes one: that which serves most blocks."""
    votes: dict[int, dict[tuple[tuple[int, ...], ...], int]] = {}
    wishes: dict[tuple[int, tuple[tuple[int, ...], ...]], Tensor] = {}
    for name, layer in sparse.items():
        for number, groups in _wishes(spaces, name, layer):
            root = spaces.find(number)
            partition = tuple(sorted(tuple(sorted(group)) for group in groups))
            wishes.setdefault((root, partition), torch.tensor([i for g in groups for i in g]))
            ballot = votes.setdefault(root, {})
            ballot[partition] = ballot.get(partition, 0) + len(layer.entries)
    orders = {}
    for root, ballot in votes.items():
        best = max(ballot, key=lambda partition: ballot[partition])  # the first of equal ones
        order = wishes[root, best]
        if spaces.pinned(root) is None and bool((order.diff() != 1).any()):
            orders[root] = order
    return orders


def _wishes(
    spaces: Spaces, name: str, layer: BlockSparseConv2d
) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield (space, groups in order) of each space that the layer would like in that order."""
    roles, pattern = spaces.roles.get(name, {}), layer.pattern
    if FILTERS in roles:
        yield roles[FILTERS][0], _rows(pattern.filters)
    if CHANNELS in roles and pattern.partitioned:
        rows, start = _rows(pattern.channels), 0
        for number in roles[CHANNELS]:
            end = start + spaces.size(number)
            inside = [
                [i - start for i in row] for row in rows if start <= min(row) <= max(row) < end
            ]
            if sum(map(len, inside)) == end - start:  # no group lies across two spaces
                yield number, inside
            start = end


def _rows(table: Tensor) -> list[list[int]]:
    return [[i for i in row if i >= 0] for row in table.tolist()]


def _order(spaces: Spaces, numbers: tuple[int, ...], orders: Orders, repeat: int) -> Tensor | None:
    """Return which old index stands at each place of spaces side by side; None: all stay."""
    if not any(spaces.find(number) in orders for number in numbers):
        return None
    parts, start = [], 0
    for number in numbers:
        size = spaces.size(number)
        order = orders.get(spaces.find(number))
        parts.append((torch.arange(size) if order is None else order) + start)
        start += size
    whole = torch.cat(parts)
    return (whole[:, None] * repeat + torch.arange(repeat)).view(-1)


def _repeat(spaces: Spaces, name: str, role: str) -> int:
    """Return the features a channel: only what is read can hold several."""
    return spaces.repeats.get(name, 1) if role in (FEATURES_IN, EACH) else 1


# what moves ----------------------------------------------------------------------------------


def _move(module: nn.Module, moves: Mapping[str, Tensor]) -> None:
    """Put a module's weights into the new orders, in place."""
    if isinstance(module, BlockSparseConv2d):
        _move_blocks(module, moves.get(FILTERS), moves.get(CHANNELS))
        return
    if EACH in moves:
        names = ("weight", "bias", "running_mean", "running_var")
        for name in names:
            _reorder(getattr(module, name, None), 0, moves[EACH])
        return
    weight, bias = module.weight, module.bias
    rows, columns = (
        moves.get(FILTERS, moves.get(FEATURES_OUT)),
        moves.get(CHANNELS, moves.get(FEATURES_IN)),
    )
    if rows is not None:
        _reorder(weight, 0, rows)
        _reorder(bias, 0, rows)
    if columns is not None:
        _reorder(weight, 1, columns)


def _reorder(tensor: object, dim: int, order: Tensor) -> None:
    if isinstance(tensor, Tensor):
        tensor.copy_(tensor.index_select(dim, order.to(tensor.device)))


def _move_blocks(layer: BlockSparseConv2d, filters: Tensor | None, channels: Tensor | None) -> None:
    """Put a sparse layer's filters and channels into new orders: other tables, same weights."""
    old = layer.pattern
    k, c = old.shape[:2]
    device = old.device
    rows = torch.arange(k) if filters is None else filters
    columns = torch.arange(c) if channels is None else channels
    new = reordered(old, rows.to(device), columns.to(device))
    weight = old.unpack(layer.values)[rows.to(device)][:, columns.to(device)]
    layer.adopt(new)
    layer.values.copy_(new.pack(weight))
    if filters is not None:
        _reorder(layer.bias, 0, filters)


def reordered(pattern: BlockPattern, filters: Tensor, channels: Tensor) -> BlockPattern:
    """Return the pattern of the weight ``weight[filters][:, channels]``.

    Members of a group ascend, and groups are numbered by their smallest member, padded ones last:
    groups that became contiguous are in canonical form.

    Args:
        filters: int64 [K], the old filter at each new place.
        channels: int64 [C].
    """
    tables, ranks = [], []
    for table, order, numbered in (
        (pattern.filters, filters, True),
        (pattern.channels, channels, pattern.partitioned),
    ):
        place = torch.argsort(order).to(torch.int32)
        far = len(order)
        moved = torch.where(table < 0, far, place[table.long().clamp(min=0)]).sort(1).values
        key = moved[:, 0] + far * (moved[:, -1] == far)
        rank = (
            torch.argsort(key, stable=True)
            if numbered
            else torch.arange(len(table), device=key.device)
        )
        tables.append(torch.where(moved == far, -1, moved)[rank].to(torch.int32))
        ranks.append(torch.argsort(rank).to(torch.int32))
    group, channel, tap = pattern.entries.long().unbind(1)
    entries = torch.stack((ranks[0][group], ranks[1][channel], tap.to(torch.int32)), 1)
    limits = (len(tables[0]), len(tables[1]), pattern.shape[2] * pattern.shape[3])
    entries = entries[torch.argsort(sort_keys(entries, limits, (0, 2, 1)))]
    return BlockPattern(pattern.shape, pattern.block, tables[0], tables[1], entries)


# what did not move ---------------------------------------------------------------------------


def _why(spaces: Spaces, name: str, layer: BlockSparseConv2d) -> str:
    """Return why a layer still permutes or gathers."""
    pattern, roles = layer.pattern, spaces.roles.get(name, {})
    if spaces.untraced is not None:
        return spaces.untraced
    if FILTERS not in roles:
        return spaces.stuck.get(name, "the traced graph does not call it")
    if not pattern.partitioned:
        return CHOSEN
    reasons = []
    for side, table in ((FILTERS, pattern.filters), (CHANNELS, pattern.channels)):
        flat = table.reshape(-1)
        flat = flat[flat >= 0]
        if bool((flat.diff() != 1).any()):
            reasons.append(f"{side}: {_why_side(spaces, roles[side], table)}")
    return "; ".join(reasons)


def _why_side(spaces: Spaces, numbers: tuple[int, ...], table: Tensor) -> str:
    for number in numbers:
        pin = spaces.pinned(number)
        if pin is not None:
            return f"their order has to stay ({pin})"
    ends, end = [], 0
    for number in numbers:
        end += spaces.size(number)
        ends.append(end)
    for row in _rows(table):
        if any(min(row) < end <= max(row) for end in ends):
            return "its groups lie across concatenated tensors"
    return "other layers that see them are grouped otherwise"

"""Repairs a choice of entries that breaks its limits, at the least loss.

Successive shortest paths (Ahuja, Magnanti and Orlin, Network Flows, chapter 9) on a small flow
network: source -> filter groups -> channel groups -> sink, one unit a kept entry. A block's taps
are parallel arcs, best first. Costs are negated scores. The start must have no path of negative
cost around a cycle; then each repair along a shortest path keeps it so, and what is left when
nothing is out of balance is optimal.
Distances are int64 and ties fall to the lower index.
"""

from __future__ import annotations

import numpy as np

from hrbp_core.regrouping.problem import Flags, Integers, Limits

FAR = np.int64(2**60)  # further than any path, with room to add one
START, HUB = -2, -1  # parents: none, and the source (of rows) or the sink (of columns)


def repair(scores: Integers, limits: Limits, kept: Flags, prices: Integers) -> Flags:
    """Return the best choice within ``limits``.

    Args:
        scores: int64 [Gk, Gc, taps].
        limits: must be feasible.
        kept: bool, like scores: for each row the best choice of its size at ``scores - prices``,
            the lower of equal taps first, and the best spread of the entries over rows that the
            row limits leave open.
        prices: int64 [Gc].
    """
    order = np.argsort(-scores, axis=2, kind="stable")
    network = _Network(np.take_along_axis(scores, order, axis=2), limits, kept.sum(axis=2), prices)
    while network.unbalanced():
        network.augment()
    repaired = np.zeros(scores.shape, dtype=bool)
    ranks = np.arange(scores.shape[2])
    np.put_along_axis(repaired, order, ranks < network.counts[:, :, None], axis=2)
    return repaired


class _Network:
    """The flow, its imbalances (positive: too much arrives) and the residual costs.

    ``rows`` and ``columns`` are the flow from the source into each row and from each column
    into the sink. The imbalances' last place belongs to the source and the sink.
    """

    def __init__(
        self, scores: Integers, limits: Limits, counts: Integers, prices: Integers
    ) -> None:
        gk, gc, _ = scores.shape
        edge = np.full((gk, gc, 1), FAR)
        # costs[..., n]: adding the entry after n kept ones; no more than all of them
        self.costs = np.concatenate((-scores, edge), axis=2)
        # gains[..., n]: dropping the last of n kept ones
        self.gains = np.concatenate((edge, scores), axis=2)
        self.counts = counts.astype(np.int64)
        self.row_limits, self.column_limits = limits.per_filter_group, limits.per_channel_group
        row_counts, column_counts = counts.sum(axis=1), counts.sum(axis=0)
        self.rows = np.clip(row_counts, *self.row_limits)
        self.columns = np.clip(column_counts, *self.column_limits)
        if prices.any():
            # a column dearer than the sink's level must be full, a cheaper one at its least
            level = np.sort(prices)[len(prices) // 2]
            self.columns[prices > level] = self.column_limits[1]
            self.columns[prices < level] = self.column_limits[0]
        source = limits.blocks - int(self.rows.sum())
        sink = int(self.columns.sum()) - limits.blocks
        self.row_excess = np.append(self.rows - row_counts, source)
        self.column_excess = np.append(column_counts - self.columns, sink)
        places = self.counts[:, :, None]
        self.add = np.take_along_axis(self.costs, places, axis=2)[:, :, 0]
        self.drop = np.take_along_axis(self.gains, places, axis=2)[:, :, 0]

    def unbalanced(self) -> bool:
        return bool(self.row_excess.any() or self.column_excess.any())

    def augment(self) -> None:
        """Send one unit from too much to too little, the shortest way."""
        row_far, column_far = self._distances()
        row_ends = np.where(self.row_excess < 0, row_far, FAR)
        column_ends = np.where(self.column_excess < 0, column_far, FAR)
        row, column = int(row_ends.argmin()), int(column_ends.argmin())
        if min(row_ends[row], column_ends[column]) >= FAR // 2:
            raise ValueError("expected limits that some choice of blocks meets")
        if row_ends[row] <= column_ends[column]:
            self.row_excess[row] += 1
            self._walk_back(row, on_rows=True)
        else:
            self.column_excess[column] += 1
            self._walk_back(column, on_rows=False)

    def _distances(self) -> tuple[Integers, Integers]:
        """Return distances of rows + source and columns + sink; parents are kept for the way.

        Bellman-Ford, a whole side at a time: every second relaxation is one matrix minimum.
        """
        row_far = np.where(self.row_excess > 0, 0, FAR)
        column_far = np.where(self.column_excess > 0, 0, FAR)
        self.row_parent = np.full(len(row_far), START)
        self.column_parent = np.full(len(column_far), START)
        may_grow = self.rows < self.row_limits[1], self.columns < self.column_limits[1]
        may_shrink = self.rows > self.row_limits[0], self.columns > self.column_limits[0]
        for _ in range(len(row_far) + len(column_far)):
            changed = _relax(row_far, self.add, column_far, self.column_parent)
            changed |= _relax_hub(column_far, self.column_parent, may_grow[1], may_shrink[1])
            changed |= _relax(column_far, self.drop.T, row_far, self.row_parent)
            changed |= _relax_hub(row_far, self.row_parent, may_shrink[0], may_grow[0])
            if not changed:
                return row_far, column_far
        # a negative cycle would go round for ever: say so instead
        raise ValueError("expected a start that is the best of its row counts at its prices")

    def _walk_back(self, place: int, *, on_rows: bool) -> None:
        """Undo and do what the shortest path says, from its end to its start."""
        while True:
            parents = self.row_parent if on_rows else self.column_parent
            flow = self.rows if on_rows else self.columns
            parent, hub = int(parents[place]), len(flow)
            if parent == START:
                excess = self.row_excess if on_rows else self.column_excess
                excess[place] -= 1
                return
            if place == hub:
                flow[parent] += -1 if on_rows else 1
                place = parent
            elif parent == HUB:
                flow[place] += 1 if on_rows else -1
                place = hub
            else:
                if on_rows:
                    self._change(place, parent, -1)
                else:
                    self._change(parent, place, 1)
                place, on_rows = parent, not on_rows

    def _change(self, row: int, column: int, by: int) -> None:
        self.counts[row, column] += by
        count = self.counts[row, column]
        self.add[row, column] = self.costs[row, column, count]
        self.drop[row, column] = self.gains[row, column, count]


def _relax(source: Integers, costs: Integers, target: Integers, parent: Integers) -> bool:
    """Shorten ``target`` through one arc from ``source`` (both without their hubs)."""
    reach = source[:-1, None] + costs
    best = reach.argmin(axis=0)
    reach = reach[best, np.arange(len(best))]
    shorter = np.flatnonzero(reach < target[:-1])
    target[shorter], parent[shorter] = reach[shorter], best[shorter]
    return len(shorter) > 0


def _relax_hub(far: Integers, parent: Integers, into: Flags, out_of: Flags) -> bool:
    """Shorten the hub (last place) from the groups ``into`` allows, then those ``out_of``."""
    changed = False
    arriving = np.where(into, far[:-1], FAR)
    best = int(arriving.argmin())
    if arriving[best] < far[-1]:
        far[-1], parent[-1], changed = arriving[best], best, True
    shorter = np.flatnonzero(out_of & (far[-1] < far[:-1]))
    if len(shorter):
        far[shorter], parent[shorter], changed = far[-1], HUB, True
    return changed

"""Gather channels, then the vendor's grouped convolution: sparse without kernels of ours.

Every filter group becomes one group, padded to the longest; what a user could write in an
afternoon. Works on any pattern, canonical or not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.impls.vendor import conv_pass
from bench.problem import CL, Prepared, Problem, Unsupported
from hrbp_core.shapes import Pass

NAME = "gather_grouped"
ABOUT = "channels gathered, then the vendor's grouped convolution, padded"


def prepare(problem: Problem) -> Prepared:
    """Return the padded grouped form; refuses filter groups that are not full."""
    pattern = problem.pattern
    if bool((pattern.filters < 0).any()) or not pattern.all_taps:
        raise Unsupported("needs filters that divide into whole groups, and all taps")
    channels, real = _channel_lists(problem)
    order = pattern.filters.reshape(-1).long()
    place = torch.argsort(order)
    in_order = torch.equal(order, torch.arange(len(order), device=order.device))
    groups, width = channels.shape
    flat = channels.reshape(-1)

    def reorder(tensor: Tensor, index: Tensor) -> Tensor:
        return tensor if in_order else _pick(tensor, index)

    match problem.case.conv_pass:
        case Pass.FPROP:
            weight = _grouped_weight(problem, channels, real, order)

            def run() -> Tensor:
                call = conv_pass(problem, _pick(problem.x, flat), problem.dy, groups)
                return reorder(call(weight), place)

            return Prepared(run, masked=True)
        case Pass.DGRAD:
            weight = _grouped_weight(problem, channels, real, order)
            n, c, h, w = problem.x.shape
            like = torch.empty((n, groups * width, h, w), dtype=weight.dtype, device=flat.device)
            like = like.contiguous(memory_format=CL)

            def run() -> Tensor:
                call = conv_pass(problem, like, reorder(problem.dy, order), groups)
                copies = call(weight).permute(0, 2, 3, 1).reshape(-1, groups * width)
                dx = copies.new_zeros(len(copies), c).index_add_(1, flat, copies)
                return dx.view(n, h, w, c).permute(0, 3, 1, 2)

            return Prepared(run, masked=True)
        case Pass.WGRAD:
            _, _, r, s = pattern.shape
            like = problem.weight.new_empty(len(order), width, r, s).contiguous(memory_format=CL)

            def run() -> Tensor:
                dy = reorder(problem.dy, order)
                return conv_pass(problem, _pick(problem.x, flat), dy, groups)(like)

            return Prepared(run, True, lambda out: _ungroup(problem, out, channels, real, order))
    raise Unsupported(f"pass {problem.case.conv_pass}")


def _pick(tensor: Tensor, index: Tensor) -> Tensor:
    """Return channels by index, channels_last in and out."""
    n, c, h, w = tensor.shape
    rows = tensor.permute(0, 2, 3, 1).reshape(-1, c).index_select(1, index)
    return rows.view(n, h, w, len(index)).permute(0, 3, 1, 2)


def _channel_lists(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return (channels [G, longest], real [G, longest]); channel 0 stands in for padding."""
    pattern = problem.pattern
    lists = []
    for group in range(pattern.filters.shape[0]):
        own = pattern.entries[pattern.entries[:, 0] == group, 1].unique().long()
        taken = pattern.channels[own].reshape(-1).long()
        lists.append(taken[taken >= 0])
    padded = torch.nn.utils.rnn.pad_sequence(lists, batch_first=True, padding_value=-1)
    return padded.clamp(min=0), padded >= 0


def _grouped_weight(problem: Problem, channels: Tensor, real: Tensor, order: Tensor) -> Tensor:
    """Return [K, longest, R, S] in group order, zero in padding."""
    block_k = problem.pattern.block[0]
    rows = channels.repeat_interleave(block_k, 0)
    weight = problem.weight[order[:, None], rows]
    kept = real.repeat_interleave(block_k, 0)[..., None, None]
    return torch.where(kept, weight, 0).contiguous(memory_format=CL)


def _ungroup(
    problem: Problem, out: Tensor, channels: Tensor, real: Tensor, order: Tensor
) -> Tensor:
    block_k = problem.pattern.block[0]
    rows = channels.repeat_interleave(block_k, 0)
    kept = real.repeat_interleave(block_k, 0)
    dense = torch.zeros_like(problem.weight)
    filters = order[:, None].expand_as(rows)
    dense[filters[kept], rows[kept]] = out[kept]
    return dense

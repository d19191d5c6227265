"""The channel spaces of a network: which layers see one and the same channels in one order.

The network is traced by torch.fx, in train and in eval mode, and each tensor's channels are
followed. A space is made by a convolution's (or linear layer's) filters; BatchNorm, activations,
pooling and so on hand it on; an addition makes one space of two; a concatenation puts spaces side
by side. What the model takes and returns is pinned: nobody may reorder it; so is what an
operation touches whose effect on channels is not known here.
"""

from __future__ import annotations

from torch import nn

from hrbp_core.convs import modes_kept
from hrbp_core.nn import BlockSparseConv2d
from hrbp_core.spaces.reader import Reader
from hrbp_core.spaces.table import CHANNELS, EACH, FEATURES_IN, FEATURES_OUT, FILTERS, Spaces
from hrbp_core.spaces.tracer import Tracer, first_line

__all__ = [
    "CHANNELS",
    "EACH",
    "FEATURES_IN",
    "FEATURES_OUT",
    "FILTERS",
    "Spaces",
    "channel_spaces",
]


def channel_spaces(model: nn.Module) -> Spaces:
    """Return the spaces of ``model``, those of train and of eval mode together.

    The model is not run and not changed. One that cannot be traced comes back as such.
    """
    if isinstance(model, BlockSparseConv2d | nn.Conv2d | nn.Linear):
        return Spaces(untraced="the model is a single layer: it has no neighbours")
    reader = Reader(model)
    with modes_kept(model):
        for training in (True, False):
            model.train(training)
            tracer = Tracer()
            try:
                graph = tracer.trace(model)
            except Exception as error:  # whatever the model's Python does with a proxy
                kind = type(model).__name__
                return Spaces(untraced=f"torch.fx cannot trace {kind}: {first_line(error)}")
            reader.read(graph, tracer.boxes)
    return reader.result()

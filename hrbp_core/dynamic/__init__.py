"""Dynamic sparse training: a pattern that moves while its weights are trained.

::

    dst = RigL(model, optimizer, until=steps)    # or SET, ITOP
    for ...:
        loss.backward(); optimizer.step(); dst.step()

Every so many steps each sparse layer drops its smallest units and grows as many elsewhere: blocks
where blocks keep all their taps, else entries (HRBP++). Groups stay, entries alone move: so the
count of entries, canonical form and every shape stay, and a layer's tables change in place.

================  ==============================================================================
``methods``       ``SET``, ``RigL``, ``ITOP``: each overrides one method
``base``          what they share: steps, updates, states
``schedule``      when to update, and how much
``choose``        which units to drop and grow under coverage and balance: pure functions
``sites``         what a method needs of a layer; ``BlockSite`` for ``BlockSparseConv2d``
``moving``        values, gradients and optimizer state that follow their entries
``watching``      the dense gradient of a layer, caught on the steps that need it
``agreement``     one decision for all processes
``deciding``      scores to decisions, on the process that decides
``outcome``       what an update did
``request``       the arguments, checked
``saved``         what ``state_dict`` holds, and its checks
================  ==============================================================================
"""

from hrbp_core.dynamic.base import DynamicSparsity
from hrbp_core.dynamic.methods import ITOP, SET, RigL
from hrbp_core.dynamic.outcome import Explored, LayerUpdate, Update
from hrbp_core.dynamic.schedule import CosineDrop
from hrbp_core.dynamic.sites import BlockSite, Site, block_sites

__all__ = [
    "ITOP",
    "SET",
    "BlockSite",
    "CosineDrop",
    "DynamicSparsity",
    "Explored",
    "LayerUpdate",
    "RigL",
    "Site",
    "Update",
    "block_sites",
]

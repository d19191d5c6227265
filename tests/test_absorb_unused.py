"""absorb and layers that no trace calls: nothing moves around them, unless the caller says so."""

from __future__ import annotations

import pytest
from torch import nn

from hrbp_core import absorb
from tests.network_checks import assert_same_in_both_modes, sparse
from tests.network_samples import between, conv


def chain_with_spare() -> nn.Module:
    model = between(lambda s, y: s.bn(y))
    model.spare = conv(8)
    return sparse(model)


def test_a_spare_layer_stops_all_unless_it_is_said_to_be_unused() -> None:
    model = chain_with_spare()
    copied, report = absorb(model)
    assert_same_in_both_modes(model, copied)
    assert report.canonical == ()
    assert "no trace calls spare: another branch may" in str(report.untraced)
    copied, report = absorb(model, unused=["spare"])
    assert_same_in_both_modes(model, copied)
    assert report.canonical == ("a", "b", "c")
    assert list(report.standalone) == ["spare"]


def test_a_spare_layer_in_a_submodule_stops_what_it_touches() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.spare = conv(8), conv(8), conv(8)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.two(self.one(x).relu())

    model = sparse(between(lambda s, y: s.d(s.m(y)), m=Block(), d=conv(8)))
    copied, report = absorb(model)
    assert_same_in_both_modes(model, copied)
    assert list(report.boxes) == ["m"]
    assert report.canonical == ("b", "c")
    copied, report = absorb(model, unused=["m.spare"])
    assert_same_in_both_modes(model, copied)
    assert [*report.standalone] == ["m.spare"]


def test_names_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="expected unused of spare, got 'spar'"):
        absorb(chain_with_spare(), unused=["spar"])
    with pytest.raises(TypeError, match="expected unused as a collection of names"):
        absorb(chain_with_spare(), unused="spare")
    with pytest.raises(TypeError, match="expected model as a torch"):
        absorb(3)  # type: ignore[arg-type]

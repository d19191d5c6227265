"""channel_spaces: who sees the same channels, what is pinned and why; regrouping together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrbp_core.conversion import convert
from hrbp_core.spaces import Spaces, channel_spaces
from tests.network_checks import absorbed, one_thread, randomised, sparse, state
from tests.network_samples import CONCATENATED, Graph, between, conv, graph, head


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def shared(spaces: Spaces) -> set[frozenset[str]]:
    """Return who shares a space, as "module.role" with a number where several lie side by side."""
    found: dict[int, set[str]] = {}
    for name, roles in spaces.roles.items():
        for role, numbers in roles.items():
            for place, number in enumerate(numbers):
                end = f"[{place}]" if len(numbers) > 1 else ""
                found.setdefault(spaces.find(number), set()).add(f"{name}.{role}{end}")
    return {frozenset(names) for names in found.values()}


def pins(spaces: Spaces) -> dict[str, str | None]:
    """Return why each module's role is pinned, or None."""
    return {
        f"{name}.{role}": next(filter(None, map(spaces.pinned, numbers)), None)
        for name, roles in spaces.roles.items()
        for role, numbers in roles.items()
    }


def sets(*groups: str) -> set[frozenset[str]]:
    return {frozenset(group.split()) for group in groups}


INPUT, OUTPUT = "the model's input", "the model's output"


def test_a_chain() -> None:
    spaces = channel_spaces(graph(lambda s, x: s.fc(s.b(s.bn(s.a(s.stem(x))).relu()).mean((2, 3)))))
    assert shared(spaces) == sets(
        "stem.channels",
        "stem.filters a.channels",
        "a.filters bn.each b.channels",
        "b.filters fc.features_in",
        "fc.features_out",
    )
    found = pins(spaces)
    assert {name for name, why in found.items() if why} == {"stem.channels", "fc.features_out"}
    assert INPUT in str(found["stem.channels"])
    assert OUTPUT in str(found["fc.features_out"])
    assert (spaces.untraced, spaces.boxes) == (None, {})
    assert [spaces.width(spaces.roles["a"][role]) for role in ("channels", "filters")] == [8, 8]


def test_a_reason_goes_through_what_lets_it_pass() -> None:
    model = graph(lambda s, x: head(s, s.a(s.bn3(s.act(F.relu(x))))), act=nn.Tanh(),
                  bn3=nn.BatchNorm2d(3), a=conv(3, 8))  # fmt: skip
    assert pins(channel_spaces(model))["a.channels"] == INPUT


def test_additions_tie() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = s.stem(x)
        y = F.relu(y + s.b(s.bn(s.a(y)).relu()))
        return head(s, s.d(y) + s.c(y))

    spaces = channel_spaces(graph(run, d=conv(8, taps=1)))
    assert shared(spaces) == sets(
        "stem.channels",
        "stem.filters a.channels b.filters c.channels d.channels",
        "a.filters bn.each b.channels",
        "c.filters d.filters fc.features_in",
        "fc.features_out",
    )
    assert [name for name, why in pins(spaces).items() if why] == [
        "stem.channels",
        "fc.features_out",
    ]


def test_a_concatenation_lays_side_by_side() -> None:
    spaces = channel_spaces(CONCATENATED["dense block"].make())
    assert shared(spaces) == sets(
        "stem.channels",
        "stem.filters l1.channels l2.channels[0] n.each[0] w.channels[0]",
        "l1.filters l2.channels[1] n.each[1] w.channels[1]",
        "l2.filters n.each[2] w.channels[2]",
        "w.filters fc.features_in",
        "fc.features_out",
    )
    assert [spaces.size(number) for number in spaces.roles["w"]["channels"]] == [8, 8, 8]


def test_flatten_repeats_each_channel_for_its_pixels() -> None:
    model = graph(
        lambda s, x: s.g(s.n(F.adaptive_avg_pool2d(s.a(s.stem(x)), 2).flatten(1)).relu()),
        n=nn.BatchNorm1d(32), g=nn.Linear(32, 5),
    )  # fmt: skip
    spaces = channel_spaces(model)
    assert frozenset(["a.filters", "n.each", "g.features_in"]) in shared(spaces)
    assert (spaces.repeats["n"], spaces.repeats["g"]) == (4, 4)
    assert not pins(spaces)["a.filters"]


def test_depthwise_norms_and_gates_share() -> None:
    def run(s: Any, y: Tensor) -> Tensor:
        y = s.gn(s.dw(y)) * s.e(s.d(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return s.p(y) * s.one(y)

    parts = {"dw": conv(8, groups=8), "gn": nn.GroupNorm(1, 8), "d": conv(8, 4, 1),
             "e": conv(4, 8, 1), "p": nn.PReLU(8), "one": conv(8, 1, 1)}  # fmt: skip
    spaces = channel_spaces(between(run, **parts))
    whole = "a.filters dw.each gn.each d.channels e.filters p.each one.channels b.channels"
    assert sets(whole, "d.filters e.channels", "one.filters") <= shared(spaces)
    assert not any(why for name, why in pins(spaces).items() if name.split(".")[0] in "dwenpob")


def test_a_layer_called_twice_ties_what_it_reads() -> None:
    spaces = channel_spaces(between(lambda s, y: s.bn(s.d(s.bn(y))), d=conv(8)))
    assert sets("a.filters d.channels d.filters b.channels bn.each") <= shared(spaces)


def test_both_modes_count() -> None:
    def run(s: Any, y: Tensor) -> Tensor:
        return s.d(y) if s.training else s.e(y)

    spaces = channel_spaces(between(run, d=conv(8), e=conv(8)))
    assert sets("a.filters d.channels e.channels") <= shared(spaces)
    assert sets("b.channels d.filters e.filters") <= shared(spaces)


PINNED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "output": (lambda s, x: s.a(s.stem(x)), {}, OUTPUT),
    "mean of channels": (lambda s, x: head(s, s.a(s.stem(x)).mean(1, True)), {}, "mean"),
    "chunk": (lambda s, x: s.a(s.stem(x)).chunk(2, 1)[0], {}, "chunk"),
    "index": (lambda s, x: s.a(s.stem(x))[:, 2:], {}, "getitem"),
    "softmax": (lambda s, x: head(s, s.a(s.stem(x)).softmax(1)), {}, "softmax"),
    "einsum": (lambda s, x: torch.einsum("nchw->nhwc", s.a(s.stem(x))), {}, "einsum"),
    "GroupNorm": (lambda s, x: head(s, s.g(s.a(s.stem(x)))), {"g": nn.GroupNorm(4, 8)}, "GroupN"),
    "PixelShuffle": (lambda s, x: s.g(s.a(s.stem(x))), {"g": nn.PixelShuffle(2)}, "PixelShuffle"),
    "scale": (lambda s, x: head(s, s.a(s.stem(x)) * s.g), {"g": nn.Parameter(torch.ones(8, 1, 1))},
              "g is used"),
    "grouped": (lambda s, x: head(s, s.g(s.a(s.stem(x)))), {"g": conv(8, groups=2)}, "grouped"),
    "hooks": (lambda s, x: head(s, s.g(s.a(s.stem(x)))), {"g": nn.utils.spectral_norm(conv(8))},
              "hooks"),
    "four dimensions": (lambda s, x: s.g(s.a(s.stem(x))), {"g": nn.Linear(8, 5)}, "dimensions"),
    "of other parts": (
        lambda s, x: head(s, s.h(s.g(s.stem(x)) + torch.cat((s.a(s.stem(x)), s.b(s.stem(x))), 1))),
        {"g": conv(8, 16), "h": conv(16, 8)},
        "concatenated otherwise",
    ),
    "images": (lambda s, x: head(s, torch.cat((s.a(s.stem(x)), s.stem(x)))), {}, "dimension 0"),
    "added input": (lambda s, x: head(s, s.a(s.stem(x)) + x.mean(1, True)), {}, INPUT),
}  # fmt: skip


@pytest.mark.parametrize("name", PINNED)
def test_what_is_pinned_and_why(name: str) -> None:
    run, parts, reason = PINNED[name]
    model = graph(run, **parts)
    assert reason in str(pins(channel_spaces(model))["a.filters"])
    if name not in ("output", "chunk", "index", "einsum", "PixelShuffle", "four dimensions"):
        _, report = absorbed(sparse(graph(run, **parts), keep_dense=("stem",)))
        assert report.standalone["a"].startswith("filters: ")
        assert reason in report.standalone["a"]


def test_the_model_is_neither_run_nor_changed() -> None:
    model = randomised(between(lambda s, y: s.bn(y)))
    model.bn.eval()
    before = state(model), torch.get_rng_state()
    channel_spaces(model)
    assert state(model) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_one_layer_and_what_cannot_be_traced() -> None:
    for layer in (conv(8), nn.Linear(3, 2)):
        assert "single layer" in str(channel_spaces(layer).untraced)
    spaces = channel_spaces(between(lambda s, y: y if y.sum() > 0 else -y))
    assert spaces.untraced is not None
    assert "Graph" in spaces.untraced
    assert "control flow" in spaces.untraced
    assert spaces.roles == {}


def test_a_box_is_named_and_pins_what_it_touches() -> None:
    box = Graph(lambda s, y: y if y.sum() > 0 else s.d(y), d=conv(8))
    spaces = channel_spaces(between(lambda s, y: s.m(y), m=box))
    assert list(spaces.boxes) == ["m"]
    assert spaces.boxes["m"].startswith("TraceError: ")
    found = pins(spaces)
    assert "m" in str(found["a.filters"])
    assert "m" in str(found["b.channels"])
    assert not found["b.filters"]
    assert "m.d" not in spaces.roles


# regrouping together -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["shuffled", "sorted", "hrbp2", "hrbp2_pp"])
def test_layers_that_share_a_space_share_its_partition(method: str) -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = s.a(s.stem(x))
        y = torch.cat((y + s.b(s.bn(y)), s.c(y)), 1)
        return head(s, s.w(y))

    model = randomised(graph(run, w=conv(16, 8)))
    _, report = convert(model, 0.5, block=4, method=method)
    tables = {n: (p.pattern.filters, p.pattern.channels) for n, p in report.layers.items()}
    rows = {n: tuple({frozenset(r) for r in t.tolist()} for t in two) for n, two in tables.items()}
    space = rows["a"][0]
    assert space == rows["b"][0] == rows["b"][1] == rows["c"][1]
    assert rows["w"][1] == space | {frozenset(i + 8 for i in group) for group in rows["c"][0]}
    assert report.untraced is None
    alone = convert(model, 0.5, block=4, method=method, joint=False)[1]
    assert alone.untraced is not None
    for name in report.layers:
        assert report.layers[name].density == alone.layers[name].density


def test_the_reason_is_true_where_blocks_differ() -> None:
    # filters are grouped by 4, what reads them by 2: the larger side cannot serve both
    densities = {"a": 1 - 1e-9, "b": 1 - 1e-9, "w": 0.5}
    network = sparse(CONCATENATED["two"].make(), block=(4, 2), densities=densities)
    _, report = absorbed(network)
    why = report.standalone["w"]  # parts of 8 channels, groups of 2
    assert why == "channels: other layers that see them are grouped otherwise"

"""calibrate: which way it chooses, by scripted clocks; what it times, and what it tells."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hrbp_core import calibrate, convert
from hrbp_core.trials import HostClock, Trial
from tests.calibration_samples import DENSE, SPARSE, ScriptedClock, image, layer, steady
from tests.conversion_samples import image as photo
from tests.conversion_samples import model as residual


class Two(nn.Module):
    """Two layers, one after the other."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.one, self.two = layer(**options), layer(**options)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).relu())


class Shared(nn.Module):
    """One layer on a large image, and three times on a small one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = layer()

    def forward(self, x: Tensor) -> Tensor:
        small = x[..., :4, :4]
        return self.one(x).sum() + sum(self.one(small * n).sum() for n in range(3))


def test_the_faster_way_is_chosen_layer_by_layer() -> None:
    model = Two()
    report = calibrate(model, image(), clock=steady(one=0.5, two=2.0))
    assert report.choices == {"one": DENSE, "two": SPARSE}
    assert (model.one.choice, model.two.choice) == (DENSE, SPARSE)
    assert (model.one._densely, model.two._densely) == (True, False)
    assert report.layers["one"].sparse_s == 1.0
    assert report.layers["one"].dense_s == 0.5
    assert report.layers["two"].ratio == 2.0
    again = calibrate(model, image(), clock=steady(one=2.0, two=0.5))
    assert again.choices == {"one": SPARSE, "two": DENSE}
    assert (model.one.choice, model.two.choice) == (SPARSE, DENSE)


@pytest.mark.parametrize(
    ("margin", "sparse_s", "choice"),
    [
        (0.25, 1.25, SPARSE),  # not by more than the margin
        (0.25, math.nextafter(1.25, 2), DENSE),
        (0.0, 1.0, SPARSE),
        (0.0, math.nextafter(1.0, 2), DENSE),
        (0.03, 1.02, SPARSE),
        (0.03, 1.04, DENSE),
    ],
)
def test_the_edge_of_the_margin(margin: float, sparse_s: float, choice: str) -> None:
    clock = ScriptedClock(lambda t: sparse_s if t.way == SPARSE else 1.0)
    assert calibrate(layer(), image(), margin=margin, clock=clock).choices == {"": choice}
    if margin == 0.03:
        assert calibrate(layer(), image(), clock=clock).choices == {"": choice}


@pytest.mark.parametrize("stalled", [SPARSE, DENSE, "both"])
@pytest.mark.parametrize("dense_s", [0.5, 2.0])
def test_stalls_choose_nothing(stalled: str, dense_s: float) -> None:
    taken: Counter[str] = Counter()

    def script(trial: Trial) -> float:
        taken[trial.way] += 1
        slow = stalled in (trial.way, "both") and taken[trial.way] % 5 in (0, 1)
        return (1.0 if trial.way == SPARSE else dense_s) * (100 if slow else 1)

    report = calibrate(layer(), image(), clock=ScriptedClock(script))
    assert report.choices == {"": DENSE if dense_s < 1 else SPARSE}
    assert report.layers[""].sparse_s == 1.0


def test_ways_take_turns_after_a_warm_up() -> None:
    clock = steady(**{"": 1.0})
    calibrate(layer(), image(), repeats=4, clock=clock)
    ways = [trial.way[0] for trial in clock.trials]
    assert "".join(ways) == "sss" + "ddd" + "sd" + "ds" + "sd" + "ds"


def test_short_calls_are_gathered_into_samples_that_a_clock_can_tell() -> None:
    counts: list[int] = []

    class Counting(ScriptedClock):
        def seconds(self, trial: Trial, calls: int) -> float:
            counts.append(calls)
            return super().seconds(trial, calls)

    for seconds, calls in ((1.0, 1), (0.5e-3, 4), (1e-9, 50)):
        counts.clear()
        clock = Counting(partial(lambda seconds, _: seconds, seconds))
        report = calibrate(layer(), image(), repeats=2, clock=clock)
        assert counts == [1] * 6 + [calls] * 4
        assert report.layers[""].sparse_s == pytest.approx(seconds)


def test_all_calls_of_a_layer_count_as_often_as_they_come() -> None:
    model = Shared()

    def script(trial: Trial) -> float:
        if trial.way == SPARSE:
            return 1.0
        return 3.0 if trial.call.shape[-1] == 6 else dense_s

    for dense_s, choice in ((0.5, SPARSE), (0.25, DENSE)):  # 4 s against 3 + 3 * dense_s
        report = calibrate(model, image(), clock=ScriptedClock(script))
        assert report.layers["one"].sparse_s == 4.0
        assert report.layers["one"].dense_s == 3 + 3 * dense_s
        assert report.layers["one"].choice == choice
        assert report.layers["one"].calls == {"float32 [2, 8, 6, 6]": 1, "float32 [2, 8, 4, 4]": 3}


@given(
    times=st.lists(
        st.tuples(st.floats(1e-3, 10), st.floats(1e-3, 10), st.integers(1, 3)),
        min_size=1,
        max_size=3,
    ),
    margin=st.floats(0, 1),
)
def test_the_choice_is_that_of_the_sums(times: list[Any], margin: float) -> None:
    made = layer()

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = made

        def forward(self, x: Tensor) -> Tensor:
            y = x
            for size, (*_, count) in enumerate(times, 1):
                for _ in range(count):
                    y = self.one(x[..., :size])
            return y

    def script(trial: Trial) -> float:
        return times[trial.call.shape[-1] - 1][trial.way == DENSE]

    report = calibrate(
        Several(), image(1, 4), repeats=1, margin=margin, clock=ScriptedClock(script)
    )
    sparse_s, dense_s = (sum(t[i] * t[2] for t in times) for i in (0, 1))
    found = report.layers["one"]
    assert (found.sparse_s, found.dense_s) == pytest.approx((sparse_s, dense_s))
    assert found.choice == made.choice
    assert (found.choice == DENSE) == (found.sparse_s > (1 + margin) * found.dense_s)


def shapes(result: Any) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in (result if isinstance(result, tuple) else (result,))]


X, V, B = (2, 8, 6, 6), tuple(layer().values.shape), (8,)
TIMED = [
    ({}, {"one": [V, B], "two": [X, V, B]}),
    ({"x": True}, {"one": [X, V, B], "two": [X, V, B]}),
    ({"bias": False}, {"one": [V], "two": [X, V]}),
    ({"frozen": "one"}, {"one": [X], "two": [V, B]}),  # a forward alone: y
    ({"frozen": "two"}, {"one": [V, B], "two": [X]}),
    ({"backward": False}, {"one": [X], "two": [X]}),
    ({"no_grad": True}, {"one": [X], "two": [X]}),
    ({"inference": True}, {"one": [X], "two": [X]}),
]


@pytest.mark.parametrize(("case", "expected"), TIMED)
def test_the_gradients_that_training_needs_are_timed(case: dict[str, Any], expected: Any) -> None:
    model = Two(bias=case.get("bias", True))
    if "frozen" in case:
        model.get_submodule(case["frozen"]).requires_grad_(False)
    x = image().requires_grad_(case.get("x", False))
    clock = steady(one=1.0, two=1.0)
    with torch.inference_mode("inference" in case), torch.set_grad_enabled("no_grad" not in case):
        report = calibrate(model, x, backward=case.get("backward", True), clock=clock)
    for (name, _), result in clock.results.items():
        assert shapes(result) == expected[name], name
    assert len(clock.results) == 4
    assert report.backward == case.get("backward", True)
    assert x.grad is None


def test_both_ways_are_run_on_the_same_tensors() -> None:
    clock = steady(one=1.0, two=1.0)
    calibrate(Two(), image(), repeats=1, clock=clock)
    for name in ("one", "two"):
        for ours, theirs in zip(*(clock.results[name, w] for w in (SPARSE, DENSE)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            assert ours.any()
    for trial in clock.trials:
        with torch.profiler.profile() as seen:
            trial.run()
        assert any("hrbp::" in e.key for e in seen.key_averages()) == (trial.way == SPARSE)


def test_calls_that_are_told_alike_are_told_together() -> None:
    class Layouts(Two):
        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.one(x.contiguous(memory_format=torch.channels_last))

    report = calibrate(Layouts(), image(), clock=steady(one=0.5))
    assert report.layers["one"].calls == {"float32 [2, 8, 6, 6]": 2}
    assert report.layers["one"].dense_s == 1.0


@pytest.mark.parametrize("inside", [False, True])
def test_autocast_layout_and_dtype_are_those_of_the_call(inside: bool) -> None:
    class Mixed(Two):
        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x.contiguous(memory_format=torch.channels_last))
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                return self.two(y.float().contiguous())

    model, clock = Mixed(), steady(one=1.0, two=1.0)
    with torch.autocast("cpu", torch.float16, enabled=not inside):
        report = calibrate(model, image(), backward=False, clock=clock)
    calls = {t.name: t.call for t in clock.trials}
    assert (calls["one"].channels_last, calls["two"].channels_last) == (True, False)
    dtypes = (None, torch.bfloat16) if inside else (torch.float16, None)
    assert (calls["one"].autocast, calls["two"].autocast) == dtypes
    for (name, _), y in clock.results.items():
        assert y.dtype == (calls[name].autocast or torch.float32)
    assert f"autocast {'bfloat16' if inside else 'float16'}" in str(report.to_dict())
    assert not torch.is_autocast_enabled("cpu")


def test_layers_of_other_policies_and_layers_that_are_not_called_stay() -> None:
    model = Two()
    model.two.policy = DENSE
    model.add_module("silent", layer())
    model.add_module("decided", layer())
    model.get_submodule("decided").choose(DENSE)  # type: ignore[operator]
    clock = steady(one=0.5)
    report = calibrate(model, image(), clock=clock)
    assert {trial.name for trial in clock.trials} == {"one"}
    assert report.not_called == ("silent", "decided")
    choices = [m.choice for m in (model.two, *list(model.children())[2:])]
    assert choices == ["undecided", "undecided", DENSE]
    told = str(report)
    assert "0 layers run sparsely, 1 densely (forward + backward; " in told
    assert "one      sparse 1000.000 ms, dense 500.000 ms (0.50x): dense" in told
    assert "silent   not called: its choice stays" in told
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["layers"][0]["choice"] == DENSE
    assert facts["not_called"] == ["silent", "decided"]


def test_a_model_without_such_layers_is_told_and_not_run() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), layer("sparse"))
    report = calibrate(model, "nothing that a convolution takes")
    assert (dict(report.layers), report.not_called) == ({}, ())
    assert str(report) == 'nothing to calibrate: no layer of policy "auto"'


def test_real_times_lead_to_the_choice_that_is_told() -> None:
    model = convert(residual(), 0.25, block=4, policy="auto")[0]
    report = calibrate(model, photo(), repeats=3, margin=0.1)
    assert report.choices.keys() == {"conv1", "conv2"}
    for name, found in report.layers.items():
        assert 0 < found.sparse_s < 10
        assert (found.choice == DENSE) == (found.sparse_s > 1.1 * found.dense_s)
        assert model.get_submodule(name).choice == found.choice


def test_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    trial: Any = Trial("", SPARSE, None, lambda: runs.append(1))  # type: ignore[arg-type]
    moments = iter([1.0, 3.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    assert HostClock().seconds(trial, 5) == 2.5
    assert len(runs) == 5

"""calibrate leaves the model as it was, whatever that does, and refuses what it cannot do."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hrbp_core import calibrate
from tests.calibration_samples import (
    DENSE,
    Restless,
    ScriptedClock,
    everything,
    image,
    layer,
    steady,
)


def restless() -> Any:
    torch.manual_seed(0)
    model = Restless()
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    return model


def test_the_sample_is_restless() -> None:
    """What follows shows something: a plain forward changes all of this."""
    model = restless()
    before = everything(model)
    model(image())
    after = everything(model)
    changed = {name for name in after if after[name] != before.get(name)}
    for name in (
        *("python", "numpy", "torch", "norm training", ".count", ".signed", ".replaced", ".new"),
        *(".scale", ".scale gradient", "one.values gradient", "norm.running_mean"),
        "norm.num_batches_tracked",
    ):
        assert name in changed, name


@pytest.mark.parametrize("way", ["train", "eval"])
@pytest.mark.parametrize("clock", [None, steady(one=0.5, two=2.0)], ids=["real", "scripted"])
def test_everything_is_as_it_was(way: str, clock: Any) -> None:
    model = restless().train(way == "train")
    model.two.register_forward_pre_hook(lambda module, args: None)
    before = everything(model)
    version = model.untouched._version
    report = calibrate(model, image(), repeats=2, clock=clock)
    assert len(report.layers) == 2
    assert everything(model) == before
    assert model.untouched._version == version  # a graph that holds it can still be walked


@pytest.mark.parametrize("where", ["forward", "clock"])
def test_after_an_error_too_and_nothing_is_chosen(where: str) -> None:
    model = restless()
    before = everything(model)

    def fail(*args: Any) -> float:
        raise ArithmeticError("no")

    clock = ScriptedClock(fail) if where == "clock" else None
    if where == "forward":
        model.two.register_forward_hook(lambda *args: fail())
        before = everything(model)
    with pytest.raises(ArithmeticError, match="no"):
        calibrate(model, image(), clock=clock)
    assert everything(model) == before
    assert (model.one.choice, model.two.choice) == ("undecided",) * 2


def test_timing_runs_no_hooks_of_the_layers_parameters() -> None:
    model = layer()
    seen: list[str] = []
    model.values.register_hook(lambda gradient: seen.append("gradient"))
    model.register_full_backward_hook(lambda *args: seen.append("backward"))
    model.register_forward_hook(lambda *args: seen.append("forward"))
    calibrate(model, image(), clock=steady(**{"": 0.5}))
    assert seen == ["forward"]  # that of the look at the model


def test_choices_change_and_training_goes_on() -> None:
    model = nn.Sequential(layer(), nn.BatchNorm2d(8), layer())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, losses = image(), []
    for number in range(10):
        if number == 5:
            calibrate(model, x, clock=steady(**{"0": 0.5, "2": 0.5}))
            assert [model[n].choice for n in (0, 2)] == [DENSE] * 2
        loss = (model(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_between_a_forward_and_its_backward() -> None:
    model = restless().two
    y = model(image())
    calibrate(model, image(), clock=steady(**{"": 0.5}))
    y.sum().backward()


@pytest.mark.parametrize("policy", ["auto", "sparse"])
def test_a_stride_set_before_is_found_by_the_next_forward(policy: str) -> None:
    model = nn.Sequential(layer(policy), layer())
    model(image())
    for each in model:
        each.stride = (2, 2)  # type: ignore[assignment]
    first, second = (each.to_dense() for each in model)  # type: ignore[operator]
    expected = second(first(image()))
    report = calibrate(model, image(), clock=steady(**{"0": 2.0, "1": 2.0}))
    assert report.layers["1"].calls == {"float32 [2, 8, 3, 3]": 1}
    fresh = layer(stride=2)
    assert not torch.equal(fresh.tables, layer().tables)  # those that a GPU reads
    model(image())
    for each in model:
        assert torch.equal(each.tables, fresh.tables)  # type: ignore[arg-type]
    torch.testing.assert_close(model(image()), expected, rtol=1e-4, atol=1e-4)


def test_a_layer_with_its_own_padding_frozen_and_odd() -> None:
    model = layer(padding_mode="reflect", dilation=2, stride=(2, 1)).double()
    model.values.requires_grad_(False)
    results = steady(**{"": 0.5})
    calibrate(model, image().double(), clock=results)
    for _, gradients in results.results.items():
        assert [tuple(g.shape) for g in gradients] == [(8,)]
    y = steady(**{"": 0.5})
    calibrate(model, image().double(), backward=False, clock=y)
    expected = model.to_dense()(next(iter(y.trials)).call.random())
    for way in ("sparse", DENSE):
        torch.testing.assert_close(y.results["", way], expected)


@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_ways_are_timed_in_the_modes_that_the_model_sets(inside: Any) -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = layer()

        def forward(self, x: Tensor) -> Tensor:
            with inside():
                return self.one(x)

    class Noting(ScriptedClock):
        def seconds(self, trial: Any, calls: int) -> float:
            seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            return super().seconds(trial, calls)

    seen: set[tuple[bool, bool]] = set()
    with torch.set_grad_enabled(inside is not torch.enable_grad):
        calibrate(Inner(), image(), clock=Noting(lambda _: 1.0))
        assert torch.is_grad_enabled() == (inside is not torch.enable_grad)
    assert seen == {(inside is torch.enable_grad, inside is torch.inference_mode)}


@pytest.mark.parametrize("form", ["tensor", "tuple", "list", "dict", "by keyword"])
def test_inputs_of_every_form(form: str) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = layer()

        def forward(self, x: Tensor, shift: float = 0.0) -> Tensor:
            return self.one(x=x + shift) if form == "by keyword" else self.one(x + shift)

    x: Any = {"tuple": (image(), 2.0), "list": [image(), 2.0], "dict": {"shift": 1.0, "x": image()}}
    report = calibrate(Sum(), x.get(form, image()), clock=steady(one=0.5))
    assert report.layers["one"].calls == {"float32 [2, 8, 6, 6]": 1}


# what is refused -----------------------------------------------------------------------------


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.last = layer(), nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.one(x).mean((2, 3)))


def stuck(seconds: float) -> ScriptedClock:
    return ScriptedClock(lambda _: seconds)


REFUSED: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (None, image(), {}, TypeError, "expected model as a torch.nn.Module, got NoneType"),
    (layer(), image(), {"repeats": 0}, ValueError, "expected repeats >= 1, got 0"),
    (layer(), image(), {"margin": -0.1}, ValueError, "expected margin as a number >= 0, got -0.1"),
    (layer(), image(), {"margin": float("nan")}, ValueError, "expected margin .*, got nan"),
    (layer(), image(), {"margin": float("inf")}, ValueError, "expected margin .*, got inf"),
    (layer(), image().to("meta"), {}, ValueError, "expected x on the model's device cpu, got meta"),
    (layer(), {"x": image().to("meta")}, {}, ValueError, "model's device cpu, got meta"),
    (layer().to("meta"), image(), {}, ValueError, "expected parameters with memory, got values on"),
    (
        Lazy(),
        image(),
        {},
        ValueError,
        "expected parameters that have a shape, got a lazy one: last",
    ),
    (layer(), image()[:, :7], {}, ValueError, r"expected x \[N, 8, H, W\], got \[2, 7, 6, 6\]"),
    *(
        (layer(), image(), {"clock": stuck(seconds)}, ValueError, f"above 0, got {seconds}")
        for seconds in (0.0, -1.0, float("nan"), float("inf"))
    ),
]


@pytest.mark.parametrize(("model", "x", "options", "error", "message"), REFUSED)
def test_what_is_refused(model: Any, x: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        calibrate(model, x, **options)


def compiled(where: str) -> Any:
    inner: Any = torch.compile(layer(), backend="eager")
    if where == "":
        return inner
    model: Any = nn.Sequential(inner if where == "0" else layer())
    if where == "0 in place":
        model[0].compile(backend="eager")
    return model


@pytest.mark.parametrize("where", ["", "0", "0 in place"])
def test_a_compiled_model_is_refused(where: str) -> None:
    got = f"{where[:1]}, which is compiled" if where else "one that is compiled"
    with pytest.raises(RuntimeError, match=f"expected a model before torch.compile, got {got}"):
        calibrate(compiled(where), image())


def test_inside_a_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(x: Tensor) -> Tensor:
        calibrate(model, x)
        return model(x)

    model = layer()
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"(?s)expected calibrate before anything|RuntimeError"):
        torch.compile(step, backend="eager", fullgraph=True)(image())
    torch._dynamo.reset()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(RuntimeError, match=r"before anything is recorded, got it inside torch\.c"):
        calibrate(model, image())
    assert model.choice == "undecided"


def test_inside_the_capture_of_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="got it inside the capture of a CUDA graph"):
        calibrate(layer(), image())


def test_dice_fall_as_if_nothing_had_been() -> None:
    model, found = restless(), []
    for calibrated in (False, True):
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        if calibrated:
            calibrate(model, image(), clock=steady(one=0.5, two=0.5))
        found.append((torch.rand(3).tolist(), random.random(), np.random.random()))
    assert found[0] == found[1]

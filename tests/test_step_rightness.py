"""A sparse step is held against its masked dense twin's: planted mistakes are caught."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.stepping import rightness
from bench.stepping.rightness import Wrong, check
from bench.stepping.stepper import Stepper
from hrbp_core import absorb, convert
from hrbp_core.kernels import cpu


class Net(nn.Module):
    """[N, 3, 8, 8] -> logits [N, 4]; the two convolutions in the middle can be sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.one = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.two = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.one(self.stem(x))).relu()
        return self.head(self.two(y).relu().mean((2, 3)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def sparse() -> nn.Module:
    torch.manual_seed(0)
    network, _ = convert(Net(), {"one": 0.5, "two": 0.5}, block=16)
    return absorb(network)[0]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, 3, 8, 8), torch.randint(4, (4,))


def test_a_right_step_passes_and_the_network_stays_as_it_is(sparse, batch) -> None:
    before = {k: v.clone() for k, v in sparse.state_dict().items()}
    errors = check(sparse, batch, "eager", amp=False)
    assert set(errors) == {"loss", "update", "weights"}
    assert errors["update"] < 1e-4
    assert errors["weights"] < 1e-6
    after = sparse.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_in_bfloat16_the_step_is_about_as_far_off_as_the_twins(sparse, batch) -> None:
    errors = check(sparse, batch, "eager", amp=True)
    assert 0 < errors["amp_update"] < 2.5 * errors["amp_twin_update"] + 0.01
    assert errors["update"] < 1e-4  # float32 is checked beside


@pytest.mark.parametrize("name", ["fprop", "dgrad", "wgrad"])
def test_a_pass_that_is_half_a_percent_off_is_wrong(name, sparse, batch, monkeypatch) -> None:
    real = getattr(cpu, name)
    monkeypatch.setattr(cpu, name, lambda *a, **k: real(*a, **k) * 1.005)
    with pytest.raises(Wrong, match=r"off by|its loss is"):
        check(sparse, batch, "eager", amp=False)


def test_a_step_that_is_not_finite_is_wrong(sparse, batch, monkeypatch) -> None:
    real = cpu.wgrad
    monkeypatch.setattr(cpu, "wgrad", lambda *a, **k: real(*a, **k) * float("nan"))
    with pytest.raises(Wrong, match="off by nan"):
        check(sparse, batch, "eager", amp=False)


def test_an_optimizer_that_does_not_follow_its_gradients_is_wrong(
    sparse, batch, monkeypatch
) -> None:
    class Slipping(Stepper):
        def __call__(self) -> Tensor:
            loss = super().__call__()
            with torch.no_grad():
                next(self.network.parameters()).mul_(1.001)
            return loss

    monkeypatch.setattr(rightness, "Stepper", Slipping)
    with pytest.raises(Wrong, match="the optimizer moved weights"):
        check(sparse, batch, "eager", amp=False)


def test_what_the_network_makes_of_rounding_is_allowed_and_no_more(
    sparse, batch, monkeypatch
) -> None:
    """With bounds below rounding, both are held against float64; a mistake still shows."""
    for name in ("UPDATE", "FLOOR"):
        monkeypatch.setattr(rightness, name, 1e-9)
    errors = check(sparse, batch, "eager", amp=False)
    assert 0 < errors["update"] < 5 * errors["twin_update"]
    real = cpu.dgrad
    monkeypatch.setattr(cpu, "dgrad", lambda *a, **k: real(*a, **k) * 1.001)
    with pytest.raises(Wrong, match="off by"):
        check(sparse, batch, "eager", amp=False)


def test_a_prepared_step_starts_from_the_first_weights_again(sparse, batch, monkeypatch) -> None:
    """A compiled or captured step has stepped before it is checked."""

    class Prepared(Stepper):
        def prepare(self) -> None:
            for _ in range(3):
                self._once()

    monkeypatch.setattr(rightness, "Stepper", Prepared)
    monkeypatch.setattr(torch, "compile", lambda network: network)
    assert check(sparse, batch, "compile", amp=False)["update"] < 1e-4
    monkeypatch.setattr(Prepared, "forget", lambda self: None)
    with pytest.raises(Wrong):
        check(sparse, batch, "compile", amp=False)


@pytest.mark.parametrize("off", [0, 1, 3, 4])
def test_an_error_counts_when_it_is_there_on_every_batch(
    off: int, sparse, batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activation within rounding of 0 spoils one batch, not four."""
    images: list[Tensor] = []
    stepped, exact = rightness._stepped, rightness._exact

    def seen(
        network: nn.Module, batch: rightness.Batch, mode: str, amp: bool
    ) -> rightness._Stepped:
        images.append(batch[0])
        return stepped(network, batch, mode, amp)

    def judged(*steps: Any) -> dict[str, float]:
        if len(images) <= off:
            raise Wrong(f"batch {len(images)}")
        return exact(*steps)

    monkeypatch.setattr(rightness, "_stepped", seen)
    monkeypatch.setattr(rightness, "_exact", judged)
    if off < 4:
        assert check(sparse, batch, "eager", False)["update"] < 1e-3
        assert len(images) == off + 1
    else:
        with pytest.raises(Wrong, match="batch 1"):
            check(sparse, batch, "eager", False)
    assert torch.equal(images[0], batch[0])
    assert all(not torch.equal(a, b) for a, b in pairwise(images))

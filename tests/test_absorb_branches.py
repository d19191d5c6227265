"""absorb and branches that one trace does not show: by dice, kind, mode, state or argument."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.network_checks import (
    absorbed,
    assert_same,
    assert_same_in_both_modes,
    image,
    one_thread,
    sparse,
)
from tests.network_samples import conv, graph, head
from tests.test_absorb_tracing import Two, chain


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


# dice ------------------------------------------------------------------------------------------

DICE: dict[str, Callable[[], float]] = {
    "torch": lambda: torch.rand(()).item(),
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),
}


def throw(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


class Turns(Two):
    """Takes c or d, as the dice say."""

    def __init__(self, dice: Callable[[], float]) -> None:
        super().__init__()
        self.dice = dice

    def forward(self, x: Tensor) -> Tensor:
        return self.c(x) if self.training and self.dice() < 0.5 else self.d(x)


class Flips(nn.Module):
    """Turns the channels around where ``question`` says so; it has no weights."""

    def __init__(self, question: Callable[[Any], Any]) -> None:
        super().__init__()
        self.question = question

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) if self.question(x) else x


@pytest.mark.parametrize("name", DICE)
def test_branches_at_random(name: str) -> None:
    network = sparse(chain(Turns(DICE[name])), joint=False)
    for absorbing in (0, 1):
        throw(absorbing)
        copied, _ = absorbed(network)
        for seed in range(3):
            results = []
            for each in (network, copied):
                throw(seed)
                results.append(each.train()(image()).detach())
            torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", DICE)
def test_absorb_draws_nothing(name: str) -> None:
    network = sparse(chain(Turns(DICE[name])), joint=False)
    throw(0)
    expected = [dice() for dice in DICE.values()]
    throw(0)
    absorbed(network)
    assert [dice() for dice in DICE.values()] == expected


# arguments -------------------------------------------------------------------------------------


class Optional(Two):
    """Conditioned, or else led through another layer."""

    stem: Any
    a: Any
    b: Any

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.fc = conv(3, 8), conv(8), conv(8), nn.Linear(8, 5)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Any:
        y = self.a(self.stem(x))
        y = self.c(y) if z is None else self.d(y + z)
        return head(self, self.b(y.relu()))


class Target(Optional):
    """Features without a target, a loss with one."""

    def __init__(self) -> None:
        super().__init__()
        del self.d

    def forward(self, x: Tensor, z: Tensor | None = None) -> Any:
        y = self.b(self.a(self.stem(x)).relu())
        if z is None:
            return y
        return (head(self, self.c(y)) - z.mean((2, 3))[:, :5]).square()


@pytest.mark.parametrize("kind", [Optional, Target])
def test_an_optional_input(kind: type[nn.Module]) -> None:
    network = sparse(kind())
    copied, report = absorbed(network)
    assert report.untraced is None
    assert_same_in_both_modes(network, copied, (image(), image(2, 8, 8, 8)))
    assert_same_in_both_modes(network, copied, (image(),))


class Keywords(Two):
    """Takes keywords alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.fc = conv(3, 8), conv(8), conv(8), nn.Linear(8, 5)

    def forward(
        self, x: Tensor, *, flip: Any = None, deep: bool = False, scale: float = 2.0
    ) -> Any:
        y = self.a(self.stem(x))
        y = y if flip is None else y.flip(1)
        y = self.d(self.c(y)) if deep else y
        return head(self, self.b(y)) * scale


def test_keywords() -> None:
    network = sparse(Keywords())
    copied, report = absorbed(network)
    assert report.untraced is None
    for given in ({}, {"flip": 1}, {"deep": True}, {"flip": 1, "deep": True, "scale": 3.0}):
        assert_same(network, copied, (image(),), **given)


# questions about the input, the mode, the state --------------------------------------------------


class Kinds(Two):
    """One thing for a tensor, another for what is none."""

    def __init__(self, question: Callable[[Any], bool]) -> None:
        super().__init__()
        self.question = question

    def forward(self, x: Any) -> Tensor:
        return self.c(x) if self.question(x) else self.d(x[0])


QUESTIONS: dict[str, Callable[[Any], bool]] = {
    "isinstance": lambda x: isinstance(x, Tensor),
    "is_tensor": torch.is_tensor,
    "type": lambda x: type(x) is Tensor,
    "hasattr": lambda x: not hasattr(x, "tensors"),
    "getattr": lambda x: getattr(x, "mask", None) is None,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_about_the_kind_of_the_input(name: str) -> None:
    network = sparse(chain(Kinds(QUESTIONS[name])), joint=False)
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


def test_with_and_without_gradients() -> None:
    class Two_(Two):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(x) if torch.is_grad_enabled() else self.d(x)

    network = sparse(chain(Two_()), joint=False)
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)
    with torch.no_grad():
        torch.testing.assert_close(copied(image()), network(image()))


def test_a_question_whose_failure_is_caught() -> None:
    def positive(x: Tensor) -> bool:
        try:
            return bool(x[:, :, 0, 0].abs().sum() > 0)
        except Exception:
            return False

    network = sparse(chain(Flips(positive)), joint=False)
    copied, _ = absorbed(network)
    assert_same_in_both_modes(network, copied)


class ByMode(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(x) if self.training else self.d(x)


def test_a_submodule_in_eval_mode_while_the_model_trains() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = s.m(s.a(s.stem(x)))
        return head(s, s.b(y) if s.training else s.c(y))

    network = sparse(graph(run, m=ByMode()), joint=False).train()
    network.m.eval()
    copied, _ = absorbed(network)
    assert_same(network, copied, (image(),))
    assert_same_in_both_modes(network, copied)

"""absorb on random networks: the same function in both modes, whatever is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network_checks import absorbed, assert_same_in_both_modes, image, one_thread, sparse
from tests.network_samples import conv

Make = Callable[[int], nn.Module]
MODULES: dict[str, Make] = {
    "conv": lambda c: conv(c, 8),
    "conv to 4": lambda c: conv(c, 4, bias=False),
    "conv to 6": lambda c: conv(c, 6, 1),
    "norm": nn.BatchNorm2d,
    "relu": lambda c: nn.ReLU(),
    "prelu": lambda c: nn.PReLU(c),
    "depthwise": lambda c: conv(c, groups=c),
    "pool": lambda c: nn.MaxPool2d(3, 1, 1),
    "group norm": lambda c: nn.GroupNorm(1, c),
    "two group norm": lambda c: nn.GroupNorm(2, c),
    "gate": lambda c: conv(c, 1, 1),
    "excitation": lambda c: conv(c, c, 1),
    "shuffle": lambda c: nn.ChannelShuffle(2),
}
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "swap": lambda x: torch.cat((x.narrow(1, 2, x.shape[1] - 2), x[:, :2]), 1),
    "softmax": lambda x: x.softmax(1),
    "scale": lambda x: 0.5 * x + 1,
    "spread": lambda x: x - x.mean((2, 3), keepdim=True),
    "one": lambda x: x * x.mean(1, keepdim=True),
    "pad": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1),
}
PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "multiply": lambda x, y: x * y.sigmoid(),
    "larger": torch.maximum,
}
SMOOTH = [*MODULES, "conv", "conv", "conv", "norm", "relu"]
KINDS = [*SMOOTH, *SMOOTH, *PLAIN, *PAIRS, *PAIRS, "concatenate", "concatenate", "again", "by mode"]
Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 30), st.integers(0, 30)),
    min_size=3,
    max_size=9,
)


class Drawn(nn.Module):
    """A network from a list of steps: each takes one or two of the tensors made before."""

    def __init__(self, steps: list[Step], outputs: int) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.parts = nn.ModuleList()
        self.outputs = outputs
        widths = [8]
        self.program: list[tuple[str, int, int, int, int]] = []
        for kind, one, other in steps:
            one, other = len(widths) - 1 - one % min(3, len(widths)), other % len(widths)
            width = self._add(kind, one, other, widths)
            if width is not None:
                widths.append(width)
        self.last = conv(widths[-1], 8)
        self.fc = nn.Linear(32, 5)

    def _add(self, kind: str, one: int, other: int, widths: list[int]) -> int | None:
        """Note a step that is possible; return how many channels it makes."""
        width = widths[one]
        if kind == "again":  # a module that is there already, for a second tensor
            fits = [(k, n, w, m) for k, _, n, w, m in self.program if k in MODULES and w == width]
            if not fits:
                return None
            kind, number, _, made = fits[other % len(fits)]
            self.program.append((kind, one, number, width, made))
            return made
        if kind in PAIRS or kind == "by mode":
            if widths[other] != width:
                return None
        elif kind == "concatenate":
            if width + widths[other] > 20:
                return None
            self.program.append((kind, one, other, width, width + widths[other]))
            return width + widths[other]
        made = int(kind[-1]) if "to" in kind else 8 if kind == "conv" else width
        if kind in MODULES:
            self.parts.append(MODULES[kind](width))
            other = len(self.parts) - 1
        self.program.append((kind, one, other, width, made))
        return made

    def forward(self, x: Tensor) -> Any:
        made = [self.stem(x)]
        for kind, one, other, _, _ in self.program:
            made.append(self._step(kind, made[one], other, made))
        y = F.adaptive_avg_pool2d(self.last(made[-1]), 2).flatten(1)
        return self.fc(y) if not self.outputs else (self.fc(y), made[-self.outputs :])

    def _step(self, kind: str, x: Tensor, other: int, made: list[Tensor]) -> Tensor:
        if kind in MODULES:
            y = self.parts[other](x)
            if kind == "gate":
                return x * y.sigmoid()
            return x * y.mean((2, 3), keepdim=True).sigmoid() if kind == "excitation" else y
        if kind in PLAIN:
            return PLAIN[kind](x)
        if kind in PAIRS:
            return PAIRS[kind](x, made[other])
        if kind == "concatenate":
            return torch.cat((made[other], x), 1)
        return x if self.training else made[other] + x


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def densities(model: nn.Module) -> dict[str, float]:
    """Return which convolutions blocks of 2 x 2 or 4 x 4 can replace."""
    wide = {
        n: m
        for n, m in model.named_modules()
        if isinstance(m, nn.Conv2d) and m.groups == 1 and min(m.weight.shape[:2]) >= 4
    }
    return {name: 0.7 if number % 4 else 0.6 for number, name in enumerate(wide)}


SETTINGS = settings(max_examples=25)


@SETTINGS
@given(STEPS, st.integers(0, 2), st.booleans(), st.sampled_from([4, 2, (4, 2), 3]))
def test_random_networks(steps: list[Step], outputs: int, joint: bool, block: Any) -> None:
    model = Drawn(steps, outputs)
    network = sparse(model, densities=densities(model), joint=joint, block=block, coverage=False)
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied, (image(2, 3, 5, 6),))
    assert report.untraced is None
    again, second = absorbed(copied)
    assert second.canonical == report.canonical
    expected = copied.state_dict()
    assert all(torch.equal(expected[name], held) for name, held in again.state_dict().items())

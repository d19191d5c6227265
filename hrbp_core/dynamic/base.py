"""``DynamicSparsity``: what all methods share, beside an ordinary optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hrbp_core.dynamic import saved
from hrbp_core.dynamic.agreement import Ranks
from hrbp_core.dynamic.choose import BALANCES, Choice, Rules
from hrbp_core.dynamic.deciding import (
    FROZEN,
    Mine,
    array,
    decide,
    patterns_hash,
    rules_of,
    together,
)
from hrbp_core.dynamic.moving import companions
from hrbp_core.dynamic.outcome import Explored, LayerUpdate, Update
from hrbp_core.dynamic.request import follower_sites, found_sites, schedule_of, trained
from hrbp_core.dynamic.schedule import Schedule
from hrbp_core.dynamic.sites import Site, block_sites
from hrbp_core.dynamic.watching import Watch

Sites = Mapping[str, Site]


class DynamicSparsity:
    """What the methods share; one of them is ``growth_scores``.

    Call ``step()`` after every ``optimizer.step()`` (and ``scaler.update()``). On update steps
    each layer drops ``fraction`` of its units, those of the smallest sum of |weight|, and grows
    as many, of the greatest growth score; one that was just dropped may return, and then was
    never away. Weights that stay do so bit for bit, with their gradients and optimizer state;
    grown ones start at 0, and so do their gradients and state. Every tensor stays in place:
    parameters, state, and the tables of a layer, as long as their shapes stay. (These do, but
    for one: ``tables`` grows when entries, by chance, fill every block they are in.)

    A group that has a unit never loses its last one. An update is postponed to the next step
    when the optimizer did not step (an overflow under GradScaler) or a score is not finite.
    Scaled gradients need no unscaling: one factor changes no order within a layer.

    Where processes train together, gradients are summed over them, and the first one's decision
    is taken by all; their seeds do not matter. Each has to call ``step()``.

    Run steps for which ``due`` is True by the model itself: Python hooks see nothing of a
    compiled forward or a replayed CUDA graph. Patterns change in place, so that both go on
    with the new one: ``(model if dst.due else compiled)(x)``.

    Attributes:
        last: the last Update, postponed ones included; None before. ``print`` it.
        updates, postponed: how many there were.
        steps: how often ``step`` was called.

    Args:
        model: after ``convert`` and ``absorb``; a wrapper of it will do.
        optimizer: over the model's parameters.
        drop, every, until: see ``CosineDrop``. schedule: in their place.
        balance: "keep": a side whose groups are equally full (as ``regroup`` balances) stays so;
            "none"; "filters" or "both": an error unless they are so at the start.
        seed: of random growth.
        group: the processes that train together; None: all.
        sites: what moves, by name, or a function that finds it in a model; ``block_sites``.

    Raises:
        TypeError, ValueError: an argument out of range; nothing that could move; weights that the
            optimizer does not have.
    """

    DROP: ClassVar[float] = 0.3
    EVERY: ClassVar[int] = 100
    uses_gradients = False

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        drop: float | None = None,
        every: int | None = None,
        until: int | None = None,
        schedule: Schedule | None = None,
        balance: str = "keep",
        seed: int = 0,
        group: dist.ProcessGroup | None = None,
        sites: Sites | Callable[[nn.Module], Sites] = block_sites,
    ) -> None:
        self.schedule = schedule_of(schedule, until, drop=drop, every=every, defaults=type(self))
        if balance not in BALANCES:
            raise ValueError(f"expected balance as one of {', '.join(BALANCES)}, got {balance!r}")
        self._sites = found_sites(model, sites)
        self._find = sites if callable(sites) else None
        self._optimizer = trained(optimizer, self._sites)
        self._rules = {n: rules_of(site, balance, n) for n, site in self._sites.items()}
        self._explored = {name: array(site.kept).copy() for name, site in self._sites.items()}
        device = next(iter(self._sites.values())).parameter.device
        self._ranks = Ranks(group, device)
        self._generator = torch.Generator().manual_seed(seed)
        self._followers: list[Sites] = []
        self._watch = Watch()
        self._stepped = False
        self.steps = self.updates = self.postponed = 0
        self.last: Update | None = None
        optimizer.register_step_post_hook(self._saw_step)
        self._get_ready(self.schedule.due(1))

    def growth_scores(self, site: Site, gradient: Tensor | None) -> Tensor:
        """Return float [Gk, Gc, T] >= 0, the greater the sooner a unit grows.

        Args:
            gradient: [K, C, R, S] of the dense weight, summed over the step, where
                ``uses_gradients``; else None.
        """
        raise NotImplementedError

    @property
    def due(self) -> bool:
        """Whether the next ``step()`` updates: its forward and backward are to be eager."""
        return self._due

    @property
    def method(self) -> str:
        """The name of the method, as a state has it."""
        return type(self).__name__

    def step(self) -> Update | None:
        """Count a step; return what was updated, None on all other steps.

        Raises:
            RuntimeError: no layer's gradient was seen; processes that are not at one.
        """
        self.steps += 1
        found = None
        if self._due:
            found = self.last = self._updated()
            self.updates += not found.postponed
            self.postponed += bool(found.postponed)
        again = found is not None and bool(found.postponed)
        following = self.steps + 1
        self._get_ready(
            self.schedule.due(following) or (again and self.schedule.fraction(following) > 0)
        )
        return found

    def _get_ready(self, due: bool) -> None:
        """Watch the layers if the next step updates."""
        self._due, self._stepped = due, False
        if due and self.uses_gradients:
            moving = {n: s for n, s in self._sites.items() if s.parameter.requires_grad}
            self._watch.start(moving)
        else:
            self._watch.stop()

    def _saw_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Note that weights moved; fused optimizers are called on an overflow, and do nothing."""
        if self._due:
            found_inf = getattr(optimizer, "found_inf", None)
            self._stepped = self._stepped or found_inf is None or not bool(found_inf)

    def _updated(self) -> Update:
        fraction = self.schedule.fraction(self.steps)
        known = together(
            self._ranks.gather(self._mine()), list(self._sites), gradients=self.uses_gradients
        )
        if not known.stepped:
            return Update(self.steps, fraction, {}, known.left_out, "the optimizer did not step")
        gradients = self._summed(known.active) if self.uses_gradients else {}
        choices = self._ranks.decided(lambda: self._decide(known.active, gradients, fraction))
        for name, choice in choices.items():
            if isinstance(choice, str):
                return Update(self.steps, fraction, {}, known.left_out, f"{name}: {choice}")
        layers = {name: self._apply(name, choice) for name, choice in choices.items()}  # type: ignore[arg-type]
        return Update(self.steps, fraction, layers, known.left_out)

    def _mine(self) -> Mine:
        left_out = dict(self._watch.spoilt)
        left_out |= {n: FROZEN for n, s in self._sites.items() if not s.parameter.requires_grad}
        patterns = patterns_hash({n: array(site.kept) for n, site in self._sites.items()})
        seen = frozenset(self._watch.gradients)
        return Mine(self.steps, self._stepped, patterns, seen, left_out)

    def _summed(self, active: tuple[str, ...]) -> dict[str, Tensor]:
        """Return each layer's gradient over all processes; one that saw none adds nothing."""
        found = {}
        for name in active:
            gradient = self._watch.gradients.get(name)
            if gradient is None:
                gradient = self._sites[name].no_gradient()
            self._ranks.add(gradient)
            found[name] = gradient
        return found

    def _decide(
        self, active: tuple[str, ...], gradients: Mapping[str, Tensor], fraction: float
    ) -> dict[str, Choice | str]:
        found = {}
        for name in active:
            site = self._sites[name]
            scores = self.growth_scores(site, gradients.get(name))
            found[name] = decide(site, scores, self._rules[name], fraction)
        return found

    def _apply(self, name: str, choice: Choice) -> LayerUpdate:
        site, kept = self._sites[name], torch.from_numpy(choice.kept)
        if choice.dropped:
            site.apply(kept, companions(site.parameter, self._optimizer))
            for follower in self._followers:
                follower[name].apply(kept, ())
            self._explored[name] |= choice.kept
        count, moved = int(choice.kept.sum()), choice.dropped
        return LayerUpdate(site.unit, count, moved, moved, choice.returned, choice.lifted)

    # what was explored, copies, states ---------------------------------------------------------

    @property
    def explored(self) -> Explored:
        """Which share of the weights was ever kept, whole and by layer."""
        weights = {name: array(site.weights()) for name, site in self._sites.items()}
        return Explored.of(weights, self._explored)

    def follow(self, copy: nn.Module) -> None:
        """Let a copy of the model (an average of its weights, say) take part in every update.

        An average made by ``AveragedModel`` has to: it mixes values place by place, and places
        change their meaning. What grows starts at 0 there too.

        Raises:
            TypeError, ValueError: no such layers, other patterns, sites that were given one by one.
        """
        self._followers.append(follower_sites(copy, self._find, self._sites))

    def state_dict(self) -> dict[str, Any]:
        """Return what resumes bit for bit, the next update included; arguments are not in it.

        It belongs to the pattern of now: save it with the model and the optimizer.
        """
        return {
            "format": saved.FORMAT,
            "method": self.method,
            "steps": self.steps,
            "updates": self.updates,
            "postponed": self.postponed,
            "due": self._due,
            "stepped": self._stepped,
            "generator": self._generator.get_state(),
            "layers": {name: self._layer_state(name) for name in self._sites},
            "gradients": {n: g.clone() for n, g in self._watch.gradients.items()},
            "spoilt": dict(self._watch.spoilt),
        }

    def _layer_state(self, name: str) -> dict[str, Any]:
        site, rules = self._sites[name], self._rules[name]
        return {
            "unit": site.unit,
            "filters": rules.filters,
            "channels": rules.channels,
            "kept": site.kept.cpu(),
            "explored": torch.from_numpy(self._explored[name].copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state; the model and the optimizer have to have theirs before.

        Raises:
            TypeError, ValueError: a state of another method, model or pattern, or a broken one;
                nothing is taken then.
        """
        saved.check(state, self.method, self._sites)
        self.steps, self.updates, self.postponed = (
            state[name] for name in ("steps", "updates", "postponed")
        )
        self._generator.set_state(state["generator"].cpu())
        for name, layer in state["layers"].items():
            site = self._sites[name]
            site.unit = layer["unit"]
            self._rules[name] = Rules(site.coverage, layer["filters"], layer["channels"])
            self._explored[name] = array(layer["explored"]).copy()
        self._get_ready(state["due"])
        self._stepped = state["stepped"]
        for name, gradient in state["gradients"].items():
            device = self._sites[name].parameter.device
            self._watch.gradients[name] = gradient.to(device, copy=True)
        self._watch.spoilt.update(state["spoilt"])
        self.last = None

    def __reduce__(self) -> tuple[Any, ...]:
        name = type(self).__name__
        raise TypeError(
            f"expected no copy of {name}: its hooks are in one optimizer; make another one of the "
            "copied model and optimizer, and load the state"
        )

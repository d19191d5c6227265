"""Case in, measurements out: check, time, check again. Every failure becomes a status."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from torch import Tensor

from bench import impls
from bench.attempt import Attempt, RunFailed, poisoned, status_of, watched_memory
from bench.clocks import COLD_CACHES, Clock, Rotation, Run
from bench.extras import Extras
from bench.floors import IMPOSSIBLE, WINOGRAD_DTYPES, floor_s, may_be_winograd, too_fast
from bench.problem import Prepared, Problem, is_right
from bench.records import OURS, REFERENCE_IMPL, Case, Cell, Flag, Measurement, Status
from bench.spoiled import changed, check_inputs, copied, guarded, restore
from bench.stats import median
from bench.timing import StopRule, Timed, time_together
from bench.warmup import LEAST_SAMPLE_S

# A first call (compilation apart) that takes longer than this is not worth thirty more.
CALL_LIMIT_S = 60.0
MOST_COPIES = 64
MOST_COPY_BYTES = 4 * 2**30


def measure_case(
    case: Case,
    names: Sequence[str],
    clock: Clock,
    rule: StopRule,
    environment: str,
    extras: Extras | None = None,
) -> list[Measurement]:
    """Return one measurement for each named implementation of the case.

    The dense reference, where it is among the names, also decides which rounds were stalled.
    Samples that share ``detail["rounds"]`` are paired by position.
    """
    attempts = [Attempt(name) for name in names]
    extras = extras or Extras()
    try:
        with extras.phase("inputs"):
            problem = Problem.of(case)
    except Exception as error:
        for attempt in attempts:
            attempt.fail_by(error)
    else:
        Measuring(problem, attempts, clock, rule, extras).run()
    return [a.measurement(case, clock.mode, environment) for a in attempts]


class Measuring:
    """A case's implementations from their preparation to their verdicts.

    ``run`` does all of it. Who times several cases together calls ``before``, times ``runs()``,
    hands the samples to ``take`` and calls ``after``.
    """

    def __init__(
        self, problem: Problem, attempts: list[Attempt], clock: Clock, rule: StopRule,
        extras: Extras,
    ) -> None:  # fmt: skip
        self.problem, self.attempts, self.clock = problem, attempts, clock
        self.rule, self.extras = rule, extras
        self.inputs: list[Tensor] = []

    def run(self) -> None:
        """Check, time, and check again."""
        self.before()
        self._time()
        while self._find_spoiler():  # the others' outputs came from spoiled inputs
            self._time()
        self._witness()
        self.after()

    def before(self) -> None:
        """Prepare everyone, check a first call, and draw new inputs."""
        problem = self.problem
        inputs = copied(problem)
        for attempt in self.attempts:
            self.extras.announce(attempt.name)
            self._prepare(attempt)
            check_inputs(problem, inputs, attempt)
        # new values: what an implementation may have kept from the check is wrong from here on
        with self.extras.phase("inputs"):
            problem.refresh(1)
            for attempt in self._ready():
                guarded(attempt, attempt.prepared.follow)  # type: ignore[union-attr]
            self.inputs = copied(problem)

    def runs(self) -> dict[str, Run]:
        """Return name -> the call as it is timed, of all that are still in."""
        return {a.name: run for a in self._ready() if (run := self._timed_run(a)) is not None}

    def take(self, timed: dict[str, Timed], seen: dict[str, Any] | None = None) -> None:
        """Keep samples; ``seen`` is what the monitor saw meanwhile."""
        for attempt in self.attempts:
            if found := timed.get(attempt.name):
                attempt.samples_s, attempt.flags = found.samples_s, found.flags
                attempt.detail |= found.detail | ({"monitor": seen} if seen else {})

    def after(self) -> None:
        """Check inputs, a timed output and the time itself."""
        while self._find_spoiler():
            pass
        for attempt in self._ready():
            self.extras.announce(attempt.name)
            self._check(attempt, attempt.kept, "a timed output")
            if attempt.prepared:
                self._hold_against_floor(attempt, attempt.prepared)
                self._look_closer(attempt, attempt.prepared)

    def _ready(self) -> list[Attempt]:
        return [a for a in self.attempts if a.prepared]

    def _prepare(self, attempt: Attempt) -> None:
        """Prepare, launch once on poisoned memory, and compare with the oracle."""
        try:
            with self.extras.phase("prepare"):
                start = perf_counter()
                attempt.prepared = impls.load(attempt.name).prepare(self.problem)
                attempt.prep_s = perf_counter() - start
            attempt.detail.update(attempt.prepared.detail)
            self._oracle(attempt.prepared)  # first: a run may spoil the inputs
            start = perf_counter()
            with (
                self.extras.phase("check"),
                poisoned(),
                watched_memory(self.problem.case.device, attempt.detail),
            ):
                out = attempt.prepared.run()
        except Exception as error:
            attempt.fail_by(error)
            return
        took = perf_counter() - start
        self._check(attempt, out, "before timing")
        if attempt.prepared and took > CALL_LIMIT_S:
            attempt.fail(Status.TIMEOUT, f"first call took {took:.0f} s, limit {CALL_LIMIT_S:.0f}")

    def _oracle(self, prepared: Prepared) -> Tensor:
        with self.extras.phase("oracle"):
            if prepared.oracle is not None:
                return prepared.oracle()
            return self.problem.answer(masked=prepared.masked)

    def _check(self, attempt: Attempt, out: Tensor | None, when: str) -> None:
        prepared = attempt.prepared
        if prepared is None:
            return
        try:
            if not isinstance(out, Tensor):
                raise TypeError(f"expected run() to return a tensor, got {type(out).__name__}")
            expected = self._oracle(prepared)
            with self.extras.phase("check"):
                attempt.errors = self.problem.errors(
                    prepared.to_oracle(out), masked=prepared.masked, oracle=lambda: expected
                )
        except Exception as error:
            attempt.fail_by(error)
            return
        if not is_right(attempt.errors):
            errors = attempt.errors
            attempt.fail(
                Status.WRONG,
                f"{when}: error {errors['worst_over_bound']:.3g} times its bound, "
                f"rms {errors['rel_rms']:.3g} (bound {errors['rel_rms_bound']:.3g})",
            )

    def _time(self) -> None:
        """Time all that are still in; one that raises is put out and the rest starts again."""
        extras = self.extras
        while runs := self.runs():
            if extras.monitor:
                extras.monitor.start()
            try:
                timed = time_together(
                    runs, self.clock, self.rule, REFERENCE_IMPL, extras.monitor, extras.phase
                )
            except RunFailed as failure:
                failure.attempt.fail_by(failure.__cause__ or failure)
                continue
            except Exception as error:  # the clock's fault, or the device's: nobody has samples
                for attempt in self._ready():
                    attempt.fail_by(error)
                return
            self.take(timed, extras.monitor.stop() if extras.monitor else None)
            return

    def _find_spoiler(self) -> bool:
        """Return whether inputs were changed by timed calls; put out whose call does it."""
        problem = self.problem
        if not changed(problem, self.inputs):
            return False
        before = len(self._ready())
        for attempt in self._ready():
            restore(problem, self.inputs)
            guarded(attempt, attempt.prepared.run)  # type: ignore[union-attr]
            check_inputs(problem, self.inputs, attempt)
        if len(self._ready()) == before:
            for attempt in self._ready():
                attempt.fail(Status.WRONG, "an input was changed while it was timed with others")
        return bool(self._ready())

    def _timed_run(self, attempt: Attempt) -> Run | None:
        """Return the call as it is timed; short cold ones turn through copies of their buffers."""
        if attempt.prepared is None:
            return None
        run = attempt.named(attempt.prepared.run, self.extras.announce)
        if self.clock.mode != "cold" or self.problem.case.device != "cuda":
            return run
        try:
            if self.clock.sample(run, 1) >= LEAST_SAMPLE_S:
                return run
            return self._rotation(attempt, run)
        except RunFailed as failure:
            attempt.fail_by(failure.__cause__ or failure)
        except Exception as error:
            attempt.fail_by(error)
        return None

    def _rotation(self, attempt: Attempt, run: Run) -> Run:
        problem = self.problem
        out_bytes = attempt.kept.nbytes if attempt.kept is not None else 0
        one = problem.x.nbytes + problem.dy.nbytes + problem.weight.nbytes + out_bytes
        copies = math.ceil(COLD_CACHES * _cache_bytes(self.clock) / one)
        if copies > MOST_COPIES or copies * one > MOST_COPY_BYTES:
            return run
        runs: list[Run] = [run]
        for _ in range(copies):
            twin = impls.load(attempt.name).prepare(problem.twin())
            runs.append(attempt.named(twin.run, self.extras.announce))
        attempt.detail["rotated"] = len(runs)
        return Rotation(runs, one)

    def _witness(self) -> None:
        """Let the vendor's convolution raise the ceiling, where it cannot be Winograd's.

        On an H200 cuDNN's bfloat16 reached 804 TFLOP/s in a layer of VGG-16, in bursts; products
        measured back to back, at the limit of power, 753.
        """
        case, source = self.problem.case, self.extras.ceilings
        if source is None or (case.device == "cuda" and case.dtype in WINOGRAD_DTYPES):
            return
        for attempt in self._ready():
            if attempt.name == REFERENCE_IMPL:
                samples = attempt.samples_s
                taken = min(samples) if case.device == "cpu" else median(samples)
                source.witness(case.shape.flops() / taken)

    def _hold_against_floor(self, attempt: Attempt, prepared: Prepared) -> None:
        """Note the work and the ceilings; a time that no machine can reach is impossible."""
        case, source = self.problem.case, self.extras.ceilings
        dense = case.shape.flops()
        usual = case.shape.flops(case.stored_weights) if prepared.masked else dense
        flops = usual if prepared.flops is None else prepared.flops
        attempt.detail["flops"] = flops
        if source is None:
            return
        ceilings, taken = source.now(), median(attempt.samples_s)
        least = IMPOSSIBLE[case.device]
        floor = floor_s(case, self.clock.mode, flops, ceilings)
        if floor is not None and taken < least * floor:
            with self.extras.phase("ceilings"):
                ceilings = source.again()
            floor = floor_s(case, self.clock.mode, flops, ceilings)
        attempt.detail["ceilings"] = ceilings.to_dict()
        if floor is None or taken >= least * floor:
            return
        if may_be_winograd(case, attempt.name):
            attempt.flags.append(Flag.WINOGRAD)
        else:
            attempt.fail(Status.IMPOSSIBLE, too_fast(taken, floor, ceilings))

    def _look_closer(self, attempt: Attempt, prepared: Prepared) -> None:
        """Take a trace and the energy of a call, where they were asked for."""
        cell, extras = Cell(self.problem.case, attempt.name, self.clock.mode), self.extras
        try:
            if extras.trace:
                with extras.phase("trace"):
                    attempt.detail["trace"] = extras.trace(cell.cell_id, prepared.run).name
            if extras.energy and attempt.name in (OURS, REFERENCE_IMPL):
                with extras.phase("energy"):
                    attempt.detail["energy"] = extras.energy(prepared.run)
        except Exception as error:  # the samples are there and right: they are kept
            attempt.detail["not_looked"] = ": ".join(status_of(error))


def _cache_bytes(clock: Clock) -> int:
    return int(getattr(getattr(clock, "device", None), "cache_bytes", 0))

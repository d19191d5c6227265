"""Every number of the findings page, recomputed from the stored samples by numpy alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from reports import data as loading
from reports.content import sections
from reports.data import ReportData
from reports.first_page import first_page
from reports.parts import Bullets, Paragraph
from reports.picture import Picture
from tests import step_samples
from tests import synthetic_results as synthetic

HERE = synthetic.ENVIRONMENT.environment_id
NUMBER = re.compile(r"[+−]?\d+(?:\.\d+)?")
DENSITIES = (0.5, 0.25, 0.125)
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("findings")
    synthetic.write(target, synthetic.sweep(), synthetic.training_runs(HERE))
    steps = [step_samples.line(HERE), step_samples.line(HERE, "half", density=0.5)]
    (target / "steps.jsonl").write_text("".join(json.dumps(each) + "\n" for each in steps))
    return target


@pytest.fixture(scope="module")
def loaded(folder) -> ReportData:
    return loading.load(folder)


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text)


def lines_of(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text().splitlines()]


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def median_ends(samples: np.ndarray) -> tuple[float, float]:
    """Return the closest symmetric order statistics that cover the median with 95 %."""
    n, ordered = len(samples), np.sort(samples)
    below = np.cumsum([math.comb(n, k) / 2**n for k in range(n)])
    rank = max(int((below <= 0.025).sum()), 1)
    return float(ordered[rank - 1]), float(ordered[n - rank])


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    half = scipy_stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def patterns(results: Lines, density: float) -> list[tuple[float, float, float]]:
    """Return (speed-up, low, high) of forward + backward of each layer and block of a density."""
    sums: dict[tuple, dict[str, np.ndarray]] = {}
    for line in results:
        case = line["cell"]["case"]
        if case["recipe"]["density"] == density and line["impl"] in ("dense", "block_sparse"):
            samples = np.array(line["samples_s"])
            three = np.array([np.median(samples), *median_ends(samples)])
            both = sums.setdefault((case["layer"], *case["recipe"]["block"]), {})
            both[line["impl"]] = both.get(line["impl"], np.zeros(3)) + three
    return [
        (d[0] / s[0], d[1] / s[2], d[2] / s[1])
        for d, s in ((both["dense"], both["block_sparse"]) for both in sums.values())
    ]


def places(results: Lines, density: float) -> list[tuple]:
    """Return (layer, block) in the order of :func:`patterns`."""
    cases = [line["cell"]["case"] for line in results if line["impl"] == "dense"]
    own = [c for c in cases if c["recipe"]["density"] == density]
    return list(dict.fromkeys((c["layer"], *c["recipe"]["block"]) for c in own))


def runs_of(runs: Lines, arm: str, density: float) -> Lines:
    return [r for r in runs if r["arm"] == arm and r["density"] == density]


def step_speedup(runs: Lines, density: float, arm: str = "hrbp2") -> tuple[float, float, float]:
    ratios = [
        np.median(np.array(r["step"]["dense_s"]) / np.array(r["step"]["sparse_s"]))
        for r in runs_of(runs, arm, density)
    ]
    mean, low, high = np.exp(t_interval(np.log(ratios)))
    return float(mean), float(low), float(high)


def gap(runs: Lines, density: float) -> tuple[float, float, float]:
    """Return dense - ours in points with Welch's interval."""
    dense = np.array([r["accuracy"] for r in runs_of(runs, "dense", 1.0)])
    ours = np.array([r["accuracy"] for r in runs_of(runs, "hrbp2", density)])
    parts = np.array([x.var(ddof=1) / len(x) for x in (dense, ours)])
    free = parts.sum() ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (dense, ours)))  # noqa: B905
    half = scipy_stats.t.ppf(0.975, free) * math.sqrt(parts.sum())
    mean = dense.mean() - ours.mean()
    return 100 * float(mean), 100 * float(mean - half), 100 * float(mean + half)


def whole_step(line: dict[str, Any]) -> tuple[float, float, float]:
    logs = [np.log(np.median(t["dense_s"]) / np.median(t["sparse_s"])) for t in line["trials"]]
    mean, low, high = np.exp(t_interval(np.array(logs)))
    return float(mean), float(low), float(high)


def expected(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (how a sentence starts, its numbers) of every sentence that there should be."""
    results, runs = lines_of(folder / "results.jsonl"), lines_of(folder / "accuracy.jsonl")
    yield from _counts(folder, results, runs)
    every = {density: patterns(results, density) for density in DENSITIES}
    for density, found in every.items():
        ratios = np.array([one for one, _, _ in found])
        mean = np.exp(np.log(ratios).mean())
        slower = sum(high < 1 for _, _, high in found)
        told = [f"{density}", f"{mean:.2f}", f"{len(found)}", f"{ratios.min():.2f}"]
        told.append(f"{ratios.max():.2f}")
        yield f"Forward + backward at density {density}:", told + [f"{slower}"] * bool(slower)
    every_one = [one for found in every.values() for one in found]
    up, down = sum(low > 1 for _, low, _ in every_one), sum(h < 1 for *_, h in every_one)
    means = {d: np.exp(np.mean(np.log([one for one, _, _ in f]))) for d, f in every.items()}
    fast = [f"{d}" for d, mean in means.items() if mean > 1]
    slow = [f"{d}" for d, mean in means.items() if mean <= 1]
    counts = [f"{up}", f"{len(every_one)}", f"{down}", f"{len(every_one) - up - down}"]
    yield "Forward + backward of block_sparse", [*fast, *slow, *counts]
    yield from _crossings(results)
    yield from _of_networks(runs)
    yield from _of_steps(folder)


def _crossings(results: Lines) -> Iterator[tuple[str, list[str]]]:
    """Of layers and blocks at two densities or more: all faster, or slower before faster."""
    lines: dict[tuple, dict[float, float]] = {}
    for density in DENSITIES:
        for name, one in zip(places(results, density), patterns(results, density), strict=True):
            lines.setdefault(name, {})[density] = one[0]
    several = [line for line in lines.values() if len(line) > 1]
    always = sum(min(line.values()) > 1 for line in several)
    ends = [max(max(line) for line in several), min(min(line) for line in several)]
    told = [f"{len(several)}", *(f"{round(100 * (1 - d), 2):g}" for d in ends)]
    assert all(line[min(line)] > 1 for line in several), "never: not in this sentence"
    yield "Of 3 pairs", [*told, f"{always}", f"{len(several) - always}"]


def _counts(folder: Path, results: Lines, runs: Lines) -> Iterator[tuple[str, list[str]]]:
    facts = json.loads((folder / "environment.json").read_text())[HERE]
    layers = {r["cell"]["case"]["layer"] for r in results}
    machine = f"{facts['device_name']} {facts['threads']} {facts['torch']} {facts['triton']} "
    machine += f"{facts['python']} {facts['commit'][:12]}"
    arms = " ".join(sorted({r["arm"] for r in runs}))
    here = [f"{len(results)}", f"{len(layers)}", f"{len(runs)}"]
    told = numbers(machine)
    yield "E1: ", ["1", *told, *here, *numbers(arms), *numbers("vgg16")]
    ok = sum(r["status"] == "ok" for r in results)
    yield f"{len(results)} cells:", [f"{len(results)}", f"{ok}", f"{len(results) - ok}", "0", "0"]


def _of_networks(runs: Lines) -> Iterator[tuple[str, list[str]]]:
    for density in DENSITIES:
        mean, low, high = gap(runs, density)
        told = [f"{density}", "2", signed(mean), "95", signed(low), signed(high), "3", "3"]
        yield f"Accuracy at density {density}:", told
        ratio = [f"{value:.2f}" for value in step_speedup(runs, density)]
        told = [f"{density}", "2", ratio[0], "95", *ratio[1:], "3"]
        yield f"Training step at density {density}:", told
    least = min(DENSITIES)
    mean, low, high = gap(runs, least)
    ratio = [f"{value:.2f}" for value in step_speedup(runs, least)]
    points = [signed(-mean), signed(-high), signed(-low)]
    yield f"At density {least} hrbp2", [f"{least}", "2", *ratio, *points]
    yield from _same_accuracy(runs)


def _same_accuracy(runs: Lines) -> Iterator[tuple[str, list[str]]]:
    arms = sorted({r["arm"] for r in runs} - {"dense", "unstructured"})
    best = max(
        (step_speedup(runs, density, arm), arm, density)
        for arm in arms
        for density in shown(runs, arm, 0.05 / len(arms))
    )
    ratio, sparsity = [f"{value:.2f}" for value in best[0]], f"{round(100 * (1 - best[2]), 2):g}"
    told = ["1", *ratio, *numbers(best[1]), sparsity, "5", f"{len(arms)}"]
    yield "The largest speed-up with an accuracy", told
    alone = max((step_speedup(runs, d)[0], d) for d in shown(runs, "hrbp2", 0.05))
    told = ["1", f"{alone[0]:.2f}", "2", f"{alone[1]}"]
    yield "Less than 1 point below unstructured", told


def shown(runs: Lines, arm: str, alpha: float) -> list[float]:
    """Return the densities at which Welch's test shows less than 1 point below unstructured.

    From the densest down, up to the first that is not shown.
    """
    found = []
    for density in DENSITIES:
        ours, theirs = (
            np.array([r["accuracy"] for r in runs_of(runs, name, density)])
            for name in (arm, "unstructured")
        )
        test = scipy_stats.ttest_ind(ours, theirs - 0.01, equal_var=False, alternative="greater")
        if test.pvalue > alpha:
            break
        found.append(density)
    return found


def _of_steps(folder: Path) -> Iterator[tuple[str, list[str]]]:
    found = {line["density"]: whole_step(line) for line in lines_of(folder / "steps.jsonl")}
    up, down = sum(low > 1 for _, low, _ in found.values()), 0
    ends = [max(found, key=lambda d: found[d][0]), min(found, key=lambda d: found[d][0])]
    labels = [["16", "16", f"{round(100 * (1 - d), 2):g}", "32", "2"] for d in ends]
    told = [part for d, label in zip(ends, labels, strict=True)
            for part in (f"{found[d][0]:.2f}", *label)]  # fmt: skip
    yield "Whole training steps:", [f"{up}", f"{len(found)}", f"{down}", *told]


def sentences(loaded: ReportData) -> list[str]:
    """Return every sentence of the findings, headings left out."""
    found: list[str] = []
    for section in sections(loaded)[:2]:
        if section.title.startswith("Findings"):
            for block in section.blocks:
                if isinstance(block, Paragraph) and not block.strong:
                    found.append(block.text)
                elif isinstance(block, Bullets):
                    found += block.items
    return found


def test_every_number_of_the_findings_recomputes_from_the_samples(folder, loaded) -> None:
    left = sentences(loaded)
    for start, told in expected(folder):
        (sentence,) = [s for s in left if s.startswith(start)]
        assert numbers(sentence) == told, sentence
        left.remove(sentence)
    assert left == [], "sentences whose numbers nothing recomputes"


def test_the_headline_figure_draws_what_the_samples_say(folder, loaded) -> None:
    results, runs = lines_of(folder / "results.jsonl"), lines_of(folder / "accuracy.jsonl")
    spans = []
    for density in DENSITIES:
        ratios = np.array([one for one, _, _ in patterns(results, density)])
        spans.append((np.exp(np.log(ratios).mean()), ratios.min(), ratios.max()))
    spans += [whole_step(line) for line in lines_of(folder / "steps.jsonl")]
    spans += [step_speedup(runs, density) for density in DENSITIES]
    picture = next(b for b in first_page(loaded, []).blocks if isinstance(b, Picture))
    (axes,) = picture.standalone().axes
    drawn = [np.asarray(line.get_xdata(), dtype=float) for line in axes.lines]
    bars = [x for x in drawn if len(x) == 2 and x[0] != 1 and x[1] != 1]
    dots = [float(x[0]) for x in drawn if len(x) == 1]
    assert np.allclose(sorted(dots), sorted(one for one, *_ in spans))
    assert np.allclose(sorted(map(tuple, bars)), sorted((low, high) for _, low, high in spans))
    written = [t.get_text() for t in axes.texts]
    for density in DENSITIES:
        mean, low, _ = gap(runs, density)
        words = f"{signed(-mean)} ± {mean - low:.2f} points"
        assert any(text.endswith(words) for text in written), words

"""The breakeven command: what it prints, keeps, resumes and refuses."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from bench import breakeven_run
from bench.cli import app
from bench.jsonl import read_lines
from bench.records import Cell, Flag, Measurement, Status
from bench.store import read_results

WORDS = ["--layer", "conv4_3x3", "--block", "32", "--device", "cpu"]
BLOCKS = 64  # of 256 filters and channels


class ScriptedSession:
    """Dense takes 1 s a pass; the implementation a share of it that its density decides."""

    share = staticmethod(lambda density: density / 0.6)
    breaks: dict[int, tuple[Status, str]] = {}
    interrupted_at: int | None = None
    made: list[int] = []

    def __init__(self, settings):
        self.settings = settings
        ScriptedSession.made.append(0)

    def measure(self, case, names):
        blocks = case.entries // 9
        ScriptedSession.made[-1] += 1
        if blocks == self.interrupted_at:
            raise KeyboardInterrupt
        found = []
        for name in names:
            cell, here = Cell(case, name, self.settings.mode), self.settings.environment
            if blocks in self.breaks and name != "dense":
                status, reason = self.breaks[blocks]
                found.append(Measurement(cell, here, status, reason))
                continue
            took = 1.0 if name == "dense" else self.share(case.recipe.density)
            samples = tuple(took * (1 + 0.001 * (i % 5)) for i in range(30))
            detail = {"rounds": case.conv_pass + str(blocks)}
            found.append(Measurement(cell, here, Status.OK, None, samples, detail=detail,
                                     flags=(Flag.NOISY,)))  # fmt: skip
        return found

    def close(self):
        pass


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(breakeven_run, "Session", ScriptedSession)
    monkeypatch.setattr(ScriptedSession, "breaks", {})
    monkeypatch.setattr(ScriptedSession, "made", [])
    monkeypatch.setattr(ScriptedSession, "interrupted_at", None)
    monkeypatch.setattr(ScriptedSession, "share", staticmethod(lambda d: d / 0.6))
    return ScriptedSession


def breakeven(*words, out=None):
    words = [*WORDS, *map(str, words), *(["--out", str(out)] if out else [])]
    return CliRunner().invoke(app, ["breakeven", *words])


@pytest.mark.parametrize("conv_pass", ["fprop", "dgrad", "wgrad", "all"])
def test_the_interval_is_printed_and_kept(session, tmp_path, conv_pass) -> None:
    done = breakeven("--pass", conv_pass, out=tmp_path)
    assert done.exit_code == 0, done.stderr
    named = f"break-even of block_sparse on conv4_3x3 ({conv_pass}, float32, blocks 32): "
    assert named + "sparsity 0.40 (" in done.stdout
    (line,) = read_lines(tmp_path / "breakeven.jsonl", "search_id").records
    assert line["answer"] == "found"
    assert line["low"] <= 0.4 <= line["high"]
    assert (line["pass"], line["batch"], line["mode"]) == (conv_pass, 8, "hot")
    assert len(line["points"]) == 7
    stored = read_results(tmp_path / "breakeven" / "block_sparse")
    assert len(stored.measurements) == 7 * 2 * (3 if conv_pass == "all" else 1)
    assert line["environment"] in stored.environments


def test_a_second_search_measures_nothing_and_keeps_nothing_twice(session, tmp_path) -> None:
    first = breakeven(out=tmp_path)
    second = breakeven(out=tmp_path)
    assert first.stdout == second.stdout
    assert session.made == [21]
    assert len((tmp_path / "breakeven.jsonl").read_text().splitlines()) == 1
    assert breakeven("--points", 5, out=tmp_path).exit_code == 0
    assert session.made == [21], "points that were stored were measured again"
    assert len((tmp_path / "breakeven.jsonl").read_text().splitlines()) == 2


def test_an_interrupted_search_goes_on(session, tmp_path) -> None:
    session.interrupted_at = 36
    done = breakeven("--pass", "fprop", out=tmp_path)
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr
    assert not (tmp_path / "breakeven.jsonl").exists()
    session.interrupted_at = None
    assert breakeven("--pass", "fprop", out=tmp_path).exit_code == 0
    assert session.made == [3, 5]


@pytest.mark.parametrize(
    ("status", "code"), [(Status.WRONG, 5), (Status.IMPOSSIBLE, 5), (Status.OOM, 2)]
)
def test_a_failing_point_is_told_with_those_before_it(session, tmp_path, status, code) -> None:
    session.breaks[36] = (status, "so it is")
    done = breakeven("--pass", "fprop", out=tmp_path)
    assert done.exit_code == code
    told = f"error: {status}: block_sparse fprop at sparsity 0.438: so it is; the points before"
    assert told in done.stderr
    assert "0.875" in done.stdout
    assert "0.000" in done.stdout


def test_never_is_an_answer(session, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(session, "share", staticmethod(lambda density: 1.5))
    done = breakeven("--pass", "dgrad", out=tmp_path)
    assert done.exit_code == 0
    assert ": never; 0.67x (0.67 to 0.67) at sparsity 0.88\n" in done.stdout


def test_json_holds_every_point(session, tmp_path) -> None:
    done = breakeven("--pass", "fprop", "--points", 5, "--json", out=tmp_path)
    told = json.loads(done.stdout)
    assert (told["answer"], told["layer"], len(told["points"])) == ("found", "conv4_3x3", 5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pass", "backward"], "expected a pass of fprop, dgrad, wgrad, all; got 'backward'"),
        (["--layer", "conv9"], "expected a layer of conv2_3x3, "),
        (["--impl", "dense"], "expected an implementation beside dense"),
        (["--impl", "nothing"], "got 'nothing'"),
        (["--points", "4"], "expected 5 to 9 points, got 4"),
        (["--block", "512"], "a block no larger than the layer, got block (512, 512)"),
        (["--dtype", "int8"], "got 'int8'"),
        (["--mode", "sustained"], "expected a mode of hot, cold on cpu"),
        (["--batch", "0"], "expected a batch of at least 1, got 0"),
        (["--layout", "x"], "got 'x'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(session, tmp_path, words, told) -> None:
    done = breakeven(*words, out=tmp_path)
    assert done.exit_code == 2, done.stdout
    assert done.stderr.startswith("error: expected ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert session.made == []


def test_a_full_folder_is_refused_by_name(session, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    done = breakeven(out=tmp_path / "file")
    assert done.exit_code == 2
    assert "expected a folder at" in done.stderr

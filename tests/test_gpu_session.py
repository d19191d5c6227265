"""bench/gpu_session.sh before it starts: order, limits, stages, bad input."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.session_checkout import MEASURE, ROOT, STEPS, WHOLE_STEPS, Session, make_session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return make_session(tmp_path)


def planned(text: str) -> list[tuple[str, int, str]]:
    """Return (step, limit, command) of each line of a dry run."""
    found = re.findall(r"^([\w-]+)\t(\d+) s\t (.*)$", text, re.M)
    return [(name, int(limit), command) for name, limit, command in found]


def test_the_script_parses_and_can_be_run() -> None:
    script = ROOT / "bench" / "gpu_session.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("minutes", ["9", "2.5", "30"])
def test_a_dry_run_plans_all_within_the_minutes_and_runs_nothing(
    session: Session, minutes: str
) -> None:
    done = session.run("--dry-run", minutes=minutes, NO_CUDA="1")
    assert done.returncode == 0, done.stderr
    steps = planned(done.stdout)
    names = [name for name, _, _ in steps]
    assert names == STEPS[: len(names)]
    assert sum(limit for _, limit, _ in steps) <= 60 * float(minutes)
    assert min(limit for _, limit, _ in steps) >= 5
    assert all(f"timeout {limit} " in command for _, limit, command in steps)
    assert session.asked == []
    assert not session.out.exists()


def test_nine_minutes_have_room_for_every_step(session: Session) -> None:
    assert [name for name, _, _ in planned(session.run("--dry-run").stdout)] == STEPS


def test_few_minutes_leave_the_last_steps_for_another_call(session: Session) -> None:
    done = session.run("--dry-run", minutes="2.5")
    assert [name for name, _, _ in planned(done.stdout)] == STEPS[:3]
    assert "tiles-rest: left for another call" in done.stdout


@pytest.mark.parametrize(
    ("stage", "steps"),
    [
        ("ceilings", ["machine", "ceilings"]),
        ("report", ["report"]),
        ("sweep", ["machine", "sweep-first", "sweep-bfloat16", "sweep-float16", "report"]),
        ("report,ceilings", ["machine", "ceilings", "report"]),
        ("measure", MEASURE),
        ("tune", ["machine", "tune"]),
        ("targets", ["machine", "targets"]),
        ("steps", ["machine", *WHOLE_STEPS]),
        ("gate", ["machine", "gate"]),
        ("all", [*STEPS[:-2], "tune", "targets", *WHOLE_STEPS, "gate", *MEASURE[1:], STEPS[-1]]),
    ],
)
def test_stages(session: Session, stage: str, steps: list[str]) -> None:
    done = session.run("--dry-run", stage=stage, minutes="40")
    assert [name for name, _, _ in planned(done.stdout)] == steps


def test_whole_steps_stop_by_themselves_and_keep_all_in_one_folder(session: Session) -> None:
    plan = planned(session.run("--dry-run", stage="steps", minutes="8").stdout)
    for name, limit, command in plan[1:-1]:
        assert f"--model {name.removeprefix('steps-')} --batch" in command
        assert ("--batch 64 " in command) == (name == "steps-resnet50")
        assert 60 * float(command.split("--budget ")[1].split()[0]) < 0.8 * limit
        assert "steps" in command.split("--out ")[1]
    assert plan[-1][2].endswith("steps")


def test_on_a_cpu_nothing_is_tuned(session: Session) -> None:
    done = session.run("--dry-run", "--device", "cpu", stage="tune,targets")
    assert [name for name, _, _ in planned(done.stdout)] == ["machine"]


@pytest.mark.parametrize(("stage", "steps"), [("check", "tiles"), ("tune", "tune")])
def test_what_can_stop_by_itself_does_before_its_limit(
    session: Session, stage: str, steps: str
) -> None:
    plan = planned(session.run("--dry-run", stage=stage).stdout)
    assert [name for name, _, _ in plan if name.startswith(steps)]
    for name, limit, command in plan:
        if name.startswith(steps):
            # a second may pass between the two numbers
            assert 60 * float(command.split("--minutes ")[1].split()[0]) <= limit - 9


def test_all_goes_without_images_that_are_not_there(session: Session, tmp_path: Path) -> None:
    def names(stage: str, **env: str) -> list[str]:
        done = session.run("--dry-run", stage=stage, minutes="90", **env)
        return [name for name, _, _ in planned(done.stdout) if name.startswith("accuracy")]

    both = ["accuracy", "accuracy-report"]
    assert names("accuracy") == both  # who asks for them is told what is missing
    assert names("all") == []
    assert names("all", HRBP_CIFAR10=str(tmp_path)) == both
    done = session.run("--dry-run", stage="accuracy", HRBP_CIFAR10="/some/images")
    assert "--preset cifar10-short --root /some/images" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--stage", "chekc"],
            "expected a stage of check, ceilings, sweep, report, measure, tune, targets, steps",
        ),
        (["--stage", "check,accurcy"], "accuracy, gate, all; got 'accurcy'"),
        (["--minutes", "ten"], "expected --minutes as a number above 0, got 'ten'"),
        (["--minutes", "-5"], "expected --minutes as a number above 0, got '-5'"),
        (["--minutes", "0.0"], "expected --minutes of at least a second"),
        (["--device", "gpu"], "expected a device of cuda, cpu; got 'gpu'"),
        (["--out"], "expected a value after --out"),
        (["--fast"], "expected an option, got '--fast'"),
    ],
)
def test_wrong_usage_is_one_sentence(session: Session, arguments: list[str], sentence: str) -> None:
    done = session.run(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert session.asked == []


def test_what_must_be_given_is_named(session: Session) -> None:
    done = session.plain("--minutes", "9", "--out", "x")
    assert (done.returncode, "expected --stage" in done.stderr) == (2, True)


def test_without_a_device_nothing_is_tried(session: Session) -> None:
    done = session.run(NO_CUDA="1")
    assert done.returncode == 2
    assert "expected a CUDA device, found none" in done.stderr
    assert session.asked == []


def test_missing_modules_are_named(session: Session) -> None:
    done = session.run(LACKS="triton pyarrow")
    assert done.returncode == 2
    assert "lacks triton, pyarrow" in done.stderr


def test_modules_are_looked_for_in_the_interpreter_that_is_named(session: Session) -> None:
    bare = session.folder.parent / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    done = session.run(HRBP_PYTHON=str(bare))
    assert done.returncode == 2
    assert "lacks torch, triton" in done.stderr


def test_a_folder_that_cannot_be_written_is_told(session: Session, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = session.run("--out", str(tmp_path / "file" / "results"))
    assert done.returncode == 2
    assert "cannot write to" in done.stderr

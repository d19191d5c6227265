"""bench/gpu_session.sh at work: resumption, failures, limits, stops, the archive."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.session_checkout import STEPS, Session, make_session

TOOLS = """awk bash cat cp cut dirname env find grep gzip head mkdir mv rm sha256sum sleep sort tail
tar timeout uname wc xargs"""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return make_session(tmp_path)


def test_every_step_runs_once_and_is_skipped_the_next_time(session: Session) -> None:
    first = session.run()
    assert first.returncode == 0, first.stdout + first.stderr
    assert list(session.steps) == [s for s in STEPS if s in session.steps]
    assert set(STEPS) - set(session.steps) <= {"sanitizer"}  # where there is no such program
    before = session.asked
    second = session.run()
    assert second.returncode == 0
    assert [line.split(" --out")[0] for line in session.asked[len(before) :]] == [
        f"-m bench report {session.out / 'sweep'}"  # drawn anew: the sweep may have grown
    ]
    assert "tests: done before" in second.stdout


def test_changed_kernels_make_earlier_evidence_void(session: Session) -> None:
    session.run()
    (session.out / "sweep").mkdir()
    (session.folder / "hrbp_core" / "kernel.py").write_text("two\n")
    count = len(session.asked)
    done = session.run()
    assert "the code has changed" in done.stdout
    assert len(session.asked) == 2 * count
    assert not (session.out / "sweep").exists()
    assert list(session.out.glob("before-*/sweep"))


def test_a_failing_step_is_told_and_the_rest_goes_on(session: Session) -> None:
    done = session.run(FAILING="-m pytest")
    assert done.returncode == 1
    assert "failed: tests" in done.stdout
    assert "it broke" in done.stdout
    assert session.steps["tests"] == 7
    assert session.steps["tiles-rest"] == 0
    assert {"./tests.log", "./steps.tsv", "./machine.txt"} <= set(session.packed())
    count = len(session.asked)
    again = session.run()
    assert again.returncode == 0
    assert [line for line in session.asked[count:] if "pytest" in line]


def test_tiles_that_are_left_go_on_in_the_next_call(session: Session) -> None:
    done = session.run(CHECK_SAYS="12 tiles left for another call; the same command goes on")
    assert done.returncode == 3
    assert "left for another call of the same command: tiles-first tiles-rest" in done.stdout
    count = len(session.asked)
    assert session.run().returncode == 0
    assert len([line for line in session.asked[count:] if "bench check" in line]) >= 2


def test_targets_take_the_tiles_that_were_tuned_before_them(session: Session) -> None:
    def last() -> str:
        return next(line for line in reversed(session.asked) if "bench run" in line)

    assert session.run(stage="targets").returncode == 0
    assert last().endswith("HRBP_TUNED=unset")
    (session.out / "steps.tsv").unlink()
    done = session.run(stage="tune,targets", TUNES="yes")
    assert done.returncode == 0, done.stdout
    asked = [line for line in session.asked if "--suite targets" in line][-2:]
    assert "bench tune --suite targets --batch 256 --dtype bfloat16" in asked[0]
    assert "bench run --suite targets --batch 256 --dtype bfloat16" in asked[1]
    assert last().endswith(f"HRBP_TUNED={session.out / 'tune' / 'tuned.json'}")


def test_problems_that_are_left_are_tuned_in_the_next_call(session: Session) -> None:
    done = session.run(stage="tune", TUNE_SAYS="12 problems left for another call; go on")
    assert (done.returncode, "of the same command: tune" in done.stdout) == (3, True)
    assert session.run(stage="tune").returncode == 0
    assert len([line for line in session.asked if "bench tune" in line]) == 2
    assert session.run(stage="tune").returncode == 0
    assert len([line for line in session.asked if "bench tune" in line]) == 2


def test_a_step_beyond_its_limit_is_stopped_and_left(session: Session) -> None:
    done = session.run(stage="ceilings", minutes="0.15", SLOW="bench ceilings")
    assert done.returncode == 3
    assert session.steps["ceilings"] == 124
    assert "./ceilings.log" in session.packed()


def test_a_session_that_is_stopped_packs_what_it_has(session: Session) -> None:
    running = subprocess.Popen(
        session.words(),
        cwd=session.folder.parent,
        env=session.environment(SLOW="bench doctor"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(200):
        if any("doctor" in line for line in session.asked):
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 143
    assert {"./machine.txt", "./doctor.log"} <= set(session.packed())


def test_large_files_are_left_out_of_the_archive(session: Session) -> None:
    done = session.run(LARGE="bench doctor")
    assert "larger files are left out" in done.stdout
    assert (session.out / "large.bin").stat().st_size == 20_000_000
    assert session.archive.stat().st_size < 16 * 2**20
    assert "./large.bin" not in session.packed()
    assert "./steps.tsv" in session.packed()


def test_the_archive_may_lie_elsewhere_and_needs_no_zstd(session: Session, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS.split():
        (tools / name).symlink_to(shutil.which(name) or name)
    archive = tmp_path / "elsewhere" / "all.tar.gz"
    done = session.run("--archive", str(archive), PATH=str(tools))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "./steps.tsv" in session.packed(archive)
    assert not (session.out / "results.tar.gz").exists()

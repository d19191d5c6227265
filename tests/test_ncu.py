"""Nsight Compute by a stand-in: its table, and everything that goes wrong with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from bench import ncu

HEADER = (
    '"ID","Process ID","Kernel Name","dram__bytes_read.sum","gpu__time_duration.sum",'
    '"launch__registers_per_thread","sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"'
)
UNITS = '"","","","Mbyte","us","register/thread","%"'
ROWS = (
    '"0","7","gather_conv","1,250.5","10.5","168","60.5"',
    '"1","7","sum_parts","0.5","2","32","n/a"',
    '"2","7","gather_conv","1,249.5","11.5","168","59.5"',
)
TABLE = "\n".join(["==PROF== Connected to process 7", HEADER, UNITS, *ROWS, ""])

FAILED = """==ERROR== Failed to profile "k" in process 7
==ERROR== The application returned an error code (9).
==WARNING== No kernels were profiled."""


@pytest.fixture
def tool(tmp_path):
    """Make a program that does what the body says with its arguments ``words``."""

    def make(body):
        path = tmp_path / "ncu"
        path.write_text(
            f"#!{sys.executable}\nimport os, subprocess, sys, time\nwords = sys.argv[1:]\n"
            f"log = words[words.index('--log-file') + 1]\n{body}\n"
        )
        path.chmod(0o755)
        return str(path)

    return make


def writes(text):
    return f"open(log, 'w').write({text!r})"


def test_launches_of_one_name_are_put_together_in_base_units(tool) -> None:
    found = ncu.collect(["x"], ncu=tool(writes(TABLE)))
    assert found.reason is None
    conv, parts = found.kernels
    assert (conv.name, conv.launches) == ("gather_conv", 2)
    assert conv.duration_s == pytest.approx(11e-6)
    assert conv.metrics["dram_read_bytes"] == pytest.approx(1250e6)
    assert conv.metrics["tensor_active"] == pytest.approx(0.6)
    assert conv.metrics["registers"] == 168
    assert conv.metrics["l2_hit_rate"] is None, "a column that is not there"
    assert (parts.launches, parts.metrics["tensor_active"]) == (1, None)


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [
        ("nsecond", "1,500", 1.5e-6), ("ms", "2", 2e-3), ("s", "1", 1.0),
        ("byte", "12", 12.0), ("Kbyte", "1.5", 1500.0), ("Gbyte", "2", 2e9),
        ("furlong", "1", None), ("us", "n/a", None), ("us", "", None), ("us", "nan", None),
    ],
)  # fmt: skip
def test_units(tool, unit, text, value) -> None:
    table = f'"ID","Kernel Name","gpu__time_duration.sum"\n"","","{unit}"\n"0","k","{text}"\n'
    (kernel,) = ncu.collect(["x"], ncu=tool(writes(table))).kernels
    assert kernel.duration_s == (None if value is None else pytest.approx(value))


def test_the_command_and_the_range_are_handed_on(tool, tmp_path) -> None:
    told = tmp_path / "told"
    body = f"open({str(told)!r}, 'w').write('\\n'.join(words))\n{writes(TABLE)}"
    ncu.collect(["python", "-c", "x y"], ncu=tool(body), nvtx_range=ncu.RANGE)
    words = told.read_text().split("\n")
    assert words[-3:] == ["python", "-c", "x y"]
    assert words[words.index("--nvtx-include") + 1] == "profiled/"
    assert {"--csv", "--nvtx"} <= set(words)
    for option, value in (("page", "raw"), ("print-units", "base"), ("target-processes", "all")):
        assert words[words.index(f"--{option}") + 1] == value
    asked = words[words.index("--metrics") + 1].split(",")
    assert set(asked) == {ncu.DURATION, *ncu.METRICS.values()}


def test_remarks_between_launches_are_no_launches(tool) -> None:
    text = TABLE.replace(ROWS[1], '==WARNING== lost, "a line"')
    (kernel,) = ncu.collect(["x"], ncu=tool(writes(text))).kernels
    assert kernel.launches == 2


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("print('==ERROR== ERR_NVGPUCTRPERM - no permission'); sys.exit(1)", "run as root, or"),
        (writes("==ERROR== ERR_NVGPUCTRPERM"), "NVreg_RestrictProfilingToAdminUsers=0"),
        ("print('boom', file=sys.stderr); sys.exit(9)", "ncu ended with 9: boom"),
        ("os.kill(os.getpid(), 11)", "ncu ended with -11: nothing"),
        (writes("==WARNING== No kernels were profiled."), "saw no kernel"),
        ("open(log, 'wb').write(bytes(range(256)) * 9)", "expected a table from ncu, got "),
        ("pass", "expected a table from ncu, got 'nothing'"),
        (writes(HEADER), "expected a table from ncu"),
        (writes('"ID","Name"\n"",""\n"0","k"\n'), "expected a table from ncu"),
        (writes(f'{HEADER}\n{UNITS}\n"0","' + "x" * 200_000), "cannot be read"),
        ("os.mkdir(log)", "expected a table from ncu"),
        (writes(FAILED) + "; print('epoch 1'); sys.exit(9)", "ncu ended with 9: ==ERROR== Failed"),
        (writes(FAILED.splitlines()[1]) + "; print('no torch'); sys.exit(1)", "1: no torch"),
        ("print('x' * 9000); sys.exit(1)", "ncu ended with 1: xxx"),
    ],
)
def test_what_goes_wrong_is_a_reason(tool, body, told) -> None:
    found = ncu.collect(["x"], ncu=tool(body))
    assert found.kernels == ()
    assert found.reason is not None
    assert told in found.reason
    assert found.reason.isprintable()
    assert len(found.reason) < 2 * ncu.REASON_LENGTH


def _hangs(mark):
    return (
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid))\ntime.sleep(600)"
    )


def test_one_that_hangs_is_ended_with_its_children(tool, tmp_path) -> None:
    mark = tmp_path / "pid"
    found = ncu.collect(["x"], ncu=tool(_hangs(mark)), limit_s=3)
    assert found.reason == "ncu took longer than 3 s and was ended"
    _assert_ends(int(mark.read_text()))


def test_an_interrupt_ends_it_with_its_children(tool, tmp_path) -> None:
    mark = tmp_path / "pid"
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 3)
    try:
        with pytest.raises(KeyboardInterrupt):
            ncu.collect(["x"], ncu=tool(_hangs(mark)), limit_s=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    _assert_ends(int(mark.read_text()))


def _assert_ends(pid):
    for _ in range(100):
        if not _runs(pid):
            return
        time.sleep(0.05)
    raise AssertionError("the child of ncu is still there")


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_that_is_not_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    if not Path("/usr/local/cuda/bin/ncu").exists():
        reason = ncu.collect(["x"]).reason or ""
        assert "found none: install NVIDIA Nsight Compute" in reason
    (tmp_path / "cuda" / "bin").mkdir(parents=True)
    there = tmp_path / "cuda" / "bin" / "ncu"
    there.touch(0o755)
    os.chmod(there, 0o755)
    assert ncu.available() == str(there)
    assert "expected to run" in (ncu.collect(["x"]).reason or ""), "an empty file is no program"


def test_an_empty_command() -> None:
    with pytest.raises(ValueError, match="expected a command"):
        ncu.collect([])

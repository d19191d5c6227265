"""The commands as a user types them: exit codes, sentences, nothing overwritten."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.impls import IMPLS

ROOT = Path(__file__).parent.parent
TINY = ["--layers", "conv5_3x3", "--batch", "1", "--densities", "0.25", "--blocks", "64"]
# the slow baselines have a test of their own
CPU = ["--device", "cpu", "--impls", "dense,masked_dense,gather_grouped,block_sparse"]


def bench(*words, timeout=120):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, words)],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A real, tiny sweep: one pattern, one pass, all implementations."""
    out = tmp_path_factory.mktemp("results")
    done = bench("run", "--suite", "quick", *CPU, *TINY, "--passes", "fprop", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "4 ok" in done.stdout
    return out


@pytest.fixture
def copy(results, tmp_path):
    return Path(shutil.copytree(results, tmp_path / "copy"))


def test_every_implementation_is_measured_or_says_why(tmp_path):
    command = ("run", "--suite", "quick", *TINY, "--device", "cpu", "--passes", "wgrad")
    done = bench(*command, "--out", tmp_path, "--isolate", "--trace")
    assert done.returncode == 0, done.stderr
    lines = {line["impl"]: line for line in lines_of(tmp_path)}
    assert list(lines) == list(IMPLS)
    for name, line in lines.items():
        if line["status"] == "ok":
            assert line["detail"]["ceilings"]["flops_per_s"] > 0
            assert line["detail"]["monitor"]["load_average"] is not None
            assert line["detail"]["allocator"] == "keeps what is freed"
            assert (tmp_path / "traces" / line["detail"]["trace"]).exists()
        else:
            assert (line["status"], line["samples_s"]) == ("skipped", []), name
            assert line["reason"]
    ceilings = json.loads((tmp_path / "ceilings.json").read_text())
    assert ceilings["matrix_flops_per_s"]["float32"] > 0


def lines_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def write(folder, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "results.jsonl").write_text(text)


def test_help_is_instant_and_imports_nothing_heavy():
    """The promise is 0.5 s on 2 quiet cores; modules, not seconds, are what a test can hold to."""
    code = (
        "import sys; from bench.cli import app; from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_by_subprocess():
    done = bench("--help")
    assert done.returncode == 0
    for command in ("list", "run", "accuracy", "report", "gate", "doctor"):
        assert command in done.stdout


@pytest.mark.parametrize("what", ["suites", "layers", "impls"])
def test_list(what):
    rows = json.loads(bench("list", what, "--json").stdout)
    assert rows
    assert bench("list", what).returncode == 0


def test_a_line_a_cell(results):
    lines = lines_of(results)
    assert {line["impl"] for line in lines} == {
        "dense", "masked_dense", "gather_grouped", "block_sparse",
    }  # fmt: skip
    for line in lines:
        assert line["schema"] == 1
        assert line["status"] == "ok"
        assert len(line["samples_s"]) >= 10
        assert line["cell"]["impl"] == line["impl"]
    assert len({line["case_id"] for line in lines}) == 1
    assert len({line["cell_id"] for line in lines}) == 4
    environments = json.loads((results / "environment.json").read_text())
    assert {line["environment"] for line in lines} == set(environments)


def test_a_second_run_measures_nothing_and_a_lost_cell_is_measured_again(copy):
    command = ("run", "--suite", "quick", *CPU, *TINY, "--passes", "fprop", "--out", copy)
    before = (copy / "results.jsonl").read_bytes()
    again = bench(*command)
    assert "0 measured now, 4 were there" in again.stdout
    assert (copy / "results.jsonl").read_bytes() == before
    write(copy, lines_of(copy)[:3])
    again = bench(*command)
    assert "1 measured now, 3 were there" in again.stdout
    assert len({line["cell_id"] for line in lines_of(copy)}) == 4


def test_a_torn_last_line_is_set_aside_and_measured_again(copy):
    path = copy / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    done = bench("run", "--suite", "quick", *CPU, *TINY, "--passes", "fprop", "--out", copy)
    assert done.returncode == 0
    assert "torn last line was set aside" in done.stdout
    assert "1 measured now, 3 were there" in done.stdout
    assert (copy / "results.torn").exists()


def test_gate_passes_on_the_same_folder_twice(results):
    done = bench("gate", "--base", results, "--head", results)
    assert done.returncode == 0, done.stdout + done.stderr


def test_gate_fails_on_doubled_samples_and_names_the_cell(copy, tmp_path):
    """Samples within 2 % stand in for the tiny sweep's own, which a busy machine may scatter."""
    lines = lines_of(copy)
    for line in lines:
        line["samples_s"] = [1e-3 * (1 + 0.001 * (i % 20)) for i in range(30)]
    write(copy, lines)
    head = Path(shutil.copytree(copy, tmp_path / "head"))
    for line in lines:
        if line["impl"] == "block_sparse":
            line["samples_s"] = [2 * s for s in line["samples_s"]]
    write(head, lines)
    done = bench("gate", "--base", copy, "--head", head)
    assert done.returncode == 1
    assert "block_sparse" in done.stdout
    assert "single process" in done.stdout
    parsed = json.loads(bench("gate", "--base", copy, "--head", head, "--json").stdout)
    assert parsed["exit_code"] == 1


def test_gate_finds_a_dropped_cell(results, copy):
    write(copy, [line for line in lines_of(copy) if line["impl"] != "block_sparse"])
    assert bench("gate", "--base", results, "--head", copy).returncode == 5


def test_gate_finds_a_wrong_cell(results, copy):
    lines = lines_of(copy)
    lines[-1] |= {"status": "wrong", "reason": "planted", "samples_s": []}
    write(copy, lines)
    assert bench("gate", "--base", results, "--head", copy).returncode == 5


def test_gate_without_a_base_or_head(results, tmp_path):
    assert bench("gate", "--base", tmp_path / "none", "--head", results).returncode == 4
    assert bench("gate", "--base", results, "--head", tmp_path / "none").returncode == 2
    assert bench("gate", "--base", results).returncode == 2


def test_report(copy):
    done = bench("report", copy)
    assert done.returncode == 0, done.stderr
    report = copy / "report"
    assert (report / "report.pdf").read_bytes().startswith(b"%PDF")
    for name in ("report.html", "report.md"):
        assert (report / name).stat().st_size > 1000
    assert list((report / "figures").glob("*.png"))
    assert str(report / "report.pdf") in done.stdout
    assert "bench gate --base" in done.stdout


RUN = ["run", "--suite", "quick", *CPU]
BAD = [
    (["run", "--suite", "nope", *CPU], "expected a suite of quick"),
    ([*RUN, "--impls", "dense,magic"], "expected an implementation of dense"),
    ([*RUN, "--method", "magic"], "expected a method of"),
    ([*RUN, "--passes", "forward"], "expected a pass of fprop"),
    ([*RUN, "--layers", "conv9"], "expected a layer of"),
    ([*RUN, "--dtype", "int8"], "expected a dtype of"),
    ([*RUN, "--densities", "0"], "expected a density in (0, 1], got 0"),
    ([*RUN, "--densities", "1.2"], "expected a density in (0, 1], got 1.2"),
    ([*RUN, "--densities", "half"], "expected --densities as a list of float, got 'half'"),
    ([*RUN, "--densities", "0.01", "--blocks", "32"], "density 0.01 is under the least one"),
    ([*RUN, "--blocks", "1024"], "block 1024 is larger than the layer"),
    (["run", "--suite", "quick", "--device", "cuda"], "expected a CUDA device, found none"),
    (["run", "--suite", "quick", "--device", "tpu"], "expected a device of auto, cpu, cuda"),
    (["accuracy", "--device", "cpu", "--data", "digits", "--arms", "dense,magic"], "magic"),
    (["accuracy", "--device", "cpu", "--data", "imagenet22k"], "imagenet22k"),
    (["accuracy", "--device", "cpu", "--preset", "nope"], "nope"),
    (["accuracy", "--device", "cpu", "--data", "digits", "--densities", "0.001"], "0.125"),
    (["accuracy", "--data", "digits", "--device", "cuda"], "expected a CUDA device, found none"),
]


@pytest.mark.parametrize(("words", "text"), BAD, ids=[" ".join(w[2:] or w) for w, _ in BAD])
def test_bad_input_is_one_sentence_and_exit_2(words, text, tmp_path):
    out = tmp_path / "out"
    done = bench(*words, "--out", out)
    assert done.returncode == 2, done.stdout + done.stderr
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.jsonl"))


def test_bad_results_folders(copy, tmp_path):
    missing = bench("report", tmp_path / "none")
    assert missing.returncode == 2
    assert "expected a folder of results" in missing.stderr
    (tmp_path / "empty").mkdir()
    assert bench("report", tmp_path / "empty").returncode == 2
    lines = lines_of(copy)
    lines[0]["schema"] = 99
    write(copy, lines)
    before = (copy / "results.jsonl").read_bytes()
    for words in (("report", copy), (*RUN, *TINY, "--out", copy)):
        done = bench(*words)
        assert done.returncode == 2
        assert "99" in done.stderr
        assert done.stderr.count("\n") == 1
    assert (copy / "results.jsonl").read_bytes() == before


def test_a_torn_last_line_is_reported_by_the_report(copy):
    path = copy / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    done = bench("report", copy)
    assert done.returncode == 0, done.stderr
    assert "torn" in (copy / "report" / "report.md").read_text()


def test_doctor():
    done = bench("doctor")
    assert done.returncode == 0
    assert "torch" in done.stdout


def test_a_disk_that_fills_up_keeps_what_is_stored(copy):
    before = (copy / "results.jsonl").read_bytes()
    command = [sys.executable, "-m", "bench", "run", "--suite", "quick", *CPU, *TINY]
    room = max(len(before), 8192) + 100  # no line fits; the other files do

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    done = subprocess.run(
        [*command, "--passes", "fprop,dgrad,wgrad", "--out", str(copy)], cwd=ROOT,
        preexec_fn=fill, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert "error: expected room to append to" in done.stderr
    assert "the 4 lines before are kept and stay readable" in done.stderr
    assert (copy / "results.jsonl").read_bytes() == before
    assert bench("report", copy).returncode == 0


def test_interrupt_keeps_what_is_measured_and_says_how_to_resume(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "bench", *RUN, "--layers", "conv5_3x3", "--out", str(out)]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell without job control makes what it starts in the background ignore interrupts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    path = out / "results.jsonl"
    for _ in range(600):
        if (path.exists() and path.stat().st_size) or running.poll() is not None:
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert f"to go on:\n  python -m bench {shlex.join(command[3:])}" in stdout
    assert lines_of(out)

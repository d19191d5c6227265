"""run_all.sh in a checkout of its own, whose interpreter is a stub where a test wants it so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Answers for `bench` and pip, writes down what it was asked, and is Python for the rest.
STUB = """#!/usr/bin/env bash
case "$*" in
"-m bench.doctor") exit "${DOCTOR_CODE:-0}" ;;
"-m bench "*) printf '%s' "$PWD" >>"$ASKED"; printf '|%s' "$@" >>"$ASKED"; echo >>"$ASKED"
    [ "$3" = "${FAILING:-}" ] && exit "$FAILING_CODE"; exit 0 ;;
"-m pip install"*) printf '%s\\n' "$*" >>"$ASKED"
    while [ "$1" != --log ]; do shift; done
    printf '%b\\n' "${PIP_SAYS:-}" >>"$2"; exit "${PIP_CODE:-0}" ;;
esac
exec "$REAL_PYTHON" "$@"
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of what run_all.sh needs, in a folder with a space in its name."""

    folder: Path

    @property
    def asked(self) -> list[str]:
        """What the stub was asked, in order."""
        path = self.folder.parent / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def stub(self, name: str, text: str = STUB) -> Path:
        path = self.folder.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(
        self, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        home = self.folder.parent / "home"
        home.mkdir(exist_ok=True)
        kept |= {
            "HOME": str(home),
            "ASKED": str(self.folder.parent / "asked"),
            "REAL_PYTHON": sys.executable,
            "PIP_NO_INDEX": "1",  # a script that goes astray installs nothing all the same
        }
        return subprocess.run(
            ["bash", str(self.folder / "run_all.sh"), *arguments],
            cwd=cwd or self.folder,
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "a check out"
    folder.mkdir()
    for name in ("run_all.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("bench", "hrbp_core"):
        (folder / name).symlink_to(ROOT / name)
    return Checkout(folder)


@pytest.mark.parametrize("script", ["run_all.sh", ".ci/run"])
def test_scripts_parse_and_can_be_run(script: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0
    assert os.access(ROOT / script, os.X_OK)


def test_help_names_every_option_and_needs_no_python(checkout: Checkout) -> None:
    done = checkout.run("--help", HRBP_PYTHON="/nowhere/python")
    assert done.returncode == 0
    for word in ("--suite", "--device", "--out", "--no-install", "test", "HRBP_PYTHON"):
        assert word in done.stdout
    assert not (checkout.folder / ".cache").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--siute", "quick"], "expected an option, got '--siute'"),
        (["tests"], "expected an option, got 'tests'"),
        (["--suite"], "expected a value after --suite"),
        (["--out="], "expected a value after --out"),
        (["--device", "gpu"], "expected a device of auto, cpu, cuda; got 'gpu'"),
        (["test", "--suite", "quick"], "--suite has no meaning with 'test'"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(
    checkout: Checkout, arguments: list[str], sentence: str
) -> None:
    done = checkout.run(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "--help" in done.stderr
    assert not (checkout.folder / ".cache").exists()


def test_an_unknown_suite_is_told_before_installing(checkout: Checkout) -> None:
    done = checkout.run("--suite", "qiuck", HRBP_PYTHON=sys.executable)
    assert done.returncode == 2
    assert "expected a suite of quick" in done.stderr
    assert not (checkout.folder / ".venv").exists()
    assert not (checkout.folder / "results").exists()


def test_an_old_python_is_refused(checkout: Checkout) -> None:
    old = checkout.stub("old", '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10\nexit 1\n')
    done = checkout.run(HRBP_PYTHON=str(old))
    assert done.returncode == 2
    assert "expected Python 3.11 or newer in HRBP_PYTHON, got 'Python 3.8.10'" in done.stderr


def test_no_python_at_all_says_what_to_install(checkout: Checkout, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "mkdir"):
        (tools / name).symlink_to(shutil.which(name) or name)
    # python3 is there, but too old: the search goes on, and ends without one
    checkout.stub("tools/python3", "#!/bin/sh\nexit 1\n")
    done = checkout.run(PATH=str(tools))
    assert done.returncode == 2
    assert "found none on PATH" in done.stderr
    assert "apt install python3" in done.stderr


def test_a_newer_python_than_python3_is_found(checkout: Checkout, tmp_path: Path) -> None:
    checkout.stub("tools/python3", "#!/bin/sh\nexit 1\n")
    checkout.stub("tools/python3.13")
    done = checkout.run("--no-install", PATH=f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert len(checkout.asked) == 3


def test_a_python_named_wrongly_is_told(checkout: Checkout) -> None:
    done = checkout.run(HRBP_PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert "HRBP_PYTHON names '/nowhere/python'" in done.stderr


def test_a_python_without_venv_says_which_package_brings_it(
    checkout: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError('no ensurepip')\n")
    done = checkout.run(HRBP_PYTHON=sys.executable, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "apt install python3-venv" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_without_installing_missing_packages_are_named(checkout: Checkout) -> None:
    bare = checkout.stub("bare", '#!/bin/sh\nexec "$REAL_PYTHON" -S "$@"\n')
    done = checkout.run("--no-install", HRBP_PYTHON=str(bare))
    assert done.returncode == 2
    assert any(line.split()[:2] == ["missing", "torch"] for line in done.stdout.splitlines()), (
        done.stdout
    )
    assert "stopped at 'looking at this machine'" in done.stderr


def test_tests_without_installing_need_pytest(checkout: Checkout) -> None:
    bare = checkout.stub("bare", '#!/bin/sh\nexec "$REAL_PYTHON" -S "$@"\n')
    done = checkout.run("test", "--no-install", HRBP_PYTHON=str(bare))
    assert done.returncode == 2
    assert "lacks pytest" in done.stderr


def test_three_steps_in_order_from_another_folder(checkout: Checkout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    python = str(checkout.stub("python"))
    options = ["--no-install", "--device", "cpu", "--suite=resnet50", "--out", "my results"]
    done = checkout.run(*options, cwd=elsewhere, HRBP_PYTHON=python)
    assert done.returncode == 0, done.stderr
    here, out = checkout.folder, elsewhere / "my results"
    assert checkout.asked == [
        f"{here}|-m|bench|run|--suite|resnet50|--device|cpu|--out|{out}",
        f"{here}|-m|bench|accuracy|--preset|digits|--device|cpu|--out|{out}",
        f"{here}|-m|bench|report|{out}",
    ]
    assert out.is_dir()
    assert list((tmp_path / "home").iterdir()) == []


def test_results_lie_in_the_checkout_by_default(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.run("--no-install", cwd=tmp_path, HRBP_PYTHON=str(checkout.stub("python")))
    assert done.returncode == 0, done.stderr
    assert checkout.asked[-1].endswith(f"|report|{checkout.folder / 'results' / 'quick'}")


@pytest.mark.parametrize(
    ("failing", "code", "sentence", "steps"),
    [
        ("run", 5, "results/quick/results.jsonl tells which", 1),
        ("run", 130, "stopped by hand", 1),
        ("accuracy", 137, "for want of memory", 2),
        ("report", 3, "failed with exit code 3", 3),
    ],
)
def test_a_failing_step_stops_and_its_code_is_passed_on(
    checkout: Checkout, failing: str, code: int, sentence: str, steps: int
) -> None:
    python = str(checkout.stub("python"))
    done = checkout.run("--no-install", HRBP_PYTHON=python, FAILING=failing, FAILING_CODE=str(code))
    assert done.returncode == code
    assert sentence in done.stderr
    assert len(checkout.asked) == steps


def test_a_folder_that_cannot_be_made_is_told(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "results")
    python = str(checkout.stub("python"))
    done = checkout.run("--no-install", "--out", out, HRBP_PYTHON=python)
    assert done.returncode == 2
    assert f"cannot write to {out}" in done.stderr
    assert checkout.asked == []


def test_torch_comes_first_and_nothing_is_installed_twice(checkout: Checkout) -> None:
    checkout.stub(f"{checkout.folder.name}/.venv/bin/python")
    first = checkout.run()
    assert first.returncode == 0, first.stderr
    installs = [line for line in checkout.asked if "pip install" in line]
    assert [line.split()[-1] for line in installs] == ["torch", ".[bench]"]
    assert all("--constraint constraints.txt" in line for line in installs)

    checkout.run()
    assert [line for line in checkout.asked if "pip install" in line] == installs

    with (checkout.folder / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    checkout.run()
    assert len([line for line in checkout.asked if "pip install" in line]) == 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("WARNING: Retrying after NewConnectionError: refused", "index did not answer"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for torch==2.13.0", "has no torch==2.13.0 for"),
        (
            "NameResolutionError\\nERROR: No matching distribution found for torch",
            "index did not answer",
        ),
        ("error: subprocess-exited-with-error", "failed while installing torch"),
    ],
)
def test_a_failed_installation_says_why(checkout: Checkout, words: str, sentence: str) -> None:
    checkout.stub(f"{checkout.folder.name}/.venv/bin/python")
    done = checkout.run(PIP_CODE="1", PIP_SAYS=words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(checkout.asked) == 1
    assert not (checkout.folder / ".venv" / "hrbp-stamp").exists()


def test_a_full_disk_is_told_before_installing(checkout: Checkout, tmp_path: Path) -> None:
    checkout.stub(f"{checkout.folder.name}/.venv/bin/python")
    df = "#!/bin/sh\necho Filesystem 1024-blocks Used Available\necho /dev/x 9 9 1048576\n"
    checkout.stub("tools/df", df)
    done = checkout.run(PATH=f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert "got 1024 MiB" in done.stderr
    assert checkout.asked == []

"""What ``python -m bench`` says without arguments."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench import greeting

ROOT = Path(__file__).parent.parent


def written(path: Path, when: int, text: str = "{}\n") -> None:
    """Make a file that was written ``when`` seconds after another time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (when, when))


def commands(root: Path, gpu: bool = False) -> list[str]:
    return [command for _, command in greeting.next_steps(root, gpu)]


def test_nothing_measured_yet(tmp_path) -> None:
    assert commands(tmp_path) == [
        "python -m bench doctor",
        "python -m bench run --suite quick",
        "python -m bench report results/quick",
    ]


def test_an_empty_file_is_no_result(tmp_path) -> None:
    written(tmp_path / "results" / "quick" / "results.jsonl", 5, "")
    assert commands(tmp_path)[0] == "python -m bench doctor"


@pytest.mark.parametrize("newest", ["a", "b", "c"])
def test_of_several_folders_the_newest_counts(tmp_path, newest: str) -> None:
    for name in ("a", "b", "c"):
        written(tmp_path / "results" / name / "steps.jsonl", 9 if name == newest else 5)
    assert commands(tmp_path)[0] == f"python -m bench report results/{newest}"


def test_what_is_measured_is_drawn_next(tmp_path) -> None:
    written(tmp_path / "results" / "mine" / "results.jsonl", 9)
    assert commands(tmp_path) == [
        "python -m bench report results/mine",
        "python -m bench accuracy --preset digits --out results/mine",
        "python -m bench gate --base-rev HEAD",
    ]


def test_a_page_that_is_up_to_date_is_opened(tmp_path) -> None:
    folder = tmp_path / "results" / "mine"
    written(folder / "results.jsonl", 5)
    written(folder / "accuracy.jsonl", 6)
    written(folder / "report" / "report.html", 7)
    opened, stepped, _ = commands(tmp_path)
    assert opened == "open results/mine/report/report.html"
    assert stepped == "python -m bench step --model vgg16 --batch 16 --out results/mine"
    assert "--batch 128" in commands(tmp_path, gpu=True)[1]
    written(folder / "accuracy.jsonl", 8)
    assert commands(tmp_path)[0] == "python -m bench report results/mine"


def test_says_which_machine_and_all_three_commands(tmp_path) -> None:
    text = io.StringIO()
    greeting.greet(Console(file=text, width=100), tmp_path, gpu=True)
    said = text.getvalue()
    assert "an NVIDIA GPU is visible" in said
    assert all(command in said for command in commands(tmp_path))
    text.seek(0)
    greeting.greet(Console(file=text, width=100), tmp_path, gpu=False)
    assert "CPU kernels run" in text.getvalue()


def test_gpus_are_seen_by_their_files(tmp_path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert not greeting.has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert greeting.has_gpu(tmp_path)


def test_greets_without_torch_or_pandas(tmp_path) -> None:
    program = (
        "import sys; from bench.cli import app; app([], standalone_mode=False)\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'matplotlib')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m bench doctor" in done.stdout

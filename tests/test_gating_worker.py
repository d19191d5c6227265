"""bench.gating.worker: its answers alone are answers, its own side alone is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.gating.child import Child, Died, check_loads
from bench.gating.sides import Side
from tests.gating_checkout import ROOT, led_side
from tests.killed import descendants, wait_until_gone


@contextmanager
def started(side: Side, folder: Path, **request) -> Iterator[Child]:
    folder.mkdir(exist_ok=True)
    child = Child(side, folder, {"impls": [], "cells": ["c"]} | request, 2)
    try:
        yield child
    finally:
        child.end()


def refused(side: Side, folder: Path, **request) -> str:
    """Return why a side cannot be loaded."""
    with started(side, folder, **request) as child, pytest.raises(Died) as found:
        child.answer()
    assert found.value.no_api
    assert found.value.cell is None
    return found.value.reason


def test_orders_are_done_one_after_another_until_finish(tmp_path: Path) -> None:
    with started(led_side(tmp_path / "side"), tmp_path) as child:
        assert child.answer() == {}
        assert child.ask(do="prepare") == {"prepared": 1}
        assert child.ask(do="warm") == {"warm": 2.5}
        assert child.ask(do="turn", cells=["a", "b"]) == {"a": 1.0, "b": 1.0}
        assert child.ask(do="turn", cells=[]) == {}
        assert child.ask(do="finish") == [{"environment": {}}, {"measurement": 3}]
        assert child.process.wait(20) == 0


def test_what_libraries_print_is_no_answer(tmp_path: Path) -> None:
    """Python's print, the file descriptor itself, and a process of its own."""
    garbage = "print('{\"answer\": 1}')\nprint('no JSON')\n"
    code = (
        "led.at('cell a')\n" + garbage + "os.write(1, b'{\"answer\": 2}\\n')\n"
        "subprocess.run(['echo', '{\"answer\": 3}'])\nsys.stdout.flush()"
    )
    side = led_side(tmp_path / "side", library=garbage, impls=garbage + "load = print")
    with started(side, tmp_path, code=f"import os, subprocess, sys\n{code}", impls=["x"]) as child:
        assert child.answer() == {}
        assert child.ask(do="prepare") == {"prepared": 1}
        assert child.cell == "cell a"
        assert child.ask(do="warm") == {"warm": 2.5}
    said = (tmp_path / "errors-2.txt").read_text()
    assert all(f'{{"answer": {n}}}' in said for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"library": "def broken(:\n"}, "SyntaxError: "),
        ({"library": "raise RuntimeError('not here')"}, "RuntimeError: not here"),
        ({"impls": "from hrbp_core import gone"}, "ImportError: cannot import name 'gone'"),
        ({"impls": "def load(name): raise AttributeError(name)"}, "AttributeError: block_sparse"),
    ],
)
def test_a_side_that_does_not_load_says_why(tmp_path: Path, files, reason: str) -> None:
    side = led_side(tmp_path / "side", **files)
    assert refused(side, tmp_path, impls=["block_sparse"]).startswith(reason)
    with pytest.raises(Died) as found:
        check_loads(side, tmp_path, ["block_sparse"])
    assert found.value.no_api


@pytest.mark.parametrize("library", ["none", ""])
def test_an_installed_copy_is_never_measured(tmp_path: Path, library: str) -> None:
    """The side's folder is first on the path; where it has no library, nobody else's is taken."""
    installed = tmp_path / "site-packages"
    (installed / "hrbp_core").mkdir(parents=True)
    (installed / "hrbp_core" / "__init__.py").write_text("")
    place = 0 if not library else 99  # either way the side's own is not what is found
    package = f"import sys; sys.path.insert({place}, {str(installed)!r})"
    side = led_side(tmp_path / "side", library=library, package=package)
    reason = refused(side, tmp_path)
    assert reason.startswith(f"ImportError: expected hrbp_core of {side.root}, got /")


def test_a_temporary_folder_behind_a_link_is_as_good(tmp_path: Path) -> None:
    side = led_side(tmp_path / "real" / "head")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with started(replace(side, root=tmp_path / "link" / "head"), tmp_path) as child:
        assert child.answer() == {}


def test_a_check_leaves_no_process_and_no_error(tmp_path: Path) -> None:
    before = descendants(os.getpid())
    for name in ("base", "head"):
        check_loads(replace(led_side(tmp_path / name), name=name), tmp_path, ["block_sparse"])
    assert descendants(os.getpid()) == before
    assert (tmp_path / "errors-0.txt").read_text() == (tmp_path / "errors-1.txt").read_text() == ""


def test_without_cells_it_is_only_asked_whether_it_loads(tmp_path: Path) -> None:
    with started(led_side(tmp_path / "side"), tmp_path, cells=[]) as child:
        assert child.answer() == {}
        assert child.process.wait(20) == 0


# --- it dies with its parent --------------------------------------------------------------

PARENT = """
import sys, time
from pathlib import Path
from bench.gating.child import Child
from bench.gating.sides import Side

side = Side("head", "c", False, Path(sys.argv[1]))
child = Child(side, Path(sys.argv[2]), {"impls": [], "cells": ["c"], "code": sys.argv[3]}, 2)
child.answer()
child.send(do="prepare")
child.answer(1e9)
"""
HANG = "led.at('c'); print('hangs', flush=True); "


def test_it_dies_with_its_parent_even_by_kill_9_and_within_c_code(tmp_path: Path) -> None:
    """The interpreter is held there: no other thread of it runs."""
    side = led_side(tmp_path / "side")
    code = HANG + "sum(range(10**12))"
    command = [sys.executable, "-c", PARENT, str(side.root), str(tmp_path), code]
    with subprocess.Popen(command, cwd=ROOT) as parent:
        until_it_hangs(tmp_path / "errors-2.txt")
        children = descendants(parent.pid)
        assert len(children) == 1
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until_gone(children)


def until_it_hangs(errors: Path) -> None:
    end = time.monotonic() + 30
    while not (errors.exists() and "hangs" in errors.read_text()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_it_does_not_start_for_a_parent_that_is_no_more() -> None:
    code = "from bench.orphans import die_with; die_with(1); print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")

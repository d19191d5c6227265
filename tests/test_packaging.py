"""What the project ships, pins and says of the world outside it."""

from __future__ import annotations

import ast
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = re.compile(r"^[A-Za-z0-9][\w.-]*")


def name_of(requirement: str) -> str:
    """``hrbp[bench] >= 1; marker`` is about hrbp."""
    match = NAME.match(requirement)
    assert match is not None, requirement
    return match[0].lower()


def pins() -> dict[str, str]:
    """Return the line of constraints.txt that each name has."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    found = {name_of(line): line for line in wanted}
    assert len(found) == len(wanted), "a name is pinned twice"
    return found


def version() -> str:
    tree = ast.parse((ROOT / "hrbp_core/__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return ast.literal_eval(node.value)
    raise AssertionError("hrbp_core has no __version__")


def test_every_dependency_is_pinned_to_one_version() -> None:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *itertools.chain.from_iterable(extras.values())]
    named = {name_of(line) for line in lines}
    assert named - {"hrbp"} <= set(pins())
    for line in pins().values():
        assert re.fullmatch(r"[\w.-]+==\d[\w.]*", line), line


def test_what_tox_installs_is_pinned() -> None:
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    match = re.search(r"^deps =\n((?:    \S+\n)+)", text, re.MULTILINE)
    assert match is not None
    assert set(match[1].split()) | {"tox"} <= set(pins())


def test_the_test_extra_holds_the_bench_extra() -> None:
    assert "hrbp[bench]" in PROJECT["optional-dependencies"]["test"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel, built offline from a copy, so that nothing is left in the checkout."""
    pytest.importorskip("setuptools", "77.0.3", reason="builds with the setuptools at hand")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "LICENSE", PROJECT["readme"]):
        shutil.copy(ROOT / name, source / name)
    for name in ("hrbp_core", "bench", "reports", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "recorded")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = out.iterdir()
    return zipfile.Path(path)


def test_the_wheel_holds_the_library_alone(wheel: zipfile.Path) -> None:
    info = f"hrbp-{version()}.dist-info"
    assert {part.name for part in wheel.iterdir()} == {"hrbp_core", info}
    held = {name for name in wheel.root.namelist() if re.match("hrbp_core/.*[^/]$", name)}
    files = [path for path in (ROOT / "hrbp_core").rglob("*") if path.is_file()]
    assert held == {str(p.relative_to(ROOT)) for p in files if p.parent.name != "__pycache__"}
    assert "Copyright 2026 The hrbp authors" in (wheel / info / "licenses/LICENSE").read_text()


def test_the_wheel_asks_for_the_dependencies(wheel: zipfile.Path) -> None:
    text = (wheel / f"hrbp-{version()}.dist-info" / "METADATA").read_text()
    assert "Requires-Python: >=3.11" in text
    for name in ("torch>=", "triton>=", "numpy>=", "scipy>="):
        assert f"Requires-Dist: {name}" in text


# What belongs to one machine, or names a registry's host. Written so that it does not match itself.
FOREIGN = {
    "a folder of one machine": re.compile(
        r"(?<![\w.~$}/-])/(?:work|root|Users|home/\w+|opt/(?:pypi|wheels))/[\w.]|/tmp/ven[v]"
    ),
    "a registry's host": re.compile(
        r"\b(?:pypi|pythonhosted|npmj[s]|anaconda|debian)\.(?:org|com)\b|\bpytorch\.org/whl"
    ),
}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every file that git keeps, or would keep, by name."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="ignore")
        for path in paths
        if path.is_file()
    }


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names_what_is_not_the_projects(what: str, texts: dict[str, str]) -> None:
    found = {
        f"{name}: {match[0]}"
        for name, text in texts.items()
        for match in FOREIGN[what].finditer(text)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a folder of one machine", 'open("/' + 'work/main/x")'),
        ("a folder of one machine", "see /" + "home/someone/results"),
        ("a folder of one machine", "/" + "root/.cache"),
        ("a registry's host", "https://" + "pypi." + "org/simple"),
        ("a registry's host", "files." + "pythonhosted." + "org"),
    ],
)
def test_the_patterns_match_what_they_are_for(what: str, text: str) -> None:
    assert FOREIGN[what].search(text)
    assert not FOREIGN[what].search("a/root/b, $HOME/work/x, frame/work/y, pytorch.org/docs")


def test_results_that_are_kept_are_not_ignored(texts: dict[str, str]) -> None:
    def ignored(path: str) -> bool:
        command = ["git", "check-ignore", "-q", "--no-index", path]
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0

    assert not ignored("reports/recorded/results/results.jsonl")
    for path in ("results/quick/results.jsonl", ".venv/x", ".venv-tox/x", ".tox/x", ".cache/x"):
        assert ignored(path), path
    for link in (".venv", ".venv-tox", ".tox", ".cache"):  # links to folders elsewhere, too
        assert ignored(link), link


def test_nothing_that_is_ignored_is_kept(texts: dict[str, str]) -> None:
    # a .venv that was a link once stood here, and no fresh checkout could be installed
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert kept.stdout.split() == []

"""Findings about machines that are made up, and about this one."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench import doctor
from bench.doctor import Finding, exit_code, findings, render, requirements

ROOT = Path(__file__).resolve().parent.parent


def fake_torch(cuda: bool = False, built_for: str | None = None) -> Any:
    """A torch that answers what the doctor asks."""
    gpu = SimpleNamespace(name="Fake GPU", major=9, minor=0, total_memory=80 * 2**30)
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=built_for),
        cuda=SimpleNamespace(
            is_available=lambda: cuda,
            device_count=lambda: 1,
            get_device_properties=lambda index: gpu,
        ),
        backends=SimpleNamespace(
            cudnn=SimpleNamespace(is_available=lambda: cuda, version=lambda: 92000),
            mkldnn=SimpleNamespace(is_available=lambda: True),
            cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2"),
        ),
        get_num_threads=lambda: 2,
    )


def fake_nvml(version: str | bytes) -> Any:
    return SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: version,
        nvmlDeviceGetCount=lambda: 1,
    )


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``import_module`` finds: a module, or an error to raise."""
    there: dict[str, Any] = {"torch": fake_torch(), "pynvml": ImportError("no pynvml")}

    def load(name: str) -> Any:
        if isinstance(there[name], Exception):
            raise there[name]
        return there[name]

    monkeypatch.setattr(doctor, "importlib", SimpleNamespace(import_module=load))
    return there


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Which packages are installed: all, at the lowest version that is asked for."""
    there = requirements()

    def version(name: str) -> str:
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    error = metadata.PackageNotFoundError
    stand_in = SimpleNamespace(version=version, PackageNotFoundError=error)
    monkeypatch.setattr(doctor, "metadata", stand_in)
    return there


def by_name(found: list[Finding]) -> dict[str, Finding]:
    assert len({f.name for f in found}) == len(found)
    return {f.name: f for f in found}


def test_a_machine_that_has_everything_passes(modules, versions) -> None:
    found = by_name(findings())
    assert exit_code(list(found.values())) == 0
    assert set(requirements()) <= set(found)
    assert found["torch"] == Finding("torch", "ok", versions["torch"])
    assert found["CUDA device"].state == "note"
    assert "C compiler" not in found
    for name in (
        "python",
        "oneDNN",
        "CPU passes",
        "bf16 on the CPU",
        "cores",
        "threads",
        "free disk",
        "driver",
    ):
        assert name in found


def test_this_machine_is_read_without_an_error() -> None:
    found = by_name(findings())
    assert found["torch"].found == metadata.version("torch")
    assert found["python"].state == "ok"


@pytest.mark.parametrize("name", ["torch", "numpy", "scipy", "pandas", "scikit-learn", "typer"])
def test_a_missing_package_stops_and_says_what_to_do(name, modules, versions) -> None:
    del versions[name]
    if name == "torch":
        modules["torch"] = ModuleNotFoundError("No module named 'torch'", name="torch")
    found = findings()
    assert by_name(found)[name].state == "missing"
    assert "constraints.txt" in by_name(found)[name].advice
    assert exit_code(found) == 2


def test_an_old_package_stops(modules, versions) -> None:
    versions["torch"] = "2.9.1+cpu"
    found = findings()
    assert by_name(found)["torch"].state == "old"
    assert "2.11 or newer" in by_name(found)["torch"].advice
    assert exit_code(found) == 2


@pytest.mark.parametrize("name", sorted(doctor.OPTIONAL))
def test_an_optional_package_is_a_note(name, modules, versions) -> None:
    del versions[name]
    found = findings()
    assert by_name(found)[name].state == "note"
    assert doctor.OPTIONAL[name] in by_name(found)[name].found
    assert exit_code(found) == 0


def test_every_optional_package_is_asked_for() -> None:
    assert set(doctor.OPTIONAL) <= set(requirements())


def test_a_cuda_device_needs_triton_and_a_compiler(modules, versions, monkeypatch) -> None:
    modules |= {"torch": fake_torch(cuda=True, built_for="13.0"), "pynvml": fake_nvml("600.1")}
    del versions["triton"]
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = by_name(findings())
    assert found["triton"].state == "missing"
    assert found["C compiler"].state == "missing"
    assert found["CUDA device"].found == "Fake GPU, capability 9.0, 80 GiB; CUDA 13.0"
    assert found["cuDNN"] == Finding("cuDNN", "ok", "92000")
    assert found["driver"].found == "600.1, 1 GPU"


def test_a_compiler_without_headers_is_told(modules, versions, monkeypatch, tmp_path) -> None:
    modules["torch"] = fake_torch(cuda=True, built_for="13.0")
    monkeypatch.setenv("CC", "/usr/bin/gcc")
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "python3-dev" in by_name(findings())["C compiler"].advice
    (tmp_path / "Python.h").touch()
    assert by_name(findings())["C compiler"].state == "ok"


@pytest.mark.parametrize(
    ("built_for", "advice"), [(None, "CUDA build of torch"), ("13.0", "update the NVIDIA driver")]
)
def test_a_gpu_that_torch_cannot_use_is_told(built_for, advice, modules, versions) -> None:
    modules |= {"torch": fake_torch(built_for=built_for), "pynvml": fake_nvml(b"600.1")}
    found = findings()
    assert advice in by_name(found)["CUDA device"].advice
    assert exit_code(found) == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ModuleNotFoundError("no sympy", name="sympy"), "lacks the module sympy"),
        (OSError("libtorch.so: cannot open\nlong advice"), "libtorch.so: cannot open"),
        (ImportError(""), "no reason given"),
    ],
)
def test_a_torch_that_cannot_be_loaded_is_missing(error, text, modules, versions) -> None:
    modules["torch"] = error
    found = findings()
    assert by_name(found)["torch"].state == "missing"
    assert by_name(found)["torch"].found.endswith(text)
    assert exit_code(found) == 2


def test_an_old_python_is_all_that_is_told(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "LOWEST_PYTHON", (99, 0))
    found = findings()
    assert [(f.name, f.state) for f in found] == [("python", "old")]
    assert exit_code(found) == 2


def test_versions_compare_as_numbers() -> None:
    assert doctor._numbers("2.13.0+cpu") == (2, 13)
    assert doctor._numbers("2.9.1") < doctor._numbers("2.11")
    assert doctor._numbers("2.11.0a0+git12") == doctor._numbers("2.11")


@pytest.mark.parametrize("line", ["torch==2.13", "torch>=2.11,<3", "torch"])
def test_a_requirement_that_cannot_be_read_is_refused(line, tmp_path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        f'[project]\ndependencies = ["{line}"]\n[project.optional-dependencies]\nbench = []\n'
    )
    with pytest.raises(ValueError, match="expected 'name>=version'"):
        requirements(path)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor: 0\nflags\t\t: fpu amx_bf16\n\nflags : other\n", {"fpu", "amx_bf16"}),
        ("", set()),
    ],
)
def test_cpu_flags_are_the_first_cores(text, flags, tmp_path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert doctor._cpu_flags(tmp_path / "cpuinfo") == flags
    assert doctor._cpu_flags(tmp_path / "none") == set()


def test_little_disk_is_a_note(monkeypatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    assert doctor._disk() == Finding("free disk", "note", "1.0 GiB", "free some before a long run")


def test_the_table_shows_every_word() -> None:
    stream = io.StringIO()
    found = [
        Finding("torch", "missing", "not [here]", "install 'x[bench]'"),
        Finding("a", "ok", "1"),
    ]
    render(found, Console(file=stream, width=100))
    for word in ("missing", "torch", "not [here]", "install 'x[bench]'", "ok"):
        assert word in stream.getvalue()


def test_runs_where_nothing_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "bench.doctor"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    states = {name: state for state, name, _ in lines}
    assert states["torch"] == states["rich"] == "missing"
    assert states["python"] == "ok"

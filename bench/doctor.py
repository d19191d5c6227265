"""What is here, what is missing, and what to do about it: ``python -m bench.doctor``.

Imports nothing but the standard library until a fact needs more, so that it can tell what is
missing where nothing is installed. The versions it asks for are those of ``pyproject.toml``.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

CHECKOUT = Path(__file__).resolve().parent.parent
INSTALL = "run ./run_all.sh, or: python -m pip install -c constraints.txt -e '.[bench]'"
# Packages that a run can do without, and what it then lacks.
OPTIONAL = {
    "triton": "kernels on a CUDA device",
    "llvmlite": "machine code for the CPU's passes",
    "nvidia-ml-py": "clocks, power and energy of the GPU",
    "pyarrow": "images read from parquet files",
    "pytest-benchmark": "`pytest-benchmark compare`",
    "ruptures": "steps in `bench trend`",
}
LOWEST_PYTHON = (3, 11)
LOW_DISK_GIB = 2.0
STYLE = {"ok": "green", "missing": "bold red", "old": "bold red", "note": "yellow"}

State = Literal["ok", "missing", "old", "note"]


@dataclass(frozen=True)
class Finding:
    """One fact about this machine.

    Attributes:
        name: what was looked at.
        state: "ok"; "missing" or "old" when the suite cannot run for it; "note" when it can,
            but a reader should know.
        found: what is there.
        advice: what to do; empty when there is nothing to do.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def requirements(pyproject: Path = CHECKOUT / "pyproject.toml") -> dict[str, str]:
    """Return the lowest version of each package that the library and the suite ask for.

    Raises:
        OSError: ``pyproject`` cannot be read. ValueError: it asks for more than "name>=version".
    """
    import tomllib  # here, so that an older Python comes as far as being told

    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    lowest: dict[str, str] = {}
    for line in [*project["dependencies"], *project["optional-dependencies"]["bench"]]:
        match = re.fullmatch(r"([\w.-]+)>=([\d.]+)(;.*)?", line)
        if match is None:
            raise ValueError(f"expected 'name>=version' in {pyproject}, got {line!r}")
        lowest[match[1]] = match[2]
    return lowest


def findings() -> list[Finding]:
    """Return every fact, those about Python and its packages first. Needs no torch."""
    python = _python()
    if python.state != "ok":
        return [python]
    torch, trouble = _load_torch()
    on_cuda = torch is not None and torch.cuda.is_available()
    found = [python, *_packages(on_cuda)]
    if trouble is not None:
        found = [trouble if finding.name == "torch" else finding for finding in found]
    driver = _driver()
    found.append(driver)
    if torch is not None:
        found += [_device(torch, driver), _cudnn(torch), *_cpu_kernels(torch)]
    if on_cuda:
        found.append(_compiler())
    return [*found, _cores(), _threads(torch), _disk()]


def exit_code(found: Sequence[Finding]) -> int:
    """Return 2 when something is missing or too old, else 0."""
    return 2 if any(finding.state in ("missing", "old") for finding in found) else 0


def render(found: Sequence[Finding], console: Console) -> None:
    """Print the findings as a table, advice below what it is about."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in found:
        style = STYLE[finding.state]
        advice = f"\n[{style}]{escape(finding.advice)}[/]" if finding.advice else ""
        state = f"[{style}]{finding.state}[/]"
        table.add_row(state, escape(finding.name), escape(finding.found) + advice)
    console.print(table)


def main() -> int:
    """Print the findings, plainly where rich is missing; return the exit code."""
    found = findings()
    try:
        from rich.console import Console
    except ImportError:
        for finding in found:
            advice = f" -- {finding.advice}" if finding.advice else ""
            print(f"{finding.state:8}{finding.name:18}{finding.found}{advice}")
    else:
        render(found, Console())
    return exit_code(found)


def _numbers(version: str) -> tuple[int, ...]:
    """Return (2, 13) for "2.13.0a1+cpu": leading numbers, without zeros at the end."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in match[0].split(".")] if match else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    if sys.version_info < LOWEST_PYTHON:
        return Finding("python", "old", found, "install Python 3.11 or newer")
    return Finding("python", "ok", found)


def _packages(on_cuda: bool) -> Iterator[Finding]:
    try:
        wanted = requirements()
    except (OSError, ValueError) as error:
        yield Finding("packages", "missing", str(error), "run from a complete checkout")
        return
    for name, lowest in wanted.items():
        spared = name in OPTIONAL and not (name == "triton" and on_cuda)
        yield _package(name, lowest, spared)


def _package(name: str, lowest: str, spared: bool) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        if spared:
            return Finding(name, "note", f"not installed: the suite lacks {OPTIONAL[name]}")
        return Finding(name, "missing", f"not installed, {lowest} or newer is needed", INSTALL)
    if _numbers(version) >= _numbers(lowest):
        return Finding(name, "ok", version)
    state: State = "note" if spared else "old"
    return Finding(name, state, version, f"{lowest} or newer is needed: {INSTALL}")


def _load_torch() -> tuple[Any, Finding | None]:
    """Return (the module, None), or (None, the finding that tells why there is none)."""
    try:
        return importlib.import_module("torch"), None
    except ModuleNotFoundError as error:
        if error.name == "torch":
            return None, Finding("torch", "missing", "not installed", INSTALL)
        return None, Finding("torch", "missing", f"lacks the module {error.name}", INSTALL)
    except (ImportError, OSError) as error:
        # a library that torch links to: the first line names it
        first = (str(error).splitlines() or ["no reason given"])[0]
        return None, Finding("torch", "missing", f"cannot be loaded: {first}", "install it anew")


def _driver() -> Finding:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return Finding("driver", "note", "unknown: pynvml is not installed")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Finding("driver", "note", f"no NVIDIA driver ({error})")
    try:
        version = nvml.nvmlSystemGetDriverVersion()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        return Finding("driver", "note", f"does not answer ({error})", "see what nvidia-smi says")
    finally:
        nvml.nvmlShutdown()
    text = version.decode() if isinstance(version, bytes) else version
    return Finding("driver", "ok", f"{text}, {count} GPU{'' if count == 1 else 's'}")


def _device(torch: Any, driver: Finding) -> Finding:
    if torch.cuda.is_available():
        each = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        texts = [
            f"{p.name}, capability {p.major}.{p.minor}, {p.total_memory / 2**30:.0f} GiB"
            for p in each
        ]
        return Finding("CUDA device", "ok", f"{'; '.join(texts)}; CUDA {torch.version.cuda}")
    if driver.state != "ok":
        return Finding("CUDA device", "note", "none: --device auto takes the CPU")
    if torch.version.cuda is None:
        found = "a GPU is here, but this torch is built for the CPU alone"
        return Finding("CUDA device", "note", found, "install a CUDA build of torch to measure it")
    found = f"a GPU is here, but torch (CUDA {torch.version.cuda}) cannot use it"
    advice = "update the NVIDIA driver, and look at CUDA_VISIBLE_DEVICES"
    return Finding("CUDA device", "note", found, advice)


def _cudnn(torch: Any) -> Finding:
    version = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    if version is not None:
        return Finding("cuDNN", "ok", str(version))
    if torch.cuda.is_available():
        return Finding("cuDNN", "note", "none: the dense reference is slow", "install torch anew")
    return Finding("cuDNN", "note", "none, and none is needed on the CPU")


def _cpu_kernels(torch: Any) -> Iterator[Finding]:
    capability = torch.backends.cpu.get_cpu_capability()
    if torch.backends.mkldnn.is_available():
        yield Finding("oneDNN", "ok", f"on {capability}")
    else:
        advice = "CPU figures are no guide without it: install a torch built with oneDNN"
        yield Finding("oneDNN", "note", f"not in this torch, on {capability}", advice)
    yield _cpu_passes()
    flags = _cpu_flags()
    native = sorted(flags & {"amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16"})
    if native:
        yield Finding("bf16 on the CPU", "ok", ", ".join(native))
    else:
        found = "no instructions of its own" if flags else "unknown"
        yield Finding("bf16 on the CPU", "note", f"{found}: measure float32 there")


def _cpu_passes() -> Finding:
    from hrbp_core.kernels.native import machine

    return Finding("CPU passes", "note" if machine.obstacle() else "ok", machine.describe())


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return what the first core can do, as Linux names it; empty elsewhere."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def _compiler() -> Finding:
    """Triton compiles a small C launcher on the machine: that takes a compiler and Python.h."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    advice = "Debian and Ubuntu: apt install gcc python3-dev"
    if compiler is None:
        return Finding("C compiler", "missing", "neither gcc nor clang, which Triton needs", advice)
    if not header.exists():
        return Finding("C compiler", "missing", f"{compiler}, but no {header}", advice)
    return Finding("C compiler", "ok", compiler)


def _cores() -> Finding:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return Finding("cores", "ok", f"{usable} usable of {total}{load}")


def _threads(torch: Any) -> Finding:
    wanted = os.environ.get("OMP_NUM_THREADS")
    found = "unknown without torch" if torch is None else f"torch takes {torch.get_num_threads()}"
    return Finding("threads", "ok", found + (f" (OMP_NUM_THREADS={wanted})" if wanted else ""))


def _disk(folder: Path = CHECKOUT) -> Finding:
    free_gib = shutil.disk_usage(folder).free / 2**30
    if free_gib < LOW_DISK_GIB:
        return Finding("free disk", "note", f"{free_gib:.1f} GiB", "free some before a long run")
    return Finding("free disk", "ok", f"{free_gib:.1f} GiB")


if __name__ == "__main__":
    sys.exit(main())

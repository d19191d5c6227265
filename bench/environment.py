"""What this machine is, as facts that a stored run can be compared by."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from bench.records import Environment


def pick_device(wanted: str) -> str:
    """Return "cpu" or "cuda".

    Raises:
        ValueError: an unknown device, or cuda where there is none.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"expected a device of auto, cpu, cuda; got {wanted!r}")
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError(
            "expected a CUDA device, found none (torch.cuda.is_available() is false); "
            "run `python -m bench doctor`, or use --device cpu"
        )
    return "cuda" if available and wanted != "cpu" else "cpu"


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def use_all_cores() -> int:
    """Set torch's threads to the cores this process may use, and return their number."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdigit() and int(asked) > 0 else cores()
    torch.set_num_threads(threads)
    return threads


def environment(device: str, clock_mode: str | None = None) -> Environment:
    """Return this machine's facts for ``device``.

    Args:
        clock_mode: what was done to the GPU's clocks; nothing when left out.
    """
    gpu = _gpu_facts() if device == "cuda" else {}
    commit, dirty = _revision()
    cpu = cpu_name()
    return Environment(
        device=device,
        device_name=gpu.get("name", cpu),
        capability=gpu.get("capability"),
        sm_count=gpu.get("sm_count"),
        memory_gib=gpu.get("memory_gib"),
        mig=gpu.get("mig"),
        ecc=gpu.get("ecc"),
        power_limit_w=gpu.get("power_limit_w"),
        clock_mode=(clock_mode or "default") if device == "cuda" else None,
        driver=gpu.get("driver"),
        cuda=torch.version.cuda if device == "cuda" else None,
        cudnn=str(torch.backends.cudnn.version()) if device == "cuda" else None,
        torch=torch.__version__,
        triton=_version("triton"),
        python=platform.python_version(),
        cpu=cpu,
        threads=torch.get_num_threads(),
        platform=f"{platform.system()} {platform.machine()}",
        commit=commit,
        dirty=dirty,
    )


def cpu_name() -> str:
    """Return the processor's model and its number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


def gpu_uuid() -> str:
    """Return the name that NVML knows the current device by."""
    return f"GPU-{torch.cuda.get_device_properties(0).uuid}"


def _gpu_facts() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    facts: dict[str, Any] = {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "sm_count": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30),
    }
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(gpu_uuid())
    except Exception:  # NVML is optional: a missing library or permission leaves facts unknown
        return facts
    for name, read in (
        ("driver", lambda: pynvml.nvmlSystemGetDriverVersion()),
        ("power_limit_w", lambda: pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000),
        ("ecc", lambda: str(bool(pynvml.nvmlDeviceGetEccMode(handle)[0]))),
        ("mig", lambda: str(bool(pynvml.nvmlDeviceGetMigMode(handle)[0]))),
    ):
        try:
            facts[name] = read()
        except pynvml.NVMLError:
            facts[name] = None
    pynvml.nvmlShutdown()
    return facts


def _revision() -> tuple[str | None, bool | None]:
    """Return (commit, uncommitted changes) of the checkout.

    What HRBP_COMMIT says goes first: a copy of the files has no git folder, or an older one's.
    """
    said = os.environ.get("HRBP_COMMIT")
    if said:
        return said, None
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _version(module: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return None

"""NVIDIA Nsight Compute over a command: a few counters a GPU kernel. Floor 1: no torch.

Counters need a permission that most machines keep to administrators, and every kernel is
replayed several times: durations here are for shares and rates, never for speed-ups. What goes
wrong with the tool becomes a reason, because a profile without counters is still a profile.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

RANGE = "profiled"  # the NVTX range whose kernels are counted
LIMIT_S = 300.0
REASON_LENGTH = 200
PERCENT = ".avg.pct_of_peak_sustained_"
# Names as others use them on sm_80 to sm_100; none has been asked of a device here yet.
DURATION = "gpu__time_duration.sum"
METRICS = {
    "dram_read_bytes": "dram__bytes_read.sum",
    "dram_write_bytes": "dram__bytes_write.sum",
    "dram_throughput": f"dram__throughput{PERCENT}elapsed",
    "sm_throughput": f"sm__throughput{PERCENT}elapsed",
    "tensor_active": f"sm__pipe_tensor_cycles_active{PERCENT}active",
    "occupancy": f"sm__warps_active{PERCENT}active",
    "l2_hit_rate": "lts__t_sector_hit_rate.pct",
    "registers": "launch__registers_per_thread",
}
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
UNITS = (
    {f"{name}byte": scale for name, scale in _SCALE.items()}
    | {"nsecond": 1e-9, "usecond": 1e-6, "msecond": 1e-3, "second": 1.0}
    | {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "%": 0.01, "": 1.0}
    | {"register/thread": 1.0}
)
DENIED = (
    "the driver keeps performance counters to administrators (ERR_NVGPUCTRPERM): run as root, or "
    "have NVreg_RestrictProfilingToAdminUsers=0 set for the nvidia kernel module"
)


@dataclass(frozen=True)
class Kernel:
    """Launches of one name.

    Attributes:
        duration_s, metrics: means of those launches that have a number; None where none has.
            Bytes as they are, percentages as fractions.
    """

    name: str
    launches: int
    duration_s: float | None
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class Report:
    """Kernels in the order of their first launch, or the reason why there are none."""

    kernels: tuple[Kernel, ...] = ()
    reason: str | None = None


def available() -> str | None:
    """Return the path of ncu: in PATH, in $CUDA_HOME/bin, in /usr/local/cuda/bin; else None."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    folders = [os.environ.get("PATH", os.defpath), *(f"{home}/bin" for home in homes if home)]
    return shutil.which("ncu", path=os.pathsep.join(folders))


def collect(
    command: Sequence[str],
    *,
    ncu: str | None = None,
    limit_s: float = LIMIT_S,
    nvtx_range: str | None = None,
) -> Report:
    """Run ``command`` under Nsight Compute and return the counters of its kernels.

    Args:
        ncu: the program; ``available()`` when None. limit_s: then it and its children are killed.
        nvtx_range: count kernels within this range alone.

    Raises:
        ValueError: an empty command.
    """
    if not command:
        raise ValueError("expected a command to run, got none")
    program = ncu or available()
    if program is None:
        return Report(reason="expected ncu in PATH, $CUDA_HOME/bin or /usr/local/cuda/bin, "
                             "found none: install NVIDIA Nsight Compute")  # fmt: skip
    with TemporaryDirectory() as folder:
        log = Path(folder, "ncu.csv")
        words = [program, "--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log)]
        words += ["--metrics", ",".join([DURATION, *METRICS.values()])]
        words += ["--target-processes", "all"]
        if nvtx_range is not None:  # the slash says: of push and pop
            words += ["--nvtx", "--nvtx-include", f"{nvtx_range}/"]
        try:
            code, told = _run([*words, *command], limit_s)
        except subprocess.TimeoutExpired:
            return Report(reason=f"ncu took longer than {limit_s:g} s and was ended")
        except OSError as error:
            return Report(reason=f"expected to run {program}, got {error.strerror}")
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return _report(code, text, told)


def _run(words: list[str], limit_s: float) -> tuple[int, str]:
    """Run a command in a group of its own; whatever ends the wait ends the whole group."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, text=True, encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        try:
            told, _ = process.communicate(timeout=limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()  # leaving the block does not, after an interrupt
            raise
    return process.returncode, told


def _report(code: int, text: str, told: str) -> Report:
    """Read what ncu wrote into its log, and what it and the command said."""
    everything = f"{text}\n{told}"
    if "ERR_NVGPUCTRPERM" in everything:
        return Report(reason=DENIED)
    if code:
        return Report(reason=f"ncu ended with {code}: {_cause(text, told)}")
    if "No kernels were profiled" in everything:
        return Report(reason="ncu saw no kernel in the range that it was to look at")
    try:
        kernels = tuple(_kernels(_launches(text)))
    except csv.Error as error:
        return Report(reason=f"expected a table from ncu, got one that cannot be read: {error}")
    if not kernels:
        return Report(reason=f"expected a table from ncu, got {_last(everything)!r}")
    return Report(kernels)


def _cause(text: str, told: str) -> str:
    """Return ncu's own error; the command's last words where the command is what failed."""
    errors = [line for line in text.splitlines() if line.startswith("==ERROR==")]
    errors = [line for line in errors if "application returned an error" not in line]
    return _last("\n".join(errors[:1]) or f"{text}\n{told}")


def _last(text: str) -> str:
    """Return the last line that says something, shortened and printable."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else "nothing"
    return "".join(c if c.isprintable() else "?" for c in line)[:REASON_LENGTH]


@dataclass
class _Sums:
    launches: int = 0
    numbers: dict[str, list[float]] = field(default_factory=dict)


def _kernels(launches: Iterator[Mapping[str, str | float]]) -> Iterator[Kernel]:
    """Put launches of one name together."""
    found: dict[str, _Sums] = {}
    for launch in launches:
        sums = found.setdefault(str(launch["Kernel Name"]), _Sums())
        sums.launches += 1
        for metric, value in launch.items():
            if isinstance(value, float):
                sums.numbers.setdefault(metric, []).append(value)
    for name, sums in found.items():
        means = {metric: sum(values) / len(values) for metric, values in sums.numbers.items()}
        metrics = {ours: means.get(theirs) for ours, theirs in METRICS.items()}
        yield Kernel(name, sums.launches, means.get(DURATION), metrics)


def _launches(text: str) -> Iterator[dict[str, str | float]]:
    """Yield a launch's name and its metrics that are numbers, in seconds, bytes and fractions.

    The table is a row of names, a row of units, and a row a launch; other lines come before it.
    """
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith('"ID"')]
    if not starts:
        return
    table = list(csv.reader(lines[starts[0] :]))
    names, units, launches = table[0], table[1] if len(table) > 1 else [], table[2:]
    if "Kernel Name" not in names:
        return
    wanted = {DURATION, *METRICS.values()}
    for row in launches:
        if len(row) != len(names) or len(units) != len(names):
            continue  # ncu's own remarks between launches
        found: dict[str, str | float] = {}
        for name, unit, text_ in zip(names, units, row, strict=True):
            if name == "Kernel Name":
                found[name] = text_
            elif name in wanted and (value := _number(text_, unit)) is not None:
                found[name] = value
        yield found


def _number(text: str, unit: str) -> float | None:
    """Return a number in its base unit; None for "n/a" and for a unit that is unknown."""
    scale = UNITS.get(unit.strip().lower())
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return None if scale is None or not math.isfinite(value) else value * scale

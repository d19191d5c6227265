"""What makes tables, pages and exports works where torch is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import synthetic_results as synthetic

ROOT = Path(__file__).parents[1]
REPORT = "from reports import build_report; build_report(Path(folder))"
EXPORT = "from bench import export; [export.export(Path(folder), f) for f in export.FILES]"


@pytest.mark.parametrize("work", [REPORT, EXPORT, "import bench.table"])
def test_torch_is_not_loaded(work: str, tmp_path: Path) -> None:
    synthetic.write(tmp_path, synthetic.sweep()[:12])
    code = (
        f"import sys; from pathlib import Path; folder = sys.argv[1]; {work}\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")

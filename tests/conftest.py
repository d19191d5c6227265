"""What several test files share: one hypothesis profile, and memory that shows gaps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch

# pytests that tests start are no workers of ours: pytest-benchmark would not measure in them
for _name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
    del os.environ[_name]

# `pytest-benchmark compare` loads this file too, in environments without the extra "test".
with contextlib.suppress(ModuleNotFoundError):
    from hypothesis import HealthCheck, settings

    # The same examples on every machine; no deadline, because shared cores stall.
    settings.register_profile(
        "repeatable",
        derandomize=True,
        deadline=None,
        max_examples=40,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("repeatable")


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fill every torch.empty with NaN, so that an element nobody writes is seen."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(4).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)

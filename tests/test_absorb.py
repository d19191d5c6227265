"""absorb: the same function, the orders gone, on every kind of network that lets them through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.network_checks import absorbed, assert_same_in_both_modes, image, one_thread, sparse
from tests.network_samples import CONCATENATED, FLATTENED, PASSED, REDUCED, Sample

ALL = {
    f"{group}: {name}": sample
    for group, samples in (
        ("passed", PASSED),
        ("flattened", FLATTENED),
        ("reduced", REDUCED),
        ("concatenated", CONCATENATED),
    )
    for name, sample in samples.items()
}


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


SOME = {n: ALL[n] for n in ALL if "residual" in n or "block" in n or "twice" in n or "U-" in n}


@pytest.mark.parametrize("sample", ALL.values(), ids=list(ALL))
def test_the_function_stays_and_the_orders_go(sample: Sample) -> None:
    network = sparse(sample.make())
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied, (image(),))
    assert report.untraced is None
    assert not report.boxes
    assert {*sample.canonical.split()} <= {*report.canonical}, str(report)


@pytest.mark.parametrize("sample", SOME.values(), ids=list(SOME))
def test_layers_that_do_not_agree(sample: Sample) -> None:
    network = sparse(sample.make(), joint=False, seed=1)
    copied, report = absorbed(network)
    assert_same_in_both_modes(network, copied, (image(),))
    assert report.moved or not sample.canonical

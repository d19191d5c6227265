"""The official batches are pickles: what they may not ask for, and what they must hold."""

from __future__ import annotations

import builtins
import os
import pickle
from typing import Any

import numpy as np
import pytest

from bench.accuracy.data import DataError, load
from bench.accuracy.data.pickles import read_arrays
from tests.data_samples import python2, refused, rows, sample, write_batches

SOME = sample()


@pytest.fixture
def batches(tmp_path):
    return write_batches(tmp_path)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_a_missing_batch_is_named(batches, name):
    (batches / name).unlink()
    refused(f"expected data_batch_1, .*, test_batch in .*, got no {name}$", batches)


class Call:
    """Pickles as a call."""

    def __init__(self, what, *arguments):
        self.what, self.arguments = what, arguments

    def __reduce__(self):
        return self.what, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_anything_is_refused_before_it_does(batches, protocol, tmp_path):
    mark, path = tmp_path / "mark", batches / "data_batch_2"
    opened = f"open({str(mark)!r}, 'w')"
    calls = {
        "system": Call(os.system, f"touch {mark}"),
        "eval": Call(builtins.eval, opened),
        "exec": Call(builtins.exec, opened),
        "getattr": Call(getattr, 1, "real"),
        "load": Call(np.load, str(mark)),
        "fromfile": Call(np.fromfile, str(mark)),
        "save": Call(np.save, str(mark), 1),
    }
    for name, call in calls.items():
        path.write_bytes(pickle.dumps({"data": call}, protocol))
        refused(
            rf"numpy arrays alone in .*data_batch_2, got a request for [\w.]+\.{name}$", batches
        )
        assert not [p for p in tmp_path.iterdir() if p.name.startswith("mark")]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"cos\nsystem\n(U\x04trueod.", r"os\.system"),
        (b"c__builtin__\neval\n(U\x011tR.", "__builtin__.eval"),
        (b"cnumpy\nmemmap\n.", "numpy.memmap"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", r"numpy\.ndarray\.tofile"),
        (b"c_codecs\ndecode\n.", "_codecs.decode"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x74R.", "the codec 'zip'"),
        (b"cnumpy\ndtype\n(cnumpy\nndarray\ntR.", "a dtype of type"),
    ],
)
def test_handmade_pickles_are_refused_by_what_they_name(text, wanted, tmp_path):
    path = tmp_path / "test_batch"
    path.write_bytes(text)
    with pytest.raises(DataError, match=f"numpy arrays alone in .*test_batch, got .*{wanted}"):
        read_arrays(path)


def test_numbers_in_the_place_of_truth_values_are_no_cause_for_warnings(tmp_path):
    path = tmp_path / "test_batch"
    path.write_bytes(b"cnumpy\ndtype\n(U\x02u1K\x00K\x00tR.")
    assert read_arrays(path) == np.uint8


@pytest.mark.parametrize("protocol", [None, 2, 4])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_torn_pickle_is_named(protocol, share, tmp_path):
    path = write_batches(tmp_path, protocol=protocol) / "test_batch"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused("expected a whole pickle in .*test_batch, got", tmp_path)


@pytest.mark.parametrize("text", [b"\x1f\x8b\x08 no pickle", b"hello", b"\x80\xff.", b"(lp0\nI1\n"])
def test_what_is_no_pickle_is_named(batches, text):
    (batches / "data_batch_1").write_bytes(text)
    refused("expected a whole pickle in .*data_batch_1, got", batches)


GOOD: dict[str, Any] = {"data": rows(SOME.test_x), "labels": SOME.test_y}


@pytest.mark.parametrize(
    ("held", "text"),
    [
        ([1, 2], "expected a dict in .*, got list"),
        ({}, "expected 'data' in .*, got an empty dict"),
        ({"data": GOOD["data"], "fine_labels": SOME.test_y}, "'labels' in .*, got data, fine_la"),
        (GOOD | {"data": [1]}, "'data' as an array in .*, got list"),
        (GOOD | {"data": GOOD["data"][:, :3071]}, r"uint8 \[N, 3072\] in .*got uint8 \[10, 3071\]"),
        (GOOD | {"data": GOOD["data"] / 255}, r"uint8 \[N, 3072\] in .*got float64 \[10, 3072\]"),
        (GOOD | {"data": GOOD["data"][0]}, r"uint8 \[N, 3072\] in .*got uint8 \[3072\]"),
        (GOOD | {"labels": SOME.test_y[1:]}, r"one label an image, 10, got \[9\] labels"),
        (GOOD | {"labels": [[n] for n in SOME.test_y]}, r"one label an image, 10, got \[10, 1\]"),
        (GOOD | {"labels": [*SOME.test_y[1:], 10]}, r"from 0 to 9 \(CIFAR-10\), got 10 \(1 such"),
        (GOOD | {"labels": [-1, *SOME.test_y[1:]]}, r"from 0 to 9 \(CIFAR-10\), got -1 \(1 such"),
        (GOOD | {"labels": [0.5, *SOME.test_y[1:]]}, "labels as integers, got float64"),
        (GOOD | {"labels": [True] * 10}, "labels as integers, got bool"),
        (GOOD | {"labels": ["1"] * 10}, "labels as integers, got <U1"),
        (GOOD | {"labels": [[1, 2], *SOME.test_y[1:]]}, "one label an image, 10, got"),
        (GOOD | {"labels": [2**70, *SOME.test_y[1:]]}, "labels as integers, got object"),
    ],
)
def test_a_batch_of_something_else_is_refused(batches, held, text):
    (batches / "test_batch").write_bytes(pickle.dumps(held, 2))
    refused(text, batches)
    with pytest.raises(DataError, match=f"{batches / 'test_batch'}"):
        load("cifar10", batches)


def test_batches_without_images_are_refused(batches):
    (batches / "test_batch").write_bytes(python2(GOOD["data"][:0], []))
    refused("expected test images of CIFAR-10, got none", batches)

"""Loading: three layouts of the same images, what is said of them, and which one is taken."""

from __future__ import annotations

import hashlib
import json
import pickletools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bench.accuracy.data import DataError, load
from bench.accuracy.data.images import LUMINANCE, jpeg_quality
from tests.data_samples import (
    encoded,
    python2,
    sample,
    write_batches,
    write_folders,
    write_parquet,
)

WRITERS = {
    "python 2": lambda root: write_batches(root / "cifar-10-batches-py"),
    "the folder itself": lambda root: write_batches(root),
    "protocol 2": lambda root: write_batches(root, protocol=2),
    "protocol 4": lambda root: write_batches(root, protocol=4),
    "parquet": write_parquet,
    "parquet in data": lambda root: write_parquet(root / "data", shards=4, image="image"),
    "class folders": write_folders,
    "class folders, val": lambda root: write_folders(root, test="val"),
}
LAYOUTS = ("python batches",) * 4 + ("parquet",) * 2 + ("class folders",) * 2


def name_of(some):
    """Return the digest as it is documented: shape, type and values of each tensor in turn."""
    found = hashlib.sha256()
    for part in (some.train_x, np.array(some.train_y), some.test_x, np.array(some.test_y)):
        shape = "x".join(map(str, part.shape))
        found.update(f"{part.dtype} {shape}\n".encode() + part.tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(("how", "layout"), [*zip(WRITERS, LAYOUTS, strict=True)])
def test_every_layout_gives_the_same_images(how, layout, tmp_path):
    WRITERS[how](tmp_path)
    some, split = sample(), load("cifar10", str(tmp_path))
    for got, images in ((split.train_x, some.train_x), (split.test_x, some.test_x)):
        assert got.dtype == torch.uint8
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(got.permute(0, 2, 3, 1), images)
    assert split.train_y.dtype == split.test_y.dtype == torch.int64
    assert (split.train_y.tolist(), split.test_y.tolist()) == (some.train_y, some.test_y)
    facts = split.facts
    assert (facts.name, facts.layout) == ("cifar10", layout)
    assert facts.encoding == ("raw" if layout == "python batches" else "PNG")
    assert (facts.train_images, facts.test_images, facts.classes) == (20, 10, 10)
    assert (facts.shape, facts.quality, facts.unreadable) == ((3, 32, 32), None, 0)
    assert facts.label == "CIFAR-10 (20 + 10 images)"
    # one content, one name: it does not follow the layout
    assert facts.digest == name_of(some)


def test_the_samples_are_what_python_2_wrote():
    text = python2(np.zeros((2, 300), np.uint8), [1, 2])
    named = [op.name for op, _, _ in pickletools.genops(text)]
    assert {"SHORT_BINSTRING", "BINSTRING"} <= set(named)
    assert not {"BINUNICODE", "SHORT_BINBYTES", "BINBYTES"} & set(named)


def test_the_facts_are_plain_json_and_describe_the_training_images(tmp_path):
    facts = load("cifar10", write_parquet(tmp_path)).facts
    pixels = sample().train_x.reshape(-1, 3) / 255
    assert facts.mean == pytest.approx(pixels.mean(0), rel=1e-12)
    assert facts.std == pytest.approx(pixels.std(0), rel=1e-12)
    told = json.loads(json.dumps(facts.to_dict()))
    assert told["label"] == facts.label
    assert told["mean"] == list(facts.mean)


def test_one_other_pixel_or_label_is_another_digest(tmp_path):
    first = load("cifar10", write_folders(tmp_path / "a")).facts
    pixels = sample().train_x[3].copy()
    pixels[0, 0, 0] ^= 1
    path = write_folders(tmp_path / "b") / "train" / "class_1" / "003.png"
    path.write_bytes(encoded(pixels))
    moved = write_folders(tmp_path / "c") / "train"
    (moved / "class_0" / "001.png").rename(moved / "class_1" / "001.png")
    digests = {first.digest, *(load("cifar10", tmp_path / n).facts.digest for n in "bc")}
    assert len(digests) == 3


@pytest.mark.parametrize("label", ["fine_label", "label"])
def test_cifar100_as_parquet(label, tmp_path):
    split = load("cifar100", write_parquet(tmp_path, classes=100, label=label))
    assert split.train_y.tolist() == sample(100).train_y
    assert (split.facts.classes, split.train_y.max().item()) == (100, 95)
    assert split.facts.label.startswith("CIFAR-100 (")


@pytest.mark.parametrize("folder", ["cifar-100-python", "."])
def test_cifar100_as_python_batches(folder, tmp_path):
    write_batches(tmp_path / folder, classes=100)
    split = load("cifar100", tmp_path)
    assert split.test_y.tolist() == sample(100).test_y
    assert np.array_equal(split.test_x.permute(0, 2, 3, 1), sample(100).test_x)


@pytest.mark.parametrize("quality", [75, 90])
@pytest.mark.parametrize("write", [write_parquet, write_folders])
def test_lossy_images_are_labelled(write, quality, tmp_path):
    if write is write_folders:
        quality = 75  # what the samples' folders are written with
        write(tmp_path, kind="JPEG")
    else:
        write(tmp_path, kind="JPEG", quality=quality)
    facts = load("cifar10", tmp_path).facts
    assert (facts.encoding, facts.quality) == ("JPEG", (quality, quality))
    assert facts.label == f"CIFAR-10 (JPEG-{quality}, 20 + 10 images)"


def test_one_lossy_image_among_others_is_enough(tmp_path):
    path = write_folders(tmp_path) / "test" / "class_3"
    for kind, quality in (("a.jpg", 60), ("b.jpeg", 80)):
        (path / kind).write_bytes(encoded(sample().test_x[0], "JPEG", quality))
    facts = load("cifar10", tmp_path).facts
    assert (facts.encoding, facts.quality) == ("JPEG+PNG", (60, 80))
    assert facts.label == "CIFAR-10 (JPEG-60 to 80, 20 + 12 images)"


def test_the_published_sizes_need_no_note(tmp_path):
    facts = load("cifar10", write_parquet(tmp_path, kind="JPEG")).facts
    whole = replace(facts, train_images=50_000, test_images=10_000)
    assert whole.label == "CIFAR-10 (JPEG-75)"
    assert replace(whole, quality=None).label == "CIFAR-10"


def test_every_quality_is_found_again():
    for quality in (1, 10, 49, 50, 51, 75, 95, 100):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        exact = [min(max((int(v) * scale + 50) // 100, 1), 255) for v in LUMINANCE]
        assert jpeg_quality(exact) == quality
    near = [v + 1 for v in (LUMINANCE + 1) // 2]
    assert abs(jpeg_quality(near) - 75) <= 2


def test_greys_and_palettes_become_the_same_colours(tmp_path):
    root = write_folders(tmp_path)
    grey = sample().test_x[0][..., 0]
    Image.fromarray(grey).save(root / "train" / "class_0" / "000.png")
    Image.fromarray(grey).convert("P").save(root / "train" / "class_0" / "001.png")
    images = load("cifar10", root).train_x
    for n in (0, 1):
        assert np.array_equal(images[n], np.stack([grey] * 3))


def test_two_layouts_in_one_folder_are_refused(tmp_path):
    write_batches(tmp_path / "cifar-10-batches-py")
    write_parquet(tmp_path / "data")
    with pytest.raises(DataError, match=r"expected one layout of CIFAR-10 .*, got python batches "
                       r"\(.*cifar-10-batches-py\) and parquet \(.*data\)"):  # fmt: skip
        load("cifar10", tmp_path)


def test_the_other_sets_batches_do_not_count(tmp_path):
    write_batches(tmp_path / "cifar-10-batches-py")
    write_batches(tmp_path / "cifar-100-python", classes=100)
    assert load("cifar10", tmp_path).facts.classes == 10
    assert load("cifar100", tmp_path).facts.classes == 100
    with pytest.raises(DataError, match=r"expected CIFAR-10 in .*; got test, train$"):
        load("cifar10", tmp_path / "cifar-100-python")

"""Images read as they are needed: equal for equal seeds, whoever decodes them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from bench.accuracy.data import DataError, stream
from bench.accuracy.data.crops import central_box, cut, random_box
from tests.data_samples import write_photographs

SIZE = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture
def images(root):
    return stream("imagenet", root, size=SIZE, workers=0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def epoch(data, seed=0, augment=True, batch=4):
    return list(data.train_batches(batch, seeded(seed), augment))


def equal(one, other):
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in pairs)


def test_batches_are_normalised_images_and_labels(images, root):
    got = list(images.test_batches(3))
    assert [list(x.shape) for x, _ in got] == [[3, 3, SIZE, SIZE], [1, 3, SIZE, SIZE]]
    assert torch.cat([y for _, y in got]).tolist() == [0, 0, 1, 1]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in got)
    with Image.open(root / "val" / "n01440764" / "0002.JPEG") as image:
        pixels = torch.from_numpy(cut(image, central_box(*image.size), SIZE)) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((pixels - mean) / std).permute(2, 0, 1)
    torch.testing.assert_close(got[0][0][1], expected, rtol=1e-5, atol=1e-5)


def test_an_epoch_holds_every_image_once_in_the_generators_order(images):
    labels = torch.cat([y for _, y in epoch(images, 3)])
    order = torch.randperm(9, generator=seeded(3))
    assert torch.equal(labels, images.train.labels[order])
    assert sorted(labels.tolist()) == [0] * 5 + [1] * 4


def test_equal_seeds_give_equal_epochs_whoever_decodes(images, root):
    before = torch.get_rng_state()
    first = epoch(images)
    assert equal(first, epoch(images))
    assert equal(first, epoch(stream("imagenet", root, size=SIZE, workers=2)))
    assert not equal(first, epoch(images, 1))
    assert not equal(first, epoch(images, augment=False))
    assert equal(epoch(images, augment=False), epoch(images, augment=False))
    assert torch.equal(before, torch.get_rng_state())


def test_crops_and_mirrors_are_the_draws(images):
    generator = seeded(6)
    order = torch.randperm(9, generator=generator)
    seeds = torch.randint(0, 2**62, (9,), generator=generator)
    flips = torch.randint(0, 2, (9,), generator=generator).bool()
    assert flips.any()
    assert not flips.all()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for n, image in enumerate(torch.cat([x for x, _ in epoch(images, 6)])):
        with Image.open(images.train.path(int(order[n]))) as opened:
            box = random_box(*opened.size, int(seeds[n]))
            pixels = torch.from_numpy(cut(opened, box, SIZE)) / 255
        expected = ((pixels - mean) / std).permute(2, 0, 1)
        expected = expected.flip(-1) if flips[n] else expected
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)


def test_boxes_lie_in_the_image_and_have_the_recipes_areas():
    chance, areas = random.Random(0), []
    for seed in range(2_000):
        width, height = chance.randint(1, 600), chance.randint(1, 600)
        left, top, right, bottom = random_box(width, height, seed)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert random_box(width, height, seed) == (left, top, right, bottom)
        left, top, right, bottom = random_box(400, 400, seed)
        areas.append((right - left) * (bottom - top) / 400**2)
        assert 0.74 < (right - left) / (bottom - top) < 1.35
    assert 0.075 < min(areas) < 0.1
    assert 0.95 < max(areas) <= 1
    # uniform in 0.08 ... 1, less the boxes of 400 pixels and a ratio that do not fit
    assert 0.45 < np.mean(areas) < 0.54
    assert central_box(512, 256) == (144, 16, 368, 240)
    # ten boxes never fit a line of pixels: the largest central one
    assert random_box(1000, 1, 3) == (499, 0, 500, 1)


def test_the_facts_are_known_before_an_image_is_read(images):
    facts = images.facts
    assert (facts.name, facts.layout, facts.classes) == ("imagenet", "class folders", 2)
    assert (facts.train_images, facts.test_images, facts.shape) == (9, 4, (3, SIZE, SIZE))
    assert facts.label == "ImageNet (2 of 1,000 classes, 9 + 4 images)"
    assert facts.unreadable == 0
    assert images.augments
    assert images.to("cpu").facts == facts
    assert images.augmentation is not None
    assert "resized" in images.augmentation


def test_a_smaller_stream_keeps_the_first_of_each_class_and_says_so(images):
    small = images.take(train=4, test=2)
    assert small.train.labels.tolist() == [0, 0, 1, 1]
    assert [small.train.path(n).name for n in range(4)] == [
        "0000.JPEG", "0002.JPEG", "0001.JPEG", "0003.JPEG",
    ]  # fmt: skip
    assert small.facts.whole == (9, 4)
    assert small.facts.digest != images.facts.digest
    assert len(torch.cat([y for _, y in epoch(small)])) == 4
    with pytest.raises(DataError, match=r"test as an int of 2 \(one a class\) to 4, got 5"):
        images.take(test=5)


def test_the_digest_follows_names_sizes_and_labels(root, tmp_path):
    write_photographs(tmp_path)
    digests = [stream("imagenet", folder).facts.digest for folder in (root, tmp_path)]
    assert digests[0] == digests[1]
    path = tmp_path / "train" / "n01440764" / "0004.JPEG"
    path.write_bytes(path.read_bytes() + b"\0")
    digests.append(stream("imagenet", tmp_path).facts.digest)
    path.rename(path.with_name("0104.JPEG"))
    digests.append(stream("imagenet", tmp_path).facts.digest)
    assert len(set(digests)) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_stop_or_are_left_out_and_counted(workers, tmp_path):
    root = write_photographs(tmp_path)
    victim = root / "train" / "n01440764" / "0004.JPEG"
    victim.write_bytes(victim.read_bytes()[:300])
    data = stream("imagenet", root, size=SIZE, workers=workers)
    with pytest.raises(DataError, match=r"got 1 of \d in a batch that are not: .*0004\.JPEG \("):
        epoch(data)
    data = stream("imagenet", root, size=SIZE, workers=workers, skip_unreadable=True)
    for _ in range(2):
        assert len(torch.cat([y for _, y in epoch(data)])) == 8
        assert len(torch.cat([y for _, y in epoch(data, batch=1)])) == 8
    assert data.facts.unreadable == 1
    assert str(victim) in next(iter(data.unreadable))


def test_what_is_no_imagenet_is_refused(tmp_path):
    root = write_photographs(tmp_path)
    (root / "test").mkdir()  # the published images without labels
    assert stream("imagenet", root).workers >= 1
    for text, how in (("workers as an int >= 0, got -1", {"workers": -1}),
                      ("size as an int >= 1, got 0", {"size": 0})):  # fmt: skip
        with pytest.raises(DataError, match=text):
            stream("imagenet", root, **how)
    (root / "val").rename(root / "validation")
    with pytest.raises(DataError, match=r"expected val beside train in .*, got none$"):
        stream("imagenet", root)
    (root / "val").mkdir()
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match=r"class folders alone in .*val, got ILSVRC2012"):
        stream("imagenet", root)

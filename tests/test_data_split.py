"""Images in memory: normalising, batches, crops and mirrors, smaller splits; and the digits."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from bench.accuracy.data import DataError, Split, digits, digits_rows, load
from bench.accuracy.data.augment import Draws, crop_and_flip, draw
from bench.accuracy.data.subset import stratified
from tests.data_samples import write_parquet


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return load("cifar10", write_parquet(tmp_path_factory.mktemp("cifar")))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- normalising -----------------------------------------------------------------------------


def test_images_are_normalised_by_the_training_images(split):
    images = split.normalised(split.train_x)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.mean((0, 2, 3)).abs().max() < 1e-5
    assert images.std((0, 2, 3), correction=0) == pytest.approx([1, 1, 1], abs=1e-5)
    mean, std = (torch.tensor(m).view(3, 1, 1) for m in (split.facts.mean, split.facts.std))
    expected = (split.test_x / 255 - mean) / std
    torch.testing.assert_close(split.normalised(split.test_x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(split.normalised(images), images)
    assert split.train_x.dtype == torch.uint8


def test_without_facts_bytes_are_not_guessed_at(split):
    bare = replace(split, facts=None)
    with pytest.raises(DataError, match=r"a split with facts .*, got none"):
        bare.batch(torch.arange(2))
    moved = split.to("cpu")
    assert moved.facts == split.facts
    assert torch.equal(moved.batch(torch.arange(2))[0], split.batch(torch.arange(2))[0])


# --- batches ---------------------------------------------------------------------------------


def test_an_epoch_holds_every_image_once_in_the_generators_order(split):
    order = torch.randperm(20, generator=seeded(3))
    got = list(split.train_batches(8, seeded(3)))
    assert [len(labels) for _, labels in got] == [8, 8, 4]
    assert torch.equal(torch.cat([y for _, y in got]), split.train_y[order])
    assert torch.equal(torch.cat([x for x, _ in got]), split.normalised(split.train_x[order]))
    images = torch.cat([x for x, _ in split.test_batches(4)])
    assert torch.equal(images, split.normalised(split.test_x))
    assert torch.equal(torch.cat([y for _, y in split.test_batches(4)]), split.test_y)


def test_equal_generators_give_equal_epochs_and_others_do_not(split):
    def epoch(seed, augment=True):
        return torch.cat([x for x, _ in split.train_batches(8, seeded(seed), augment)])

    before = torch.get_rng_state()
    generator = seeded(1)
    rows = torch.randperm(20, generator=generator)
    wanted = [split.batch(r, generator, augment=True)[0] for r in rows.split(8)]
    assert torch.equal(epoch(1), torch.cat(wanted))
    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))
    assert not torch.equal(epoch(1), epoch(1, augment=False))
    assert torch.equal(before, torch.get_rng_state())
    generator = seeded(1)
    first, second = (list(split.train_batches(8, generator, True)) for _ in range(2))
    assert not torch.equal(first[0][0], second[0][0])


def test_augmented_batches_are_crops_of_their_own_images(split):
    rows = torch.tensor([4, 4, 7])
    images, labels = split.batch(rows, seeded(5), augment=True)
    wanted = crop_and_flip(split.train_x[rows], draw(3, seeded(5)))
    assert torch.equal(images, split.normalised(wanted))
    assert torch.equal(labels, split.train_y[rows])
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert "padding" in split.augmentation
    with pytest.raises(DataError, match="a generator to augment with, got None"):
        split.batch(rows, augment=True)


# --- crops and mirrors -----------------------------------------------------------------------


def one_by_one(images, draws, padding):
    """The plain reference: image by image, pixel by pixel."""
    made = torch.zeros_like(images)
    n, _, height, width = images.shape
    for i in range(n):
        for y in range(height):
            for x in range(width):
                column = width - 1 - x if draws.flipped[i] else x
                row = y + int(draws.top[i]) - padding
                column += int(draws.left[i]) - padding
                if 0 <= row < height and 0 <= column < width:
                    made[i, :, y, x] = images[i, :, row, column]
    return made


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 4),
    st.integers(0, 2**31),
)  # fmt: skip
def test_a_batch_is_augmented_as_each_image_alone(n, channels, height, width, padding, seed):
    generator = seeded(seed)
    shape = (n, channels, height, width)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    draws = draw(n, generator, padding)
    got = crop_and_flip(images, draws, padding)
    assert torch.equal(got, one_by_one(images, draws, padding))
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_the_middle_crop_is_the_image_and_a_mirror_is_its_flip(split):
    images, middle = split.train_x[:2], torch.tensor([4, 4])
    kept = crop_and_flip(images, Draws(middle, middle, torch.tensor([False, True])))
    assert torch.equal(kept[0], images[0])
    assert torch.equal(kept[1], images[1].flip(-1))
    corner = torch.tensor([0, 8])
    moved = crop_and_flip(images, Draws(corner, corner, torch.tensor([False, False])))
    assert torch.equal(moved[0, :, 4:, 4:], images[0, :, :-4, :-4])
    assert not moved[0, :, :4].any()
    assert torch.equal(moved[1, :, :-4, :-4], images[1, :, 4:, 4:])


def test_every_crop_and_mirror_is_as_likely():
    draws = draw(81_000, seeded())
    cells = torch.bincount(draws.top * 9 + draws.left, minlength=81)
    assert len(cells) == 81
    assert (cells - 1_000).abs().max() < 5 * 1_000**0.5
    assert abs(int(draws.flipped.sum()) - 40_500) < 5 * 81_000**0.5 / 2
    assert all(each.device.type == "cpu" for each in draws)


# --- smaller splits --------------------------------------------------------------------------


def test_a_smaller_split_keeps_the_first_of_each_class_and_says_so(split):
    small = split.take(train=10)
    assert small.train_y.tolist() == list(range(10))
    assert torch.equal(small.train_x, split.train_x[::2])
    assert torch.equal(small.test_x, split.test_x)
    facts = small.facts
    assert (facts.train_images, facts.test_images, facts.whole) == (10, 10, (20, 10))
    assert facts.label == "CIFAR-10 (10 + 10 images)"
    assert facts.digest not in (split.facts.digest, split.take(train=11).facts.digest)
    assert facts.digest == split.take(train=10).facts.digest
    assert small.normalised(small.train_x).mean((0, 2, 3)).abs().max() < 1e-5
    assert split.take(train=15).take(train=12).facts.whole == (20, 10)
    assert split.take().facts == split.facts


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.data())
def test_shares_are_exact_nested_and_leave_no_class_out(labels, data):
    labels = torch.tensor(labels)
    sizes = torch.bincount(labels)
    least = int((sizes > 0).sum())
    count = data.draw(st.integers(least, len(labels)))
    rows = stratified(labels, count, "train")
    assert len(rows) == len(set(rows.tolist())) == count
    assert torch.equal(rows, rows.sort().values)
    kept = torch.bincount(labels[rows], minlength=len(sizes))
    assert ((kept > 0) == (sizes > 0)).all()
    for label, many in enumerate(kept.tolist()):
        mine = rows[labels[rows] == label]
        assert torch.equal(mine, torch.nonzero(labels == label)[:many, 0])
    spare = len(labels) - least
    fair = (sizes - 1).clamp(min=0) * (count - least) / max(spare, 1) + sizes.clamp(max=1)
    assert (kept - fair).abs().max() < 1


@pytest.mark.parametrize("count", [9, 21, 0, -1, 10.0, True])
def test_shares_that_cannot_be_are_refused(split, count):
    with pytest.raises(DataError, match=r"train as an int of 10 \(one a class\) to 20, got"):
        split.take(train=count)


# --- digits ----------------------------------------------------------------------------------


def test_the_digits_are_bit_for_bit_what_they_were():
    bundle, (train, test) = load_digits(), digits_rows()
    images = torch.from_numpy(bundle.images).unsqueeze(1)
    mean, deviation = images[train].mean(), images[train].std()
    images = ((images - mean) / deviation).float()
    split = load("digits")
    assert torch.equal(split.train_x, images[train])
    assert torch.equal(split.test_x, images[test])
    assert np.array_equal(split.test_y, bundle.target[test])
    assert split.train_x.is_contiguous(memory_format=torch.channels_last)
    rows = hashlib.sha256(np.concatenate((train, test)).astype("<i8").tobytes()).hexdigest()
    assert rows[:16] == "48c6e0c9b2eee120"


def test_the_digits_have_facts_and_are_trained_on_alike():
    split = digits()
    facts = split.facts
    assert (facts.label, facts.layout, facts.encoding) == ("digits", "bundled", "raw")
    assert (facts.train_images, facts.test_images) == (1200, 597)
    assert facts.digest == "07ba6320f4d4be99"
    assert not split.augments
    assert split.augmentation is None
    order = torch.randperm(1200, generator=seeded(7))[:50]
    images, labels = next(split.train_batches(50, seeded(7), split.augments))
    assert torch.equal(images, split.train_x[order])
    assert torch.equal(labels, split.train_y[order])
    with pytest.raises(DataError, match=r"uint8 images to augment, got torch\.float32"):
        split.batch(order, seeded(), augment=True)
    small = split.take(train=100, test=50)
    assert (len(small.train_y), small.facts.label) == (100, "digits (100 + 50 images)")
    assert torch.equal(small.train_x, split.train_x[stratified(split.train_y, 100, "train")])


def test_a_split_made_by_hand_needs_no_facts():
    x, y = torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1])
    split = Split(x, y, x, y)
    assert torch.equal(split.batch(torch.tensor([1]))[1], y[1:2])
    assert split.take(train=2).facts is None

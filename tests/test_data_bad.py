"""What cannot be used is refused: the text says what was expected, and of which file."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from bench.accuracy.data import DataError, load, stream
from tests.data_samples import (
    encoded,
    refused,
    sample,
    table,
    write_folders,
    write_parquet,
)

SOME = sample()
BYTES = [encoded(pixels) for pixels in SOME.test_x]


# --- which data, and where -------------------------------------------------------------------


def test_names_and_roots_are_checked(tmp_path):
    refused("data as one of digits, cifar10, cifar100, imagenet; got 'cifar'", None, "cifar")
    refused("no root for digits, which come bundled; got x", "x", "digits")
    refused("a folder that holds CIFAR-100 as root, got none", None, "cifar100")
    refused(r"data that fits memory, got imagenet: stream\(\) reads it", tmp_path, "imagenet")
    refused(r"a folder that holds CIFAR-10, got nothing at .*missing", tmp_path / "missing")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    refused(r"got a file at .*tar\.gz", tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(DataError, match=r"one of imagenet to stream, got cifar10: load\(\) it"):
        stream("cifar10", tmp_path)


def test_a_folder_of_something_else_shows_the_three_layouts_and_what_is_there(tmp_path):
    refused("got an empty folder", tmp_path)
    for name in "abcdefghij":
        (tmp_path / name).mkdir()
    layouts = (
        r"python batches \(cifar-10-batches-py/ with data_batch_1 \.\.\. 5, test_batch\), "
        r"parquet \(train\*.* and test\*.*\) or class folders \(train/<class>/.*\)"
    )
    refused(
        rf"expected CIFAR-10 in .* as {layouts}; got a/, b/, .*, h/, \.\.\. \(10 in all\)", tmp_path
    )
    refused(r"cifar-100-python/ with train, test\)", tmp_path, "cifar100")
    with pytest.raises(DataError, match=r"expected ImageNet in .* as class folders \(.*val"):
        stream("imagenet", tmp_path)


# --- parquet ---------------------------------------------------------------------------------


def plain(data, labels):
    return pa.table({"img": pa.array(data, pa.binary()), "label": labels})


@pytest.mark.parametrize(
    ("held", "text"),
    [
        (table(BYTES, SOME.test_y, image="picture"), "one column img or image in .*, got picture,"),
        (table(BYTES, SOME.test_y, label="fine_label"), "one column label in .*, got img, fine_la"),
        (plain(BYTES, SOME.test_y), "img as a struct with binary 'bytes' in .*, got binary"),
        (table(BYTES, [n / 2 for n in SOME.test_y]), "label as integers in .*, got double"),
        (table(BYTES, [*SOME.test_y[1:], None]), "a label in every row, got null in"),
        (table([None, *BYTES[1:]], SOME.test_y), "an image and a label in every row, got null in"),
        (table(BYTES, [*SOME.test_y[1:], 10]), r"from 0 to 9 \(CIFAR-10\), got 10 \(1 such"),
        (table([], pa.array([], pa.int64())), "expected test images of CIFAR-10, got none"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path, held, text):
    write_parquet(tmp_path)
    parquet.write_table(held, tmp_path / "test.parquet")
    refused(text, tmp_path)


def test_both_names_of_the_images_are_one_too_many(tmp_path):
    held = table(BYTES, SOME.test_y)
    held = held.append_column("image", held["img"])
    parquet.write_table(held, write_parquet(tmp_path) / "test.parquet")
    refused("one column img or image in .*test.parquet, got img, label, image", tmp_path)


@pytest.mark.parametrize("share", [0, 0.3, 0.97])
def test_a_torn_table_is_named(tmp_path, share):
    path = write_parquet(tmp_path) / "train.parquet"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(r"expected a whole parquet file, got .*train\.parquet", tmp_path)


def test_a_table_with_a_hole_is_named(tmp_path):
    path = write_parquet(tmp_path) / "train.parquet"
    text = bytearray(path.read_bytes())
    text[4:40] = bytes(36)  # the first page's header
    path.write_bytes(text)
    refused(r"expected a whole parquet file, got .*train\.parquet", tmp_path)


def test_missing_shards_and_parts_are_named(tmp_path):
    write_parquet(tmp_path, shards=4)
    shard = tmp_path / "train-00002-of-00004.parquet"
    text = shard.read_bytes()
    shard.unlink()
    refused(r"every shard of train-00000-of-00004\.parquet in .*, got none of number 2", tmp_path)
    shard.write_bytes(text)
    (tmp_path / "train-00000-of-00002.parquet").write_bytes(text)
    refused("the shards of one set of train files in .*, got train-00000-of-00002", tmp_path)
    for path in tmp_path.glob("t*-of-*2.parquet"):
        path.unlink()
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    refused(r"expected test\*\.parquet in .*, got none", tmp_path)


# --- images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lossy", [False, True])
def test_unreadable_images_are_counted_named_and_skipped_when_asked(tmp_path, lossy):
    root = write_folders(tmp_path, kind="JPEG" if lossy else "PNG")
    victims = sorted(path for path in root.rglob("00[1-4].*") if "train" in path.parts)
    whole = victims[0].read_bytes()
    victims[0].write_bytes(b"hello")
    victims[1].write_bytes(whole[: len(whole) // 2])
    victims[2].write_bytes(b"")
    victims[3].write_bytes(b"GIF89a" + whole)
    text = rf"readable images, got 4 of 30 that are not: {victims[0]} \(no JPEG or PNG\), "
    text += rf"{victims[1]} \(.*\), {victims[2]} .*, \.\.\. \(4 in all\); skip_unreadable=True"
    refused(text, root)
    split = load("cifar10", root, skip_unreadable=True)
    kept = [n for n in range(20) if n not in (1, 2, 3, 4)]
    assert split.train_y.tolist() == [SOME.train_y[n] for n in kept]
    assert (split.facts.unreadable, split.facts.train_images) == (4, 16)
    if not lossy:
        assert np.array_equal(split.train_x.permute(0, 2, 3, 1), SOME.train_x[kept])


def test_unreadable_rows_of_a_table_are_named_and_skipped_when_asked(tmp_path):
    data = [b"hello" if n in (2, 7) else each for n, each in enumerate(BYTES)]
    path = write_parquet(tmp_path) / "test.parquet"
    parquet.write_table(table(data, SOME.test_y), path, row_group_size=4)
    refused(rf"got 2 of 30 that are not: row 2 of {path} \(.*\), row 7 of {path}", tmp_path)
    split = load("cifar10", tmp_path, skip_unreadable=True)
    kept = [n for n in range(10) if n not in (2, 7)]
    assert split.test_y.tolist() == [SOME.test_y[n] for n in kept]
    assert np.array_equal(split.test_x.permute(0, 2, 3, 1), SOME.test_x[kept])
    assert split.facts.unreadable == 2


def test_images_of_another_size_or_mode_are_refused_even_when_others_are_skipped(tmp_path):
    path = write_folders(tmp_path) / "train" / "class_1" / "003.png"
    for image, text in (
        (Image.new("RGB", (32, 31)), "images of 32x32 pixels .*, got 32x31: .*003.png"),
        (Image.new("RGB", (64, 64)), "images of 32x32 pixels .*, got 64x64: .*003.png"),
        (Image.new("RGBA", (32, 32)), "colours or greys, got mode RGBA: .*003.png"),
        (Image.new("I;16", (32, 32)), "colours or greys, got mode I;16: .*003.png"),
    ):
        file = io.BytesIO()
        image.save(file, "PNG")
        path.write_bytes(file.getvalue())
        with pytest.raises(DataError, match=text):
            load("cifar10", tmp_path, skip_unreadable=True)


def test_training_images_of_one_value_are_refused(tmp_path):
    flat = [encoded(np.full((32, 32, 3), 7, np.uint8))] * 10
    parquet.write_table(table(flat, SOME.test_y), write_parquet(tmp_path) / "train.parquet")
    refused("training images that differ, got a channel of one value", tmp_path)


# --- class folders ---------------------------------------------------------------------------


def test_class_folders_must_agree(tmp_path):
    root = write_folders(tmp_path)
    (root / "test" / "class_7").rename(root / "test" / "class_x")
    refused("the same classes in .*train and .*test, got class_7, class_x in one alone", root)
    (root / "train" / "class_7").rename(root / "train" / "class_x")
    load("cifar10", root)
    for part in ("train", "test"):
        (root / part / "class_y").mkdir()
    refused(r"10 class folders \(CIFAR-10\) in .*train, got 11: class_0, .*\(11 in all\)", root)


def test_class_folders_hold_images_alone(tmp_path):
    root = write_folders(tmp_path)
    (root / "train" / ".hidden").write_text("x")
    (root / "train" / "class_3" / ".hidden").write_text("x")
    load("cifar10", root)
    note = root / "train" / "class_3" / "notes.txt"
    note.write_text("x")
    refused(r"images \(png or jpg\) in .*class_3, got notes.txt", root)
    note.rename(root / "train" / "notes.txt")
    refused("class folders alone in .*train, got notes.txt", root)
    (root / "train" / "notes.txt").unlink()
    for path in (root / "test" / "class_4").iterdir():
        path.unlink()
    refused(r"images \(png or jpg\) in .*class_4, got none", root)


def test_class_folders_need_one_folder_of_test_images(tmp_path):
    root = write_folders(tmp_path)
    (root / "test").rename(root / "other")
    refused("test or val beside train in .*, got none", root)
    (root / "other").rename(root / "test")
    (root / "val").mkdir()
    refused("test or val beside train in .*, got test and val", root)

"""Arrays: what is right is taken in any form, what is wrong is refused with the mend."""

import functools

import keras
import numpy as np
import pytest
from columns import Column

from keras_transfer import data

images = functools.partial(data.images, batch_size=4, validation=0)
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3), np.uint8)
LABELS = [0, 1] * 4


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        (PIXELS, PIXELS),
        (PIXELS.astype("float32"), PIXELS),
        (PIXELS.astype("int64"), PIXELS),
        (list(PIXELS), PIXELS),
        (PIXELS[..., :1], np.repeat(PIXELS[..., :1], 3, axis=-1)),
        (PIXELS[..., 0], np.repeat(PIXELS[..., :1], 3, axis=-1)),
    ],
    ids=["uint8", "float32", "int64", "list", "one channel", "no channel"],
)
def test_pictures_of_any_form_come_out_as_three_channels(pictures, expected):
    splits = images((pictures, LABELS), image_size=(6, 5))
    np.testing.assert_array_equal(splits.peek(splits.train, range(8)), expected)


def test_tensors_are_taken_as_arrays():
    pictures, labels = keras.ops.convert_to_tensor(PIXELS), keras.ops.convert_to_tensor(np.array(LABELS))
    assert images((pictures, labels)).fingerprint == images((PIXELS, LABELS)).fingerprint


def test_a_memory_map_is_not_read_into_memory(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    splits = images((mapped, LABELS), image_size=(6, 5))
    assert splits.train.examples.pictures is mapped
    np.testing.assert_array_equal(splits.peek(splits.train, [3])[0], PIXELS[3])


def test_pictures_of_many_sizes_come_as_a_list():
    pictures = [np.full((height, 5, 3), 9, np.uint8) for height in (4, 5, 6, 7)]
    splits = images((pictures, [0, 1, 0, 1]), image_size=3)
    assert splits.peek(splits.train, range(4)).shape == (4, 3, 3, 3)


@pytest.mark.parametrize(
    "written",
    [list, lambda paths: [str(path) for path in paths], np.array, lambda paths: [path.read_bytes() for path in paths]],
    ids=["paths", "strings", "array of objects", "bytes"],
)
def test_pictures_may_be_named_by_their_files(written, tmp_path, encoded):
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path, picture in zip(paths, PIXELS, strict=True):
        path.write_bytes(encoded(picture))
    splits = images((written(paths), LABELS), image_size=(6, 5))
    np.testing.assert_array_equal(splits.peek(splits.train, range(8)), PIXELS)
    np.testing.assert_array_equal(splits.train.labels, LABELS)


def test_columns_of_a_table_are_taken_in_the_order_of_their_rows(tmp_path, encoded):
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path, picture in zip(paths, PIXELS, strict=True):
        path.write_bytes(encoded(picture))
    splits = images((Column(paths), Column(LABELS)), image_size=(6, 5))
    np.testing.assert_array_equal(splits.peek(splits.train, range(8)), PIXELS)
    np.testing.assert_array_equal(splits.train.labels, LABELS)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (LABELS, ("0", "1"), LABELS),
        (np.array(LABELS, "float32"), ("0", "1"), LABELS),
        (np.array(LABELS)[:, None], ("0", "1"), LABELS),
        (np.eye(2)[LABELS], ("0", "1"), LABELS),
        (np.eye(2, dtype=bool)[LABELS], ("0", "1"), LABELS),
        ([["dog", "cat"][label] for label in LABELS], ("cat", "dog"), [1 - label for label in LABELS]),
        (
            np.array([["dog", "cat"][label] for label in LABELS], object),
            ("cat", "dog"),
            [1 - label for label in LABELS],
        ),
        (np.array([[b"dog", b"cat"][label] for label in LABELS]), ("cat", "dog"), [1 - label for label in LABELS]),
        ([bool(label) for label in LABELS], ("False", "True"), LABELS),
        ([[10, 9][label] for label in LABELS], ("9", "10"), [1 - label for label in LABELS]),
    ],
    ids=[
        "int",
        "whole floats",
        "column",
        "one-hot",
        "boolean one-hot",
        "str",
        "objects",
        "bytes",
        "bool",
        "any numbers",
    ],
)
def test_labels_of_any_form_come_out_as_class_numbers(labels, classes, expected):
    splits = images((PIXELS, labels))
    assert splits.classes == classes
    assert splits.train.labels.dtype == np.int64
    np.testing.assert_array_equal(splits.train.labels, expected)


def test_numbers_that_do_not_count_from_0_are_noted():
    notes = images((PIXELS, [[5, 7][label] for label in LABELS])).notes
    assert notes == ("the classes are numbers that do not count from 0: output 0 of a model is class '5'",)


def test_a_one_hot_column_that_is_never_hot_is_an_empty_class():
    with pytest.raises(ValueError, match="class '2': has no picture that can be read"):
        images((PIXELS, np.eye(3)[LABELS]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:-1], r"not as many labels as pictures\.\n  given: +8 pictures, 7 labels"),
        (
            np.random.default_rng(0).random((8, 3)),
            r"`y` does not hold one label for each picture\.\n  given: +shape \(8, 3\)",
        ),
        (np.ones((8, 3), int), "`y` does not hold one label for each picture"),
        (np.array(LABELS) + 0.5, "`y` does not hold one label for each picture"),
        ([None] * 8, "`y` does not hold one label for each picture"),
        ([-1, *LABELS[1:]], r"`y` holds a negative label\.\n  given: +-1"),
    ],
    ids=["too few", "probabilities", "many-hot", "fractions", "nothing", "negative"],
)
def test_labels_that_are_none_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        images((PIXELS, labels))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([*PIXELS[:7], "a.png"], r"`x` are not all of one kind\.\n  given: +ndarray, str"),
        (["nowhere.png"] * 8, r"The data has \d+ problems\.\n  given: +nowhere.png: No such file or directory"),
        (PIXELS / 255, r"pixels of `x` are scaled already\.\n  given: +0..1\n[\s\S]*to mend: +x \* 255"),
        (
            PIXELS / 127.5 - 1,
            r"pixels of `x` are scaled already\.\n  given: +-1..1\n[\s\S]*to mend: +\(x \+ 1\) \* 127\.5",
        ),
        (PIXELS - 120.0, r"pixels of `x` lie outside 0\.\.255\.\n  given: +-120\.\.135"),
        (PIXELS.astype("uint16") * 257, r"pixels of `x` lie outside 0\.\.255\.\n  given: +0\.\.65535"),
        (
            PIXELS.transpose(0, 3, 1, 2),
            r"shape of pictures\.\n  given: +\(8, 3, 6, 5\)[\s\S]*x\.transpose\(0, 2, 3, 1\)",
        ),
        (np.concatenate([PIXELS, PIXELS], axis=-1), r"shape of pictures\.\n  given: +\(8, 6, 5, 6\)"),
        (PIXELS.reshape(8, -1), r"shape of pictures\.\n  given: +\(8, 90\)"),
        (np.where(PIXELS.max() == PIXELS, np.nan, PIXELS), r"x\[\d\]: pixels that are not finite"),
        ([np.zeros((2, 2, 2, 3), np.uint8)] * 8, r"x\[0\]: shape \(2, 2, 2, 3\), where"),
        (PIXELS.astype(str), r"x\[0\]: values of type <U\d, where uint8 or float"),
    ],
    ids=[
        "mixed",
        "missing",
        "0..1",
        "-1..1",
        "centred",
        "16 bit",
        "channels first",
        "six channels",
        "flat",
        "NaN",
        "ranks",
        "text",
    ],
)
def test_pixels_that_are_none_are_refused(pictures, message):
    with pytest.raises(ValueError, match=message):
        images((pictures, LABELS))


def test_a_black_set_of_whole_numbers_is_no_mistake():
    assert len(images((np.zeros((8, 4, 4), np.uint8), LABELS)).train) == 8


@pytest.mark.parametrize("source", [PIXELS, 3, None, (PIXELS, LABELS, LABELS)])
def test_what_no_picture_can_be_read_from_is_refused(source):
    with pytest.raises(ValueError, match="nothing that pictures can be read from"):
        images(source)

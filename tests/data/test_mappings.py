"""A mapping joins sources of any kind into one task."""

import numpy as np
import pytest

from keras_transfer.data import images

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3), np.uint8)


def test_a_folder_a_manifest_and_arrays_make_one_task(folder):
    root, other = folder({"a": 4, "b": 4}), folder({"x": 3}, root="other")
    (other / "list.csv").write_text("path,label\nx/000.png,a\nx/001.png,b\nx/002.png,b\n")
    splits = images({"train": root, "val": other / "list.csv", "test": (PIXELS, ["b", "a"] * 4)}, batch_size=2)
    assert splits.counts == {"train": {"a": 4, "b": 4}, "validation": {"a": 1, "b": 2}, "test": {"a": 4, "b": 4}}
    assert splits.test.labels.tolist() == [1, 0] * 4


def test_of_a_source_that_has_splits_its_own_of_that_name_is_taken_and_said(folder):
    photos = folder({"train/a": 4, "train/b": 4, "test/a": 1, "test/b": 1})
    sketches = folder({"train/a": 2, "train/b": 2, "test/a": 3, "test/b": 3}, root="sketches")
    splits = images({"train": photos, "test": sketches}, batch_size=2, validation=0)
    assert [len(split) for split in splits.all] == [8, 6]
    assert "test: of a source that has splits, its own test was taken" in splits.notes


def test_a_source_that_lacks_the_split_is_refused(folder):
    root = folder({"train/a": 4, "train/b": 4})
    with pytest.raises(
        ValueError, match=r"The source of 'test' is divided into splits itself, and has none of that name"
    ):
        images({"train": root, "test": root})


def test_classes_that_disagree_are_listed(folder):
    train, test = folder({"ants": 4, "bees": 4}), folder({"ants": 4, "wasps": 4}, root="other")
    with pytest.raises(ValueError) as error:
        images({"train": train, "test": test}, batch_size=2)
    assert "class 'bees' of test: is missing, and train has it" in str(error.value)
    assert "class 'wasps' of test: is not in train, so no model can learn it" in str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("train", "tset"), r"a key that is no split\.\n  given: +'tset'[\s\S]*nearest: +test"),
        (("train", "val", "validation"), "two keys for validation"),
        (("test",), "no split to train on"),
        ((), "no split to train on"),
    ],
)
def test_keys_that_are_no_splits_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        images({key: (PIXELS, [0, 1] * 4) for key in keys}, batch_size=2)

"""The embedded set."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_transfer.data import digits


def test_all_digits_are_divided_with_levels_0_to_255():
    splits = digits(image_size=8)
    assert splits.classes == tuple("0123456789")
    assert sum(map(len, splits.all)) == 1797
    pixels = np.concatenate([splits.peek(split, range(len(split))) for split in splits.all])
    labels = np.concatenate([split.labels for split in splits.all])
    assert pixels.max() == 255
    held = load_digits()
    for digit in range(10):
        theirs = held.images[held.target == digit].mean(axis=0) * 255 / 16
        np.testing.assert_allclose(pixels[labels == digit].mean(axis=0)[..., 1], theirs, atol=0.5)


def test_some_digits_are_classes_in_order_whatever_order_they_come_in():
    splits = digits([7, 3, 5])
    assert splits.classes == ("3", "5", "7")
    assert splits.counts["train"].keys() == {"3", "5", "7"}


def test_per_class_counts_all_labelled_examples_and_leaves_the_test_split():
    whole, few = digits(range(5), seed=1), digits(range(5), per_class=10, seed=1)
    assert set(few.counts["train"].values()) == {8}
    assert set(few.counts["validation"].values()) == {2}
    assert few.test.fingerprint == whole.test.fingerprint
    assert not set(few.train.digests) & set(few.test.digests)


def test_digits_are_not_augmented_unless_asked():
    assert digits().augment == "none"


@pytest.mark.parametrize("classes", [[3], [], [1, 10], [-1, 2]])
def test_classes_that_are_no_digits_are_refused(classes):
    with pytest.raises(ValueError, match="`classes` are not digits"):
        digits(classes)


@pytest.mark.parametrize("per_class", [0, 1000, 2.5])
def test_more_examples_than_there_are_are_refused(per_class):
    with pytest.raises(ValueError, match="There are not that many examples of each class"):
        digits(per_class=per_class)

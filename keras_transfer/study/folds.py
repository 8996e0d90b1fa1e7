"""Parts of the labelled data that take turns in being held out; the test split is never among them."""

import numpy as np

from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Divided, Split, Splits
from keras_transfer.data.texts import TextSplits
from keras_transfer.errors import explain
from keras_transfer.training.linear_probe import some_of_each

PARTS = 5


def stratified(labels: np.ndarray, parts: int = PARTS, *, seed: int) -> np.ndarray:
    """The number of each example's fold: every class is spread evenly over the folds, at random.

    Example:

    >>> folds = stratified(np.array([0] * 6 + [1] * 3), 3, seed=0)
    >>> sorted(folds[:6].tolist()), sorted(folds[6:].tolist())
    ([0, 0, 1, 1, 2, 2], [0, 1, 2])
    """
    generator, folds, begin = np.random.default_rng(seed), np.zeros(len(labels), np.int64), 0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        # Each class goes on where the one before it ended, so that folds are equally large as well.
        folds[members] = (begin + np.arange(len(members))) % parts
        begin += len(members)
    return folds


def rounds(splits: Splits) -> int:
    """How many times an other part can be held out."""
    return PARTS + (splits.validation is not None)


def held_out_in_turn(splits: Splits, number: int, *, seed: int) -> Splits:
    """The labelled data divided anew for a trial: its test split is a part of train or validation, never of test.

    The first trial is tested on validation, and has a fifth of train to make choices on; later ones are tested on a
    fifth of train each, and make their choices on validation. Without a validation split, two fifths take turns.

    Args:
        splits: the data.
        number: of the trial, from 0 up to `rounds(splits)`.
        seed: of the folds.
    """
    folds = stratified(splits.train.labels, seed=seed)
    if splits.validation is None:
        test, validation = folds == number, folds == (number + 1) % PARTS
        parts = _some(splits.train, validation, "validation"), _some(splits.train, test, "test")
        return rebuilt(splits, Divided(_some(splits.train, ~(test | validation), "train"), *parts))
    if number == 0:
        test, validation = _renamed(splits.validation, "test"), _some(splits.train, folds == 0, "validation")
        return rebuilt(splits, Divided(_some(splits.train, folds != 0, "train"), validation, test))
    test = folds == number - 1
    parts = splits.validation, _some(splits.train, test, "test")
    return rebuilt(splits, Divided(_some(splits.train, ~test, "train"), *parts))


def sampled(splits: Splits, most: int, *, seed: int) -> Splits:
    """The splits with so many training examples at most, some of each class; validation and test as they are."""
    if len(splits.train) <= most:
        return splits
    chosen = np.zeros(len(splits.train), bool)
    chosen[some_of_each(splits.train.labels, most, seed)] = True
    return rebuilt(splits, Divided(_some(splits.train, chosen, "train"), splits.validation, splits.test))


def rebuilt(splits: Splits, parts: Divided) -> Splits:
    """Splits of other parts, read and batched as these are.

    Raises:
        ValueError: for data without labels.
    """
    same = {"batch_size": min(splits.batch_size, len(parts.train)), "seed": splits.seed}
    if isinstance(splits, ImageSplits):
        return ImageSplits(parts, image_size=splits.image_size, augment=splits.augment, **same)
    if isinstance(splits, TextSplits):
        return TextSplits(parts, max_length=splits.max_length, buckets=splits.buckets, **same)
    raise ValueError(
        explain(
            "These data cannot be held out in parts.",
            given=type(splits).__name__,
            expected="labelled pictures or texts, of kt.data.images or kt.data.texts",
        )
    )


def _some(split: Split, chosen: np.ndarray, name: str) -> Split:
    numbers = np.flatnonzero(chosen)
    digests = [split.digests[number] for number in numbers]
    return Split(name, split.examples.select(numbers), split.classes, digests)


def _renamed(split: Split, name: str) -> Split:
    return Split(name, split.examples, split.classes, split.digests)

"""Parts of the labelled data that take turns in being held out; the test split is never among them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Divided, Split, Splits
from keras_transfer.data.texts import TextSplits
from keras_transfer.errors import explain
from keras_transfer.training.linear_probe import some_of_each, turn_in_class

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
    """How many times another part can be held out: never, of a handful of examples."""
    return PARTS + (splits.validation is not None) if len(splits.train) >= 2 * PARTS else 0


@dataclasses.dataclass(frozen=True, eq=False)
class Division:
    """Numbers of labelled examples, those of train first and those of validation after them: who does what in a trial.

    Attributes:
        fitted: what is learnt from.
        chosen_on: what the trial makes its choices on.
        judged: what it is judged on.
    """

    fitted: np.ndarray
    chosen_on: np.ndarray
    judged: np.ndarray


def division(splits: Splits, number: int, *, seed: int) -> Division:
    """Who does what in a trial: it is judged on a part of train or validation, never on the test split.

    The first trial is judged on validation, and has a fifth of train to make choices on; later ones are judged on a
    fifth of train each, and make their choices on validation. Without a validation split, two fifths take turns.

    Args:
        splits: the data.
        number: of the trial, from 0 up to `rounds(splits)`.
        seed: of the folds.
    """
    folds = stratified(splits.train.labels, seed=seed)
    if splits.validation is None:
        judged, chosen_on = folds == number, folds == (number + 1) % PARTS
        return Division(*map(np.flatnonzero, (~(judged | chosen_on), chosen_on, judged)))
    validation = len(folds) + np.arange(len(splits.validation))
    if number == 0:
        return Division(np.flatnonzero(folds != 0), np.flatnonzero(folds == 0), validation)
    return Division(np.flatnonzero(folds != number - 1), validation, np.flatnonzero(folds == number - 1))


def divided(splits: Splits, parts: Division) -> Splits:
    """The data as a division has them: what a trial is judged on is their test split."""
    names = {"train": parts.fitted, "validation": parts.chosen_on, "test": parts.judged}
    return rebuilt(splits, Divided(*(_labelled(splits, numbers, name) for name, numbers in names.items())))


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Some of the data, and which of them they are.

    Attributes:
        splits: the examples that were drawn.
        whole: all of the data.
        numbers: of each split by its name: the number in the whole of each example that was drawn.
    """

    splits: Splits
    whole: Splits
    numbers: Mapping[str, np.ndarray]

    def place(self, drawn: tuple[str, int]) -> tuple[str, int]:
        """Where in the whole an example is: (split, number)."""
        name, number = drawn
        return name, int(self.numbers[name][number])

    @property
    def parts(self) -> dict[str, str]:
        """What was drawn of each split that is not there whole: `"200 of 890"` by its name."""
        pairs = zip(self.splits.all, self.whole.all, strict=True)
        return {of.name: f"{len(some):,} of {len(of):,}" for some, of in pairs if len(some) < len(of)}


def sampled(splits: Splits, most: int, *, seed: int) -> Sample:
    """So many examples at most of each split, the classes as often among them as among all, each at least once."""
    numbers = {split.name: np.arange(len(split)) for split in splits.all}
    if max(map(len, splits.all)) <= most:
        return Sample(splits, splits, numbers)
    parts = {split.name: split for split in splits.all}
    for name, split in parts.items():
        if len(split) > most:
            numbers[name] = np.sort(_in_proportion(split.labels, most, seed))
            parts[name] = split.select(numbers[name])
    drawn = rebuilt(splits, Divided(*map(parts.get, ("train", "validation", "test"))))
    return Sample(drawn, splits, numbers)


def _in_proportion(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The numbers of `count` examples at random, the classes as often among them as among all, each at least once.

    Example:

    >>> labels = np.array([0] * 80 + [1] * 19 + [2])
    >>> np.bincount(labels[_in_proportion(labels, 10, seed=0)]).tolist()
    [7, 2, 1]
    """
    drawn = some_of_each(labels, len(labels), seed)
    _, classes, sizes = np.unique(labels[drawn], return_inverse=True, return_counts=True)
    # Each example's place among those of its class, from 0 to 1; the first of every class comes before all others.
    place = turn_in_class(classes) / sizes[classes]
    return drawn[np.argsort(place, kind="stable")[:count]]


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


def _labelled(splits: Splits, numbers: np.ndarray, name: str) -> Split:
    """Some of the labelled examples, which are all of train or all of validation."""
    of_train = len(splits.train)
    if numbers[0] < of_train:
        return splits.train.select(numbers, name)
    return splits.validation.select(numbers - of_train, name)

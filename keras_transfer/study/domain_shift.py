"""How far two sets of examples lie apart: how surely a linear classifier tells which of them an example is from."""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from keras_transfer.evaluation.report import interval_of_share
from keras_transfer.formatting import percent
from keras_transfer.study import folds
from keras_transfer.training import linear_probe

# More of each say no more.
_MOST = 1_000
# A classifier that is surely right more often than this has something to go by.
NOTABLE, FAR = 0.6, 0.9


@dataclasses.dataclass(frozen=True)
class Shift:
    """How far one set of examples lies from another.

    Attributes:
        one: what the first is called.
        other: what the second is called.
        right: how often a linear classifier says rightly which of the two an example is from; 0.5 is guessing.
        interval: its 95 % interval.
        examples: how many it was asked about, half of them of each.
    """

    one: str
    other: str
    right: float
    interval: tuple[float, float]
    examples: int

    @property
    def distance(self) -> float:
        """The proxy A-distance, 2 (1 - 2 error): 0 for two draws from one source, 2 for what is wholly apart."""
        return max(0.0, 2 * (2 * self.right - 1))

    @property
    def is_notable(self) -> bool:
        """Whether the two differ beyond the noise, and by more than trifles."""
        return self.interval[0] > NOTABLE

    @property
    def words(self) -> str:
        """What that means."""
        if self.interval[0] <= 0.5:
            return "no difference beyond noise, as between two draws from one source"
        if not self.is_notable:
            return "a difference beyond noise, but a small one"
        if self.right < FAR:
            return "they differ in part: in how they were collected, or in what is on them"
        return "they are apart, as photographs are from sketches or from photographs of other things"

    def __str__(self) -> str:
        low, high = self.interval
        told = f"which of the two an example is from is told in {percent(self.right)} of cases"
        return f"{told} (95 % interval {percent(low)} to {percent(high)}; guessing is 50 %): {self.words}"


def shift_between(one: np.ndarray, other: np.ndarray, names: tuple[str, str], *, seed: int = 0) -> Shift:
    """How far two sets of features lie apart.

    The proxy A-distance (Ben-David et al. 2007, "Analysis of representations for domain adaptation"): a classifier is
    to say which set an example is from, judged on what it was not fitted to, on equally many of both. It finds any
    difference that the features hold, also one that makes none for the task.

    Args:
        one: features of the first, shape (examples, numbers).
        other: features of the second.
        names: what they are called.
        seed: of which examples are taken, and of the folds.

    Example:

    >>> draw = np.random.default_rng(0).normal(size=(200, 3))
    >>> print(shift_between(draw[:100], draw[100:] + 9.0, ("photographs", "sketches")).words)
    they are apart, as photographs are from sketches or from photographs of other things
    """
    generator, count = np.random.default_rng(seed), min(len(one), len(other), _MOST)
    drawn = [each[generator.permutation(len(each))[:count]] for each in (one, other)]
    features, labels = np.concatenate(drawn), np.repeat([0, 1], count)
    said = linear_probe.out_of_fold(features, labels, folds.stratified(labels, seed=seed), seed=seed).argmax(axis=1)
    right = int(np.sum(said == labels))
    return Shift(*names, right / (2 * count), interval_of_share(right, 2 * count), 2 * count)


def shifts_among(
    features: Mapping[str, np.ndarray], of_source: np.ndarray | None = None, *, seed: int = 0
) -> list[Shift]:
    """How far validation lies from train, test from validation (from train, where there is none), and train from the
    source of a pretrained body.

    Args:
        features: those of each split that there is, by its name.
        of_source: those of the source's training examples, by the same body.
        seed: as for `shift_between`.

    Example:

    >>> draw = np.random.default_rng(0).normal(size=(150, 3))
    >>> found = shifts_among({"train": draw[:50], "test": draw[50:100]}, draw[100:] + 9.0)
    >>> [(shift.one, shift.other, shift.is_notable) for shift in found]
    [('train', 'test', False), ('source', 'target', True)]
    """
    splits = [name for name in ("train", "validation", "test") if name in features]
    found = [
        shift_between(features[one], features[other], (one, other), seed=seed)
        for one, other in itertools.pairwise(splits)
    ]
    if of_source is not None:
        found.append(shift_between(of_source, features["train"], ("source", "target"), seed=seed))
    return found

"""Labels that look wrong: what is confidently taken for another class by those who have not seen it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_transfer.study import folds
from keras_transfer.study.transferability import neighbours
from keras_transfer.training import linear_probe

# So many neighbours are asked for a second opinion.
_NEIGHBOURS = 10


@dataclasses.dataclass(frozen=True)
class Suspect:
    """An example whose label looks wrong.

    Attributes:
        place: (split, number).
        label: its class.
        looks_like: the class that it is taken for.
        confidence: how much more likely that is held to be, 0..1.
    """

    place: tuple[str, int]
    label: str
    looks_like: str
    confidence: float


def wrong_labels(
    features: np.ndarray,
    labels: np.ndarray,
    places: Sequence[tuple[str, int]],
    classes: Sequence[str],
    *,
    seed: int = 0,
) -> list[Suspect]:
    """Examples whose label looks wrong, the most confident first.

    By confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068): linear probes judge what they were not
    fitted to. An example counts as of class j where j's probability is at least the mean that examples labelled j are
    given, so that classes that are hard or rare are held against their like. It is suspect where that says another
    class than its label. Hard examples of a right label fall under it too, so the nearest other examples are asked as
    well, and must agree.

    Args:
        features: shape (examples, numbers).
        labels: class numbers, shape (examples,).
        places: (split, number) of each example.
        classes: the names of the classes.
        seed: of the folds.

    Example:

    >>> labels = np.array([0, 1] * 20)
    >>> features = np.random.default_rng(0).normal(size=(40, 4)) + 6 * labels[:, None]
    >>> labels[7] = 0
    >>> found = wrong_labels(features, labels, [("train", n) for n in range(40)], ["ant", "bee"])
    >>> [(suspect.place[1], suspect.label, suspect.looks_like) for suspect in found]
    [(7, 'ant', 'bee')]
    """
    probabilities = linear_probe.held_out(features, labels, folds.stratified(labels, seed=seed), seed=seed)
    usual = np.array([probabilities[labels == label, label].mean() for label in range(probabilities.shape[1])])
    counted = np.where(probabilities >= usual, probabilities, -1.0)
    taken_for = counted.argmax(axis=1)
    votes, every = neighbours(features, labels, _NEIGHBOURS), np.arange(len(labels))
    margin = probabilities[every, taken_for] - probabilities[every, labels]
    agrees = votes[every, taken_for] > votes[every, labels]
    chosen = np.flatnonzero((counted.max(axis=1) > 0) & (taken_for != labels) & (margin > 0) & agrees)
    return [
        Suspect(places[number], classes[labels[number]], classes[taken_for[number]], float(margin[number]))
        for number in chosen[np.argsort(-margin[chosen], kind="stable")]
    ]

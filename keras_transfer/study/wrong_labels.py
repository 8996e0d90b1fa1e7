"""Labels that look wrong: what is confidently taken for another class by those who have not seen it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_transfer.study import folds
from keras_transfer.study.transferability import neighbours
from keras_transfer.training import linear_probe

# So many neighbours are asked for a second opinion.
_NEIGHBOURS = 10
# What a label is given beside what its class usually is given, below which it looks wrong. On the four shared picture
# sets with ten planted wrong labels each this finds 92 of 120 in three seeds, and 92 others (benchmarks/pitfalls.py).
_SUSPICIOUS = 0.25


@dataclasses.dataclass(frozen=True)
class Suspect:
    """An example whose label looks wrong.

    Attributes:
        place: (split, number).
        label: its class.
        looks_like: the class that it is taken for.
        support: what its label is given, beside what that class is given on average: 0 is none.
    """

    place: tuple[str, int]
    label: str
    looks_like: str
    support: float


def wrong_labels(
    features: np.ndarray,
    labels: np.ndarray,
    places: Sequence[tuple[str, int]],
    classes: Sequence[str],
    *,
    seed: int = 0,
) -> list[Suspect]:
    """Examples whose label looks wrong, the surest first.

    As in confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068), linear probes judge what they were
    not fitted to, and what they give a label is held against what that class is given on average, so that classes that
    are hard or rare are compared with their like. The nearest other examples have a vote of equal weight: a probe that
    was fitted to other wrong labels errs in other places than they do. Hard examples of a right label are suspects too.

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
    probabilities = linear_probe.out_of_fold(features, labels, folds.stratified(labels, seed=seed), seed=seed)
    said = (probabilities + neighbours(features - features.mean(axis=0), labels, _NEIGHBOURS)) / 2
    own = said[np.arange(len(labels)), labels]
    usual = (np.bincount(labels, own) / np.maximum(np.bincount(labels), 1))[labels]
    # A class of one example is given nothing by those who have not seen it: nothing can be said about that label.
    support = np.divide(own, usual, out=np.ones(len(labels)), where=usual > 0)
    taken_for = said.argmax(axis=1)
    chosen = np.flatnonzero((taken_for != labels) & (support < _SUSPICIOUS))
    return [
        Suspect(places[number], classes[labels[number]], classes[taken_for[number]], float(support[number]))
        for number in chosen[np.argsort(support[chosen], kind="stable")]
    ]

"""What the features of a frozen body say about a task: linear probe, nearest neighbours, LogME."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from keras_transfer.evaluation.report import interval_of_share
from keras_transfer.study import folds, intervals
from keras_transfer.study.intervals import Difference
from keras_transfer.training import linear_probe

NEIGHBOURS = 5
# Cross-validation on other folds, with a strength chosen on other folds, moves the accuracy by a point or two on a
# hundred examples. So many strengths, each on as many divisions into folds as judge so many examples, even that out: of
# 140 sketches, 21 divisions in place of 3 bring the spread of one body's lead over another from a point to a third.
_STRENGTHS, _JUDGED, _MOST_DIVISIONS = 3, 1_000, 7
# The fixed point of LogME is reached in a handful of steps.
_MOST_STEPS, _CLOSE = 100, 1e-4
# So many similarities at a time.
_BLOCK = 2**24


@dataclasses.dataclass(frozen=True, eq=False)
class Measures:
    """What frozen features are worth for a task, measured on train and validation.

    Attributes:
        right: whether linear probes that were not fitted to an example are right about it, bool of shape (strengths,
            divisions, examples): the examples are divided into folds anew each time, and how strongly probes are
            regularised is chosen anew for so many divisions.
        log_loss: the mean of -log of what they give the label.
        neighbours: accuracy of the nearest other examples.
        log_me: the mean log evidence of an example's label, see `log_me`.
    """

    right: np.ndarray
    log_loss: float
    neighbours: float
    log_me: float

    @property
    def accuracy(self) -> float:
        """Of the linear probes."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % interval."""
        count = self.right.shape[-1]
        return interval_of_share(round(self.accuracy * count), count)

    @property
    def by_strength(self) -> intervals.Scores:
        """The accuracy for each strength, and what each example does to it."""
        return intervals.mean(self.right.mean(axis=1))

    def lead_over(self, other: Self) -> Difference:
        """How much more often the probes of these features are right, on the same examples.

        The interval is of these examples: that probes on others would be other probes is not in it.
        """
        return self.by_strength.minus(other.by_strength).estimate().within(-1, 1)


def noise_of(several: Sequence[Measures]) -> np.ndarray:
    """How the accuracies of probes on the same examples would differ on others: a covariance, shape (bodies, bodies).

    Args:
        several: the measures of each body.
    """
    return intervals.covariance([each.by_strength for each in several])


def measures(features: np.ndarray, labels: np.ndarray, *, seed: int) -> Measures:
    """What features are worth for a task.

    Args:
        features: shape (examples, numbers).
        labels: class numbers, shape (examples,).
        seed: of the folds, and of how the probe's strength is chosen.
    """
    each = min(max(1, round(_JUDGED / len(labels))), _MOST_DIVISIONS)
    seeds = np.random.SeedSequence(seed).generate_state(_STRENGTHS * (1 + each)).reshape(_STRENGTHS, 1 + each).tolist()
    said = np.stack(
        [
            linear_probe.out_of_fold(features, labels, _divisions(labels, others), seed=of_strength)
            for of_strength, *others in seeds
        ]
    )
    given = said[..., np.arange(len(labels)), labels]
    votes = neighbours(features, labels)
    return Measures(
        said.argmax(axis=-1) == labels,
        float(-np.log(np.maximum(given, 1e-6)).mean()),
        float(np.mean(votes.argmax(axis=1) == labels)),
        log_me(features, labels),
    )


def _divisions(labels: np.ndarray, seeds: list[int]) -> np.ndarray:
    """Folds of the examples, divided anew by each seed: shape (seeds, examples)."""
    return np.stack([folds.stratified(labels, seed=seed) for seed in seeds])


def neighbours(features: np.ndarray, labels: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """How the nearest other examples vote, each as much as it is similar: shape (examples, classes), rows of sum 1.

    Similar is what has a large cosine.

    Args:
        features: shape (examples, numbers).
        labels: class numbers, shape (examples,).
        count: how many neighbours vote.

    Example:

    >>> neighbours(np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), np.array([0, 0, 1, 1]), 1).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    unit = units(features)
    count = min(count, len(labels) - 1)
    votes = np.zeros((len(labels), int(labels.max()) + 1))
    step = max(1, _BLOCK // len(labels))
    for start in range(0, len(labels), step):
        rows = np.arange(start, min(start + step, len(labels)))
        similarity = unit[rows] @ unit.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        weights = np.maximum(np.take_along_axis(similarity, nearest, axis=1), 1e-6)
        for column in range(count):
            votes[rows, labels[nearest[:, column]]] += weights[:, column]
    return votes / votes.sum(axis=1, keepdims=True)


def units(features: np.ndarray) -> np.ndarray:
    """The features at length 1, as float32."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(lengths, np.finfo("float32").tiny)).astype("float32")


def log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME: how likely the labels are under the best linear model of the features (You et al. 2021, arXiv:2102.11005).

    Each class against the others is a target y of 0 and 1, taken as F w + noise with w from N(0, 1/alpha) and noise
    from N(0, 1/beta). What w is has been integrated out, and alpha and beta are those that make y most likely, found by
    the paper's fixed point. No example is held out, and nothing is fitted that could fit too well.

    Args:
        features: F, shape (examples, numbers).
        labels: class numbers, shape (examples,).

    Returns:
        The log of that likelihood per example, the mean over the classes: larger is better. It compares bodies on one
        task; between tasks it says nothing.

    Example:

    >>> labels = np.array([0, 1] * 10)
    >>> telling = np.random.default_rng(0).normal(size=(20, 3)) + 3 * labels[:, None]
    >>> log_me(telling, labels) > log_me(telling[::-1][:, :1] * 0 + 1.0, labels)
    True
    """
    left, singular, _ = np.linalg.svd(np.asarray(features, "float64"), full_matrices=False)
    classes = np.unique(labels)
    found = [_evidence(left, singular**2, (labels == label).astype("float64"), features.shape[1]) for label in classes]
    return float(np.mean(found))


def _evidence(left: np.ndarray, squares: np.ndarray, target: np.ndarray, width: int) -> float:
    """The log evidence per example of one target, at the alpha and beta that make it largest."""
    count = len(target)
    projected = (left.T @ target) ** 2
    outside = max(float(target @ target - projected.sum()), 0.0)  # what no combination of the features can say
    alpha = beta = 1.0
    for _ in range(_MOST_STEPS):
        length, residual = _fit(squares, projected, outside, alpha, beta)
        effective = float(np.sum(beta * squares / (alpha + beta * squares)))
        next_alpha = max(effective, 1e-12) / max(length, 1e-12)
        next_beta = (count - effective) / max(residual, 1e-12)
        moved = abs(math.log(next_alpha / next_beta) - math.log(alpha / beta))
        alpha, beta = next_alpha, next_beta
        if moved < _CLOSE:
            break
    length, residual = _fit(squares, projected, outside, alpha, beta)
    determinant = np.sum(np.log(alpha + beta * squares)) + (width - len(squares)) * math.log(alpha)
    evidence = count * math.log(beta / (2 * math.pi)) + width * math.log(alpha)
    return float(evidence - beta * residual - alpha * length - determinant) / (2 * count)


def _fit(squares, projected, outside: float, alpha: float, beta: float) -> tuple[float, float]:
    """The squared length of the most likely w, and the squared residual that it leaves."""
    below = alpha + beta * squares
    length = float(np.sum(beta**2 * squares * projected / below**2))
    return length, float(np.sum(projected * (alpha / below) ** 2)) + outside

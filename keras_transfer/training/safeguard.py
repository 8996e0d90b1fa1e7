"""How far to go from the weights that a stage began with to those it ended with: as far as validation says."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.backbones import hub
from keras_transfer.data.splits import Batches
from keras_transfer.evaluation.prediction import predict_split
from keras_transfer.formatting import percent

# The shares that validation is asked about, and what is believed of each beforehand. On three folds of the training
# pictures of the four shared sets accuracy was highest between 0.7 and 0.9 of the way: in the mean of the four by three
# points above that of share 0, one and a half above the middle, and half a point above share 1. The two ends are
# possible, and need evidence.
BELIEFS = {0.0: 0.01, 0.2: 0.04, 0.4: 0.1, 0.6: 0.2, 0.8: 0.4, 1.0: 0.25}
# A head alone cannot lose what the body knows, and its loss is convex: what it has learnt is kept, unless it is worse.
OF_HEAD = {0.0: 0.0, 1.0: 1.0}
# Sixteen times as sure as the model is of itself, to sixteen times less.
TEMPERATURES = 2.0 ** np.linspace(-4, 4, 81)


@dataclasses.dataclass(frozen=True)
class Point:
    """The model that lies `share` of the way between two sets of weights, and what it came to.

    Attributes:
        share: 0 is the model as it was, 1 the model as it might be.
        loss: on examples, or tokens, that neither has learnt from.
        accuracy: the share of them that it gets right.
    """

    share: float
    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """The way that a safeguarded stage went, and where on it the model was left.

    Attributes:
        share: 0 is the model before the stage, 1 the model as trained.
        path: validation at several places of the way, from 0 to 1, and at `share`; empty without a validation split.
            The loss of a classifier is its log loss at the temperature at which that is lowest.
    """

    share: float
    path: tuple[Point, ...]

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` wrote."""
        return cls(parts["share"], tuple(Point(**point) for point in parts["path"]))

    def __str__(self):
        if not self.path:
            return f"safeguard: {self.share:.2f} of the way was kept, for want of a validation split to ask"
        # The share that was kept may lie a hair beside one that was tried.
        points = {f"{point.share:.2g}": f"{point.loss:.3f} ({percent(point.accuracy)})" for point in self.path}
        path = ", ".join(f"{share}: {said}" for share, said in points.items())
        # A share of the grid is one that was not worse than the head before it, where the one in between was.
        is_between = self.share not in BELIEFS
        by = ", from three quarters towards the lowest loss by how many there are to ask" if is_between else ""
        return (
            f"safeguard: {self.share:.2f} of the way was kept{by}; along it validation loss, of a classifier at its "
            f"best temperature (and accuracy): {path}"
        )


def safeguard(
    model: keras.Model, splits: Batches, before: Sequence[np.ndarray], *, beliefs: Mapping[float, float] = BELIEFS
) -> Interpolation:
    """Puts the model between what it was before a stage and what it is, where validation likes it best.

    Between a linear probe and the weights that were fine-tuned from it the loss has no barrier, and somewhere in
    between both accuracy and robustness are better than at either end (WiSE-FT: Wortsman et al. 2022,
    arXiv:2109.01903). A small validation set cannot say exactly where. So the share is the mean of what is believed of
    it once validation has been asked: beforehand three quarters, weighed by the likelihood exp(-examples × loss). A
    handful of examples gives about three quarters of the way, many the best share, and none three quarters. Never a
    share whose validation accuracy is below that of the model before the stage.

    A classifier that was tuned for long is too sure of itself, which the log loss holds against it more than any error.
    That is mended by one number afterwards, and says nothing of what it can tell apart; so each share is measured at
    its best temperature (Guo et al. 2017, arXiv:1706.04599).

    Args:
        model: as the stage left it, compiled.
        splits: the data, with or without a validation split.
        before: `state.values(model)` from before the stage.
        beliefs: the shares that are tried, 0 and 1 among them, and what is believed of each beforehand.

    Returns:
        The share, and what validation said.
    """
    way, prior = _way(model, before), np.array([*beliefs.values()])
    if not splits.validation:
        share = _mean(beliefs, prior)
        _move(way, share)
        return Interpolation(share, ())
    measured = [_measure(model, splits, way, share) for share in beliefs]
    losses = np.array([point.loss for point in measured])
    # Of those that are believed in at all, so that the likelihood of one of them is 1.
    likelihood = np.exp(-len(splits.validation) * (losses - losses[prior > 0].min()))
    share = _mean(beliefs, np.where(prior > 0, likelihood, 0.0) * prior)
    chosen = next((point for point in measured if point.share == share), None) or _measure(model, splits, way, share)
    _move(way, share)
    if chosen.accuracy < measured[0].accuracy:
        chosen = max(measured, key=lambda point: (point.accuracy, -point.loss))
        _move(way, chosen.share)
    path = sorted({point.share: point for point in [*measured, chosen]}.values(), key=lambda point: point.share)
    return Interpolation(chosen.share, tuple(path))


def _mean(shares: Iterable[float], weights: Sequence[float]) -> float:
    """The mean of shares under weights that need not sum to 1.

    >>> round(_mean(BELIEFS, [*BELIEFS.values()]), 3)
    0.738
    """
    return float(np.dot(weights, [*shares]) / np.sum(weights))


# A variable, and its values before and after the stage.
Way = Sequence[tuple[keras.Variable, np.ndarray, np.ndarray]]


def _way(model: keras.Model, before: Sequence[np.ndarray]) -> Way:
    """Every weight that the stage has changed: what it has not keeps its bits, and so do seeds."""
    every = zip(state.walk(model), before, state.values(model), strict=True)
    return [
        (variable, old, new)
        for (_, variable), old, new in every
        if not state.is_seed(variable) and not np.array_equal(old, new)
    ]


def _measure(model: keras.Model, splits: Batches, way: Way, share: float) -> Point:
    _move(way, share)
    if splits.classes:
        return Point(share, *of_classifier(predict_split(model, splits, splits.validation), splits.validation.labels))
    batches = splits.evaluation_batches(splits.validation, model, in_order=False)
    with hub.taking_packed_inputs(model):
        found = model.evaluate(batches, verbose=0, return_dict=True)
    # Of a token: the loss is the mean of batches, in which one of a short text counts for more.
    return Point(share, found["cross_entropy"], found["accuracy"])


def of_classifier(said: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Loss at the best temperature, and accuracy, of the probabilities of each class, shape (examples, classes)."""
    return calibrated_loss(said, labels), float(np.mean(said.argmax(axis=1) == labels))


def calibrated_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean log loss at the temperature at which it is lowest.

    >>> sure, unsure = np.array([[0.99, 0.01], [0.2, 0.8]]), np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> bool(calibrated_loss(sure, np.array([0, 0])) > calibrated_loss(unsure, np.array([0, 1])))
    True
    """
    logs = np.log(np.maximum(probabilities.astype("float64"), np.finfo("float32").tiny))
    losses = []
    for temperature in TEMPERATURES:
        scores = logs / temperature
        rows = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(labels)), labels]
        losses.append(rows.mean())
    return float(min(losses))


def _move(way: Way, share: float) -> None:
    for variable, old, new in way:
        variable.assign(new if share == 1 else old if share == 0 else (1 - share) * old + share * new)

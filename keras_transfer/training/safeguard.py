"""How far to go from the weights that a stage began with to those it ended with: as far as validation says."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.backbones import hub
from keras_transfer.data.splits import Batches
from keras_transfer.evaluation.formatting import percent

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# What is believed of a share before validation is asked: the middle. On five folds of the four shared picture sets it
# was the best of the way for nearly every rate that was tried, and better than what a few dozen pictures chose freely.
# The two ends are possible, and need evidence.
BELIEFS = (0.02, 0.18, 0.3, 0.3, 0.18, 0.02)


@dataclasses.dataclass(frozen=True)
class Point:
    """The model that lies `share` of the way between two sets of weights, measured on validation."""

    share: float
    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """The way that a safeguarded stage went, and where on it the model was left.

    Attributes:
        share: 0 is the model before the stage, 1 the model as trained.
        path: validation at several places of the way, from 0 to 1, and at `share`; empty without a validation split.
    """

    share: float
    path: tuple[Point, ...]

    def __str__(self):
        if not self.path:
            return f"safeguard: {self.share:.2f} of the way was kept, for want of a validation split to ask"
        path = ", ".join(f"{point.share:.2g}: {point.loss:.3f} ({percent(point.accuracy)})" for point in self.path)
        return f"safeguard: {self.share:.2f} of the way was kept; validation loss (accuracy) along it: {path}"


def safeguard(model: keras.Model, splits: Batches, before: Sequence[np.ndarray]) -> Interpolation:
    """Puts the model between what it was before a stage and what it is, where validation likes it best.

    Between a linear probe and the weights that were fine-tuned from it the loss has no barrier, and somewhere in
    between both accuracy and robustness are better than at either end (WiSE-FT: Wortsman et al. 2022,
    arXiv:2109.01903). A small validation set cannot say exactly where. So the share is the mean of what is believed of
    it once validation has been asked: beforehand the middle, weighed by the likelihood exp(-examples × loss). A handful
    of examples gives about the middle of the way, many the best share, and none the middle. Never a share whose
    validation accuracy is below that of the model before the stage.

    Args:
        model: as the stage left it, compiled.
        splits: the data, with or without a validation split.
        before: `state.values(model)` from before the stage.

    Returns:
        The share, and what validation said.
    """
    way = _way(model, before)
    if not splits.validation:
        share = _mean(BELIEFS)
        _move(way, share)
        return Interpolation(share, ())
    measured = [_measure(model, splits, way, share) for share in SHARES]
    losses = np.array([point.loss for point in measured])
    likelihood = np.exp(-len(splits.validation) * (losses - losses.min()))
    share = _mean(likelihood * BELIEFS)
    chosen = _measure(model, splits, way, share)
    if chosen.accuracy < measured[0].accuracy:
        chosen = max(measured, key=lambda point: (point.accuracy, -point.loss))
        _move(way, chosen.share)
    path = sorted({point.share: point for point in [*measured, chosen]}.values(), key=lambda point: point.share)
    return Interpolation(chosen.share, tuple(path))


def _mean(belief: Sequence[float]) -> float:
    """The mean share under weights that need not sum to 1.

    >>> round(_mean(BELIEFS), 6)
    0.5
    """
    return float(np.dot(belief, SHARES) / np.sum(belief))


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
    batches = splits.evaluation_batches(splits.validation, model, in_order=False)
    with hub.taking_packed_inputs(model):
        found = model.evaluate(batches, verbose=0, return_dict=True)
    return Point(share, found["loss"], found["accuracy"])


def _move(way: Way, share: float) -> None:
    for variable, old, new in way:
        variable.assign(new if share == 1 else old if share == 0 else (1 - share) * old + share * new)

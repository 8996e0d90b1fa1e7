"""Which statistics the batch norms of a frozen body normalise by: as far towards the data's own as the data say."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.backbones import hub
from keras_transfer.backbones.cut import InputsOf
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.formatting import percent
from keras_transfer.training.batch_statistics import BATCH, Passes, in_batches, inputs_of, moving_statistics
from keras_transfer.training.linear_probe import linear_head, out_of_fold, some_of_each, turn_in_class
from keras_transfer.training.safeguard import Point, calibrated_loss

# Statistics this far from those of pretraining (see `Passes`) are another domain's. With four bodies three sets of
# photographs lay at 0.01 to 0.10, and sketches at 0.9 to 2.1; any set at 23 with random weights, whose batch norms have
# the statistics of nothing.
FAR = 0.3
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75)
# What is believed of the share in another domain before the data are asked.
BELIEFS = (0.1, 0.2, 0.3, 0.25, 0.15)
# Every example is judged by probes that have learnt from most of the others, so that judgements go together: a
# likelihood of all of them taken singly would be too sure by far.
CREDIT = 0.5
# A share of such a likelihood, relative to the best, is too far, and those beyond it are further.
NEGLIGIBLE = 0.05
# So many examples tell one share from another where it matters, and are computed twice for each share.
MOST_EXAMPLES = 4 * BATCH
# How often these are computed at most: twice for each share, and for the share that is chosen.
MOST_PASSES = 2 * len(SHARES) + 1
# The parts of a cross-validation, which is repeated, with other parts, for about so many judgements.
PARTS, JUDGEMENTS = 4, 400


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What batch norms normalise by, and why.

    Attributes:
        distance: of the statistics of the data from those that batch norms had, see `Passes.distance`.
        share: 0 is the statistics that there were, 1 those of the training examples.
        path: what a linear probe came to under cross-validation at each share that was tried: `accuracy`, and `loss`,
            at the temperature at which it is lowest, which decided. Empty where the data are no other domain, or where
            no two classes have several examples.
        examples: of how many it was asked.
    """

    distance: float
    share: float
    path: tuple[Point, ...]
    examples: int

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` wrote."""
        return cls(
            parts["distance"], parts["share"], tuple(Point(**point) for point in parts["path"]), parts["examples"]
        )

    def __str__(self):
        there = f"calibration: the data lie {self.distance:.2f} from the statistics of the batch norms"
        if not self.path:
            near = self.distance < FAR
            why = f"less than {FAR:g}" if near else "but no two classes have several examples to ask"
            return f"{there}, {why}: they are kept"
        path = ", ".join(f"{point.share:.2g}: {point.loss:.3f} ({percent(point.accuracy)})" for point in self.path)
        return (
            f"{there}, another domain: they were moved {self.share:.2f} of the way; along it log loss of a linear "
            f"probe at its best temperature, under cross-validation on {self.examples} examples (and accuracy): {path}"
        )


def calibrate(model: keras.Model, splits: Splits, *, seed: int) -> Calibration:
    """Moves the statistics of all batch norms towards those of the training examples, as far as a linear probe gains.

    Pictures of another domain reach every layer with other means and variances than those it normalises by, and what
    comes out means little. Their own statistics mend that, and lose what classes differ in; those in between do best
    (Schneider et al. 2020, arXiv:2006.16971; α-BN: You et al. 2021, arXiv:2110.04065). Whether it is another domain is
    measured without labels, and where it is none nothing moves. Then labels say how far: the share is the mean of what
    is believed of it once they have been asked, which is what was believed beforehand weighed by the likelihood of the
    labels under linear probes on the features, cross-validated.

    Args:
        model: a classifier with batch norms whose head is one `Dense` layer with a bias. Nothing but moving statistics
            changes.
        splits: the data, of which up to 256 training examples are asked, as they are.
        seed: of which these are, and of the parts of the cross-validation.

    Returns:
        The share, and what was measured.

    Raises:
        ValueError: for data without classes, or a head that is not linear.
    """
    return Calibrator(model, splits, seed=seed).calibrate()


class Calibrator:
    """The training examples that are asked how far a model's statistics are to be moved: see `calibrate`."""

    def __init__(self, model: keras.Model, splits: Splits, *, seed: int) -> None:
        if not splits.classes:
            raise ValueError(
                explain(
                    "Statistics are calibrated by what a linear probe makes of classes, and these data have none.",
                    given='statistics="calibrated"',
                    expected='statistics="kept" for a model that is no classifier',
                )
            )
        self._model, self._seed = model, seed
        self._features_of, self._passes = InputsOf(model, linear_head(model)), Passes(model)
        rows = _asked(splits.train.labels, seed)
        self._labels = splits.train.labels[rows]
        self._batches = [inputs_of(model, splits, part) for part in in_batches(rows)]

    @functools.cached_property
    def distance(self) -> float:
        """Of their statistics from those that the model had when it was first asked, see `Passes.distance`."""
        return self._passes.distance(self._batches)

    @property
    def examples(self) -> int:
        """How many are asked."""
        return len(self._labels)

    @property
    def may_move(self) -> bool:
        """Whether they are another domain's, and there are enough to ask."""
        return self.distance >= FAR and _can_be_divided(self._labels)

    def move(self, share: float) -> None:
        """Moves the statistics there are as far as `calibrate` does if that is the share that it chooses."""
        if share:
            self._passes.move(self._batches, share=share)

    def calibrate(self) -> Calibration:
        """Moves them as far as a linear probe gains by it."""
        if not self.may_move:
            return Calibration(self.distance, 0.0, (), len(self._labels))
        statistics = moving_statistics(self._model)
        before = state.values_of(statistics)

        def go(share: float) -> None:
            state.assign_to(statistics, before, noun="statistics")
            self.move(share)

        path: list[Point] = []
        try:
            for share in SHARES:
                go(share)
                path.append(Point(share, *_judged(self._features(), self._labels, self._seed)))
                if _likelihoods(path, len(self._labels))[-1] < NEGLIGIBLE:
                    break
            chosen = _mean_share(path, len(self._labels))
            go(chosen)
        except BaseException:
            go(0.0)
            raise
        return Calibration(self.distance, chosen, tuple(path), len(self._labels))

    def _features(self) -> np.ndarray:
        with hub.taking_packed_inputs(self._model):
            return np.concatenate([np.asarray(self._features_of.predict_on_batch(each)) for each in self._batches])


def _likelihoods(path: Sequence[Point], examples: int) -> np.ndarray:
    """Of the labels at each share, relative to the best."""
    losses = np.array([point.loss for point in path])
    return np.exp(-CREDIT * examples * (losses - losses.min()))


def _mean_share(path: Sequence[Point], examples: int) -> float:
    """The mean of what is believed of the share.

    Example:

    >>> path = [Point(share, loss, accuracy=0.8) for share, loss in zip(SHARES, (0.9, 0.7, 0.6, 0.6, 0.7))]
    >>> [round(_mean_share(path, examples), 2) for examples in (0, 10, 100, 10_000)]
    [0.33, 0.36, 0.36, 0.36]
    """
    belief = _likelihoods(path, examples) * BELIEFS[: len(path)]
    return float(np.dot(belief, SHARES[: len(path)]) / belief.sum())


def _asked(labels: np.ndarray, seed: int) -> np.ndarray:
    """The numbers of up to 256 examples, of so few classes that several of each are among them; not of classes with one
    example, which cannot be divided, unless there are no two others.

    Example:

    >>> _asked(np.array([0, 1, 0, 1, 2]), seed=0).tolist()
    [2, 1, 0, 3]
    """
    names, counts = np.unique(labels, return_counts=True)
    several = names[counts > 1] if np.sum(counts > 1) > 1 else names
    drawn = np.random.default_rng(seed).permutation(several)[: MOST_EXAMPLES // PARTS]
    among = np.flatnonzero(np.isin(labels, drawn))
    return among[some_of_each(labels[among], MOST_EXAMPLES, seed, least=PARTS)]


def _can_be_divided(labels: np.ndarray) -> bool:
    """Whether there are two classes or more, each with two examples or more."""
    counts = np.unique(labels, return_counts=True)[1]
    return len(counts) > 1 and bool(counts.min() > 1)


def _judged(features: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """The log loss at the best temperature, and the accuracy, of probes on examples that they have not seen.

    Example:

    >>> features, labels = np.array([[-2.0], [-1.0], [1.0], [2.0]] * 3), np.array([3, 3, 5, 5] * 3)
    >>> loss, accuracy = _judged(features, labels, seed=0)
    >>> loss < 0.1, accuracy
    (True, 1.0)
    """
    classes = np.unique(labels, return_inverse=True)[1]
    divisions = np.empty((-(-JUDGEMENTS // len(classes)), len(classes)), int)
    for repeat, folds in enumerate(divisions):
        order = np.random.default_rng([seed, repeat]).permutation(len(classes))
        folds[order] = turn_in_class(classes[order]) % PARTS
    said = out_of_fold(features, classes, divisions, seed=seed)
    loss = np.mean([calibrated_loss(each, classes) for each in said])
    return float(loss), float(np.mean(said.argmax(axis=-1) == classes))

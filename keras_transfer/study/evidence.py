"""What the frozen features of the candidates say, before anything is trained."""

import dataclasses
import time

import keras
import numpy as np

from keras_transfer.data.splits import Splits
from keras_transfer.plans import methods
from keras_transfer.study.candidates import Candidate
from keras_transfer.study.embedding import features_of
from keras_transfer.study.folds import Division
from keras_transfer.study.pace import Pace, seconds_forward
from keras_transfer.study.rules import METHODS
from keras_transfer.study.transferability import Measures, measures
from keras_transfer.study.whole_plans import most_epochs
from keras_transfer.training import linear_probe
from keras_transfer.training.objectives import objective_of


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """What a candidate's frozen features are worth.

    Attributes:
        body: the candidate's name.
        parameters: of the whole model.
        methods: the ways to adapt it, LoRA among them where it has attention.
        measures: linear probe, nearest neighbours and LogME, on train and validation.
        seconds: how long it took.
    """

    body: str
    parameters: int
    methods: tuple[str, ...]
    measures: Measures
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Built:
    """A candidate's model, for as long as it is needed.

    Attributes:
        candidate: the way to it.
        model: it.
        forward: seconds that a forward pass takes for one example.
        seconds: how long all of that took.
    """

    candidate: Candidate
    model: keras.Model
    forward: float
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    """A candidate's features, nothing of it trained.

    Attributes:
        candidate: the way to its model.
        pace: how fast it is.
        features: of train, then validation, shape (examples, numbers).
        labels: their class numbers.
        evidence: what the features are worth.
    """

    candidate: Candidate
    pace: Pace
    features: np.ndarray
    labels: np.ndarray
    evidence: Evidence

    @property
    def name(self) -> str:
        """What the body is called."""
        return self.candidate.name

    def probe_is_right(self, parts: Division, *, seed: int) -> np.ndarray:
        """Whether a linear probe on what a trial learns from is right about each example that judges the trial."""
        said = linear_probe.predictions(
            self.features[parts.fitted],
            self.labels[parts.fitted],
            self.features[parts.judged],
            classes=int(self.labels.max()) + 1,
            seed=seed,
        )
        return said.argmax(axis=1) == self.labels[parts.judged]


def built(candidate: Candidate, splits: Splits) -> Built:
    """Makes a candidate's model, and measures how fast it is.

    Raises:
        ValueError: where the model does not fit the data.
    """
    begun, model = time.perf_counter(), candidate.model()
    objective_of(splits).check(model, splits)
    forward = seconds_forward(model, splits)
    return Built(candidate, model, forward, time.perf_counter() - begun)


def frozen(given: Built, splits: Splits, *, seed: int) -> Frozen:
    """A candidate's features, computed once and kept where `kt.fit` looks for them, and what they are worth."""
    begun, name = time.perf_counter(), given.candidate.name
    parts = [split for split in (splits.train, splits.validation) if split is not None]
    features = np.concatenate([features_of(given.model, splits, split) for split in parts])
    labels = np.concatenate([split.labels for split in parts])
    worth = measures(features, labels, seed=seed)
    seconds = given.seconds + time.perf_counter() - begun
    found = Evidence(name, given.model.count_params(), _methods(given.model), worth, seconds)
    epochs = {method: most_epochs(method, given.model, splits, seed=seed) for method in found.methods[1:]}
    return Frozen(given.candidate, Pace(len(splits.train), given.forward, epochs), features, labels, found)


def _methods(model: keras.Model) -> tuple[str, ...]:
    """The methods that a body allows: LoRA where it has attention to put it on."""
    try:
        methods.lora(model)
    except ValueError:
        return METHODS[:2]
    return METHODS

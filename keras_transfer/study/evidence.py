"""What the frozen features of the candidates say, before anything is trained."""

import dataclasses
import time

import keras
import numpy as np

from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.plans import methods
from keras_transfer.study.candidates import Candidate
from keras_transfer.study.embedding import features_of
from keras_transfer.study.folds import Division
from keras_transfer.study.pace import Pace, seconds_forward
from keras_transfer.study.rules import METHODS
from keras_transfer.study.transferability import Measures, measures
from keras_transfer.study.whole_plans import calibrates, most_epochs, whole_plan
from keras_transfer.training import linear_probe
from keras_transfer.training.calibration import MOST_EXAMPLES, MOST_PASSES, Calibration, Calibrator
from keras_transfer.training.features import Cache
from keras_transfer.training.objectives import objective_of

# A pass that gathers statistics beside a forward pass; it was 1.4 to 1.5 with three families.
PASS_TO_FORWARD = 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """What a candidate's frozen features are worth.

    Attributes:
        body: the candidate's name.
        parameters: of the whole model.
        methods: the ways to adapt it, LoRA among them where it has attention.
        measures: linear probe, nearest neighbours and LogME, on train and validation.
        seconds: how long it took.
        calibrates: whether staged fine-tuning asks how far to move the statistics of its batch norms, before anything
            is trained.
        calibration: what it is told; `None` where it does not ask, or where there was no time to.
        calibrated: what the features are worth then; `None` where the statistics stay.
    """

    body: str
    parameters: int
    methods: tuple[str, ...]
    measures: Measures
    seconds: float
    calibrates: bool = False
    calibration: Calibration | None = None
    calibrated: Measures | None = None

    def beginning(self, method: str) -> Measures:
        """What the features are worth with which a method begins."""
        return self.calibrated if self.calibrated and method == METHODS[1] else self.measures

    @property
    def beginning_is_unknown(self) -> bool:
        """Whether there was no time to ask what fine-tuning begins with."""
        return self.calibrates and self.calibration is None


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
        ValueError: where the model does not fit the data, or its head is not linear.
    """
    begun, model = time.perf_counter(), candidate.model()
    objective_of(splits).check(model, splits)
    _check_head(candidate.name, model)
    forward = seconds_forward(model, splits)
    return Built(candidate, model, forward, time.perf_counter() - begun)


def _check_head(name: str, model: keras.Model) -> None:
    """Raises for a head that no method can begin with as it is."""
    try:
        linear_probe.linear_head(model)
    except ValueError as error:
        raise ValueError(
            explain(
                f"{name} cannot be advised on: every method begins with a linear head, and its head is another.",
                given=model.name,
                expected="a model whose head is one Dense layer with a bias",
                to_mend="kt.image_classifier or kt.text_classifier, of its body",
            )
        ) from error


def frozen(given: Built, splits: Splits, *, seed: int) -> Frozen:
    """A candidate's features, computed once and kept where `kt.fit` looks for them, and what they are worth."""
    begun, name = time.perf_counter(), given.candidate.name
    features = _features(given.model, splits)
    labels = np.concatenate([split.labels for split in (splits.train, splits.validation) if split is not None])
    worth = measures(features, labels, seed=seed)
    seconds = given.seconds + time.perf_counter() - begun
    asks = calibrates(whole_plan(METHODS[1], given.model, splits))
    found = Evidence(name, given.model.count_params(), _methods(given.model), worth, seconds, asks)
    epochs = {method: most_epochs(method, given.model, splits, seed=seed) for method in found.methods[1:]}
    pace = Pace(len(splits.train), given.forward, epochs)
    return Frozen(given.candidate, pace, features, labels, found)


def calibrated(body: Frozen, splits: Splits, *, seconds: float, seed: int) -> Frozen:
    """What is known of a body, and what its features are worth to fine-tuning, which begins by moving statistics.

    In another domain a body is worth more to it than its features as they are, and one may gain more than the next.

    Args:
        body: what is known of it; its fine-tuning calibrates.
        splits: the data.
        seconds: what it may be thought to take: before its model is built, and again once it is known whether the data
            are another domain, which is soon told.
        seed: of the examples that are asked, and of the folds.

    Returns:
        The same with `calibration`, and where statistics move, with `calibrated`; with neither where it would take
        longer, with the seconds that were spent.
    """
    # What it took to build it, compute its features and judge these, it takes at least once more.
    first, each_pass = body.evidence.seconds, PASS_TO_FORWARD * body.pace.forward
    if first + each_pass * min(len(splits.train), MOST_EXAMPLES) > seconds:
        return body
    begun, model = time.perf_counter(), body.candidate.model()
    found, worth = None, None
    with body.candidate.lent(model):
        calibrator = Calibrator(model, splits, seed=seed)
        asking = first + each_pass * MOST_PASSES * calibrator.examples if calibrator.may_move else 0.0
        if time.perf_counter() - begun + asking <= seconds:
            found = calibrator.calibrate()
            worth = measures(_features(model, splits, cache="memory"), body.labels, seed=seed) if found.share else None
    took = first + time.perf_counter() - begun
    evidence = dataclasses.replace(body.evidence, calibration=found, calibrated=worth, seconds=took)
    return dataclasses.replace(body, evidence=evidence)


def _features(model: keras.Model, splits: Splits, cache: Cache = "auto") -> np.ndarray:
    """Of train, then validation, where there is one."""
    parts = [split for split in (splits.train, splits.validation) if split is not None]
    return np.concatenate([features_of(model, splits, split, cache=cache) for split in parts])


def _methods(model: keras.Model) -> tuple[str, ...]:
    """The methods that a body allows: LoRA where it has attention to put it on."""
    try:
        methods.lora(model)
    except ValueError:
        return METHODS[:2]
    return METHODS

"""Short fits on equal terms: the same examples, the same time at most, the same examples to be judged on."""

import dataclasses
import gc
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np

from keras_transfer.backbones import hub
from keras_transfer.data.splits import Splits
from keras_transfer.plans import methods
from keras_transfer.plans.plan import Plan
from keras_transfer.study.candidates import Candidate
from keras_transfer.study.folds import held_out_in_turn
from keras_transfer.training.fit import fit

# Epochs of the second stage, or of the only one, that a method takes if nobody says otherwise.
MOST_EPOCHS = {"staged_fine_tuning": 10, "lora": 6}
FEWEST_EPOCHS = 2

# A step of training beside a forward pass alone, and what tracing takes: refined by every trial that has run.
_STEP_TO_FORWARD, _TRACING = 4.0, 20.0


class Clock:
    """The minutes that there are.

    Attributes:
        seconds: how many in all.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds = 60.0 * minutes
        self._begun = time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._begun

    @property
    def left(self) -> float:
        """Seconds to the end, negative after it."""
        return self.seconds - self.spent


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One short fit.

    Attributes:
        body: the candidate's name.
        method: `"feature_extraction"`, `"staged_fine_tuning"` or `"lora"`.
        round: which part of train or validation it was judged on.
        epochs: how many it had.
        right: whether each example of that part was classified rightly.
        seconds: how long it took.
        was_cut: whether the minutes were over before its epochs.
    """

    body: str
    method: str
    round: int
    epochs: int
    right: np.ndarray
    seconds: float
    was_cut: bool

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return float(self.right.mean())


class StopAt(keras.callbacks.Callback):
    """Ends training at the first step after the minutes are over."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.stopped = False

    def on_train_batch_end(self, batch, logs=None):
        if self._clock.left <= 0:
            self.stopped = self.model.stop_training = True


def plan_of(method: str, model: keras.Model, epochs: int) -> Plan:
    """The plan of a method with so many epochs for the body."""
    plans: Mapping[str, Callable[[], Plan]] = {
        "feature_extraction": lambda: methods.feature_extraction(model),
        "staged_fine_tuning": lambda: methods.staged_fine_tuning(model, epochs=(3, epochs)),
        "lora": lambda: methods.lora(model, epochs=epochs),
    }
    return plans[method]()


def run_trial(
    candidate: Candidate, splits: Splits, method: str, number: int, *, epochs: int, clock: Clock, seed: int
) -> Trial:
    """Fits one body by one method on one division of the labelled data.

    Args:
        candidate: the body.
        splits: the data; their test split is not looked at.
        method: a name of `rules.METHODS`.
        number: of the division, see `folds.held_out_in_turn`.
        epochs: for the body.
        clock: when to stop in any case.
        seed: of the division and of the fit.
    """
    begun, divided = clock.spent, held_out_in_turn(splits, number, seed=seed)
    keras.utils.set_random_seed(seed)
    model = candidate.model()
    plan, stop = plan_of(method, model, epochs), StopAt(clock)
    try:
        run = fit(model, divided, plan, seed=seed, callbacks=[stop], verbose=False)
    finally:
        candidate.give_back()
    right = run.probabilities.argmax(axis=1) == divided.test.labels
    del model, run
    gc.collect()
    return Trial(candidate.name, method, number, plan.epochs, right, clock.spent - begun, stop.stopped)


def seconds_forward(model: keras.Model, splits: Splits) -> float:
    """How long a forward pass takes for one training example, measured."""
    count = min(splits.batch_size, len(splits.train))
    batch = next(iter(splits.view(splits.train, model, epoch=None, batch_size=count)))
    with hub.taking_packed_inputs(model):
        model.predict_on_batch(batch)
        begun = time.perf_counter()
        model.predict_on_batch(batch)
    return (time.perf_counter() - begun) / count


@dataclasses.dataclass
class Pace:
    """How many epochs of a method fit into some seconds, for one body.

    Attributes:
        examples: to train on in an epoch.
        forward: seconds that a forward pass takes for one.
        found: seconds of a trial by (method, epochs), as they were measured.
    """

    examples: int
    forward: float
    found: dict[tuple[str, int], float] = dataclasses.field(default_factory=dict)

    def epochs(self, method: str, seconds: float) -> int:
        """The epochs that fit, none where too few do."""
        if method not in MOST_EPOCHS:
            return 1
        fit_in = int(max(0.0, seconds - _TRACING) / self.epoch)
        return min(fit_in, MOST_EPOCHS[method]) if fit_in >= FEWEST_EPOCHS else 0

    @property
    def epoch(self) -> float:
        """Seconds that an epoch of the whole body is thought to take."""
        return self.examples * self.forward * _STEP_TO_FORWARD

    def seconds(self, method: str, epochs: int) -> float:
        """What a trial will take: as it did before, or as it is thought to."""
        body = epochs * self.epoch if method in MOST_EPOCHS else self.examples * self.forward
        return self.found.get((method, epochs), _TRACING + body)

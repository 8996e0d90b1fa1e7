"""Short fits on equal terms: the same epochs, learnt from the same examples and judged on the same others."""

import dataclasses
import gc
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np

from keras_transfer.data.splits import Splits
from keras_transfer.plans import methods
from keras_transfer.plans.plan import Plan
from keras_transfer.study import folds
from keras_transfer.study.evidence import Frozen
from keras_transfer.study.pace import MOST_EPOCHS, Clock
from keras_transfer.training.fit import fit


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One short fit, and the linear probe beside it.

    Attributes:
        body: the candidate's name.
        method: `"staged_fine_tuning"` or `"lora"`.
        round: which part of train or validation it was judged on.
        epochs: how many the body had.
        right: whether each example of that part was classified rightly.
        probe_right: the same of a linear probe on the same training examples, which is what `feature_extraction` begins
            with: the frozen body needs no trial.
        seconds: how long it took.
    """

    body: str
    method: str
    round: int
    epochs: int
    right: np.ndarray
    probe_right: np.ndarray
    seconds: float

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return float(self.right.mean())


class OutOfTimeError(Exception):
    """The minutes are over."""


class StopAt(keras.callbacks.Callback):
    """Ends training at the first step after the minutes are over.

    A trial that was cut short would say less of its method than none: its rate has not come down yet.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def on_train_batch_end(self, batch, logs=None):
        if self._clock.left <= 0:
            raise OutOfTimeError


def plan_of(method: str, model: keras.Model, epochs: int) -> Plan:
    """The plan of a method with so many epochs for the body, or its own number where that is less."""
    epochs = min(epochs, MOST_EPOCHS[method])
    plans: Mapping[str, Callable[[], Plan]] = {
        "staged_fine_tuning": lambda: methods.staged_fine_tuning(model, epochs=(3, epochs)),
        "lora": lambda: methods.lora(model, epochs=epochs),
    }
    return plans[method]()


def run_trial(
    body: Frozen, splits: Splits, method: str, number: int, *, epochs: int, clock: Clock, seed: int
) -> Trial | None:
    """Fits one body by one method on one division of the labelled data.

    Args:
        body: the candidate.
        splits: the data; their test split is not looked at.
        method: `"staged_fine_tuning"` or `"lora"`.
        number: of the division, see `folds.division`.
        epochs: for the body.
        clock: when to stop in any case.
        seed: of the division and of the fit.

    Returns:
        What it came to, or `None` where the minutes were over before it had ended.
    """
    begun, parts = time.perf_counter(), folds.division(splits, number, seed=seed)
    divided = folds.divided(splits, parts)
    model = body.candidate.model()
    plan = plan_of(method, model, epochs)
    try:
        with body.candidate.lent(model):
            run = fit(model, divided, plan, seed=seed, callbacks=[StopAt(clock)], verbose=False)
    except OutOfTimeError:
        return None
    right = run.probabilities.argmax(axis=1) == divided.test.labels
    del model, run
    gc.collect()
    probe_right, seconds = body.probe_is_right(parts, seed=seed), time.perf_counter() - begun
    return Trial(body.name, method, number, plan.stages[-1].epochs, right, probe_right, seconds)

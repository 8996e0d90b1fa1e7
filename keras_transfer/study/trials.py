"""Short fits on equal terms: the same epochs, learnt from the same examples and judged on the same others."""

import dataclasses
import gc
import time

import keras
import numpy as np

from keras_transfer.data.splits import Splits
from keras_transfer.study import folds
from keras_transfer.study.evidence import Frozen
from keras_transfer.study.pace import Clock
from keras_transfer.study.whole_plans import calibrates, shortened, whole_plan, with_statistics_kept
from keras_transfer.training.calibration import Calibrator
from keras_transfer.training.fit import fit


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One short fit, and the linear probe beside it.

    Attributes:
        body: the candidate's name.
        method: `"staged_fine_tuning"` or `"lora"`.
        round: which part of train or validation it was judged on.
        epochs: how many the body had.
        whole: how many it has in the whole plan of the method on these examples, which is what is recommended.
        right: whether each example of that part was classified rightly.
        probe_right: the same of a linear probe on the same training examples, which is what `feature_extraction` begins
            with: the frozen body needs no trial.
        seconds: how long it took.
    """

    body: str
    method: str
    round: int
    epochs: int
    whole: int
    right: np.ndarray
    probe_right: np.ndarray
    seconds: float

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return float(self.right.mean())

    @property
    def length(self) -> str:
        """Its epochs, and beside them those of the whole plan where these are more."""
        return f"{self.epochs} of {self.whole}" if self.epochs < self.whole else str(self.epochs)


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


def run_trial(
    body: Frozen, splits: Splits, method: str, number: int, *, epochs: int, clock: Clock, seed: int
) -> Trial | None:
    """Fits one body by one method on one division of the labelled data.

    Args:
        body: the candidate. Where it is known how far the statistics of its batch norms are to be moved, a plan that
            would ask that finds them moved as far.
        splits: the data; their test split is not looked at.
        method: `"staged_fine_tuning"` or `"lora"`.
        number: of the division, see `folds.division`.
        epochs: for the body, or those of the method's whole plan where these are fewer.
        clock: when to stop in any case.
        seed: of the division and of the fit.

    Returns:
        What it came to, or `None` where the minutes were over before it had ended.
    """
    begun, parts = time.perf_counter(), folds.division(splits, number, seed=seed)
    divided = folds.divided(splits, parts)
    model = body.candidate.model()
    whole = whole_plan(method, model, divided)
    plan, calibration = shortened(whole, epochs), body.evidence.calibration
    try:
        with body.candidate.lent(model):
            if calibration and calibrates(plan):
                # How far is known, and asking again takes as long as many epochs. It is one number, of the whole of
                # train, so that what a later round is judged on had a part in it.
                if calibration.share:
                    Calibrator(model, divided, seed=seed).move(calibration.share)
                plan = with_statistics_kept(plan)
            run = fit(model, divided, plan, seed=seed, callbacks=[StopAt(clock)], verbose=False)
    except OutOfTimeError:
        return None
    right = run.probabilities.argmax(axis=1) == divided.test.labels
    del model, run
    gc.collect()
    probe_right, seconds = body.probe_is_right(parts, seed=seed), time.perf_counter() - begun
    lengths = plan.stages[-1].epochs, whole.stages[-1].epochs
    return Trial(body.name, method, number, *lengths, right, probe_right, seconds)

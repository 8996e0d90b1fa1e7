"""How long a method takes, measured by a few steps of it, and how many epochs of it fit into a time."""

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_transfer.data.splits import Splits
from keras_transfer.plans.plan import Plan
from keras_transfer.study.budget import with_epochs
from keras_transfer.training.fit import fit

# The first step traces; of the others the median is taken.
_STEPS = 6
# Arguments of `fit` about its workdir.
_OF_KEEPING = ("restart", "checkpoint_steps", "checkpoint_seconds")


@dataclasses.dataclass(frozen=True)
class Pace:
    """What a stage takes.

    Attributes:
        once: seconds however many epochs it has: tracing, a linear probe, features that are computed.
        epoch: seconds of an epoch, validation included.
    """

    once: float
    epoch: float


def epochs_within(plan: Plan, paces: Sequence[Pace], seconds: float) -> int | None:
    """The most epochs, and no more than the plan has, that fit into some seconds; `None` where not one a stage does.

    Args:
        plan: any.
        paces: of its stages.
        seconds: that there are.

    Example:

    >>> from keras_transfer.plans.plan import Stage
    >>> plan = Plan([Stage("head", 2), Stage("all", 8)])
    >>> paces = [Pace(once=3.0, epoch=1.0), Pace(once=5.0, epoch=10.0)]
    >>> [epochs_within(plan, paces, seconds) for seconds in (1000, 60, 10)]
    [10, 6, None]
    """
    for epochs in range(plan.epochs, len(plan) - 1, -1):
        if seconds_of(with_epochs(plan, epochs), paces) <= seconds:
            return epochs
    return None


def seconds_of(plan: Plan, paces: Sequence[Pace]) -> float:
    """How long a plan takes at some paces."""
    return sum(pace.once + stage.epochs * pace.epoch for stage, pace in zip(plan, paces, strict=True))


def rehearsed(
    model: keras.Model, splits: Splits, plan: Plan, *, seed: int, fit_options: Mapping[str, Any]
) -> list[Pace]:
    """The pace of each stage, measured by a few steps of each. The model is trained by them.

    What frozen layers make of the data is kept as by any run, so a later run finds it.
    """
    short = [dataclasses.replace(stage, epochs=2, least_steps=0, patience=None) for stage in plan]
    watch = _Stopwatch()
    # What is tried out is not kept, so what is said of keeping it has no meaning here.
    options = {name: value for name, value in fit_options.items() if name not in _OF_KEEPING}
    options |= {"callbacks": [watch], "verbose": False}
    run = fit(model, splits, dataclasses.replace(plan, stages=short), seed=seed, **options)
    steps = splits.steps_per_epoch(model)
    return [
        Pace(max(0.0, cost.seconds - seen.seconds), seen.epoch(steps))
        for cost, seen in zip(run.report.cost.stages, watch.stages, strict=True)
    ]


class _Seen:
    """The steps of one stage, in seconds."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.validation: list[float] = []
        self.passes = 0

    @property
    def seconds(self) -> float:
        """Of all steps, as if none had traced."""
        return len(self.training) * _typical(self.training) + len(self.validation) * _typical(self.validation)

    def epoch(self, steps: int) -> float:
        """Of an epoch of so many steps."""
        of_validation = len(self.validation) / max(1, self.passes)
        return steps * _typical(self.training) + of_validation * _typical(self.validation)


def _typical(seconds: Sequence[float]) -> float:
    return statistics.median(seconds[1:] or seconds or [0.0])


class _Stopwatch(keras.callbacks.Callback):
    """Times the first steps of every stage, then ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[_Seen] = []

    def on_train_begin(self, logs=None):
        self.stages.append(_Seen())

    def on_epoch_begin(self, epoch, logs=None):
        self._last = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        training = self.stages[-1].training
        training.append(self._since_last())
        if len(training) >= _STEPS:
            self.model.stop_training = True

    def on_test_begin(self, logs=None):
        self._last = time.perf_counter()
        self.stages[-1].passes += 1

    def on_test_batch_end(self, batch, logs=None):
        self.stages[-1].validation.append(self._since_last())

    def _since_last(self) -> float:
        # From end to end, so that the wait for a batch is in it.
        before, self._last = self._last, time.perf_counter()
        return self._last - before

"""What watches a stage while Keras trains it: history, progress, early stopping, and the guard of the loss.

Those that keep something from one epoch to the next can give it and take it back: `kept()` and `take_back()`.
"""

import csv
import io
import math
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_transfer import state
from keras_transfer.backbones import freezing
from keras_transfer.errors import explain
from keras_transfer.plans.plan import Stage
from keras_transfer.training import averaging
from keras_transfer.training.files import write_whole


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the model has been put back to its last good weights."""


def current_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The base learning rate at this step, a schedule's value where it has one."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


class History(keras.callbacks.Callback):
    """One row per epoch over all stages, kept in memory and, with a file, on disk as CSV.

    Args:
        file: where the CSV goes, or `None`.
    """

    def __init__(self, file: pathlib.Path | None):
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.stage = ""
        self._file = file
        self._seconds_before = 0.0

    def kept(self) -> dict[str, Any]:
        """Seconds of the running epoch; the rows are for whoever owns the history to keep."""
        return {"seconds": time.perf_counter() - self._start}

    def take_back(self, kept: Mapping[str, Any]) -> None:
        """Goes on within an epoch that has run for so long already."""
        self._seconds_before = kept["seconds"]

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter() - self._seconds_before
        self._seconds_before = 0.0

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._start
        row = {"stage": self.stage, "epoch": epoch + 1}
        row |= {name: float(value) for name, value in (logs or {}).items()} | {"seconds": round(seconds, 3)}
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Writes the file, where there is one."""
        if self._file:
            columns = list(dict.fromkeys(name for row in self.rows for name in row))
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_whole(self._file, text.getvalue())


class Progress(keras.callbacks.Callback):
    """One line per epoch: stage, step, rates, loss, accuracy and the time that is left of the whole plan.

    In a terminal the line counts the steps as they go; in a log file it comes once an epoch.
    """

    def __init__(self, stage: Stage, *, steps: int, first_epoch: int, epochs_left_after: int, stream=None):
        super().__init__()
        self._stage, self._steps = stage, steps
        self._first_epoch, self._epochs_left_after = first_epoch, epochs_left_after
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._seconds: list[float] = []

    def on_train_begin(self, logs=None):
        self._drawn = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()
        self._done = epoch - self._first_epoch

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self._live and now - self._drawn > 0.2:
            self._drawn = now
            filled = round(20 * (batch + 1) / self._steps)
            bar = "█" * filled + "·" * (20 - filled)
            self._write(f"\r{self._where()} {bar} {batch + 1}/{self._steps} {self._figures(logs)}  ")

    def on_epoch_end(self, epoch, logs=None):
        self._done += 1
        self._seconds.append(time.perf_counter() - self._start)
        # The first epoch traces the step as well: it tells little about the ones to come.
        typical = min(self._seconds)
        left = typical * (self._stage.epochs - self._done + self._epochs_left_after)
        line = f"{self._where(self._done)} {self._figures(logs)}  rate {logs['learning_rate']:.2e}  "
        line += f"{self._seconds[-1]:.1f} s, about {_clock(left)} left"
        self._write(("\r\x1b[K" if self._live else "") + line + "\n")

    def _where(self, epoch: int | None = None) -> str:
        return f"{self._stage.name} {(self._done + 1) if epoch is None else epoch}/{self._stage.epochs}"

    def _figures(self, logs) -> str:
        names = {"loss": "loss", "accuracy": "accuracy", "val_loss": "validation loss", "val_accuracy": "accuracy"}
        return "  ".join(f"{shown} {logs[name]:.3f}" for name, shown in names.items() if name in (logs or {}))

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Ends a stage in which a measure has not fallen for `patience` epochs, and goes back to the best weights."""

    _KEPT = ("wait", "stopped_epoch", "best", "best_weights", "best_epoch")

    def __init__(self, patience: int, monitor: str):
        super().__init__(monitor, patience=patience, mode="min", restore_best_weights=True)

    def kept(self) -> dict[str, Any]:
        """How long it has been waiting, and what for."""
        return {name: getattr(self, name) for name in self._KEPT}

    def take_back(self, kept: Mapping[str, Any]) -> None:
        """Goes on waiting."""
        for name in self._KEPT:
            setattr(self, name, kept[name])


class LossGuard(keras.callbacks.Callback):
    """Stops at the first step whose loss is no number and puts the last good weights back.

    The last good weights are those from the start of the stage, or from the end of its last whole epoch; of those that
    the stage can change.
    """

    def __init__(self, stage: Stage):
        super().__init__()
        self._stage = stage

    def kept(self) -> dict[str, Any]:
        """The last good weights."""
        return {"good": self._good}

    def take_back(self, kept: Mapping[str, Any]) -> None:
        """Goes on with the same good weights."""
        self._good = kept["good"]

    def on_train_begin(self, logs=None):
        self._moving = freezing.what_may_move(self.model)
        self._good = state.values_of(self._moving)
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(loss := float((logs or {}).get("loss", 0.0))):
            rate = current_rate(self.model.optimizer)
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            state.assign_to(self._moving, self._good, noun=self.model.name)
            averaging.settle(self.model)  # on JAX, Keras puts them into the model at the end of a broken fit as well
            raise NonFiniteLossError(
                explain(
                    f"The loss became {loss} in stage {self._stage.name!r}.",
                    given=f"epoch {self._epoch + 1}, step {batch + 1}, learning rate {rate:.3g}",
                    expected="a finite loss; the model holds the last good weights again",
                    to_mend=f"a lower learning_rate than {self._stage.learning_rate:g}, more warmup, "
                    "or precision=None if it was mixed_float16",
                )
            )

    def on_epoch_end(self, epoch, logs=None):
        self._good = state.values_of(self._moving)


class OneTraining(keras.callbacks.CallbackList):
    """Lets several calls of Keras' `fit` look like one to callbacks: one beginning, one end, steps counted on.

    What is left of a broken epoch is a call of its own, since Keras begins epochs at their first step. Without this,
    `EarlyStopping` would put the best weights back between the calls, and forget how long it has been waiting.

    The logs of an epoch say its last learning rate, as those of Keras' own schedulers do.

    Args:
        callbacks: what is called, in order.
        model: what is trained.
        **params: what callbacks find in their `params`.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], *, model: keras.Model, **params: Any):
        super().__init__(list(callbacks), add_history=True, model=model, **params)
        self.steps_before = 0
        self._begun = False
        self._last_logs: Mapping[str, Any] | None = None

    def on_train_begin(self, logs=None):
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.steps_before, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch + self.steps_before, logs)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, {**(logs or {}), "learning_rate": current_rate(self.model.optimizer)})

    def on_train_end(self, logs=None):
        self._last_logs = logs

    def end(self) -> None:
        """Says that the last of the calls is over."""
        super().on_train_end(self._last_logs)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

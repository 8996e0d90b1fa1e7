"""What takes a stage's snapshots while Keras trains it, and puts one back."""

import time
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.training.keeper import Keeper
from keras_transfer.training.snapshot import Outset, Position, Snapshot, Training


class Checkpointer(keras.callbacks.Callback):
    """Takes snapshots at the beginning of epochs and between their steps, and goes on from one.

    Never after the last step of an epoch, where its sums are complete but validation has not been: a run that is broken
    there does the last steps once more.

    Belongs behind the callbacks whose state it keeps, and before the user's own.

    Args:
        keeper: says when.
        stage: the number of the stage.
        steps: of an epoch.
        outset: how the stage began.
        callbacks: those that keep something, by name.
        snapshot: makes the whole snapshot of a position, weights and the stage's part of it.
        begun: the snapshot to go on from, if it was taken in this stage.
        started: `time.perf_counter()` when the stage began, or would have in one go.
    """

    def __init__(
        self,
        keeper: Keeper,
        *,
        stage: int,
        steps: int,
        outset: Outset,
        callbacks: Mapping[str, keras.callbacks.Callback],
        snapshot: Callable[[Position, Sequence[np.ndarray], Training], Snapshot],
        begun: Snapshot | None,
        started: float,
    ):
        super().__init__()
        self._keeper, self._stage, self._steps, self._outset = keeper, stage, steps, outset
        self._callbacks, self._snapshot, self._begun, self._started = callbacks, snapshot, begun, started

    def on_train_begin(self, logs=None):
        if self._begun is not None:
            training = self._begun.training
            state.assign_to(self.model.optimizer.variables, training.optimizer, noun="this optimizer")
            for name, kept in training.callbacks.items():
                self._callbacks[name].take_back(kept)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        begun, self._begun = self._begun, None
        if begun is None:
            self._keeper.keep_if_due(lambda: self._take(step=0))
        elif begun.position.step:
            # Keras has just set them to zero.
            build_metrics(self.model)
            state.assign_to(self.model.metrics_variables, begun.training.metrics, noun="these metrics")

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self._steps - 1:
            self._keeper.hold_if_cheap(lambda: self._take(batch))

    def on_train_batch_end(self, batch, logs=None):
        self._keeper.count_step()
        is_last = batch == self._steps - 1
        self._keeper.steps_are_running(not is_last)
        if not is_last:
            if self._keeper.is_to_leave:
                self._keeper.leave(lambda: self._take(batch + 1))
            self._keeper.keep_if_due(lambda: self._take(batch + 1))

    def on_test_begin(self, logs=None):
        self._keeper.steps_are_running(False)  # also where a callback ended the epoch before its last step

    def on_epoch_end(self, epoch, logs=None):
        self._keeper.steps_are_running(False)

    def _take(self, step: int) -> Snapshot:
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        training = Training(
            outset=self._outset,
            optimizer=state.values_of(self.model.optimizer.variables),
            metrics=state.values_of(self.model.metrics_variables) if step else [],
            callbacks={name: callback.kept() for name, callback in self._callbacks.items()},
            seconds=time.perf_counter() - self._started,
        )
        return self._snapshot(Position(self._stage, self._epoch, step), state.values(self.model), training)


def build_metrics(model: keras.Model) -> None:
    """Makes the sums of a compiled model's metrics, which Keras makes at the first step, and leaves them at zero.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> model.compile(loss="mse", metrics=[keras.metrics.SparseCategoricalAccuracy()])
    >>> build_metrics(model)
    >>> len(model.metrics_variables), float(model.metrics_variables[0].numpy())
    (4, 0.0)
    """
    shape = [1 if side is None else side for side in model.output_shape]
    logits, labels = np.zeros(shape, "float32"), np.zeros(shape[:-1], "int64")
    model.compute_metrics(None, keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(logits))
    model.reset_metrics()

"""The exponential moving average of the weights, in the model whenever an epoch is over.

Keras' optimizers keep the average (`use_ema`), and put it into the model when `fit` ends: too late for validation, and
in a run that goes on after a break too early, since what is left of a stage takes two calls of `fit`.
"""

from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer import state


def averages(optimizer: keras.optimizers.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Each variable that an optimizer of ours trains with its moving average; none where it keeps no averages.

    Args:
        optimizer: a built `LayerwiseOptimizer`, or a `LossScaleOptimizer` around one.
    """
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return (optimizer.inner_optimizer if is_scaled else optimizer).averages


def settle(model: keras.Model) -> None:
    """Makes the averages what the weights are: Keras may put them into the model, and it stays as it is."""
    for variable, average in averages(model.optimizer):
        average.assign(variable.numpy())


class Averages(keras.callbacks.Callback):
    """Puts the averaged weights into the model at the end of each epoch, and takes them out for the next.

    So validation, early stopping, the last good weights and the callbacks of a user see the model that a stage would
    end with; steps and checkpoints between them see the weights that are trained. Belongs before all other callbacks.
    It has nothing to keep in checkpoints, which are taken while the trained weights are in the model.
    """

    def __init__(self):
        super().__init__()
        self._trained: Sequence[np.ndarray] | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._trained is not None:
            trained, self._trained = self._trained, None
            variables = [variable for variable, _ in averages(self.model.optimizer)]
            state.assign_to(variables, trained, noun=self.model.name)

    def on_test_begin(self, logs=None):
        self._put_in()

    def on_epoch_end(self, epoch, logs=None):
        self._put_in()

    def _put_in(self) -> None:
        if self._trained is None:
            pairs = averages(self.model.optimizer)
            self._trained = state.values_of([variable for variable, _ in pairs])
            for variable, average in pairs:
                variable.assign(average.numpy())  # a copy: on JAX two variables of one buffer cannot be stepped

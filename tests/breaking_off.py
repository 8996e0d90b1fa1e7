"""The end of a process, as far as a test in one process can have it."""

import keras


class BrokenOff(Exception):
    """Stands for the end of the process."""


class BreakOff(keras.callbacks.Callback):
    """Ends the run after so many steps, counted from when it was started."""

    def __init__(self, after):
        super().__init__()
        self._left = after

    def on_train_batch_end(self, batch, logs=None):
        self._left -= 1
        if self._left == 0:
            raise BrokenOff

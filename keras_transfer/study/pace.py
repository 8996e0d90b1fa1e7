"""How long things take: the minutes that there are, and the epochs that fit into them."""

import dataclasses
import time
from collections.abc import Mapping

import keras
import numpy as np

from keras_transfer.backbones import hub
from keras_transfer.data.splits import Splits

# With fewer epochs of the body, fine-tuning has hardly begun, and what it comes to says nothing.
FEWEST_EPOCHS = 4

# A step of training beside a forward pass alone, and what building, tracing and the head take, before a trial has run.
_STEP_TO_FORWARD, _BEGINNING = 4.0, 15.0


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


@dataclasses.dataclass
class Pace:
    """How long a body takes to be trained.

    Attributes:
        examples: to train on in an epoch.
        forward: seconds that a forward pass takes for one.
        most_epochs: that each method takes for the body at most: those of its whole plan on these data.
        correction: what trials took, beside what they were thought to take.

    Example:

    >>> pace = Pace(examples=100, forward=0.01, most_epochs={"staged_fine_tuning": 50})
    >>> pace.epoch, pace.seconds("staged_fine_tuning", 5)
    (4.0, 35.0)
    >>> pace.learn("staged_fine_tuning", 5, took=70.0)
    >>> pace.seconds("staged_fine_tuning", 10)
    110.0
    """

    examples: int
    forward: float
    most_epochs: Mapping[str, int]
    correction: float = 1.0

    @property
    def epoch(self) -> float:
        """Seconds that an epoch of the whole body is thought to take."""
        return self.examples * self.forward * _STEP_TO_FORWARD * self.correction

    def seconds(self, method: str, epochs: int) -> float:
        """How long a trial of so many epochs is thought to take."""
        return _BEGINNING * self.correction + min(epochs, self.most_epochs[method]) * self.epoch

    def learn(self, method: str, epochs: int, *, took: float) -> None:
        """Takes in how long a trial took."""
        self.correction *= took / self.seconds(method, epochs)


def seconds_forward(model: keras.Model, splits: Splits) -> float:
    """How long a forward pass takes for one training example, measured."""
    count = min(splits.batch_size, len(splits.train))
    batch = next(iter(splits.view(splits.train, model, epoch=None, batch_size=count)))
    batch = keras.tree.map_structure(np.asarray, batch)
    with hub.taking_packed_inputs(model):
        model.predict_on_batch(batch)
        begun = time.perf_counter()
        model.predict_on_batch(batch)
    return (time.perf_counter() - begun) / count

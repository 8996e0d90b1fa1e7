"""The statistics of a domain in the batch norms of a model that was trained on another."""

import contextlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones import hub
from keras_transfer.backbones.cut import calling
from keras_transfer.backbones.freezing import batch_norms
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain

# Examples that go through the model together: enough for the statistics of its smallest maps.
BATCH = 64


def moving_statistics(model: keras.Model) -> list[keras.Variable]:
    """Mean and variance of every batch norm, in the order of `batch_norms`."""
    return [each for layer in batch_norms(model) for each in (layer.moving_mean, layer.moving_variance)]


def re_estimate(
    model: keras.Model, domain: Splits, *, rows: np.ndarray | None = None, share: float = 1.0, seed: int = 0
) -> None:
    """Puts a domain's own mean and variance into every batch norm (AdaBN: Li et al. 2016, arXiv:1603.04779).

    Args:
        model: any model with batch norms; only their moving statistics change.
        domain: its training examples are used, as they are and without their labels.
        rows: the numbers of those that are used, if not all.
        share: how far towards them, 1 is all of the way.
        seed: of how they fall into batches.
    """
    parts = in_batches(np.random.default_rng(seed).permutation(len(domain.train) if rows is None else rows))
    move_statistics(model, (inputs_of(model, domain, part) for part in parts), share=share)


def move_statistics(model: keras.Model, batches: Iterable[Any], *, share: float = 1.0) -> None:
    """Moves the statistics of every batch norm towards those of a domain, by a share of the way to them.

    What a layer sees depends on the statistics of those below it, so each normalises a batch with the statistics of
    that batch, or as far towards them, while they are gathered. (Statistics gathered under the old ones, over and over,
    run away: in MobileNetV2 the errors of 52 layers multiply.) They are exact for a single batch; of more, they are
    those of all batches taken together.

    Args:
        model: any model with batch norms; only their moving statistics change.
        batches: of the domain's examples, as the model takes them.
        share: 1 puts the domain's own mean and variance in place of those there are.
    """
    for found in _gathered(model, batches, share):
        found.put_in(*found.statistics())


def distance(model: keras.Model, batches: Iterable[Any]) -> float:
    """How far the statistics of what reaches the batch norms lie from those that they normalise by.

    For each channel the squared distance between the two normal distributions in the Fisher metric, to second order:
    the squared shift of the mean in spreads, and twice the squared logarithm of the ratio of the spreads. The mean over
    the channels of a layer, then over the layers. It is 0 for the data that the statistics are of, asks for no label,
    and nothing moves. (Bodies of photographs have 0.01 to 0.1 on other photographs, 0.9 to 2.1 on sketches.)

    Args:
        model: any model with batch norms.
        batches: of the domain's examples, as the model takes them.

    Raises:
        ValueError: where no batch norm is called.
    """
    found = _gathered(model, batches, share=0.0)
    if not found:
        raise ValueError(
            explain(
                "The distance of statistics is that of batch norms.",
                given=f"{model.name}, which calls none",
                expected="a model with batch norms",
            )
        )
    return float(np.mean([one.distance() for one in found]))


def _gathered(model: keras.Model, batches: Iterable[Any], share: float) -> list["_Gathered"]:
    """What each batch norm was called on, while it normalises by statistics so far on the way to those of its batch."""
    gathered = {layer: _Gathered(layer, share) for layer in batch_norms(model)}
    if not gathered:
        return []
    with contextlib.ExitStack() as replaced, hub.taking_packed_inputs(model):
        for layer, found in gathered.items():
            replaced.enter_context(calling(layer, _normalising_by_batch(layer, found)))
        for batch in batches:
            model(batch, training=False)
    return [found for found in gathered.values() if found.calls]


def in_batches(rows: np.ndarray) -> list[np.ndarray]:
    """The numbers of examples in as few batches as there can be, all about as large.

    Example:

    >>> [len(batch) for batch in in_batches(np.arange(130))]
    [44, 43, 43]
    """
    return np.array_split(rows, -(-len(rows) // BATCH))


def inputs_of(model: keras.Model, domain: Splits, rows: np.ndarray) -> Any:
    """Training examples as the model takes them, without augmentation."""
    x = domain.without_pictures(domain.train, model, rows)[0]
    return domain.peek(domain.train, rows, model) if x is None else x


class _Gathered:
    """Count, mean and variance of what a layer was called on, call by call, and the statistics that it had before."""

    def __init__(self, layer: keras.Layer, share: float) -> None:
        self._layer, self._share = layer, share
        self._before = [each.numpy().astype("float64") for each in (layer.moving_mean, layer.moving_variance)]
        self.calls: list[tuple[int, np.ndarray, np.ndarray]] = []

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of all of it: the variance is that within the calls and that between them.

        Example:

        >>> layer = keras.layers.BatchNormalization()
        >>> layer.build((None, 1))
        >>> x, gathered = np.arange(7.0), _Gathered(layer, share=1.0)
        >>> gathered.calls = [(len(part), part.mean(), part.var()) for part in (x[:3], x[3:])]
        >>> np.allclose(gathered.statistics(), (x.mean(), x.var()))
        True
        """
        counts, means, variances = (np.array(column, "float64") for column in zip(*self.calls, strict=True))
        mean = np.average(means, axis=0, weights=counts)
        return mean, np.average(variances + (means - mean) ** 2, axis=0, weights=counts)

    def distance(self) -> float:
        """From the statistics before to those of all of it, the mean over the channels."""
        mean, variance = self.statistics()
        old_mean, old_variance = self._before[0], self._before[1] + self._layer.epsilon
        ratio = np.log((variance + self._layer.epsilon) / old_variance) / 2
        return float(np.mean((mean - old_mean) ** 2 / old_variance + 2 * ratio**2))

    def put_in(self, mean: np.ndarray, variance: np.ndarray) -> None:
        """Leaves the layer with statistics that lie the share of the way from what it had to these."""
        for kept, old, new in zip(
            (self._layer.moving_mean, self._layer.moving_variance), self._before, (mean, variance), strict=True
        ):
            kept.assign(((1 - self._share) * old + self._share * new).astype("float32"))


def _normalising_by_batch(layer: keras.Layer, gathered: _Gathered) -> Callable:
    """The layer's call, in which it first moves to the statistics of what it is called on, and notes them."""
    own_call = layer.call

    def call(inputs, *args, **kwargs):
        places = [axis for axis in range(len(inputs.shape)) if axis != layer.axis % len(inputs.shape)]
        moments = keras.ops.moments(keras.ops.cast(inputs, "float32"), axes=places)
        mean, variance = map(keras.ops.convert_to_numpy, moments)
        gathered.calls.append((math.prod(inputs.shape[axis] for axis in places), mean, variance))
        gathered.put_in(mean, variance)
        return own_call(inputs, *args, **{**kwargs, "training": False})

    return call

"""The statistics of a domain in place of another's: of batch norms, and of the features that a head reads."""

import contextlib
import math
from collections.abc import Callable

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.backbones import freezing, hub
from keras_transfer.backbones.blocks import blocks
from keras_transfer.backbones.cut import calling
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain

# Examples that go through the model together: enough for the statistics of its smallest maps.
BATCH = 64
# A feature's spread is not taken for less than this share of the usual one: one that is silent in a domain would be
# blown up without end.
LEAST_SPREAD = 0.1


def batch_norms(model: keras.Model) -> list[keras.Layer]:
    """The layers that keep statistics of a domain."""
    return [layer for layer in state.sublayers(model) if freezing.is_batch_norm(layer)]


def re_estimate(model: keras.Model, domain: Splits, *, seed: int = 0) -> None:
    """Puts a domain's own mean and variance into every batch norm (AdaBN: Li et al. 2016, arXiv:1603.04779).

    What a layer sees depends on the statistics of those below it, so each normalises a batch with the statistics of
    that batch while they are gathered. (Statistics gathered under the old ones, over and over, run away: in MobileNetV2
    the errors of 52 layers multiply.) They are exact for up to 64 examples; of more, they are those of all batches
    taken together.

    Args:
        model: any model with batch norms; only their moving statistics change.
        domain: its training examples are used, as they are and without their labels.
        seed: of how they fall into batches.
    """
    gathered = {layer: _Gathered() for layer in batch_norms(model)}
    if not gathered:
        return
    with contextlib.ExitStack() as replaced, hub.taking_packed_inputs(model):
        for layer, found in gathered.items():
            replaced.enter_context(calling(layer, _normalising_by_batch(layer, found)))
        for rows in _batches(len(domain.train), seed):
            model(_inputs(model, domain, rows), training=False)
    for layer, found in gathered.items():
        if found.calls:
            _put_in(layer, *found.statistics())


def _batches(count: int, seed: int) -> list[np.ndarray]:
    """The numbers of the examples in as few batches as there can be, all about as large, in random order."""
    return np.array_split(np.random.default_rng(seed).permutation(count), -(-count // BATCH))


def _inputs(model: keras.Model, domain: Splits, rows: np.ndarray):
    x = domain.without_pictures(domain.train, model, rows)[0]
    return domain.peek(domain.train, rows, model) if x is None else x


class _Gathered:
    """Count, mean and variance of what a layer was called on, call by call."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, np.ndarray, np.ndarray]] = []

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of all of it: the variance is that within the calls and that between them.

        Example:

        >>> x, gathered = np.arange(7.0), _Gathered()
        >>> gathered.calls = [(len(part), part.mean(), part.var()) for part in (x[:3], x[3:])]
        >>> np.allclose(gathered.statistics(), (x.mean(), x.var()))
        True
        """
        counts, means, variances = (np.array(column, "float64") for column in zip(*self.calls, strict=True))
        mean = np.average(means, axis=0, weights=counts)
        return mean, np.average(variances + (means - mean) ** 2, axis=0, weights=counts)


def _normalising_by_batch(layer: keras.Layer, gathered: _Gathered) -> Callable:
    """The layer's call, in which it first takes the statistics of what it is called on, and notes them."""
    own_call = layer.call

    def call(inputs, *args, **kwargs):
        places = [axis for axis in range(len(inputs.shape)) if axis != layer.axis % len(inputs.shape)]
        moments = keras.ops.moments(keras.ops.cast(inputs, "float32"), axes=places)
        mean, variance = map(keras.ops.convert_to_numpy, moments)
        gathered.calls.append((math.prod(inputs.shape[axis] for axis in places), mean, variance))
        _put_in(layer, mean, variance)
        return own_call(inputs, *args, **{**kwargs, "training": False})

    return call


def _put_in(layer: keras.Layer, mean: np.ndarray, variance: np.ndarray) -> None:
    layer.moving_mean.assign(mean.astype("float32"))
    layer.moving_variance.assign(variance.astype("float32"))


def alignment(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and shift that give each of the target's features the mean and the spread that it has in the source.

    Args:
        source: features, shape (examples, features).
        target: likewise.

    Returns:
        Scale and shift, float64 of shape (features,): `target * scale + shift` has the source's statistics.

    Example:

    >>> scale, shift = alignment(np.array([[0.0], [2.0]]), np.array([[10.0], [14.0]]))
    >>> scale.tolist(), shift.tolist()
    ([0.5], [-5.0])
    """
    source, target = source.astype("float64"), target.astype("float64")
    least = LEAST_SPREAD * np.sqrt(source.var(axis=0).mean())
    spreads = [np.maximum(features.std(axis=0), least) for features in (source, target)]
    scale = np.divide(*spreads, out=np.ones_like(least * spreads[0]), where=spreads[1] > 0)
    return scale, source.mean(axis=0) - scale * target.mean(axis=0)


def fold(model: keras.Model, scale: np.ndarray, shift: np.ndarray) -> None:
    """Lets the head read `features * scale + shift` in place of its features, by its own kernel and bias.

    Raises:
        ValueError: where the lowest layer of the head that has weights is no `Dense` layer with a bias.
    """
    dense = lowest_of_head(model)
    kernel = np.asarray(dense.kernel.numpy(), "float64")
    dense.bias.assign((dense.bias.numpy() + shift @ kernel).astype("float32"))
    dense.kernel.assign((scale[:, None] * kernel).astype("float32"))


def lowest_of_head(model: keras.Model) -> keras.layers.Dense:
    """The layer that first weighs the features.

    Raises:
        ValueError: where it is no `Dense` layer with a bias.
    """
    head = blocks(model).head
    weighted = [layer for layer in head.layers if layer.weights] if head else []
    if not weighted or not isinstance(weighted[0], keras.layers.Dense) or not weighted[0].use_bias:
        raise ValueError(
            explain(
                "The statistics of features are folded into a head that begins with a dense layer.",
                given=f"{type(weighted[0]).__name__} {weighted[0].name!r}" if weighted else "a model without a head",
                expected="a Dense layer with a bias",
                to_mend='align="batch_norm", which changes nothing in the head',
            )
        )
    return weighted[0]

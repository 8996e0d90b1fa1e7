"""The statistics of a domain in the batch norms of a model that was trained on another."""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
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
    model: keras.Model, domain: Splits, *, layers: Sequence[keras.Layer] | None = None, seed: int = 0
) -> None:
    """Puts a domain's own mean and variance into the batch norms (AdaBN: Li et al. 2016, arXiv:1603.04779).

    Args:
        model: any model with batch norms; only their moving statistics change.
        domain: its training examples are used, as they are and without their labels.
        layers: the batch norms, if not all: the others go on normalising by what they have.
        seed: of how the examples fall into batches.
    """
    Passes(model, layers).re_estimate(domain, seed=seed)


class Passes:
    """Passes of batches through a model in which every batch norm says what it is called on.

    They are compiled, once for all passes and for each size of batches: run step by step, Keras keeps whatever the
    layers make of a batch until the last has run, gigabytes of a large body.

    Args:
        model: any model with batch norms.
        layers: those of them that are meant, if not all: the others are as at inference.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization(epsilon=0.0)])
    >>> passes, batch = Passes(model), np.array([[1.0], [5.0]], "float32")
    >>> round(passes.distance([batch]), 2)  # mean 3, variance 4; those of the layer are 0 and 1
    9.96
    >>> passes.move([batch], share=0.5)
    >>> [each.numpy().item() for each in (model.layers[0].moving_mean, model.layers[0].moving_variance)]
    [1.5, 2.5]
    """

    def __init__(self, model: keras.Model, layers: Sequence[keras.Layer] | None = None) -> None:
        self._model = model
        self._layers = batch_norms(model) if layers is None else list(layers)
        self._statistics = _Statistics(model, self._layers)

    def distance(self, batches: Iterable[Any]) -> float:
        """How far the statistics of what reaches the batch norms lie from those that they normalise by.

        For each channel the squared distance between the two normal distributions in the Fisher metric, to second
        order: the squared shift of the mean in spreads, and twice the squared logarithm of the ratio of the spreads.
        The mean over the channels of a layer, then over the layers. It is 0 for the data that the statistics are of,
        asks for no label, and nothing moves. (Bodies of photographs have 0.01 to 0.1 on other photographs, 0.9 to 2.1
        on sketches.)

        Args:
            batches: of the domain's examples, as the model takes them.

        Raises:
            ValueError: where no batch norm is called.
        """
        found = self._seen(batches, share=0.0)
        if not found:
            raise ValueError(
                explain(
                    "The distance of statistics is that of batch norms.",
                    given=f"{self._model.name}, which calls none",
                    expected="a model with batch norms",
                )
            )
        return float(np.mean([_distance(layer, *seen) for layer, seen in found.items()]))

    def move(self, batches: Iterable[Any], *, share: float = 1.0) -> None:
        """Moves the statistics of every batch norm towards those of a domain, by a share of the way to them.

        What a layer sees depends on the statistics of those below it, so each normalises a batch with the statistics of
        that batch, or as far towards them, while they are gathered. (Statistics gathered under the old ones, over and
        over, run away: in MobileNetV2 the errors of 52 layers multiply.) They are exact for a single batch; of more,
        they are those of all batches taken together.

        Args:
            batches: of the domain's examples, as the model takes them.
            share: 1 puts the domain's own mean and variance in place of those there are.
        """
        for layer, seen in self._seen(batches, share).items():
            for kept, new in zip((layer.moving_mean, layer.moving_variance), seen, strict=True):
                kept.assign(((1 - share) * kept.numpy().astype("float64") + share * new).astype("float32"))

    def re_estimate(self, domain: Splits, *, rows: np.ndarray | None = None, seed: int = 0) -> None:
        """Puts the statistics of a domain's training examples in place of those there are.

        Args:
            domain: the examples are used as they are and without their labels.
            rows: the numbers of those that are used, if not all.
            seed: of how they fall into batches.
        """
        parts = in_batches(np.random.default_rng(seed).permutation(len(domain.train) if rows is None else rows))
        self.move(inputs_of(self._model, domain, part) for part in parts)

    def _seen(self, batches: Iterable[Any], share: float) -> dict[keras.Layer, tuple[np.ndarray, np.ndarray]]:
        """Mean and variance of all that each batch norm was called on, while it normalises so far towards each batch's;
        of those that were called."""
        layers = self._layers
        if not layers:
            return {}
        calls: dict[str, list[list[np.ndarray]]] = {}
        self._statistics.share.assign(share)
        with hub.taking_packed_inputs(self._model):
            for batch in batches:
                for number, found in self._statistics.predict_on_batch(batch).items():
                    calls.setdefault(number, []).extend(found)
        return {layers[int(number)]: _together(found) for number, found in calls.items()}


class _Statistics(keras.Model):
    """What some batch norms of a model are called on, by their numbers among them: for each call the count of values in
    a channel, mean and variance.

    Attributes:
        share: how far each batch norm normalises by what it is called on, the rest by what it has.
    """

    def __init__(self, model: keras.Model, layers: Sequence[keras.Layer]) -> None:
        super().__init__(name=f"{model.name}_statistics")
        self.whole = model
        self._noted = tuple(layers)
        self.share = self.add_weight(name="share", initializer="zeros", trainable=False, dtype="float32")
        self.built = True  # or the first batch on JAX goes through it step by step, to find out what is to be built

    def call(self, inputs):
        found: dict[str, list[list[Any]]] = {}
        with contextlib.ExitStack() as replaced:
            for number, layer in enumerate(self._noted):
                replaced.enter_context(calling(layer, self._noting(layer, found.setdefault(str(number), []))))
            self.whole(inputs, training=False)
        return {number: calls for number, calls in found.items() if calls}

    def _noting(self, layer: keras.Layer, calls: list[list[Any]]) -> Callable:
        """The layer's call, in which it notes the statistics of what it is called on and normalises by them in part."""
        own_call = layer.call

        def call(inputs, *args, **kwargs):
            places = [axis for axis in range(len(inputs.shape)) if axis != layer.axis % len(inputs.shape)]
            moments = keras.ops.moments(keras.ops.cast(inputs, "float32"), axes=places)
            shape = keras.ops.shape(inputs)
            count = math.prod(keras.ops.cast(shape[axis], "float32") for axis in places)
            calls.append([count, *moments])
            own = layer.moving_mean, layer.moving_variance
            moved = [(1 - self.share) * old + self.share * new for old, new in zip(own, moments, strict=True)]
            # What is in no mapping is read as if there were no scope around this one: scale and offset of the layer.
            rest = [(each, keras.ops.convert_to_tensor(each)) for each in (layer.gamma, layer.beta) if each is not None]
            with keras.StatelessScope(state_mapping=[*zip(own, moved, strict=True), *rest]):
                return own_call(inputs, *args, **{**kwargs, "training": False})

        return call


def _together(calls: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of all that some calls were called on: the variance is that within them and that between them.

    Args:
        calls: count, mean and variance of each.

    Example:

    >>> x = np.arange(7.0)
    >>> together = _together([(len(part), part.mean(), part.var()) for part in (x[:3], x[3:])])
    >>> np.allclose(together, (x.mean(), x.var()))
    True
    """
    counts, means, variances = (np.array(column, "float64") for column in zip(*calls, strict=True))
    mean = np.average(means, axis=0, weights=counts)
    return mean, np.average(variances + (means - mean) ** 2, axis=0, weights=counts)


def _distance(layer: keras.Layer, mean: np.ndarray, variance: np.ndarray) -> float:
    """From what a layer normalises by to these statistics, the mean over the channels."""
    old_mean, old_variance = (each.numpy().astype("float64") for each in (layer.moving_mean, layer.moving_variance))
    ratio = np.log((variance + layer.epsilon) / (old_variance + layer.epsilon)) / 2
    return float(np.mean((mean - old_mean) ** 2 / (old_variance + layer.epsilon) + 2 * ratio**2))


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

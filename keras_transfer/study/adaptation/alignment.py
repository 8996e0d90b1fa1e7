"""The statistics of the features that a head reads: those of one domain in place of another's."""

import keras
import numpy as np

from keras_transfer.backbones.blocks import blocks
from keras_transfer.errors import explain

# A feature's spread is not taken for less than this share of the usual one: one that is silent in a domain would be
# blown up without end.
LEAST_SPREAD = 0.1


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

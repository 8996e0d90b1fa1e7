"""Deep CORAL: source and target features are to vary alike."""

import keras


def coral_distance(source, target):
    """How differently two batches of features vary (Deep CORAL: Sun and Saenko 2016, arXiv:1607.01719).

    The squared Frobenius distance of their covariances, divided by 4 d². It says nothing about their means.

    Args:
        source: shape (examples, d).
        target: shape (examples, d), as many features.

    Returns:
        A scalar of the backend, float32.

    Example:

    >>> import numpy as np
    >>> float(coral_distance(np.array([[0.0], [2.0]]), np.array([[0.0], [4.0]])))  # variances 2 and 8: 36 / 4
    9.0
    """
    difference = covariance(source) - covariance(target)
    return keras.ops.sum(keras.ops.square(difference)) / (4.0 * difference.shape[0] ** 2)


def covariance(features):
    """Of a batch, with n - 1 below the line, shape (d, d); zero of a single example."""
    features = keras.ops.cast(features, "float32")
    centred = features - keras.ops.mean(features, axis=0, keepdims=True)
    count = keras.ops.cast(keras.ops.shape(features)[0], "float32")
    return keras.ops.matmul(keras.ops.transpose(centred), centred) / keras.ops.maximum(count - 1.0, 1.0)


class Coral(keras.layers.Layer):
    """The penalty: `scale` times the distance of the two batches.

    Args:
        scale: what a distance of 1 costs.
    """

    def __init__(self, scale: float, **options) -> None:
        super().__init__(dtype="float32", **options)
        self.scale = scale

    def build(self, source_shape, target_shape):
        del source_shape, target_shape

    def call(self, source, target, training=None):
        del training
        return self.scale * coral_distance(source, target)

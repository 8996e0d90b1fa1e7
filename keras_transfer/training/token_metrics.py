"""Means over the tokens of a split: what Keras' own metrics give only where every batch is padded to one length.

Keras first takes the mean of each row over its places, padding included, and then that over the rows. A token in a
batch of short rows so counts for more than one in a batch of long ones.
"""

import keras


def _one_by_one(y_true, y_pred, sample_weight):
    """The same places, each a row of its own."""
    y_pred = keras.ops.reshape(y_pred, (-1, y_pred.shape[-1]))
    if sample_weight is not None:
        sample_weight = keras.ops.reshape(sample_weight, (-1,))
    return keras.ops.reshape(y_true, (-1,)), y_pred, sample_weight


@keras.saving.register_keras_serializable("keras_transfer")
class TokenCrossEntropy(keras.metrics.SparseCategoricalCrossentropy):
    """Nats a token: targets (batch, length), predictions (batch, length, vocabulary), weights (batch, length).

    Example:

    >>> logits = keras.ops.log([[[0.5, 0.5], [0.9, 0.1]]])
    >>> metric = TokenCrossEntropy(from_logits=True)
    >>> metric.update_state([[0, 0]], logits, sample_weight=[[1, 0]])
    >>> round(float(metric.result()), 3)
    0.693
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(*_one_by_one(y_true, y_pred, sample_weight))


@keras.saving.register_keras_serializable("keras_transfer")
class TokenAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """The share of tokens that are most likely where they come: shapes as in `TokenCrossEntropy`.

    Example:

    >>> metric = TokenAccuracy()
    >>> metric.update_state([[0, 1]], keras.ops.log([[[0.6, 0.4], [0.9, 0.1]]]))
    >>> float(metric.result())
    0.5
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(*_one_by_one(y_true, y_pred, sample_weight))

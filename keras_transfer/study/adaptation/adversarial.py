"""DANN: features from which nobody can tell the domain."""

import keras


def reverse_gradient(features, strength):
    """Hands features on as they are, and their gradient back times `-strength`.

    The gradient reversal layer of Ganin et al. (2016, arXiv:1505.07818). What lies above learns to lower the loss, what
    lies below learns to raise it.

    Args:
        features: any tensor.
        strength: a number or a scalar tensor.

    Example:

    >>> import numpy as np
    >>> keras.ops.convert_to_numpy(reverse_gradient(np.array([0.1, 0.2], "float32"), 3.0)).tolist() == [
    ...     np.float32(0.1), np.float32(0.2)]
    True
    """
    fixed = keras.ops.stop_gradient(features)
    # The second term is zero, exactly; its gradient is not. No backend has to know of it.
    return fixed + strength * (fixed - features)


def strength_at(progress):
    """How much of the gradient is handed back: from 0 at the beginning up to almost 1 (Ganin et al. 2016, 5.2.2).

    While the domain classifier knows nothing, what it hands back is noise.

    Args:
        progress: of the training, 0..1.

    Example:

    >>> [round(float(strength_at(progress)), 3) for progress in (0.0, 0.1, 1.0)]
    [0.0, 0.462, 1.0]
    """
    return 2.0 / (1.0 + keras.ops.exp(-10.0 * progress)) - 1.0


class DomainAdversary(keras.layers.Layer):
    """The penalty: how well a small classifier tells source from target; its gradient goes down reversed.

    Args:
        steps: how many there will be, for the schedule.
        weight: how much of the reversed gradient comes down at the end.
        width: of its two hidden layers.
    """

    def __init__(self, steps: int, weight: float, *, width: int = 256, **options) -> None:
        super().__init__(dtype="float32", **options)
        self.steps, self.weight = steps, weight
        self.hidden = [keras.layers.Dense(width, activation="relu", dtype="float32") for _ in range(2)]
        self.verdict = keras.layers.Dense(1, dtype="float32")

    def build(self, source_shape, target_shape):
        del target_shape
        shape = source_shape
        for layer in (*self.hidden, self.verdict):
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.step = self.add_weight(name="step", shape=(), initializer="zeros", trainable=False, dtype="float32")

    def call(self, source, target, training=None):
        strength = self.weight * strength_at(self.step / self.steps)
        if training:
            self.step.assign_add(1.0)
        right = [self._loss(source, strength, is_target=False), self._loss(target, strength, is_target=True)]
        return (right[0] + right[1]) / 2.0

    def _loss(self, features, strength, *, is_target: bool):
        x = reverse_gradient(keras.ops.cast(features, "float32"), strength)
        for layer in (*self.hidden, self.verdict):
            x = layer(x)
        return keras.ops.mean(keras.ops.softplus(-x if is_target else x))

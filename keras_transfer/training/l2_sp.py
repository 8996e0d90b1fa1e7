"""L2-SP: weights that train are pulled towards their pretrained values (Li, Grandvalet and Davoine 2018).

The penalty strength / 2 · |w - w0|² of the paper (arXiv:1802.01483) is not added to the loss but taken as a step of its
own, `w -= rate · strength · (w - w0)`, as AdamW takes weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101).
Under gradient descent the two are one. Under Adam a penalty within the loss is divided by the size of the gradients,
so that the weights which the data move most are held least; and the loss on train and validation would no longer say
how good the model is, to a reader, to early stopping or to the safeguard.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.adapters import layers
from keras_transfer.backbones.blocks import blocks
from keras_transfer.training.layerwise_optimizer import LayerwiseOptimizer


def pretrained(model: keras.Model) -> dict[int, np.ndarray]:
    """The values of all weights that a model came with, by the `id` of their variable: not of its head, which is new,
    nor of adapters' factors.

    Example:

    >>> dense = keras.layers.Dense
    >>> model = keras.Sequential([keras.Input((2,)), dense(3, name="low"), dense(1, name="head")])
    >>> [value.shape for value in pretrained(model).values()]
    [(2, 3), (3,)]
    """
    factors = {id(variable) for variable in layers.factor_variables(model)}
    weights = [variable for block in blocks(model).body for variable in block.variables]
    chosen = [variable for variable in weights if id(variable) not in factors and not state.is_seed(variable)]
    return {id(variable): value for variable, value in zip(chosen, state.values_of(chosen), strict=True)}


@keras.saving.register_keras_serializable(package="keras_transfer")
class PullingOptimizer(LayerwiseOptimizer):
    """A `LayerwiseOptimizer` whose every step goes back by a share of the way to where a variable started.

    The share is `learning_rate * ratio * strength`, so that slow layers are pulled slowly as well. The values that are
    pulled to are among `variables`, so that whoever keeps the optimizer's state keeps them.

    Args:
        optimizer, ratios, name: as in `LayerwiseOptimizer`.
        strength: alpha of the paper.
        towards: by the `id` of a variable, the value that it is pulled to; the others are not pulled. As a saved file
            has it: for each variable, in order, whether it is pulled.

    Example:

    >>> layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    >>> layer.build((None, 1))
    >>> start = {id(layer.kernel): np.array([[3.0]])}
    >>> optimizer = PullingOptimizer(keras.optimizers.SGD(0.1), {layer: 1.0}, strength=5.0, towards=start)
    >>> optimizer.apply([np.zeros((1, 1), "float32")], [layer.kernel])  # half of the way from 1 to 3
    >>> float(layer.kernel[0, 0])
    2.0
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | str,
        ratios: Mapping | Sequence,
        name: str | None = None,
        *,
        strength: float,
        towards: Mapping[int, np.ndarray] | Sequence[bool],
    ):
        super().__init__(optimizer, ratios, name)
        self.strength = strength
        self.towards = dict(towards) if isinstance(towards, Mapping) else tuple(towards)
        self.starts: tuple[keras.Variable | None, ...] = ()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """As that of `LayerwiseOptimizer`, and takes note of where the variables start."""
        if self.built:
            return
        super().build(variables)
        towards = self.towards
        if isinstance(towards, dict):
            values = [towards.get(id(variable)) for variable in variables]
        else:  # the values come from the file
            values = [variable.numpy() if pulled else None for variable, pulled in zip(variables, towards, strict=True)]
        self.starts = tuple(self._start(*pair) for pair in zip(variables, values, strict=True))
        self.towards = tuple(start is not None for start in self.starts)

    def _start(self, variable: keras.Variable, value: Any) -> keras.Variable | None:
        if value is None:
            return None
        start = self.add_variable_from_reference(variable, name="start")
        start.assign(value)
        return start

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable, at its own rate, a share of the way back first."""
        index = self._get_variable_index(variable)
        start, ratio = self.starts[index], self.ratios[index]
        if start is not None and ratio > 0:
            share = keras.ops.cast(keras.ops.multiply(learning_rate, ratio * self.strength), variable.dtype)
            self.assign_sub(variable, keras.ops.multiply(keras.ops.subtract(variable, start), share))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict:
        """As that of `LayerwiseOptimizer`; once built, without the values, which are among `variables`."""
        towards = list(self.towards) if self.built else []
        return {**super().get_config(), "strength": self.strength, "towards": towards}

"""What of a trained model is the task's own: the weights that differ from those that it was built with."""

from collections.abc import Sequence

import keras

from keras_transfer import digests, state
from keras_transfer.backbones.blocks import blocks


class Beginning:
    """A model's weights as it was built, by their SHA-256.

    Args:
        model: not trained yet.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="low"), keras.layers.Dense(2)])
    >>> beginning = Beginning(model)
    >>> beginning.bytes_since(model)
    32
    >>> model.get_layer("low").set_weights([np.ones((2, 3)), np.zeros(3)])
    >>> beginning.bytes_since(model)  # the kernel's 6 numbers as well
    56
    """

    def __init__(self, model: keras.Model) -> None:
        # The variables themselves are kept: an `id` says which it is only as long as it lives.
        self._found = {id(variable): (variable, _digest(variable)) for variable in _weights(model)}

    @property
    def weights(self) -> Sequence[tuple[keras.Variable, str]]:
        """Each weight with the SHA-256 of its value then."""
        return tuple(self._found.values())

    @property
    def digest(self) -> str:
        """The SHA-256 of all weights in their order."""
        return digests.of_json([digest for _, digest in self._found.values()])

    def bytes_since(self, model: keras.Model) -> int:
        """Bytes of the weights that are new or another by now, and of the head's, which are the task's in any case."""
        head = blocks(model).head
        of_head = {id(variable) for layer in head.layers for variable in layer.variables} if head else set()
        return sum(
            state.values_of([variable])[0].nbytes
            for variable in _weights(model)
            if id(variable) in of_head or self._found.get(id(variable), (None, ""))[1] != _digest(variable)
        )


def _weights(model: keras.Model) -> list[keras.Variable]:
    return [variable for _, variable in state.walk(model) if not state.is_seed(variable)]


def _digest(variable: keras.Variable) -> str:
    return digests.of_arrays(state.values_of([variable]))

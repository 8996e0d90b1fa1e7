"""Where a stage starts from: the weights there are, or weights drawn anew."""

import random

import keras

from keras_transfer import state


def draw_anew(model: keras.Model, seed: int) -> None:
    """Draws every weight of the model anew from its layers' own initializers, a function of `seed` alone.

    The statistics of `Normalization` layers stay: they describe the input, and are no result of training.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> draw_anew(model, seed=1)
    >>> first = state.values(model)[0]
    >>> draw_anew(model, seed=1)
    >>> bool((first == state.values(model)[0]).all())
    True
    """
    # Initializers without a seed of their own take theirs from Python's generator, which is lent to them here.
    users_generator = random.getstate()
    try:
        random.seed(seed)
        fresh = keras.models.clone_model(model)
    finally:
        random.setstate(users_generator)
    stays = {
        id(variable)
        for layer in state.sublayers(model)
        if isinstance(layer, keras.layers.Normalization)
        for variable in layer.variables
    }
    drawn = [
        present.numpy() if id(present) in stays or state.is_seed(present) else new.numpy()
        for (_, present), (_, new) in zip(state.walk(model), state.walk(fresh), strict=True)
    ]
    state.assign(model, drawn)

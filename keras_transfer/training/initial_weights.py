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
        fresh = _built_anew(model)
    finally:
        random.setstate(users_generator)
    stays = {
        id(variable)
        for layer in state.sublayers(model)
        if isinstance(layer, keras.layers.Normalization)
        for variable in layer.variables
    }
    for present, new in zip(_weights(model), _weights(fresh), strict=True):
        if id(present) not in stays:
            present.assign(new.numpy())


def _built_anew(model: keras.Model) -> keras.Model:
    """A second model of the same configuration."""
    if isinstance(getattr(model, "backbone", None), keras.Model):
        # A KerasHub task, whose embedding may be its head as well: `clone_model` would make two of it.
        return type(model).from_config(model.get_config())
    return keras.models.clone_model(model)


def _weights(model: keras.Model) -> list[keras.Variable]:
    return [variable for _, variable in state.walk(model) if not state.is_seed(variable)]

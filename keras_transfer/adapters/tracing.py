"""Compiled functions that have seen a model's layers before they changed must not be used again."""

import gc

import keras

from keras_transfer import state


def trace_anew(model: keras.Layer) -> None:
    """Makes every Keras model that holds a layer of this one compile its steps anew, models around it included.

    Keras keeps a compiled step for as long as nobody compiles the model, and on TensorFlow such a step goes on with the
    variables that it was made from. A model around this one may have one too, and nothing leads from a layer to the
    models that hold it; so all that there are in the process are looked at.
    """
    inside = {id(layer) for layer in [model, *state.sublayers(model)]}
    for owner in _models():
        held = [owner, *state.sublayers(owner)]
        if any(id(layer) in inside for layer in held):
            owner.train_function = None
            owner.test_function = None
            owner.predict_function = None


def _models() -> list[keras.Model]:
    # type() and not isinstance(): asking a proxy for its class may do anything.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), keras.Model) and hasattr(thing, "_tracker")]

"""Compiled functions that have seen a model's layers before they changed must not be used again."""

import gc

import keras

from keras_transfer import state

_STEPS = ("train_function", "test_function", "predict_function")


def trace_anew(model: keras.Layer) -> None:
    """Makes every Keras model that holds a layer of this one compile its steps anew, models around it included.

    Keras keeps a compiled step for as long as nobody compiles the model, and on TensorFlow such a step goes on with the
    variables that it was made from. A model around this one may have one too, and nothing leads from a layer to the
    models that hold it; so all that there are in the process are looked at.
    """
    inside = {id(layer) for layer in [model, *state.sublayers(model)]}
    for owner in _models():
        compiled = any(getattr(owner, name, None) is not None for name in _STEPS)
        if compiled and any(id(layer) in inside for layer in [owner, *state.sublayers(owner)]):
            for name in _STEPS:
                setattr(owner, name, None)


def _models() -> list[keras.Model]:
    kinds = {keras.Model}
    waiting = [keras.Model]
    while waiting:
        new = [kind for kind in waiting.pop().__subclasses__() if kind not in kinds]
        kinds.update(new)
        waiting += new
    # type() and not isinstance(): asking a proxy for its class may do anything; and there may be millions of objects.
    return [thing for thing in gc.get_objects() if type(thing) in kinds and hasattr(thing, "_tracker")]

"""All that adapters use of Keras beyond its public interface, in one place.

A layer takes an adapter after it was built, which Keras' interface does not foresee: its trackers are locked by then,
and its kernel is a property. `tests/adapters/test_keras_internals.py` holds this list against the installed Keras and
goes through each of them on real layers, so that a Keras that changes one is found there and not in someone's weights.
"""

import contextlib
from collections.abc import Iterator

import keras

from keras_transfer.errors import explain

PRIVATE = {
    keras.Layer: {
        "_flatten_layers": "the layers right below one, in the order of creation",
        "_untrack_variable": "takes a variable off a built layer",
        "_trainable": "the flag alone, without handing it on to every variable below",
        "_tracker": "locked on a built layer; opened while an adapter's variables are added",
    },
    keras.layers.Dense: {
        "_kernel": "the variable; `kernel` is a property",
        "_int8_call": "the forward pass of a quantised layer, beside which the adapter's product is added",
        "_int4_call": "as `_int8_call`",
    },
    keras.layers.EinsumDense: {
        "_kernel": "as for Dense",
        "_int8_call": "as for Dense",
        "_int4_call": "as for Dense",
    },
    keras.layers.Embedding: {
        "_embeddings": "the variable; `embeddings` is a property",
        "_int8_call": "as for Dense",
        "_int4_call": "as for Dense",
    },
    keras.layers.Conv2D: {"_kernel": "as for Dense"},
}

# What Keras makes only in a layer's `__init__` or `build` cannot be looked for on the class.
_MADE_LATER = {"_trainable", "_tracker", "_kernel", "_embeddings"}

_missing = [
    f"{kind.__name__}.{name}"
    for kind, names in PRIVATE.items()
    for name in names
    if name not in _MADE_LATER and not hasattr(kind, name)
]
if _missing:
    raise ImportError(
        explain(
            "This version of Keras is made differently where adapters reach into it.",
            given=f"keras {keras.__version__}, without {', '.join(_missing)}",
            expected="keras 3.15, for which this keras_transfer was written",
            to_mend="install keras 3.15, or a newer keras_transfer",
        )
    )


def kernel(layer: keras.Layer) -> keras.Variable:
    """The variable that holds a layer's matrix, without any adapter: the kernel, or the table of an embedding."""
    return layer._embeddings if isinstance(layer, keras.layers.Embedding) else layer._kernel


def children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers right below one, each once, in the order of creation."""
    return layer._flatten_layers(include_self=False, recursive=False)


def set_flag(layer: keras.Layer, trainable: bool) -> None:
    """Sets `layer.trainable` and nothing else: Keras' own setter hands the flag on to all below it.

    Past Keras' `__setattr__`, which on TensorFlow drops an assignment that changes nothing and on JAX does not.
    """
    object.__setattr__(layer, "_trainable", bool(trainable))


@contextlib.contextmanager
def growing(layer: keras.Layer) -> Iterator[None]:
    """While it lasts, a built layer takes new variables and layers."""
    was_locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if was_locked:
            layer._tracker.lock()


def drop_variable(layer: keras.Layer, variable: keras.Variable) -> None:
    """Takes a variable off a built layer, as if it had never been made."""
    layer._untrack_variable(variable)


def drop_layer(layer: keras.Layer, attribute: str) -> None:
    """Takes the layer in `attribute` off a built layer."""
    below = getattr(layer, attribute)
    delattr(layer, attribute)
    layer._tracker.untrack(below)


def view(layer: keras.Layer, kind: type[keras.Layer], **attributes: object) -> keras.Layer:
    """The same layer seen as one of class `kind`, sharing its variables, with some attributes otherwise.

    What Keras' own code computes or writes for the layer without its adapter is asked of this; the layer itself is not
    touched, so that another thread which runs it meanwhile sees nothing.
    """
    seen = object.__new__(kind)
    seen.__dict__.update(layer.__dict__)
    # Set on a frozen layer in place of its class' method (`freezing.set_inference`), and bound to that very layer.
    seen.__dict__.pop("call", None)
    seen.__dict__.update(attributes)
    return seen


def set_class(layer: keras.Layer, kind: type[keras.Layer]) -> None:
    """Makes the layer one of class `kind`, in place: whoever holds it holds it still."""
    object.__setattr__(layer, "__class__", kind)

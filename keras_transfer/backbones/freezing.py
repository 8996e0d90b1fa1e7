"""Frozen means frozen: weights, statistics, dropout and stochastic depth.

Stock Keras goes on dropping inside a frozen body during `fit`, also where the body was called with `training=False`
(a functional model overrides that argument). Here every layer of a frozen part is told to run as at inference,
whatever it is told from outside. That makes a frozen part a pure function of its input: the features that a head is
trained on are the features that it will see in use, and they can be computed once.
"""

import inspect
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import keras

from keras_transfer import state
from keras_transfer.errors import explain, nearest

BatchNorm = Literal["frozen", "affine", "adapt"]
Part = Literal["whole", "biases", "norms"]
PARTS = typing.get_args(Part)
BATCH_NORMS = typing.get_args(BatchNorm)


def _call_as_at_inference(self, *args, **kwargs):
    kwargs["training"] = False
    return type(self).call(self, *args, **kwargs)


def _tells_training_apart(layer: keras.Layer) -> bool:
    return "training" in inspect.signature(type(layer).call).parameters


def runs_as_at_inference(layer: keras.Layer) -> bool:
    """Whether `set_inference(layer, True)` holds for this layer."""
    return getattr(layer.__dict__.get("call"), "__func__", None) is _call_as_at_inference


def set_inference(layer: keras.Layer, inference: bool) -> None:
    """Makes one layer behave as at inference for good, or lets it follow `training` again.

    Takes effect when the step is next traced, so compile afterwards. The layer's configuration is untouched: a saved
    model has its dropout rates still.

    Example:

    >>> import numpy as np
    >>> dropout = keras.layers.Dropout(0.5)
    >>> set_inference(dropout, True)
    >>> float(np.sum(dropout(np.ones((1, 100)), training=True)))
    100.0
    """
    if not _tells_training_apart(layer):
        return
    if inference and not runs_as_at_inference(layer):
        # A bound method, not a closure: a deep copy of the layer then gets one bound to the copy.
        layer.call = types.MethodType(_call_as_at_inference, layer)
    elif not inference and runs_as_at_inference(layer):
        del layer.call


def does_not_change(layer: keras.Layer) -> bool:
    """Whether a layer gives the same for the same input, in training and at inference, as long as it stays frozen.

    Example:

    >>> [does_not_change(layer) for layer in (keras.layers.Flatten(), keras.layers.Dropout(0.5))]
    [True, False]
    """
    replaced = "call" in vars(layer)  # by an adapter, or by somebody else: only what is known here is believed
    steady = runs_as_at_inference(layer) if replaced else not _tells_training_apart(layer)
    return steady and not layer.trainable_variables and layer.activity_regularizer is None


def what_may_move(model: keras.Model) -> list[keras.Variable]:
    """The variables that training can change as the model stands: what trains, statistics that follow, and seeds.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1, name="head")])
    >>> wake(model, [model.get_layer("head")])
    >>> [variable.name for variable in what_may_move(model)]
    ['kernel', 'bias']
    """
    changing = [layer for layer in state.sublayers(model) if not does_not_change(layer)]
    moving = {id(variable) for layer in changing for variable in state.own_variables(layer)}
    moving |= {id(variable) for variable in model.trainable_variables}
    return [variable for _, variable in state.walk(model) if id(variable) in moving or state.is_seed(variable)]


def is_batch_norm(layer: keras.Layer) -> bool:
    """Whether the layer keeps moving statistics of the batches it has seen."""
    return isinstance(layer, keras.layers.BatchNormalization)


def batch_norms(model: keras.Model) -> list[keras.Layer]:
    """The layers of a model that keep moving statistics, in the order of `state.sublayers`: not from the bottom up."""
    return [layer for layer in state.sublayers(model) if is_batch_norm(layer)]


def freeze(model: keras.Model) -> None:
    """Freezes a whole model: no weight trains, no statistic moves, nothing drops.

    Example:

    >>> body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    >>> freeze(body)
    >>> len(body.trainable_variables)
    0
    """
    model.trainable = False
    for layer in state.sublayers(model):
        set_inference(layer, True)


def wake(
    model: keras.Model,
    layers: Iterable[keras.Layer] | Mapping[keras.Layer, Part],
    *,
    batch_norm: BatchNorm = "frozen",
) -> None:
    """Makes exactly `layers` train and follow `training`; freezes every other layer of the model.

    Args:
        model: the model, `layers` somewhere inside it.
        layers: the layers to train; those below a composite layer are to be named as well. A mapping says which weights
            of each layer train: `"whole"`, its `"biases"` or, if it normalises, its scale and offset (`"norms"`). The
            layer follows `training` in each case.
        batch_norm: `"frozen"` leaves every batch normalisation as it was pretrained, statistics, scale and offset, also
            in the awake part. `"affine"` trains scale and offset of those in the awake part, their statistics kept.
            `"adapt"` trains these too, and lets the statistics follow the new data.

    Raises:
        ValueError: if a layer is not part of the model, or the policy has another name.
    """
    if batch_norm not in BATCH_NORMS:
        raise ValueError(
            explain(
                "`batch_norm` names no policy.",
                given=repr(batch_norm),
                expected=", ".join(map(repr, BATCH_NORMS)),
                nearest=nearest(batch_norm, BATCH_NORMS),
            )
        )
    parts = {layer: layers[layer] if isinstance(layers, Mapping) else "whole" for layer in layers}
    follow_training(model, parts, batch_norm=batch_norm)
    everything = state.sublayers(model)
    trains = {
        id(layer): weights_of(layer, part)
        for layer, part in parts.items()
        if batch_norm != "frozen" or not is_batch_norm(layer)
    }
    wanted = [variable for weights in trains.values() for variable in weights]
    chosen = {id(variable) for variable in wanted}
    # A layer without weights is awake by being named; one with weights, by those that train.
    awake = {key for layer in parts if (key := id(layer)) in trains and (trains[key] or not _has_weights(layer))}
    # From the containers down, because a container's flag is handed on to all that it holds.
    for layer in [model, *everything]:
        layer.trainable = id(layer) in awake or _holds_any(layer, awake)
    for layer in everything:
        for variable in state.own_trainable_variables(layer):
            variable.trainable = id(variable) in chosen
    check_what_trains(model, wanted)


def follow_training(model: keras.Model, layers: Iterable[keras.Layer], *, batch_norm: BatchNorm = "frozen") -> None:
    """Lets exactly `layers` follow `training`; every other layer of the model runs as at inference.

    Raises:
        ValueError: if a layer is not part of the model.
    """
    everything = state.sublayers(model)
    named = {id(layer): layer for layer in layers}
    strangers = named.keys() - {id(layer) for layer in everything}
    if strangers:
        raise ValueError(
            explain(
                f"These layers are not part of the model {model.name!r}.",
                given=[named[stranger].name for stranger in strangers],
            )
        )
    follows = {key for key, layer in named.items() if batch_norm == "adapt" or not is_batch_norm(layer)}
    for layer in everything:
        set_inference(layer, id(layer) not in follows and not _holds_any(layer, follows))


def weights_of(layer: keras.Layer, part: Part) -> list[keras.Variable]:
    """The weights that a layer made itself and that belong to a part of it.

    Example:

    >>> dense = keras.layers.Dense(2)
    >>> dense.build((None, 3))
    >>> [variable.name for variable in weights_of(dense, "biases")], weights_of(dense, "norms")
    (['bias'], [])
    """
    own = state.own_trainable_variables(layer)
    if part == "biases":
        return [variable for variable in own if is_bias(variable) and not is_batch_norm(layer)]
    if part == "norms":
        return own if "norm" in type(layer).__name__.lower() and not is_batch_norm(layer) else []
    return own


def is_bias(variable: keras.Variable) -> bool:
    """Whether a weight is added and never multiplied: a bias, or the offset of a normalisation."""
    return variable.name in ("bias", "beta") or variable.name.endswith("_bias")


def _has_weights(layer: keras.Layer) -> bool:
    return bool(state.own_trainable_variables(layer))


def _holds_any(layer: keras.Layer, keys: Collection[int]) -> bool:
    return any(id(below) in keys for below in state.sublayers(layer))


def check_what_trains(model: keras.Model, wanted: Iterable[keras.Variable]) -> None:
    """Raises a `RuntimeError` where Keras would train another set of variables than was asked for."""
    asked, found = {id(variable) for variable in wanted}, {id(variable) for variable in model.trainable_variables}
    wrong = [identity.path for identity, variable in state.walk(model) if id(variable) in asked ^ found]
    if wrong:
        raise RuntimeError(
            explain(
                f"Keras would not train what was asked for in {model.name!r}.",
                given=wrong,
                expected="exactly the variables that were named",
                to_mend="report this with the model's summary; it is a defect of keras_transfer",
            )
        )

"""An adapted layer as a configuration, and back: what stands in a `.keras` file.

The configuration is the stock layer's own, whole, and beside it which adapters are where. So a file says of itself
what it needs: it opens where keras_transfer is imported, and after `merge_adapter` there is nothing left of it to need.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transfer.adapters import beside, keras_internals, layers
from keras_transfer.adapters.matrices import kind_of, matrix, unsuitable
from keras_transfer.errors import explain


@contextlib.contextmanager
def _stock_classes(layer: keras.Layer) -> Iterator[None]:
    """While it lasts, every layer at and below `layer` has its stock class."""
    from keras_transfer import state

    exchanged = [each for each in [layer, *state.sublayers(layer)] if layers.is_adapted(each)]
    classes = [type(each) for each in exchanged]
    try:
        for each in exchanged:
            keras_internals.set_class(each, layers.stock_class(each))
        yield
    finally:
        for each, kind in zip(exchanged, classes, strict=True):
            keras_internals.set_class(each, kind)


def stock_config(layer: keras.Layer) -> dict[str, Any]:
    """A layer as Keras serialises it without any adapter, build configuration included, compilation not."""
    with _stock_classes(layer):
        stock = keras.saving.serialize_keras_object(layer)
    stock.pop("compile_config", None)
    return stock


def config(layer: keras.Layer) -> dict[str, Any]:
    """The configuration of an adapted layer.

    Layers and variables are named by their places: their names are made anew in another process.
    """
    every = [layer, *layers.own_layers(layer)]
    variables = {id(variable): place for place, variable in enumerate(layer.variables)}
    carried = [
        {
            "layer": place,
            "name": each.name,
            "kernel_shape": list(matrix(each).kernel_shape),
            "factors": {name: dataclasses.asdict(factors.spec) for name, factors in layers.adapters_of(each).items()},
            "counts": [name for name, factors in layers.adapters_of(each).items() if factors.counts],
        }
        for place, each in enumerate(every)
        if layers.adapters_of(each)
    ]
    kept = [
        {
            "layer": place,
            "variables": [variables[id(variable)] for variable in beside.of(each).variables],
            "trained": beside.of(each).trained,
        }
        for place, each in enumerate(every)
        if beside.of(each)
    ]
    return {
        "stock": stock_config(layer),
        "adapters": carried,
        "beside": kept,
        "base_variables": [list(variable.shape) for variable in layers.base_variables(layer)],
        "trains": [place for place, variable in enumerate(layer.variables) if variable.trainable],
    }


def restored(config: dict[str, Any]) -> keras.Layer:
    """The layer of which `config` speaks, adapters on it; its weights are whatever Keras draws, factors zero.

    Raises:
        ValueError: where the stock layer has come out otherwise than it was saved.
    """
    layer = keras.saving.deserialize_keras_object(config["stock"])
    if not layer.built:
        raise ValueError(
            explain(
                f"{layer.name!r} cannot be opened with its adapters: Keras does not build it when it reads it.",
                given=type(layer).__name__,
                to_mend="give it `get_build_config` and `build_from_config`; or build the model in code, `add_lora` as "
                "before, and read weights with `load_weights` or the adapter with `load_adapter`",
            )
        )
    every = [layer, *layers.own_layers(layer)]
    _check_variables(layer, config["base_variables"])
    for entry in config["adapters"]:
        carrier = every[entry["layer"]] if entry["layer"] < len(every) else None
        if carrier is None or kind_of(carrier) is None or unsuitable(carrier) or _differs(carrier, entry):
            there = f"layer {entry['layer']}: " + (f"{carrier.name!r}" if carrier is not None else "none")
            raise _other_than_saved(layer, there, f"{entry['name']!r}, a kernel {tuple(entry['kernel_shape'])}")
        for name, spec in entry["factors"].items():
            gate = np.float32(name in entry["counts"])
            layers.attach(carrier, name, layers.FactorsSpec(**spec), {"gate": gate})
    layers.exchange(layer)
    for entry in config["beside"]:
        kept = beside.at(every[entry["layer"]])
        kept.variables = [layer.variables[place] for place in entry["variables"]]
        kept.base = [np.zeros(variable.shape, "float32") for variable in kept.variables]
        kept.trained = {name: list(places) for name, places in entry["trained"].items()}
        kept.values = {name: [np.array(value) for value in kept.base] for name in kept.trained}
    layers.remember_what_trains(layer, [layer.variables[place] for place in config["trains"]])
    return layer


def _check_variables(layer: keras.Layer, expected: list[list[int]]) -> None:
    found = [list(variable.shape) for variable in layers.base_variables(layer)]
    if found != expected:
        place = next((n for n, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
        at = "" if place is None else f", number {place} of shape {tuple(found[place])}"
        there = "" if place is None else f", number {place} of shape {tuple(expected[place])}"
        raise _other_than_saved(layer, f"{len(found)} variables{at}", f"{len(expected)} variables{there}")


def _other_than_saved(layer: keras.Layer, given: str, expected: str) -> ValueError:
    return ValueError(
        explain(
            f"The stock {type(layer).__name__} has come out of its configuration otherwise than it was saved.",
            given=given,
            expected=expected,
            to_mend="open the file with the versions of Keras and KerasHub that wrote it. There are models that Keras "
            "itself cannot open, those with quantised MultiHeadAttention for one: build them in code and read the "
            "adapter with `load_adapter`",
        )
    )


def _differs(layer: keras.Layer, entry: dict[str, Any]) -> bool:
    return list(matrix(layer).kernel_shape) != list(entry["kernel_shape"])

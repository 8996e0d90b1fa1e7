"""Adapters on and off, into the kernels and out of them again."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_transfer import state
from keras_transfer.adapters import attach, beside, keras_internals, layers, tracing
from keras_transfer.errors import explain

_MERGED = "_lora_merged"  # on a model: what `unmerge_adapter` needs, one for each merge, the last one last


@dataclasses.dataclass(eq=False)
class _Merged:
    """What a merge has taken off a model.

    Attributes:
        kernels: each merged layer's frozen kernel, as it was.
        adapters: for each layer, its adapters by name: what `layers.attach` needs to put them on again.
        kept: what the adapters train beside their factors, by the layer that kept it.
        name: the adapter that was merged.
    """

    kernels: list[tuple[keras.Layer, np.ndarray]]
    adapters: list[tuple[keras.Layer, dict[str, tuple]]]
    kept: list[tuple[keras.Layer, beside.Beside]]
    name: str


def set_adapter(model: keras.Model, name: str | None) -> None:
    """Makes one of a model's adapters count and train, in place of the others; `None` is the base without any.

    Nothing is read from disk. Head, biases and norms that the adapters train change with them. With `None` the outputs
    are the base's to the last bit, and nothing trains.

    Compiled predictions follow by themselves. Compile before training on: the optimizer knows the other adapter's
    variables.

    Args:
        model: a model with adapters.
        name: of the adapter.

    Raises:
        ValueError: where the model has no adapter of that name.

    Example:

    >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="query")])
    >>> for name in ("english", "french"):
    ...     _ = attach.add_lora(model, targets="query", name=name)
    >>> set_adapter(model, "english")
    >>> [variable.path.split("/")[-1] for variable in model.trainable_variables]
    ['lora_a_english', 'lora_b_english']
    """
    if name is not None or not attach.names(model):
        attach.check_known(model, name)
    attach.activate(model, name, attach.active(model))


def merge_adapter(model: keras.Model, *, keep_base: bool = True) -> None:
    """Adds the adapter that counts into the kernels, and leaves a plain model of stock layers.

    The model then computes what it computed with the adapter, to the rounding of one sum: the kernel is summed in
        float32
    and rounded to its dtype once. Outputs differ by about 1e-6 of their size in float32, 1e-3 in float16 and 1e-2 in
    bfloat16, for each adapted layer that they pass through. Saved as `.keras` it opens in stock Keras.

    Args:
        model: a model in which an adapter counts. Its other adapters are put aside.
        keep_base: keep the frozen kernels and the adapters in memory, for `unmerge_adapter`.

    Raises:
        ValueError: where no adapter counts; where a kernel is quantised: the sum would have to be quantised again,
            which changes outputs by far more than rounding.

    Example:

    >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="query")])
    >>> _ = attach.add_lora(model, targets="query")
    >>> merge_adapter(model)
    >>> type(model.layers[0]) is keras.layers.Dense, len(model.weights)
    (True, 2)
    """
    name = attach.active(model)
    if name is None:
        known = attach.names(model)
        raise ValueError(
            explain(
                f"No adapter counts in {model.name}, so there is nothing to merge.",
                given=f"adapters: {', '.join(known)}" if known else "a model without adapters",
                to_mend=f"`set_adapter(model, {known[0]!r})` first" if known else "`add_lora` or `load_adapter` first",
            )
        )
    carriers = layers.adapted_layers(model)
    quantised = [
        layer for layer in carriers if layer.quantization_mode is not None and name in layers.adapters_of(layer)
    ]
    if quantised:
        raise ValueError(
            explain(
                "A quantised kernel has no room for an adapter: quantising the sum changes outputs beyond rounding.",
                given=f"{len(quantised)} layers, {quantised[0].path or quantised[0].name!r} in "
                f"{quantised[0].quantization_mode}",
                to_mend="keep the adapter beside the kernel; or `save_adapter`, load it onto the unquantised base with "
                'check="shapes", merge there, and quantise last',
            )
        )
    kernels = []
    for layer in carriers:
        if name in layers.adapters_of(layer):
            variable = keras_internals.kernel(layer)
            kernels.append((layer, np.array(ops.convert_to_numpy(variable.value))))
            factors = layers.adapters_of(layer)[name]
            merged = ops.add(ops.cast(variable.value, "float32"), layers.change(variable.value, factors))
            variable.assign(ops.cast(merged, variable.dtype))
    kept = [(layer, beside.of(layer)) for layer in [model, *state.sublayers(model)] if beside.of(layer)]
    for _, each in kept:
        each.put_away(name)
    taken = _take_off(model)
    for layer, _ in kept:
        beside.drop(layer)
    layers.exchange(model)
    tracing.trace_anew(model)
    if keep_base:
        model.__dict__.setdefault(_MERGED, []).append(_Merged(kernels, taken, kept, name))
    else:
        model.__dict__.pop(_MERGED, None)


def unmerge_adapter(model: keras.Model) -> None:
    """Takes the adapter out of the kernels again: the base is what it was bit for bit, and all adapters are back.

    What was trained on the merged kernels in between is lost.

    Raises:
        ValueError: where nothing is merged, or it was merged with `keep_base=False`; under an adapter that came later.

    Example:

    >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="query")])
    >>> _ = attach.add_lora(model, targets="query", name="first")
    >>> merge_adapter(model)
    >>> unmerge_adapter(model)
    >>> attach.active(model)
    'first'
    """
    records: list[_Merged] = model.__dict__.get(_MERGED, [])
    if records and layers.is_adapted(model):
        raise ValueError(
            explain(
                f"{model.name} carries an adapter that came after the merge, and belongs to the merged kernels.",
                given=", ".join(attach.names(model)),
                to_mend="`remove_adapter` it first",
            )
        )
    if not records:
        raise ValueError(
            explain(
                f"There is no adapter in the kernels of {model.name} that could be taken out.",
                expected="the very model that was given to `merge_adapter`, with keep_base=True",
                to_mend="build the base anew and `load_adapter`",
            )
        )
    record = records.pop()
    for layer, value in record.kernels:
        keras_internals.kernel(layer).assign(value)
    for layer, adapters in record.adapters:
        for name, (spec, values) in adapters.items():
            layers.attach(layer, name, spec, values)
    layers.exchange(model)
    for layer, kept in record.kept:
        beside.put(layer, kept)
    attach.activate(model, record.name, None)


def remove_adapter(model: keras.Model, name: str) -> None:
    """Takes an adapter off a model for good. Where it was the last one, stock layers are left, and the base.

    Raises:
        ValueError: where the model has no adapter of that name.

    Example:

    >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="query")])
    >>> _ = attach.add_lora(model, targets="query")
    >>> remove_adapter(model, "default")
    >>> type(model.layers[0]) is keras.layers.Dense
    True
    """
    attach.check_known(model, name)
    counting = attach.active(model)
    if counting == name:
        attach.activate(model, None, name)
        counting = None
    for layer in layers.adapted_layers(model):
        if name in layers.adapters_of(layer):
            layers.detach(layer, name)
    for kept in beside.everywhere(model):
        kept.forget(name)
    if not attach.names(model):
        for layer in [model, *state.sublayers(model)]:
            beside.drop(layer)
    layers.exchange(model)
    if attach.names(model):
        attach.activate(model, counting, counting)
    tracing.trace_anew(model)


def _take_off(model: keras.Model) -> list[tuple[keras.Layer, dict[str, tuple]]]:
    return [
        (layer, {name: layers.detach(layer, name) for name in list(layers.adapters_of(layer))})
        for layer in layers.adapted_layers(model)
    ]

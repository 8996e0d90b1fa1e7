"""Adapters onto a model: `add_lora` for new ones, `adopt_lora` for those that Keras' own `enable_lora` put there."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import state
from keras_transfer.adapters import base_identity, beside, layers, tracing
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.matrices import matrix
from keras_transfer.adapters.places import Place, places
from keras_transfer.adapters.table import AdapterTable, Row, kind
from keras_transfer.adapters.targets import select
from keras_transfer.backbones import freezing
from keras_transfer.backbones.blocks import blocks
from keras_transfer.errors import explain, nearest

DEFAULT = "default"


def add_lora(
    model: keras.Model,
    spec: LoRA | None = None,
    *,
    name: str = DEFAULT,
    train: Sequence[keras.Layer] = (),
    seed: int | None = None,
    **options: Any,
) -> AdapterTable:
    """Puts an adapter on a model, in place, and makes it the one that counts and trains.

    The model's outputs are what they were, to the last bit: B is zero (of an embedding, A). From now on exactly the
    factors train, the layers in `train`, and the biases that the spec names; everything else is frozen, also where
    its layer's flag was never touched. In a body that our builders have frozen, dropout falls again in the blocks
    in which something trains, as under `fit`, and in no other. Compile afterwards: an optimizer that has seen other
    variables raises at the next step.

    `save`, `save_weights` and Keras' callbacks write the adapter beside the frozen kernel and read it back; the same
    architecture without the adapter refuses such a file.

    Args:
        model: any built Keras model, KerasHub's backbones and tasks included. Call this on the whole model that trains
            rather than on a part of it, so that all of its other layers are frozen as well.
        spec: the kind of adapter. Or give its fields here: `add_lora(model, rank=16, targets="all-linear")`.
        name: of the adapter; one base can carry several.
        train: layers that train as a whole beside the factors: a new head, say.
        seed: of the drawing of A; `None` draws from Keras' global seed.
        **options: the fields of `LoRA`, instead of `spec`.

    Returns:
        The adapted layers, one row each; print it.

    Raises:
        ValueError: where the spec matches nothing, or a layer that can carry no adapter; where the name is taken; for a
            layer in `train` that is not the model's; for a model with adapters of Keras' own (see `adopt_lora`).

    Example:

    >>> dense = keras.layers.Dense
    >>> model = keras.Sequential([keras.Input((6,)), dense(4, name="low"), dense(2, name="head")])
    >>> table = add_lora(model, rank=2, targets="low", train=[model.get_layer("head")])
    >>> print(table)
    adapted layer  kind   kernel  rank  parameters
    ──────────────────────────────────────────────
    low            Dense  (6, 4)     2          20
    ──────────────────────────────────────────────
    1 layer                                     20
    beside them: head/kernel, head/bias: 10
    adapter 'default' trains 30 numbers, 78.95% of the model's
    """
    spec = _spec(spec, options)
    check_name(model, name)
    _check_not_adapted_by_keras(model)
    head = _check_head(model, train)
    selection = select(model, spec, head=head)
    chosen = selection.targets
    draws = np.random.SeedSequence(seed).spawn(len(chosen)) if seed is not None else [None] * len(chosen)
    others = [variable for layer in head for variable in _can_train(layer)]
    others += _biases(model, spec, [target.layer for target in chosen])
    specs = [layers.factors_spec(spec, target.rank) for target in chosen]
    for target, factors in zip(chosen, specs, strict=True):
        check_carries(target.place.path, target.layer, factors)
    for target, factors, draw in zip(chosen, specs, draws, strict=True):
        layers.attach(target.layer, name, factors, initial_values(target.layer, factors, draw))
    finish(model, name, _in_order(model, others))
    return dataclasses.replace(table(model, name), passed_over=selection.passed_over)


def carry_out(
    model: keras.Model, spec: LoRA, *, name: str = DEFAULT, train: Sequence[keras.Layer] = (), seed: int | None = None
) -> AdapterTable:
    """Sees to it that the adapter which `spec` describes is on the model, counts and trains, whatever there was.

    Puts it on; adopts adapters of Keras' own where the spec asks for Keras' factors, whatever their rank and targets;
    goes on with an adapter of that name that is just what the spec asks for, or was adopted.

    Raises:
        ValueError: as `add_lora`; where the model's adapter of that name is another one.
    """
    if _adapted_by_keras(model) and spec.factors == "keras":
        return adopt_lora(model, name=name, train=train, biases=spec.biases)
    if name not in names(model):
        return add_lora(model, spec, name=name, train=train, seed=seed)
    if spec.factors == "keras" and _in_keras_shapes(model, name):
        activate(model, name, active(model))
        return table(model, name)
    asked = asked_for(model, spec, train=train)
    there = {
        id(layer): layers.adapters_of(layer)[name].spec
        for layer in layers.adapted_layers(model)
        if name in layers.adapters_of(layer)
    }
    if asked != there:
        given = sorted({str(each) for each in there.values()})
        raise ValueError(
            explain(
                f"{model.name} carries an adapter {name!r} that is another one than the stage asks for.",
                given=f"{len(there)} layers, {'; '.join(given)}",
                expected=f"{spec}: {len(asked)} layers",
                to_mend="`remove_adapter` it, or write the stage with its LoRA",
            )
        )
    activate(model, name, active(model))
    return table(model, name)


def asked_for(model: keras.Model, spec: LoRA, *, train: Sequence[keras.Layer] = ()) -> dict[int, layers.FactorsSpec]:
    """What a spec asks for: by the `id` of each of its layers, which factors.

    Raises:
        ValueError: as `add_lora`, without changing the model.
    """
    targets = select(model, spec, head=train).targets
    return {id(target.layer): layers.factors_spec(spec, target.rank) for target in targets}


def touched(
    model: keras.Model, spec: LoRA, *, name: str = DEFAULT, train: Sequence[keras.Layer] = ()
) -> list[keras.Layer]:
    """The layers in which anything would train, or does, under this spec: adapted ones, and those of biases.

    Raises:
        ValueError: as `add_lora`, without changing the model.
    """
    theirs = _adapted_by_keras(model) or (_in_keras_shapes(model, name) if spec.factors == "keras" else [])
    if spec.factors != "keras":
        _check_not_adapted_by_keras(model)
    adapted = theirs or [target.layer for target in select(model, spec, head=train).targets]
    biases = {id(variable) for variable in _biases(model, spec, adapted)}
    owners = [
        layer
        for layer in state.sublayers(model)
        if any(id(variable) in biases for variable in state.own_trainable_variables(layer))
    ]
    return [*adapted, *owners]


def adopt_lora(
    model: keras.Model, *, name: str = DEFAULT, train: Sequence[keras.Layer] = (), biases: str = "none"
) -> AdapterTable:
    """Takes over the adapters that KerasHub's `backbone.enable_lora(rank)`, or a layer's own, has put on a model.

    The same factors in Keras' shapes, counting as they did; but from now on they are saved and read as they are (Keras
    merges them into the kernel and then sets both to zero), exactly they train, and they can be switched off, merged
    and written to a file as any other. Compile afterwards.

    Args:
        model: a model with adapters of Keras' own.
        name: what the adapter is called from now on.
        train: layers that train as a whole beside the factors.
        biases: as in `LoRA`. KerasHub leaves the biases of the adapted layers training: that is `"adapted"`.

    Raises:
        ValueError: where the model has none; where both factors of a layer are zero, which is how Keras leaves them
            when it
            reads a weights file: they could never learn again, and the kernel is no longer the pretrained one.

    Example:

    >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="query")])
    >>> model.layers[0].enable_lora(2, lora_alpha=4)
    >>> adopt_lora(model).parameters, len(model.trainable_variables)
    (20, 2)
    """
    check_name(model, name)
    found = _adapted_by_keras(model)
    if not found:
        raise ValueError(
            explain(
                f"{model.name} has no adapters of Keras' own to adopt.",
                expected="a model on which `enable_lora` was called",
                to_mend="`add_lora(model, ...)` puts new ones on",
            )
        )
    head = _check_head(model, train)
    taken = [(layer, *_keras_factors(layer)) for layer in found]
    for layer, spec, values in taken:
        layers.release_keras_lora(layer)
        layers.attach(layer, name, spec, values)
    others = [variable for layer in head for variable in _can_train(layer)]
    others += _biases(model, LoRA(biases=biases), found)
    finish(model, name, _in_order(model, others))
    return table(model, name)


def finish(model: keras.Model, name: str, others: Sequence[keras.Variable]) -> None:
    """After the factors of an adapter were put on: makes it the one that counts, with what else it trains."""
    counting = active(model)
    layers.exchange(model)
    left = {id(variable): variable for variable in others}
    for kept in beside.everywhere(model):
        kept.add(name, [left.pop(id(v)) for v in kept.variables if id(v) in left], counting)
    if left:
        beside.at(model).add(name, list(left.values()), counting)
    activate(model, name, counting)


def activate(model: keras.Model, name: str | None, counting: str | None) -> None:
    """Makes an adapter count and train in place of `counting`; `None` is the base, in which nothing trains."""
    kept = beside.everywhere(model)
    for each in kept:
        each.put_away(counting)
        each.bring(name)
    for layer in layers.adapted_layers(model):
        for other, factors in layers.adapters_of(layer).items():
            factors.gate.assign(1.0 if other == name else 0.0)
    trains = layers.factor_variables(model, name) if name is not None else []
    trains += [variable for each in kept for variable in each.trains(name)]
    layers.remember_what_trains(model, trains)
    freezing.check_what_trains(model, trains)
    _follow_training(model)
    tracing.trace_anew(model)


def active(model: keras.Model) -> str | None:
    """The name of the adapter that counts; `None` where it is the base.

    Example:

    >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="query")])
    >>> _ = add_lora(model, targets="query", name="first")
    >>> active(model)
    'first'
    """
    found = {
        name
        for layer in layers.adapted_layers(model)
        for name, factors in layers.adapters_of(layer).items()
        if factors.counts
    }
    if len(found) > 1:
        raise ValueError(
            explain(
                f"More than one adapter counts in {model.name}, each in a part of it.",
                given=", ".join(sorted(found)),
                to_mend="`set_adapter` on each part, or one call of `add_lora` for the whole model",
            )
        )
    return next(iter(found), None)


def names(model: keras.Model) -> tuple[str, ...]:
    """The names of the adapters on a model, in alphabetical order."""
    return tuple(sorted({name for layer in layers.adapted_layers(model) for name in layers.adapters_of(layer)}))


def table(model: keras.Model, name: str) -> AdapterTable:
    """The table of one adapter on a model.

    Raises:
        ValueError: where the model has no adapter of that name.
    """
    check_known(model, name)
    rows = []
    for place in adapted_places(model):
        factors = layers.adapters_of(place.layer).get(name)
        if factors is not None:
            count = sum(int(np.prod(variable.shape)) for variable in factors.trained.values())
            rows.append(Row(place.path, kind(place.layer), factors.matrix.kernel_shape, factors.spec.rank, count))
    others = {id(variable) for kept in beside.everywhere(model) for variable in kept.trains(name)}
    return AdapterTable(
        name,
        tuple(rows),
        tuple((path, tuple(v.shape)) for path, v in base_identity.named_variables(model) if id(v) in others),
        sum(int(np.prod(v.shape)) for v in layers.base_variables(model) if not state.is_seed(v)),
    )


def adapted_places(model: keras.Model) -> list[Place]:
    """The places of the layers that carry an adapter."""
    return [place for place in places(model) if layers.adapters_of(place.layer)]


def check_name(model: keras.Model, name: str) -> None:
    """Refuses a name that another adapter has, or that no file could hold."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "base":
        raise ValueError(
            explain(
                "An adapter cannot be called that.",
                given=repr(name),
                expected="letters, digits, '-' and '_', and not 'base'",
            )
        )
    if name in names(model):
        raise ValueError(
            explain(
                f"{model.name} has an adapter of that name already.",
                given=repr(name),
                to_mend="give another name: name='second'",
            )
        )


def check_known(model: keras.Model, name: str) -> None:
    """Refuses a name that no adapter on the model has."""
    known = names(model)
    if name not in known:
        keras_own = not known and any(getattr(layer, "lora_enabled", False) for layer in state.sublayers(model))
        raise ValueError(
            explain(
                f"{model.name} has no adapter of that name.",
                given=repr(name),
                nearest=nearest(str(name), known),
                expected="one of " + ", ".join(map(repr, known)) if known else "a model with adapters",
                to_mend="`adopt_lora(model)` first: its adapters are Keras' own" if keras_own else None,
            )
        )


def check_carries(path: str, layer: keras.Layer, spec: layers.FactorsSpec) -> None:
    """Refuses what a layer that carries adapters cannot do with this one."""
    is_embedding = isinstance(layer, keras.layers.Embedding)
    if spec.dora and (is_embedding or layer.quantization_mode is not None):
        why = "of an embedding" if is_embedding else f"of an {layer.quantization_mode} kernel"
        raise ValueError(
            explain(
                f"DoRA needs the length of each column, and that {why} is not had on the way forward.",
                given=path,
                to_mend="dora=False, or leave this layer out of `targets`",
            )
        )
    if spec.dora:
        matrix(layer, spec.layout).over_outputs(np.zeros(matrix(layer, spec.layout).d_out, "float32"))
    if spec.dropout and is_embedding:
        raise ValueError(
            explain(
                "Dropout falls on an adapter's input, and that of an embedding is a number of a row.",
                given=f"{path}, dropout={spec.dropout:g}",
                to_mend="dropout=0.0, or leave this layer out of `targets`",
            )
        )


def initial_values(layer: keras.Layer, spec: layers.FactorsSpec, draw: np.random.SeedSequence | None) -> dict:
    """The factors at the start: one drawn, the other zero.

    As PEFT draws them: A uniformly within ±1/sqrt(in), which is its Kaiming initialisation at a = sqrt(5); of an
        embedding,
    A is zero and B normal. (The paper draws A from a normal distribution, of a width that it does not state; Keras'
    `enable_lora` draws it as `he_uniform`, and so do factors of Keras' shapes here.)
    """
    found = matrix(layer, spec.layout)
    shape_a, shape_b = found.shapes(spec.rank)
    seed = None if draw is None else int(draw.generate_state(1)[0])
    if spec.layout == "keras":
        return {"a": keras.initializers.HeUniform(seed=seed)(shape_a, "float32")}
    if isinstance(layer, keras.layers.Embedding):
        return {"b": keras.initializers.RandomNormal(stddev=1.0, seed=seed)(shape_b, "float32")}
    width = found.d_in**-0.5
    return {"a": keras.initializers.RandomUniform(-width, width, seed=seed)(shape_a, "float32")}


def _spec(spec: LoRA | None, options: dict[str, Any]) -> LoRA:
    if spec is None:
        return LoRA(**options)
    if options or not isinstance(spec, LoRA):
        raise ValueError(
            explain(
                "`add_lora` takes one LoRA, or its fields.",
                given=f"{spec!r}" + (f" and {', '.join(options)}" if options else ""),
                to_mend="add_lora(model, LoRA(rank=8)) or add_lora(model, rank=8)",
            )
        )
    return spec


def _adapted_by_keras(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in state.sublayers(model) if getattr(layer, "lora_enabled", False)]


def _in_keras_shapes(model: keras.Model, name: str) -> list[keras.Layer]:
    """The layers that carry the adapter, where all of its factors have the shapes of Keras' own; else none."""
    found = [layer for layer in layers.adapted_layers(model) if name in layers.adapters_of(layer)]
    return found if all(layers.adapters_of(layer)[name].spec.layout == "keras" for layer in found) else []


def _check_not_adapted_by_keras(model: keras.Model) -> None:
    found = [layer.name for layer in _adapted_by_keras(model)]
    if found:
        raise ValueError(
            explain(
                f"{model.name} carries adapters of Keras' own.",
                given=f"{len(found)} layers on which `enable_lora` was called: {', '.join(found[:4])}",
                to_mend="`adopt_lora(model)` takes them over; then `add_lora` puts others beside them",
            )
        )


def _check_head(model: keras.Model, train: Sequence[keras.Layer]) -> list[keras.Layer]:
    known = {id(layer) for layer in state.sublayers(model)}
    for layer in train:
        if not isinstance(layer, keras.Layer) or id(layer) not in known:
            raise ValueError(
                explain(
                    f"`train` holds something that is not a layer of {model.name}.",
                    given=repr(getattr(layer, "name", layer)),
                    expected="layers of the model: model.get_layer('logits')",
                )
            )
    return list(train)


def _can_train(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of a layer and of those below it that could train; factors of adapters are not among them."""
    added = {id(variable) for variable in layers.factor_variables(layer)}
    return [
        variable
        for each in [layer, *state.sublayers(layer)]
        for variable in state.own_trainable_variables(each)
        if id(variable) not in added
    ]


def _biases(model: keras.Model, spec: LoRA, adapted: Sequence[keras.Layer]) -> list[keras.Variable]:
    if spec.biases == "none":
        return []
    within = adapted if spec.biases == "adapted" else state.sublayers(model)
    return [variable for layer in within for variable in freezing.weights_of(layer, "biases")]


def _in_order(model: keras.Model, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    wanted = {id(variable) for variable in variables}
    return [variable for _, variable in state.walk(model) if id(variable) in wanted]


def _follow_training(model: keras.Model) -> None:
    """In a body that a builder or a plan has frozen, lets those blocks follow `training` in which anything trains.

    The layers around an adapter would else tell its dropout that this is inference. A body that was never frozen in
    this way is left as it is.
    """
    if not any(freezing.runs_as_at_inference(layer) for layer in state.sublayers(model)):
        return
    try:
        every = [block.layers for block in blocks(model)]
    except ValueError:  # a model that has no blocks is frozen or awake as one
        every = [state.sublayers(model)]
    awake = [layer for part in every if any(layer.trainable_variables for layer in part) for layer in part]
    freezing.follow_training(model, awake)


def _keras_factors(layer: keras.Layer) -> tuple[layers.FactorsSpec, dict]:
    a, b = layers.keras_lora_factors(layer)
    if not np.any(ops.convert_to_numpy(a)) and not np.any(ops.convert_to_numpy(b)):
        raise ValueError(
            explain(
                f"Both factors of {layer.path or layer.name!r} are zero, so neither can ever learn again.",
                given="adapters that went through `load_weights` or a checkpoint of Keras, which merges them away",
                to_mend="load the pretrained weights anew, `enable_lora`, and `adopt_lora` before anything is saved",
            )
        )
    spec = layers.FactorsSpec(rank=layer.lora_rank, alpha=float(layer.lora_alpha), layout="keras")
    return spec, {"a": a, "b": b}

"""Layers with adapters: what a layer's class is exchanged for, in place, while it carries one.

A layer cannot be replaced inside a built Keras model, but its class can. `Adapted` layers stay what they were, with
the same variables, name, path and place in every model that holds them; beside their frozen product they add `s · (x
A) B`, and they write and read their state raw. So do not all layers: those that hold an adapted layer somewhere below
become `Adapted` too, so that each of them, saved alone or as part of another model, says which adapters it holds.

An exchanged class keeps the name of the stock class: Keras' weights files are laid out by class names, and an adapted
model's file has every base weight where the base model's file has it.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import state
from keras_transfer.adapters import keras_internals
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.matrices import Matrix, kind_of, matrix
from keras_transfer.errors import explain

_ADAPTERS = "_lora_adapters"  # on a layer: name -> Factors
_TRAINS = "_lora_trains"  # on an adapted layer: the variables below it that train, whoever sets its flag


@dataclasses.dataclass(frozen=True)
class FactorsSpec:
    """What one adapter is on one layer, without its numbers.

    Args:
        rank: columns of A, rows of B.
        alpha: the update counts `alpha / rank` times, or `alpha / sqrt(rank)` where `scaling` is `"rslora"`.
        scaling: `"lora"` or `"rslora"`.
        layout: `"paper"`, or `"keras"` for the shapes of Keras' own `enable_lora`.
        dora: whether a magnitude for each column is learnt beside the direction.
        dropout: the share of the adapter's input that is dropped in training.
    """

    rank: int
    alpha: float
    scaling: str = "lora"
    layout: str = "paper"
    dora: bool = False
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.scaling == "rslora" else self.rank)


class Factors:
    """One adapter on one layer: its two thin matrices, and what goes with them.

    Attributes:
        spec: what it is.
        matrix: how the layer's kernel is a matrix.
        a, b: the factors, float32 under any policy.
        magnitude: with DoRA, how far each column's length is from that of the frozen kernel; zeros at the start.
        gate: 1 while the adapter counts, 0 while another does. A variable, so that compiled functions follow.
        dropout: the attribute of the layer that holds the dropout, or `None`.
    """

    def __init__(self, layer: keras.Layer, name: str, spec: FactorsSpec, values: dict[str, Any]) -> None:
        self.spec = spec
        self.matrix: Matrix = matrix(layer, spec.layout)
        shape_a, shape_b = self.matrix.shapes(spec.rank)
        with keras_internals.growing(layer):

            def add(kind: str, shape, trainable=True):
                made = layer.add_weight(
                    name=f"lora_{kind}_{name}", shape=shape, initializer="zeros", dtype="float32", trainable=trainable
                )
                if kind in values:
                    made.assign(values[kind])
                return made

            self.a, self.b = add("a", shape_a), add("b", shape_b)
            self.magnitude = add("magnitude", (self.matrix.d_out,)) if spec.dora else None
            self.gate = add("gate", (), trainable=False)
            self.dropout = f"lora_dropout_{name}" if spec.dropout else None
            if self.dropout:
                setattr(layer, self.dropout, keras.layers.Dropout(spec.dropout, name=self.dropout))

    @property
    def trained(self) -> dict[str, keras.Variable]:
        """The variables that are learnt, by kind: `a`, `b` and with DoRA `magnitude`."""
        every = {"a": self.a, "b": self.b, "magnitude": self.magnitude}
        return {kind: variable for kind, variable in every.items() if variable is not None}

    @property
    def variables(self) -> dict[str, keras.Variable]:
        """All variables, by kind: those that are learnt, and `gate`."""
        return {**self.trained, "gate": self.gate}

    @property
    def counts(self) -> bool:
        """Whether the gate is open."""
        return bool(float(ops.convert_to_numpy(self.gate)))


def adapters_of(layer: keras.Layer) -> dict[str, Factors]:
    """The adapters on one layer by name, in the order in which they came; empty for a layer without."""
    return layer.__dict__.get(_ADAPTERS, {})


def adapted_layers(model: keras.Layer) -> list[keras.Layer]:
    """The layers of a model that carry an adapter themselves, the model included, in the order of its layers."""
    return [layer for layer in [model, *state.sublayers(model)] if adapters_of(layer)]


def own_layers(model: keras.Layer) -> list[keras.Layer]:
    """The layers below a model as they were before any adapter: the dropout of adapters is left out."""
    dropouts = {
        id(getattr(layer, factors.dropout))
        for layer in adapted_layers(model)
        for factors in adapters_of(layer).values()
        if factors.dropout
    }
    return [layer for layer in state.sublayers(model) if id(layer) not in dropouts]


def factor_variables(model: keras.Layer, name: str | None = None) -> list[keras.Variable]:
    """The variables that adapters have added to a model, gates included; with `name`, those that this one learns."""
    found = []
    for layer in adapted_layers(model):
        for each, factors in adapters_of(layer).items():
            if name is None:
                found += factors.variables.values()
            elif each == name:
                found += factors.trained.values()
    return found


def base_variables(model: keras.Layer) -> list[keras.Variable]:
    """The variables of a model as they were before any adapter, in the order of the canonical walk, seeds included."""
    added = {id(variable) for variable in factor_variables(model)}
    for layer in adapted_layers(model):
        for factors in adapters_of(layer).values():
            if factors.dropout:
                added |= {id(variable) for variable in getattr(layer, factors.dropout).variables}
    return [variable for _, variable in state.walk(model) if id(variable) not in added]


class Adapted:
    """What every layer is as well while it, or a layer below it, carries an adapter. Mixed in, never made."""

    _stock: type[keras.Layer]

    @property
    def trainable(self) -> bool:
        """As on every layer; but `True` wakes what the adapters train, and never the base."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        set_what_trains(self, self.__dict__.get(_TRAINS, ()) if value else ())

    def get_config(self) -> dict[str, Any]:
        """The stock layer's whole configuration, and the adapters at and below this layer."""
        from keras_transfer.adapters import restoring  # it rebuilds these very classes

        return restoring.config(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.Layer:
        """The reverse of `get_config`: the stock layer, with its adapters put back on."""
        from keras_transfer.adapters import restoring

        return restoring.restored(config)

    def enable_lora(self, *arguments: object, **options: object) -> None:
        """Refused: Keras would put its own adapter on top."""
        raise ValueError(
            explain(
                f"{self.name!r} carries adapters of keras_transfer already.",
                given="a call of `enable_lora`",
                to_mend="put a second adapter on with `add_lora(model, ..., name=...)`",
            )
        )

    def _without_adapters(self, **attributes: object) -> keras.Layer:
        return keras_internals.view(self, self._stock, **attributes)


class AdaptedLayer(Adapted):
    """A layer that carries adapters itself."""

    def save_own_variables(self, store: Any) -> None:
        """Writes the frozen kernel as it is, and each adapter beside it; Keras would merge the two."""
        if not self.built:
            return
        self._without_adapters().save_own_variables(store)
        for key, variable in self._named_factors():
            store[key] = variable

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote; Keras would put the factors to zero, where both gradients are zero.

        Raises:
            ValueError: if the file holds other adapters than the layer, or was written while another one counted.
        """
        mine = dict(self._named_factors())
        there = {key for key in store.keys() if not key.isdigit()}  # noqa: SIM118  not every store can be iterated
        if there != mine.keys():
            raise ValueError(
                explain(
                    f"This file does not hold the adapters of the layer {self.path or self.name!r}.",
                    given=_names(there) or "a layer without adapter: the weights of the base alone",
                    expected=_names(mine),
                    to_mend="load base weights before `add_lora`, an adapted model's into the model it was saved from, "
                    "and an adapter alone with `load_adapter`",
                )
            )
        for name, factors in adapters_of(self).items():
            counted = bool(np.asarray(store[f"{name}.gate"]))
            if counted != factors.counts:
                raise ValueError(
                    explain(
                        f"These weights were saved while the adapter {name!r} {'counted' if counted else 'did not'}.",
                        given=f"a model in which it {'counts' if factors.counts else 'does not'}",
                        to_mend="call `set_adapter(model, ...)` as when they were saved, then load",
                    )
                )
        self._without_adapters().load_own_variables(store)
        for key, variable in mine.items():
            variable.assign(store[key])

    def _named_factors(self) -> Iterator[tuple[str, keras.Variable]]:
        for name, factors in adapters_of(self).items():
            for kind, variable in factors.variables.items():
                yield f"{name}.{kind}", variable

    def _int8_call(self, inputs, *arguments, **options):
        return self._around("_int8_call", inputs, *arguments, **options)

    def _int4_call(self, inputs, *arguments, **options):
        return self._around("_int4_call", inputs, *arguments, **options)

    def _around(self, method: str, inputs, *arguments, training=None, **options):
        """The stock layer's own forward pass, the adapters' products, and then the activation."""
        dora = any(factors.spec.dora for factors in adapters_of(self).values())
        without = {"activation": None, **({"bias": None, "use_bias": False} if dora else {})}
        plain = self._without_adapters(**without)
        outputs = getattr(plain, method)(inputs, *arguments, **options)
        result = outputs
        if dora and self.bias is not None:
            result = ops.add(result, self._bias_over_outputs())
        for factors in adapters_of(self).values():
            result = ops.add(result, ops.cast(self._added(factors, inputs, outputs, training), result.dtype))
        return result if self.activation is None else self.activation(result)

    def _added(self, factors: Factors, inputs, outputs, training):
        """What one adapter adds to the frozen product `outputs`."""
        if factors.dropout:
            # `None` must not be handed on: Keras would take it for an answer, here and in the layers that follow.
            told = {} if training is None else {"training": training}
            inputs = getattr(self, factors.dropout)(inputs, **told)
        thin = factors.matrix.beside(inputs, factors.a, ops.multiply(factors.b, factors.gate * factors.spec.scale))
        if factors.magnitude is None:
            return thin
        growth = dora_growth(keras_internals.kernel(self), factors)
        over_outputs = factors.matrix.over_outputs
        grown = ops.multiply(over_outputs(ops.multiply(factors.gate, growth)), outputs)
        return ops.add(grown, ops.multiply(over_outputs(ops.add(growth, 1.0)), thin))

    def _bias_over_outputs(self):
        return self.bias

    def _effective(self):
        """The kernel as it counts: for code that reads `layer.kernel` past the layer's own call."""
        if self.quantization_mode is not None:
            raise ValueError(
                explain(
                    f"The kernel of {self.path or self.name!r} is quantised and its adapters are not: no sum.",
                    to_mend="call the layer instead of reading its kernel",
                )
            )
        variable = keras_internals.kernel(self)
        value = variable
        for factors in adapters_of(self).values():
            value = ops.add(value, ops.cast(ops.multiply(factors.gate, change(variable, factors)), value.dtype))
        return value


class AdaptedDense(AdaptedLayer):
    """`Dense` and `EinsumDense` with adapters."""

    def call(self, inputs, training=None):
        """The frozen product, the adapters beside it, the activation."""
        return self._around("call", inputs, training=training)

    @property
    def kernel(self):
        """The kernel as it counts, adapters included."""
        return self._effective()


class AdaptedConv(AdaptedLayer):
    """`Conv1D`, `Conv2D` and `Conv3D` with adapters."""

    def call(self, inputs):
        """The frozen convolution, the adapters beside it, the activation."""
        return self._around("call", inputs)

    @property
    def kernel(self):
        """The kernel as it counts, adapters included."""
        return self._effective()

    def _bias_over_outputs(self):
        return next(iter(adapters_of(self).values())).matrix.over_outputs(self.bias)


class AdaptedEmbedding(AdaptedLayer):
    """`Embedding` and `ReversibleEmbedding` with adapters: in the lookup, and in the logits where the table is tied."""

    def call(self, inputs, *arguments, **options):
        """The rows looked up, or the logits, with what the adapters add."""
        return self._around("call", inputs, *arguments, **options)

    def _around(self, method: str, inputs, *arguments, training=None, **options):
        backwards = (arguments or options) and bool(options.get("reverse", arguments[:1] == (True,)))
        cap = getattr(self, "logit_soft_cap", None) if backwards else None
        plain = self._without_adapters(**({"logit_soft_cap": None} if cap is not None else {}))
        result = getattr(plain, method)(inputs, *arguments, **options)
        if backwards and not self.tie_weights:
            return result
        for factors in adapters_of(self).values():
            product = factors.matrix.beside_backwards if backwards else factors.matrix.beside
            scaled = ops.multiply(factors.b, factors.gate * factors.spec.scale)
            result = ops.add(result, ops.cast(product(inputs, factors.a, scaled), result.dtype))
        return result if cap is None else ops.multiply(ops.tanh(ops.divide(result, cap)), cap)

    def compute_mask(self, inputs, mask=None):
        """The mask of a lookup with `mask_zero`; the logits have none."""
        if not self.mask_zero or "int" not in keras.backend.standardize_dtype(inputs.dtype):
            return None
        return ops.not_equal(inputs, 0)

    @property
    def embeddings(self):
        """The table as it counts, adapters included."""
        return self._effective()


class AdaptedOwner(Adapted):
    """A model, or a layer of layers, with an adapted layer somewhere below it."""

    def save_own_variables(self, store: Any) -> None:
        """Writes the layer's own weights, and what the adapters that do not count just now trained beside factors."""
        from keras_transfer.adapters import beside

        super().save_own_variables(store)
        for key, value in beside.stored(self):
            store[key] = value

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote."""
        from keras_transfer.adapters import beside

        values = {key: store[key] for key in store.keys()}  # noqa: SIM118  not every store can be iterated
        super().load_own_variables(beside.load(self, values))

    def save_to_preset(self, *arguments: object, **options: object) -> None:
        """Refused: a KerasHub preset has no place for an adapter."""
        self._refuse("save_to_preset", "a KerasHub preset")

    def save_lora_weights(self, *arguments: object, **options: object) -> None:
        """Refused: it would leave out biases, head, scale and base."""
        self._refuse("save_lora_weights", "KerasHub's file of LoRA weights")

    def export_to_transformers(self, *arguments: object, **options: object) -> None:
        """Refused: it would write the frozen kernels and drop the adapter."""
        self._refuse("export_to_transformers", "a Hugging Face checkpoint")

    def _refuse(self, method: str, what: str) -> None:
        raise ValueError(
            explain(
                f"{what[0].upper()}{what[1:]} has no place for this adapter.",
                given=f"`{method}` of {self.name!r}, which carries adapters",
                to_mend="`merge_adapter(model)` first, or write the adapter alone with `save_adapter(model, folder)`",
            )
        )


_CARRIERS = {
    keras.layers.Dense: AdaptedDense,
    keras.layers.EinsumDense: AdaptedDense,
    keras.layers.Embedding: AdaptedEmbedding,
    keras.layers.Conv1D: AdaptedConv,
    keras.layers.Conv2D: AdaptedConv,
    keras.layers.Conv3D: AdaptedConv,
}


@functools.cache
def _exchanged(stock: type[keras.Layer], mixin: type[Adapted]) -> type[keras.Layer]:
    made = type(
        stock.__name__,
        (mixin, stock),
        {
            "_stock": stock,
            "__module__": __name__,
            "__qualname__": f"Adapted[{stock.__name__}]",
            "__doc__": stock.__doc__,
        },
    )
    return _register(made)


def _register(kind: type) -> type:
    """Makes Keras write `keras_transfer>Adapted` for a class, and read that name as `Adapted`, whatever came last."""
    keras.saving.register_keras_serializable("keras_transfer", "Adapted")(kind)
    keras.saving.register_keras_serializable("keras_transfer", "Adapted")(Adapted)
    return kind


_register(Adapted)


def is_adapted(layer: keras.Layer) -> bool:
    """Whether the layer, or one below it, carries an adapter."""
    return isinstance(layer, Adapted)


def stock_class(layer: keras.Layer) -> type[keras.Layer]:
    """The class of the layer without any adapter."""
    return getattr(type(layer), "_stock", type(layer))


def exchange(model: keras.Layer) -> None:
    """Gives every layer at and below `model` the class that its adapters, or their absence, ask for."""
    carriers = {id(layer) for layer in adapted_layers(model)}
    for layer in [model, *state.sublayers(model)]:
        stock = stock_class(layer)
        if id(layer) in carriers:
            mixin = _CARRIERS[kind_of(layer)]
        elif any(id(below) in carriers for below in state.sublayers(layer)):
            mixin = AdaptedOwner
        else:
            keras_internals.set_class(layer, stock)
            layer.__dict__.pop(_TRAINS, None)
            continue
        keras_internals.set_class(layer, _exchanged(stock, mixin))


def attach(layer: keras.Layer, name: str, spec: FactorsSpec, values: dict[str, Any]) -> Factors:
    """Puts an adapter on one layer; `exchange` has to follow. Its gate is open where `values["gate"]` is 1.

    Args:
        values: arrays by kind, as in `Factors.variables`; what is left out is zero.
    """
    adapters = layer.__dict__.setdefault(_ADAPTERS, {})
    adapters[name] = Factors(layer, name, spec, values)
    return adapters[name]


def detach(layer: keras.Layer, name: str) -> tuple[FactorsSpec, dict[str, np.ndarray]]:
    """Takes an adapter off one layer and hands back what `attach` needs to put it on; `exchange` has to follow."""
    factors = adapters_of(layer).pop(name)
    if not adapters_of(layer):
        layer.__dict__.pop(_ADAPTERS)
    values = {kind: np.array(ops.convert_to_numpy(variable)) for kind, variable in factors.variables.items()}
    for variable in factors.variables.values():
        keras_internals.drop_variable(layer, variable)
    if factors.dropout:
        keras_internals.drop_layer(layer, factors.dropout)
    return factors.spec, values


def set_what_trains(layer: keras.Layer, variables: Sequence[keras.Variable]) -> None:
    """Makes exactly `variables` train, of all at and below `layer`, and sets every layer's flag to match."""
    wanted = {id(variable) for variable in variables}
    for each in [layer, *state.sublayers(layer)]:
        held = [id(variable) for variable in each.variables if not state.is_seed(variable)]
        if held:
            keras_internals.set_flag(each, not wanted.isdisjoint(held))
    for variable in layer.variables:
        if not state.is_seed(variable):
            variable.trainable = id(variable) in wanted


def remember_what_trains(layer: keras.Layer, variables: Sequence[keras.Variable]) -> None:
    """`set_what_trains`; and every adapted layer at and below `layer` goes back to it when its flag is set `True`."""
    set_what_trains(layer, variables)
    wanted = {id(variable) for variable in variables}
    for each in [layer, *state.sublayers(layer)]:
        if is_adapted(each):
            each.__dict__[_TRAINS] = tuple(variable for variable in each.variables if id(variable) in wanted)


def change(kernel: Any, factors: Factors) -> Any:
    """What an adapter adds to a kernel, in the kernel's shape and float32, whether its gate is open or not."""
    update = ops.multiply(factors.matrix.update(factors.a, factors.b), factors.spec.scale)
    if factors.magnitude is None:
        return update
    kernel = ops.cast(kernel, "float32")
    ratio = ops.add(dora_growth(kernel, factors), 1.0)
    grown = ops.multiply(factors.matrix.flat(ops.add(kernel, update)), ratio)
    return ops.subtract(factors.matrix.nested(grown), kernel)


def dora_growth(kernel: Any, factors: Factors) -> Any:
    """DoRA's m / ‖W + s A B‖ - 1 for each column (Liu et al. 2024, arXiv:2402.09353), without making A B.

    ‖W + s A B‖² is ‖W‖² + 2 s · (Wᵀ A) B + s² · Bᵀ (Aᵀ A) B, column by column. The norm takes no gradient, as in
    section 4.3 there. What is learnt is m - ‖W‖, so that at the start the growth is 0 to the last bit.
    """
    weight = ops.cast(factors.matrix.flat(kernel), "float32")
    a, b = (ops.cast(factor, "float32") for factor in factors.matrix.flat_factors(factors.a, factors.b))
    scale = factors.spec.scale
    squares = ops.sum(ops.square(weight), axis=0)
    crossed = ops.sum(ops.multiply(ops.matmul(ops.transpose(a), weight), b), axis=0)
    added = ops.sum(ops.multiply(b, ops.matmul(ops.matmul(ops.transpose(a), a), b)), axis=0)
    grown = ops.add(ops.add(squares, ops.multiply(crossed, 2 * scale)), ops.multiply(added, scale * scale))
    tiny = 1e-12  # a column of zeros has no direction: its length is left alone
    length = ops.sqrt(ops.maximum(squares, tiny))
    norm = ops.stop_gradient(ops.sqrt(ops.maximum(grown, tiny)))
    longer = ops.add(ops.subtract(length, norm), ops.cast(factors.magnitude, "float32"))
    return ops.divide(longer, norm)


def keras_lora_factors(layer: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    """The factors of Keras' own adapter on a layer."""
    kind = "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"
    a, b = getattr(layer, f"lora_{kind}_a"), getattr(layer, f"lora_{kind}_b")
    return np.array(ops.convert_to_numpy(a)), np.array(ops.convert_to_numpy(b))


def release_keras_lora(layer: keras.Layer) -> None:
    """Takes Keras' own adapter off a layer, as if `enable_lora` had never been called."""
    kind = "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"
    with keras_internals.growing(layer):
        for name in (f"lora_{kind}_a", f"lora_{kind}_b"):
            delattr(layer, name)
    layer.lora_enabled, layer.lora_rank, layer.lora_alpha = False, None, None


def _names(keys) -> str:
    return ", ".join(sorted({repr(key.rsplit(".", 1)[0]) for key in keys}))


def factors_spec(spec: LoRA, rank: int) -> FactorsSpec:
    """What the spec says of one layer of this rank."""
    return FactorsSpec(rank, spec.alpha_or_default, spec.scaling, spec.factors, spec.dora, spec.dropout)

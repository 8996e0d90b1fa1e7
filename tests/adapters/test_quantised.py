"""Adapters beside 8-bit and 4-bit kernels; what Keras accepts without effect, or breaks on, is refused."""

import keras
import numpy as np
import pytest
from adapters import families, small

from keras_transfer.adapters import layers
from keras_transfer.adapters.attach import add_lora
from keras_transfer.adapters.files import load_adapter, save_adapter
from keras_transfer.adapters.switch import merge_adapter, remove_adapter, set_adapter

TARGETS = ["words", "query", "output", "wide"]


def _model():
    """As `small.transformer`, without `MultiHeadAttention`: Keras cannot open a quantised one again."""
    keras.utils.set_random_seed(3)
    tokens = keras.Input((small.LENGTH,), dtype="int32")
    x = keras.layers.Embedding(small.WORDS, 8, name="words")(tokens)
    x = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de", name="query")(x)
    x = keras.layers.EinsumDense("abde,def->abf", (None, 8), bias_axes="f", name="output")(x)
    x = keras.layers.Dense(16, activation="gelu", name="wide")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(tokens, keras.layers.Dense(small.CLASSES, name="head")(x), name="small")


def _quantised(mode):
    model = _model()
    for name in TARGETS:
        model.get_layer(name).quantize(mode)
    return model


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_float_adapter_trains_beside_a_quantised_kernel(mode, tmp_path):
    model = _quantised(mode)
    base = small.outputs(model)
    table = add_lora(model, rank=2, targets=TARGETS, train=[model.get_layer("head")])
    assert {row.kernel_shape for row in table} == {(20, 8), (8, 2, 4), (2, 4, 8), (8, 16)}
    assert all(mode in row.kind for row in table)
    np.testing.assert_array_equal(small.outputs(model), base)
    frozen = [small.array(variable) for variable in layers.base_variables(model)]
    losses = small.train(small.compiled(model, rate=0.05, eagerly=True), epochs=6)
    assert losses[-1] < losses[0] - 0.01
    for variable, before in zip(layers.base_variables(model), frozen, strict=True):
        assert variable.path.startswith("head") or np.array_equal(small.array(variable), before)
    trained = small.outputs(model)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(small.outputs(keras.models.load_model(tmp_path / "model.keras")), trained)
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(small.outputs(model), trained)
    save_adapter(model, tmp_path / "adapter")
    set_adapter(model, None)
    np.testing.assert_array_equal(small.outputs(model), base)
    remove_adapter(model, "default")
    load_adapter(model, tmp_path / "adapter")
    np.testing.assert_array_equal(small.outputs(model), trained)


@pytest.mark.both_backends
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_the_product_beside_is_the_float_one(mode):
    layer = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de", activation="tanh", name="query")
    model = keras.Sequential([keras.Input((3, 8)), layer])
    layer.quantize(mode)
    inputs = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
    before = np.arctanh(small.outputs(model, inputs).astype("float64"))
    add_lora(model, rank=2, alpha=4, targets="query")
    small.stir(model)
    a, b = (small.array(variable) for variable in layers.factor_variables(model, "default"))
    expected = np.tanh(before + (2 * inputs.reshape(-1, 8) @ a @ b).reshape(2, 3, 2, 4))
    np.testing.assert_allclose(small.outputs(model, inputs), expected, rtol=1e-4, atol=1e-5)


def test_a_quantised_kernel_takes_no_merge_and_no_dora():
    model = _quantised("int8")
    add_lora(model, rank=2, targets="query")
    with pytest.raises(ValueError, match="A quantised kernel has no room for an adapter"):
        merge_adapter(model)
    with pytest.raises(ValueError, match="DoRA needs the length of each column"):
        add_lora(model, rank=2, targets="query", dora=True, name="dora")
    with pytest.raises(ValueError, match="no sum"):
        _ = layers.adapted_layers(model)[0].kernel


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("float8", "Keras' float8 forward pass refuses adapters"),
        ("gptq", "Keras has no adapters for GPTQ layers"),
        ("awq", "Keras accepts an adapter on an AWQ layer and never applies it"),
    ],
)
def test_what_keras_breaks_on_is_refused_with_the_reason(mode, reason):
    model = _model()
    options = {}
    if mode in ("gptq", "awq"):
        kind = {"gptq": keras.quantizers.GPTQConfig, "awq": keras.quantizers.AWQConfig}[mode]
        options["config"] = kind(dataset=None, tokenizer=None)
    model.get_layer("wide").quantize(mode, **options)
    for targets in ("wide", "all-linear"):
        with pytest.raises(ValueError) as raised:
            add_lora(model, targets=targets)
        assert reason in str(raised.value)


def test_an_adapter_moves_from_a_quantised_to_the_float_base(tmp_path):
    model = _quantised("int8")
    add_lora(model, rank=2, targets="query")
    small.stir(model)
    save_adapter(model, tmp_path)
    float_model = _model()
    with pytest.raises(ValueError, match="another configuration"):
        load_adapter(float_model, tmp_path)
    load_adapter(float_model, tmp_path, check="shapes")
    np.testing.assert_allclose(small.outputs(float_model), small.outputs(model), atol=0.05)


def test_what_keras_cannot_open_is_said_where_it_is_opened(tmp_path):
    model = small.transformer()
    model.quantize("int8", filters=lambda layer: layer.name != "head")
    add_lora(model, rank=2, targets="query")
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="quantised MultiHeadAttention"):
        keras.models.load_model(tmp_path / "model.keras")


def test_a_quantised_keras_hub_body_opens_again(tmp_path):
    body = families.bert()
    body.quantize("int8", filters=lambda layer: layer.name in ("query", "value", "feedforward_output_dense"))
    add_lora(body, rank=2)
    small.stir(body)
    inputs = families.batch(body)
    body.save(tmp_path / "body.keras")
    again = keras.models.load_model(tmp_path / "body.keras")
    one, other = (small.array(model(inputs)["sequence_output"]) for model in (body, again))
    np.testing.assert_array_equal(one, other)
    assert len(again.trainable_variables) == 8

"""Putting adapters on: nothing changes at the start, exactly what was asked for trains, the base stands still."""

import keras
import numpy as np
import pytest
from adapters import families, small
from bodies import classifier

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.adapters import layers
from keras_transfer.adapters.attach import active, add_lora, adopt_lora, names
from keras_transfer.adapters.lora import LoRA
from keras_transfer.adapters.switch import set_adapter

EVERY_KIND = {"targets": ["query", "attention_output", "wide", "words"]}


def _base(model):
    return {id(v): small.array(v) for v in layers.base_variables(model) if not state.is_seed(v)}


def _moved(model, before):
    return {
        variable.path
        for variable in layers.base_variables(model)
        if id(variable) in before and not np.array_equal(before[id(variable)], small.array(variable))
    }


def _trains(model):
    return {variable.path for variable in model.trainable_variables}


@pytest.mark.both_backends
@pytest.mark.parametrize(
    "fields",
    [
        EVERY_KIND,
        {"targets": "attention", "dora": True},
        {"targets": "all-linear", "dora": True, "scaling": "rslora"},
        {"targets": "all-linear", "factors": "keras"},
        {"targets": "attention", "dropout": 0.5, "biases": "all"},
    ],
    ids=str,
)
def test_at_the_start_the_outputs_are_the_bases_to_the_last_bit(fields):
    model = small.transformer()
    before = small.outputs(model)
    compiled = model.predict(small.words(), verbose=0)
    add_lora(model, rank=3, **fields)
    np.testing.assert_array_equal(small.outputs(model), before)
    np.testing.assert_array_equal(model.predict(small.words(), verbose=0), compiled)


def test_convolutions_start_unchanged_too():
    model = small.convolutional()
    before = small.outputs(model, small.pictures())
    table = add_lora(model, rank=2, targets=["stem", "grouped"], dora=True)
    np.testing.assert_array_equal(small.outputs(model, small.pictures()), before)
    # r · (rows + columns), and a length for each column
    assert [row.parameters for row in table] == [2 * (3 * 3 * 4 + 8) + 8] * 2  # the second: 8 channels in 2 groups


@pytest.mark.both_backends
def test_exactly_the_adapter_and_what_was_named_trains():
    model = small.transformer()
    add_lora(model, rank=2, targets="query", train=[model.get_layer("head")])
    assert _trains(model) == {
        *(f"attention/query/lora_{kind}_default" for kind in "ab"),
        *("head/kernel", "head/bias"),
    }
    assert len(model.trainable_variables) == 4


@pytest.mark.both_backends
def test_the_base_is_bit_identical_after_training():
    model = small.transformer(dropout=0.2)
    model.get_layer("norm").trainable = False
    add_lora(model, rank=2, train=[model.get_layer("head")], **EVERY_KIND)
    before = _base(model)
    losses = small.train(small.compiled(model), epochs=5)
    assert losses[-1] < losses[0]
    assert _moved(model, before) == {"head/kernel", "head/bias"}
    for layer in layers.adapted_layers(model):
        for variable in layers.adapters_of(layer)["default"].trained.values():
            assert np.any(small.array(variable)), variable.path


@pytest.mark.both_backends
def test_statistics_of_a_frozen_batch_norm_stand_still():
    model = small.convolutional()
    add_lora(model, rank=2, targets="stem", train=[model.get_layer("head")])
    before = _base(model)
    small.train(small.compiled(model, eagerly=True), inputs=small.pictures(6))
    assert _moved(model, before) == {"head/kernel", "head/bias"}


@pytest.mark.parametrize(
    ("biases", "found"),
    [
        ("none", set()),
        ("adapted", {"attention/query/bias"}),
        (
            "all",
            {f"attention/{n}/bias" for n in ("query", "key", "value", "attention_output")}
            | {"norm/beta", "wide/bias", "narrow/bias", "head/bias"},
        ),
    ],
)
def test_biases(biases, found):
    model = small.transformer()
    table = add_lora(model, rank=2, targets="query", biases=biases)
    assert {path for path in _trains(model) if "lora" not in path} == found
    assert {path for path, _ in table.beside} == found
    assert table.trainable_parameters == sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_biases_of_batch_norm_stay_frozen():
    model = small.convolutional()
    add_lora(model, rank=2, targets="stem", biases="all")
    assert not [path for path in _trains(model) if path.startswith("norm/")]


@pytest.mark.both_backends
def test_the_flag_of_a_model_switches_the_adapter_and_never_wakes_the_base():
    """Without adapters of ours, `backbone.trainable = True` wakes every base kernel on JAX."""
    model = small.transformer()
    add_lora(model, rank=2, targets="query", biases="adapted")
    wanted = _trains(model)
    model.trainable = False
    assert _trains(model) == set()
    model.trainable = True
    assert _trains(model) == wanted
    for layer in model.layers:
        layer.trainable = False
        layer.trainable = True
    assert {path for path in _trains(model) if path.startswith("attention/")} == wanted


@pytest.mark.both_backends
def test_a_model_around_an_adapted_one_does_not_wake_its_base():
    body = small.transformer()
    add_lora(body, rank=2, targets="query")
    inputs = keras.Input((small.LENGTH,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Dense(2, name="top")(body(inputs)), trainable=True)
    assert _trains(model) == {
        "attention/query/lora_a_default",
        "attention/query/lora_b_default",
        "top/kernel",
        "top/bias",
    }


@pytest.mark.both_backends
def test_an_optimizer_that_knows_other_variables_raises():
    """With Keras' own `enable_lora`, TensorFlow goes on training the old weights without a word."""
    model = small.compiled(small.transformer())
    small.train(model, epochs=1)
    add_lora(model, rank=2)
    with pytest.raises(ValueError):
        small.train(model, epochs=1)


def test_an_optimizer_of_a_model_around_it_raises_as_well():
    body = small.transformer()
    inputs = keras.Input((small.LENGTH,), dtype="int32")
    model = small.compiled(keras.Model(inputs, keras.layers.Dense(small.CLASSES)(body(inputs))))
    small.train(model, epochs=1)
    before = model.predict(small.words(), verbose=0)
    add_lora(body, rank=2)
    np.testing.assert_allclose(model.predict(small.words(), verbose=0), before, atol=1e-6)
    small.stir(body)
    assert np.abs(model.predict(small.words(), verbose=0) - before).max() > 1e-3
    with pytest.raises(ValueError):
        small.train(model, epochs=1)


@pytest.mark.parametrize("rank", [4, 8, 16])
def test_counts_are_pefts_for_bert_base(rank):
    """peft 0.21 on transformers' BertModel: 147,456, 294,912 and 589,824 numbers."""
    numbers = rank * (768 + 768) * 2 * 12
    assert numbers == {4: 147456, 8: 294912, 16: 589824}[rank]
    model = families.bert()
    table = add_lora(model, rank=rank)
    assert table.parameters == rank * (8 + 8) * 2 * 2 == sum(row.parameters for row in table)


def test_keras_factors_are_those_of_enable_lora():
    model = small.transformer()
    table = add_lora(model, rank=2, alpha=6, targets="query", factors="keras")
    assert table.parameters == 2 * (8 * 2) + 2 * 4
    other = small.transformer()
    other.set_weights([small.array(v) for v in layers.base_variables(model)])
    query = next(layer for layer in state.sublayers(other) if layer.name == "query")
    query.enable_lora(2, lora_alpha=6)
    small.stir(model)
    factors = layers.adapters_of(layers.adapted_layers(model)[0])["default"]
    query.lora_kernel_a.assign(factors.a)
    query.lora_kernel_b.assign(factors.b)
    np.testing.assert_allclose(small.outputs(model), small.outputs(other), rtol=1e-5, atol=1e-6)


def test_a_seed_draws_the_same_factors_whatever_was_drawn_before():
    drawn = []
    for noise in (0, 3):
        model = small.transformer()
        keras.utils.set_random_seed(noise)
        add_lora(model, rank=2, seed=7)
        drawn.append([small.array(v) for v in layers.factor_variables(model)])
    assert all(np.array_equal(one, other) for one, other in zip(*drawn, strict=True))


def test_a_is_drawn_as_peft_draws_it():
    model = keras.Sequential([keras.Input((400,)), keras.layers.Dense(300, name="query")])
    add_lora(model, rank=50, targets="query", seed=0)
    a, b, _ = (small.array(variable) for variable in layers.factor_variables(model))
    assert np.abs(a).max() <= 400**-0.5
    np.testing.assert_allclose(a.std(), 400**-0.5 / 3**0.5, rtol=0.02)
    assert not b.any()


def test_two_adapters_on_one_base():
    model = small.transformer()
    add_lora(model, rank=2, targets="query", name="first")
    add_lora(model, rank=5, targets="all-linear", name="second")
    assert names(model) == ("first", "second")
    assert active(model) == "second"
    assert all("second" in path for path in _trains(model))


def test_a_table_is_printed():
    model = small.transformer()
    text = str(add_lora(model, rank=2, targets=["query", "wide"], train=[model.get_layer("head")]))
    assert "attention/query  EinsumDense  (8, 2, 4)     2          32" in text
    assert "beside them: head/kernel, head/bias: 27" in text
    assert "adapter 'default' trains 107 numbers" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "base"}, "cannot be called that"),
        ({"name": "a/b"}, "cannot be called that"),
        ({"spec": LoRA(), "rank": 2}, "takes one LoRA, or its fields"),
        ({"train": ["head"]}, "not a layer of small"),
        ({"targets": "words", "dora": True}, "of an embedding"),
        ({"targets": "words", "dropout": 0.1}, "Dropout falls on an adapter's input"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_done(fields, words):
    model = small.transformer()
    with pytest.raises(ValueError) as raised:
        add_lora(model, **fields)
    assert words in str(raised.value)
    assert not layers.is_adapted(model)
    assert len(model.trainable_variables) == len(small.transformer().trainable_variables)


def test_a_name_is_taken_once():
    model = small.transformer()
    add_lora(model)
    with pytest.raises(ValueError, match="has an adapter of that name already"):
        add_lora(model, targets="wide")
    with pytest.raises(ValueError, match="carries adapters of keras_transfer already"):
        model.get_layer("attention").enable_lora(2)


@pytest.mark.both_backends
def test_adapters_of_keras_hub_are_adopted():
    body = families.bert()
    inputs = families.batch(body)
    body.enable_lora(2)
    generator = np.random.default_rng(0)
    for variable in body.trainable_variables:
        if "lora" in variable.path:
            variable.assign(generator.normal(size=variable.shape))
    before = small.array(body(inputs)["sequence_output"])
    table = adopt_lora(body)
    assert [row.path.rsplit("/", 1)[1] for row in table] == ["query", "value"] * 2
    # Keras' shapes: A (8, 2, 2), B (2, 4)
    assert table.parameters == 4 * (8 * 2 * 2 + 2 * 4)
    assert len(body.trainable_variables) == 8
    np.testing.assert_allclose(small.array(body(inputs)["sequence_output"]), before, rtol=1e-5, atol=1e-5)
    set_adapter(body, None)
    assert np.abs(small.array(body(inputs)["sequence_output"]) - before).max() > 1e-2


def test_adopted_biases_train_as_keras_hub_trains_them():
    body = families.bert()
    body.enable_lora(2)
    trained_by_keras = {v.path for v in body.trainable_variables if v.name == "bias"}
    adopt_lora(body, biases="adapted")
    assert {v.path for v in body.trainable_variables if v.name == "bias"} == trained_by_keras != set()


def test_an_alpha_survives_adoption():
    """Keras' Dense loses it when it is rebuilt: 32 becomes 2 at rank 2."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="query")])
    model.layers[0].enable_lora(2, lora_alpha=32)
    adopt_lora(model)
    again = keras.models.clone_model(model)
    assert layers.adapters_of(again.layers[0])["default"].spec.scale == 16


def test_keras_own_adapters_have_to_be_adopted_first():
    model = small.transformer()
    query = next(layer for layer in state.sublayers(model) if layer.name == "query")
    query.enable_lora(2)
    with pytest.raises(ValueError, match="`adopt_lora\\(model\\)` takes them over"):
        add_lora(model)
    with pytest.raises(ValueError, match="`adopt_lora\\(model\\)` first"):
        set_adapter(model, "default")


def test_factors_that_a_keras_checkpoint_has_killed_are_not_adopted(tmp_path):
    """Keras' `load_weights` sets A and B to zero, where both gradients are zero for ever."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="query")])
    model.layers[0].enable_lora(2)
    model.save_weights(tmp_path / "killed.weights.h5")
    model.load_weights(tmp_path / "killed.weights.h5")
    with pytest.raises(ValueError, match="neither can ever learn again"):
        adopt_lora(model)


def test_nothing_to_adopt_is_an_error():
    with pytest.raises(ValueError, match="no adapters of Keras' own"):
        adopt_lora(small.transformer())


@pytest.mark.both_backends
def test_in_a_body_that_a_builder_has_frozen_dropout_falls_where_something_trains_and_nowhere_else():
    """The frozen layers around an adapter would else tell its dropout that this is inference, silently."""
    model = classifier()
    add_lora(model, targets="block2_conv", rank=2, dropout=0.5)
    small.stir(model)
    ones = np.ones((1, 1000), "float32")
    dropped = {
        layer.name: bool(np.any(small.array(layer(ones, training=True)) == 0))
        for layer in state.sublayers(model)
        if isinstance(layer, keras.layers.Dropout)
    }
    assert dropped == {
        "block1_drop": False, "block2_drop": True, "block3_drop": False, "lora_dropout_default": True,
        "head_dropout": False,
    }  # fmt: skip


def test_an_adapter_on_a_body_of_keras_hub_that_a_builder_has_frozen_drops_its_inputs():
    body = families.bert()
    model = kt.text_classifier(body, 2, dropout=0.0)
    model.get_layer("head").kernel.assign(np.random.default_rng(0).normal(size=(8, 2)))
    inputs = families.batch(model)
    before = small.array(model(inputs, training=True))
    np.testing.assert_array_equal(small.array(model(inputs, training=True)), before)
    add_lora(model, rank=2, targets="transformer_layer_1/*/query", dropout=0.5)
    small.stir(model)
    one, other = (small.array(model(inputs, training=True)) for _ in range(2))
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(small.array(model(inputs)), small.array(model(inputs)))

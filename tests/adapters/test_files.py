"""Adapters as folders: what was trained is what is saved, what is saved is what is loaded, on its own base."""

import json
import os

import keras
import keras_hub
import numpy as np
import pytest
import safetensors.numpy
from adapters import families, small
from vocabularies import word_pieces

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.adapters import base_identity, layers
from keras_transfer.adapters.attach import active, add_lora, adopt_lora, names
from keras_transfer.adapters.files import load_adapter, read_adapter, save_adapter
from keras_transfer.adapters.switch import remove_adapter, set_adapter


def _adapted(**fields):
    """Every weight that trains is moved by chance, which takes less time than training it."""
    model = small.transformer()
    add_lora(model, rank=2, **({"train": [model.get_layer("head")], "targets": ["query", "wide"]} | fields))
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.3 * generator.normal(size=variable.shape))
    return model


def _trained(**fields):
    model = _adapted(**fields)
    small.train(small.compiled(model, rate=0.05, eagerly=True))
    return model


def _error(model, folder, **options):
    before = [small.array(variable) for _, variable in state.walk(model)]
    adapters = names(model), active(model)
    with pytest.raises(ValueError) as raised:
        load_adapter(model, folder, **options)
    after = [small.array(variable) for _, variable in state.walk(model)]
    assert (names(model), active(model)) == adapters
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    return str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"targets": "all-linear", "biases": "all", "scaling": "rslora", "alpha": 32, "ranks": {"wide": 5}},
        {"targets": "attention", "dora": True, "dropout": 0.1, "train": []},
        {"targets": ["query", "words"], "factors": "keras"},
    ],
    ids=str,
)
def test_an_adapter_comes_back_onto_a_fresh_base(fields, tmp_path):
    model = _adapted(**fields)
    save_adapter(model, tmp_path)
    fresh = small.transformer()
    table = load_adapter(fresh, tmp_path)
    np.testing.assert_array_equal(small.outputs(fresh), small.outputs(model))
    assert [v.path for v in fresh.trainable_variables] == [v.path for v in model.trainable_variables]
    assert [layers.adapters_of(layer)["default"].spec for layer in layers.adapted_layers(fresh)] == [
        layers.adapters_of(layer)["default"].spec for layer in layers.adapted_layers(model)
    ]
    assert table.trainable_parameters == sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    set_adapter(fresh, None)
    np.testing.assert_array_equal(small.outputs(fresh), small.outputs(small.transformer()))


@pytest.mark.both_backends
def test_training_goes_on_where_it_stopped(tmp_path):
    model = _trained()
    save_adapter(model, tmp_path)
    fresh = small.transformer()
    load_adapter(fresh, tmp_path)
    again, unbroken = (small.train(small.compiled(each, eagerly=True)) for each in (fresh, model))
    assert again == pytest.approx(unbroken, rel=1e-5)


def test_the_folder_says_what_it_is(tmp_path):
    model = _adapted(alpha=16, scaling="rslora")
    save_adapter(model, tmp_path, card={"classes": ["bad", "fair", "good"], "tokenizer": {"lowercase": True}})
    found = read_adapter(tmp_path)
    assert found["card"] == {"classes": ["bad", "fair", "good"], "tokenizer": {"lowercase": True}}
    assert [entry["path"] for entry in found["factors"]] == ["attention/query", "wide"]
    assert found["factors"][0]["spec"] | {} == {
        "rank": 2, "alpha": 16, "scaling": "rslora", "layout": "paper", "dora": False, "dropout": 0.0
    }  # fmt: skip
    assert [entry["path"] for entry in found["beside"]] == ["head/kernel", "head/bias"]
    assert found["base"]["class"] == "Functional"
    assert {"keras", "backend_version", "python", "machine"} <= found["machine"].keys()
    tensors = safetensors.numpy.load_file(tmp_path / "adapter.safetensors")
    assert tensors["factors/attention/query/a"].shape == (8, 2)
    assert tensors["factors/attention/query/b"].shape == (2, 8)
    assert sorted(os.listdir(tmp_path)) == ["adapter.json", "adapter.safetensors"]


def test_several_adapters_from_several_folders(tmp_path):
    answers = {}
    for name, targets in (("first", "query"), ("second", "all-linear")):
        model = _adapted(name=name, targets=targets)
        answers[name] = small.outputs(model)
        save_adapter(model, tmp_path / name)
    fresh = small.transformer()
    for name in answers:
        load_adapter(fresh, tmp_path / name)
    load_adapter(fresh, tmp_path / "first", name="again")
    for name, same_as in (("second", "second"), ("again", "first"), ("first", "first")):
        set_adapter(fresh, name)
        np.testing.assert_array_equal(small.outputs(fresh), answers[same_as])


def test_one_that_does_not_count_can_be_saved(tmp_path):
    model = _adapted(name="first")
    answers = small.outputs(model)
    add_lora(model, name="second", targets="narrow")
    save_adapter(model, tmp_path, name="first")
    assert active(model) == "second"
    fresh = small.transformer()
    load_adapter(fresh, tmp_path)
    np.testing.assert_array_equal(small.outputs(fresh), answers)


@pytest.mark.both_backends
def test_the_base_under_other_adapters_is_the_same_base(tmp_path):
    model = _adapted()
    save_adapter(model, tmp_path)
    other = small.transformer()
    add_lora(other, name="other", targets="all-linear", biases="all", train=[other.get_layer("head")])
    small.train(small.compiled(other, rate=0.1, eagerly=True))
    load_adapter(other, tmp_path)
    np.testing.assert_array_equal(small.outputs(other), small.outputs(model))


def test_other_base_weights_are_named_as_the_cause(tmp_path):
    save_adapter(_adapted(), tmp_path)
    other = small.transformer()
    kernel = other.get_layer("narrow").kernel
    kernel.assign(kernel * (1 + 1e-7 * (np.arange(8) == 3)))
    assert "The adapter was trained on other base weights." in _error(other, tmp_path)
    load_adapter(other, tmp_path, check="shapes")


def test_another_configuration_is_named_with_its_place(tmp_path):
    save_adapter(_adapted(), tmp_path)
    message = _error(small.transformer(dropout=0.5), tmp_path)
    assert "The adapter was trained on a base of another configuration." in message
    assert "given:     0.5 at config.layers.2.config.dropout\n  expected:  0.0" in message


def _other_width():
    tokens = keras.Input((small.LENGTH,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(small.WORDS, small.WIDTH)(tokens)
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = keras.layers.Dense(16, name="wide")(keras.layers.GlobalAveragePooling1D()(x))
    return keras.Model(tokens, keras.layers.Dense(small.CLASSES, name="head")(x), name="other")


def test_another_shape_is_named(tmp_path):
    save_adapter(_adapted(), tmp_path)
    message = _error(_other_width(), tmp_path)
    assert "factors for attention/query have another shape than the layer" in message
    assert "given:     factors for a EinsumDense kernel (8, 2, 4)\n  expected:  EinsumDense (8, 2, 3)" in message


def test_a_missing_layer_is_named(tmp_path):
    save_adapter(_adapted(targets="narrow"), tmp_path)
    message = _error(_other_width(), tmp_path)
    assert "factors for a layer that other does not have" in message
    assert "narrow, a Dense with a kernel (16, 8)" in message


def test_a_head_for_other_classes_is_named(tmp_path):
    save_adapter(_adapted(), tmp_path)
    model = small.transformer()
    pooled = model.get_layer("pool").output
    model = keras.Model(model.input, keras.layers.Dense(7, name="head")(pooled), name="seven")
    message = _error(model, tmp_path)
    assert "brings a weight that seven has in another shape" in message
    assert "head/kernel (8, 3)" in message


def _reader(classes=("bad", "good"), words=(), max_length=6):
    keras.utils.set_random_seed(7)
    tokenizer = word_pieces(words=words)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer)
    body = keras_hub.models.BertBackbone(max_sequence_length=8, **{**families.TEXT, "vocabulary_size": 30})
    return kt.text_classifier(body, classes, preprocessor=preprocessor, max_length=max_length)


def test_what_the_model_says_of_itself_is_in_the_folder_and_checked(tmp_path):
    model = _reader()
    add_lora(model, rank=2, train=[model.get_layer("head")])
    small.stir(model)
    save_adapter(model, tmp_path, card={"note": "second try"})
    card = read_adapter(tmp_path)["card"]
    assert (card["classes"], card["backbone"], card["note"]) == (["bad", "good"], "BertBackbone", "second try")
    assert card["preprocessor"]["config"]["config"]["sequence_length"] == 6
    assert [list(files) for files in card["preprocessor"]["files_sha256"]] == [["vocabulary.txt"]]
    fresh = _reader()
    load_adapter(fresh, tmp_path)
    np.testing.assert_array_equal(kt.predict(fresh, ["a good film"]), kt.predict(model, ["a good film"]))

    message = _error(_reader(classes=("good", "bad")), tmp_path)
    assert "The adapter was trained on other classes, or on these in another order." in message
    assert "tells apart good, bad\n  expected:  bad, good" in message
    assert "other classes" in _error(_reader(classes=("bad", "fair", "good")), tmp_path, check="shapes")
    assert "given:     5 at config.config.sequence_length\n  expected:  6" in _error(_reader(max_length=5), tmp_path)
    message = _error(_reader(words=["awful"]), tmp_path)
    assert "trained on texts that were read otherwise" in message
    assert "at files_sha256.0.vocabulary.txt" in message
    load_adapter(_reader(words=["awful"]), tmp_path, check="shapes")


def test_classes_that_are_only_counted_say_nothing(tmp_path):
    model = _reader(classes=2)
    add_lora(model, rank=2)
    save_adapter(model, tmp_path)
    load_adapter(_reader(), tmp_path)


def test_files_that_are_not_whole(tmp_path):
    model = _adapted()
    save_adapter(model, tmp_path / "good")
    fresh = small.transformer()
    assert "nearest:   good" in _error(fresh, tmp_path / "god")
    content = (tmp_path / "good" / "adapter.safetensors").read_bytes()
    (tmp_path / "good" / "adapter.safetensors").write_bytes(content[:-1])
    assert "is not the file that adapter.json was written with" in _error(fresh, tmp_path / "good")
    (tmp_path / "good" / "adapter.safetensors").unlink()
    assert "without adapter.safetensors" in _error(fresh, tmp_path / "good")
    (tmp_path / "good" / "adapter.safetensors").write_bytes(content)
    description = json.loads((tmp_path / "good" / "adapter.json").read_text())
    (tmp_path / "good" / "adapter.json").write_text(json.dumps(description | {"version": 99}))
    assert "version 99" in _error(fresh, tmp_path / "good")


def test_another_answer_to_the_probe_is_an_error_and_nothing_is_left(tmp_path, monkeypatch):
    save_adapter(_adapted(name="first"), tmp_path / "first")
    save_adapter(_adapted(name="second", targets="all-linear", biases="all"), tmp_path / "second")
    fresh = small.transformer()
    load_adapter(fresh, tmp_path / "first")
    stock = base_identity.answers
    monkeypatch.setattr(base_identity, "answers", lambda *given: [array * (1 + 1e-6) for array in stock(*given)])
    message = _error(fresh, tmp_path / "second")
    assert "does not answer the probe as it did" in message
    assert "the same to the last bit, on the machine that saved it" in message
    # On another machine, 1e-5 of the largest output is allowed.
    monkeypatch.setattr(base_identity, "machine", lambda: {"machine": "another"})
    load_adapter(fresh, tmp_path / "second")
    remove_adapter(fresh, "second")
    monkeypatch.setattr(base_identity, "answers", lambda *given: [array * (1 + 1e-4) for array in stock(*given)])
    assert "at most 1e-05" in _error(fresh, tmp_path / "second")


def test_names_and_choices(tmp_path):
    model = _adapted()
    save_adapter(model, tmp_path)
    assert "an adapter of that name already" in _error(model, tmp_path)
    assert "names no check" in _error(model, tmp_path, check="exactly")
    with pytest.raises(ValueError, match="names no format"):
        save_adapter(model, tmp_path, format="safetensors")
    with pytest.raises(ValueError, match="nearest:   default"):
        save_adapter(model, tmp_path, name="defualt")
    set_adapter(model, None)
    with pytest.raises(ValueError, match="say which one"):
        save_adapter(model, tmp_path)
    with pytest.raises(ValueError, match="has no adapter of that name"):
        save_adapter(small.transformer(), tmp_path)


def test_adopted_adapters_have_files_too(tmp_path):
    body = families.bert()
    weights = body.get_weights()
    body.enable_lora(2)
    adopt_lora(body, biases="adapted")
    small.stir(body)
    body.get_layer("transformer_layer_0")._self_attention_layer._query_dense.bias.assign(np.ones((2, 4)))
    save_adapter(body, tmp_path)
    fresh = families.bert()
    fresh.set_weights(weights)
    load_adapter(fresh, tmp_path)
    inputs = families.batch(body)
    one, other = (small.array(model(inputs)["sequence_output"]) for model in (body, fresh))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("family", ["t5", "blip2", "swin"])
def test_probes_are_made_up_for_other_families(family, tmp_path):
    body = getattr(families, family)()
    weights = body.get_weights()
    add_lora(body, rank=2)
    small.stir(body)
    save_adapter(body, tmp_path)
    fresh = getattr(families, family)()
    fresh.set_weights(weights)
    load_adapter(fresh, tmp_path)


def test_a_probe_can_be_given_and_has_to_be_where_none_can_be_made_up(tmp_path):
    model = _adapted()
    save_adapter(model, tmp_path / "own", probe=small.words(1))
    tensors = safetensors.numpy.load_file(tmp_path / "own" / "adapter.safetensors")
    np.testing.assert_array_equal(tensors["probe/input/0"], small.words(1))
    inputs = keras.Input((4,))
    divided = keras.Model(inputs, keras.layers.Dense(2, name="query")(inputs) / 0.0)
    add_lora(divided, targets="query")
    with pytest.raises(ValueError, match="give a batch that it takes"):
        save_adapter(divided, tmp_path / "other")


def _unnamed():
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(4)(keras.layers.Dense(4)(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def test_layers_whose_names_keras_counts_up_are_found_again(tmp_path):
    model = _unnamed()
    add_lora(model, rank=2, targets=[model.layers[2]], train=[model.layers[3]])
    small.stir(model)
    save_adapter(model, tmp_path)
    fresh = _unnamed()
    assert [layer.name for layer in fresh.layers] != [layer.name for layer in model.layers]
    load_adapter(fresh, tmp_path)
    inputs = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(small.outputs(fresh, inputs), small.outputs(model, inputs))

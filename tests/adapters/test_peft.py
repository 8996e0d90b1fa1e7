"""PEFT's files: names, shapes and numbers by hand; `benchmarks/peft_interchange.py` has the real package."""

import json

import numpy as np
import pytest
import safetensors.numpy
from adapters import families, small

import keras_transfer as kt
from keras_transfer.adapters import layers
from keras_transfer.adapters.attach import adapted_places, add_lora, names
from keras_transfer.adapters.files import load_adapter, save_adapter
from keras_transfer.adapters.switch import remove_adapter


def _answers(model):
    found = model(families.batch(model), training=False)
    return small.array(found["sequence_output"] if isinstance(found, dict) else found)


def _read(folder):
    tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    return tensors, json.loads((folder / "adapter_config.json").read_text())


def _write(folder, tensors, **config):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(
        {f"base_model.model.{name}": value.astype("float32") for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "bias": "none", "init_lora_weights": True} | config
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _factors(model, path):
    return next(layers.adapters_of(place.layer)["default"] for place in adapted_places(model) if place.path == path)


def test_bert_has_pefts_names_and_shapes(tmp_path):
    body = families.bert()
    add_lora(body, rank=4, alpha=16, dropout=0.1)
    small.stir(body)
    save_adapter(body, tmp_path, format="peft")
    tensors, config = _read(tmp_path)
    modules = [f"encoder.layer.{i}.attention.self.{name}" for i in range(2) for name in ("query", "value")]
    assert set(tensors) == {f"base_model.model.{module}.lora_{kind}.weight" for module in modules for kind in "AB"}
    assert {tensors[key].shape for key in tensors} == {(4, 8), (8, 4)}
    assert sorted(config["target_modules"]) == sorted(modules)
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == ("LORA", 4, 16, 0.1)
    assert (config["use_rslora"], config["use_dora"], config["fan_in_fan_out"]) == (False, False, False)
    factors = _factors(body, "transformer_layer_1/self_attention_layer/value")
    key = "base_model.model.encoder.layer.1.attention.self.value"
    np.testing.assert_array_equal(tensors[f"{key}.lora_A.weight"], small.array(factors.a).T)
    np.testing.assert_array_equal(tensors[f"{key}.lora_B.weight"], small.array(factors.b).T)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize(
    "fields",
    [
        {"rank": 2},
        {"rank": 3, "targets": "all-linear", "scaling": "rslora", "alpha": 5},
        {"rank": 2, "targets": "all-linear", "dora": True},
        {"rank": 2, "targets": ["token_embedding", "*_dense"]},
    ],
    ids=str,
)
def test_written_and_read_it_is_the_same_adapter(family, fields, tmp_path):
    body = getattr(families, family)()
    add_lora(body, **fields)
    small.stir(body)
    answers = _answers(body)
    save_adapter(body, tmp_path, format="peft")
    remove_adapter(body, "default")
    base = _answers(body)
    load_adapter(body, tmp_path)
    np.testing.assert_allclose(_answers(body), answers, rtol=1e-5, atol=1e-6)
    assert np.abs(base - answers).max() > 1e-3


def test_per_layer_ranks_are_patterns(tmp_path):
    body = families.bert()
    add_lora(body, rank=2, ranks={"transformer_layer_1/*/value": 5})
    small.stir(body)
    answers = _answers(body)
    save_adapter(body, tmp_path, format="peft")
    assert _read(tmp_path)[1]["rank_pattern"] == {"encoder.layer.1.attention.self.value": 5}
    remove_adapter(body, "default")
    load_adapter(body, tmp_path)
    np.testing.assert_allclose(_answers(body), answers, rtol=1e-5, atol=1e-6)


def test_gpt2s_fused_projection_is_cut_in_three(tmp_path):
    """One A for queries, keys and values; B (3 · 8, r) cut in three."""
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 8)), generator.normal(size=(24, 2))
    module = "h.1.attn.c_attn"
    _write(tmp_path, {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}, fan_in_fan_out=True)
    body = families.gpt2()
    table = load_adapter(body, tmp_path)
    assert [row.path for row in table] == [
        f"transformer_layer_1/self_attention/{name}" for name in ("query", "key", "value")
    ]
    for place, part in zip(adapted_places(body), np.split(b, 3), strict=True):
        factors = layers.adapters_of(place.layer)["default"]
        assert factors.spec.scale == 8 / 2
        np.testing.assert_allclose(small.array(factors.a), a.T, rtol=1e-6)
        np.testing.assert_allclose(small.array(factors.b), part.T, rtol=1e-6)


def test_gpt2s_fused_projection_is_written_on_a_diagonal(tmp_path):
    body = families.gpt2()
    add_lora(body, rank=2, alpha=6, blocks="top:1")
    small.stir(body)
    save_adapter(body, tmp_path, format="peft")
    tensors, config = _read(tmp_path)
    module = "base_model.model.h.1.attn.c_attn"
    # queries and values only: twice the rank, and the same scale
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (4, 12, True)
    query, value = (_factors(body, f"transformer_layer_1/self_attention/{name}") for name in ("query", "value"))
    down, up = tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"]
    assert (down.shape, up.shape) == ((4, 8), (24, 4))
    update = (up @ down).T
    np.testing.assert_allclose(update[:, :8], small.array(query.a) @ small.array(query.b), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(update[:, 8:16], 0)
    np.testing.assert_allclose(update[:, 16:], small.array(value.a) @ small.array(value.b), rtol=1e-4, atol=1e-6)


def test_an_rslora_adapter_counts_alpha_over_the_root_of_the_rank(tmp_path):
    generator = np.random.default_rng(0)
    module = "model.layers.0.self_attn.q_proj"  # as under a language modelling head
    a, b = generator.normal(size=(4, 8)), generator.normal(size=(8, 4))
    tensors = {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    _write(tmp_path, tensors, use_rslora=True, alpha_pattern={"layers.0.self_attn.q_proj": 12})
    body = families.llama()
    load_adapter(body, tmp_path, name="theirs")
    factors = next(iter(layers.adapters_of(adapted_places(body)[0].layer).values()))
    assert factors.spec.scale == 12 / 4**0.5
    assert names(body) == ("theirs",)


def test_a_language_model_is_written_with_its_heads_names(tmp_path):
    import keras_hub

    task = keras_hub.models.GPT2CausalLM(families.gpt2())
    add_lora(task, rank=2)
    save_adapter(task, tmp_path, format="peft")
    tensors, config = _read(tmp_path)
    assert config["task_type"] == "CAUSAL_LM"
    assert all(key.startswith("base_model.model.transformer.h.") for key in tensors)


@pytest.mark.parametrize("pooling", ["mean", "pooled"])
def test_a_text_classifier_is_written_and_read_as_its_body(pooling, tmp_path):
    body = families.bert()
    model = kt.text_classifier(body, ["bad", "good"], pooling=pooling)
    model.get_layer("head").kernel.assign(np.ones((8, 2)) * [1, -1] * np.arange(8)[:, None])
    add_lora(model, rank=2, targets="all-linear")
    small.stir(model)
    answers = small.array(model(families.batch(model)))
    save_adapter(model, tmp_path, format="peft")
    tensors, config = _read(tmp_path)
    assert "encoder.layer.0.attention.self.query" in config["target_modules"]
    assert ("pooler.dense" in config["target_modules"]) == (pooling == "pooled")
    assert all(key.startswith("base_model.model.") for key in tensors)
    remove_adapter(model, "default")
    assert np.abs(small.array(model(families.batch(model))) - answers).max() > 1e-3
    load_adapter(model, tmp_path)
    np.testing.assert_allclose(small.array(model(families.batch(model))), answers, rtol=1e-5, atol=1e-6)


def test_factors_of_a_pooler_are_left_out_with_a_warning_where_the_body_ends_below_it(tmp_path):
    whole = families.bert()
    add_lora(whole, rank=2, targets="all-linear")
    small.stir(whole)
    save_adapter(whole, tmp_path, format="peft")
    model = kt.text_classifier(families.bert(), 2)
    with pytest.warns(UserWarning, match="pooler.dense.lora_A"):
        table = load_adapter(model, tmp_path)
    assert len(table) == 12


def test_a_text_classifier_on_another_body_says_which(tmp_path):
    model = kt.text_classifier(families.distil_bert(), 2)
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match="given:     DistilBertBackbone"):
        save_adapter(model, tmp_path / "out", format="peft")


def test_a_head_is_left_out_with_a_warning(tmp_path):
    import keras_hub

    task = keras_hub.models.BertTextClassifier(families.bert(), num_classes=2)
    add_lora(task, rank=2, train=[task.get_layer("logits")])
    with pytest.warns(UserWarning, match="no place for the head; it is left out"):
        save_adapter(task, tmp_path, format="peft")
    tensors, _ = _read(tmp_path)
    assert len(tensors) == 8
    with_head = {key.removeprefix("base_model.model."): value for key, value in tensors.items()}
    _write(tmp_path, {**with_head, "classifier.bias": np.zeros(2)})
    with pytest.warns(UserWarning, match="no part of the body; they were not read"):
        load_adapter(families.bert(), tmp_path)


@pytest.mark.parametrize(
    ("family", "fields", "words"),
    [
        ("distil_bert", {}, "PEFT's names are not known for the body"),
        ("bert", {"biases": "all"}, "trained weights of the body as well"),
        ("bert", {"factors": "keras"}, "no place for factors in Keras' shapes"),
        ("gpt2", {"ranks": {"value": 4}}, "one scale for h.0.attn.c_attn"),
    ],
)
def test_what_peft_has_no_place_for_is_not_written(family, fields, words, tmp_path):
    body = getattr(families, family)()
    add_lora(body, rank=2, **fields)
    with pytest.raises(ValueError) as raised:
        save_adapter(body, tmp_path / "out", format="peft")
    assert words in str(raised.value)
    assert not (tmp_path / "out").exists()


_QUERY = "encoder.layer.0.attention.self.query"
_GOOD = {f"{_QUERY}.lora_A.weight": np.ones((2, 8)), f"{_QUERY}.lora_B.weight": np.ones((8, 2))}


@pytest.mark.parametrize(
    ("tensors", "config", "words"),
    [
        (_GOOD, {"peft_type": "IA3"}, "peft_type 'IA3'"),
        (_GOOD, {"bias": "all"}, "bias 'all'"),
        (_GOOD, {"init_lora_weights": "pissa"}, "which changes the base too"),
        (_GOOD, {"lora_bias": True}, "lora_bias"),
        ({f"{_QUERY}.lora_A.weight": np.ones((2, 8))}, {}, "One of the two factors"),
        ({**_GOOD, f"{_QUERY}.lora_B.weight": np.ones((9, 2))}, {}, "have other shapes than the model"),
        ({**_GOOD, "encoder.layer.7.output.dense.lora_A.weight": np.ones((2, 8))}, {}, "has no place for"),
        ({**_GOOD, "encoder.layer.0.attention.self.query.bias": np.ones(8)}, {}, "has no place for"),
    ],
)
def test_what_cannot_be_read_is_said_and_nothing_is_done(tensors, config, words, tmp_path):
    _write(tmp_path, tensors, **config)
    body = families.bert()
    with pytest.raises(ValueError) as raised:
        load_adapter(body, tmp_path)
    assert words in str(raised.value)
    assert not layers.is_adapted(body)


def test_pickled_weights_are_not_read(tmp_path):
    _write(tmp_path, _GOOD)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match="pickled weights"):
        load_adapter(families.bert(), tmp_path)

"""KerasHub's door: what is loaded, and what is said where it cannot be."""

import json
import shutil

import keras
import keras_hub
import numpy as np
import pytest
import safetensors.numpy
from adapters import families
from vocabularies import word_pieces

from keras_transfer.backbones import hub
from keras_transfer.backbones.blocks import blocks

models = keras_hub.models


def _batch_outputs(body):
    return body.predict(families.batch(body), verbose=0)


def _llama_as_hugging_face(folder):
    body = models.Llama3Backbone(
        vocabulary_size=families.WORDS, num_layers=2, num_query_heads=4, num_key_value_heads=2, hidden_dim=8,
        intermediate_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    body.export_to_transformers(str(folder))
    return body


def test_a_backbone_object_is_taken_as_it_is():
    body = families.bert()
    assert hub.load(body) is body


def test_a_preset_folder_gives_its_weights(tmp_path):
    body = families.roberta()
    body.save_to_preset(tmp_path)
    np.testing.assert_array_equal(_batch_outputs(hub.load(tmp_path)), _batch_outputs(body))


def test_without_weights_a_preset_is_drawn_anew(tmp_path):
    body = families.roberta()
    body.save_to_preset(tmp_path)
    assert not np.array_equal(_batch_outputs(hub.load(tmp_path, weights=None)), _batch_outputs(body))


def test_a_hugging_face_folder_gives_its_weights(tmp_path):
    body = _llama_as_hugging_face(tmp_path)
    np.testing.assert_allclose(_batch_outputs(hub.load(tmp_path)), _batch_outputs(body), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_quantised_preset_loads_although_keras_hub_forgets_its_precision(tmp_path):
    body = families.bert()
    body.quantize("int8")
    body.save_to_preset(tmp_path)
    with pytest.raises(ValueError):
        models.Backbone.from_preset(str(tmp_path))
    found, expected = _batch_outputs(hub.load(tmp_path)), _batch_outputs(body)
    np.testing.assert_array_equal(found["sequence_output"], expected["sequence_output"])


def test_a_misspelt_preset_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="nearest: +'bert_small_en_uncased'"):
        hub.load("bert_smal_en_uncased")


def test_a_preset_that_cannot_be_had_is_named_with_where_it_was_looked_for(monkeypatch, tmp_path):
    kagglehub = pytest.importorskip("kagglehub")

    def no_network(*_):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(kagglehub, "model_download", no_network)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        hub.load("bert_small_en_uncased")
    said = str(caught.value)
    assert "given:      'bert_small_en_uncased'" in said
    assert f"looked in:  {tmp_path}/models/keras/bert/keras/bert_small_en_uncased/" in said
    assert "pass its path" in said
    assert "Name or service not known" in said


def test_a_bare_hugging_face_folder_is_explained(tmp_path):
    _llama_as_hugging_face(tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    weights = safetensors.numpy.load_file(tmp_path / "whole" / "model.safetensors")
    bare = {name.removeprefix("model."): value for name, value in weights.items()}
    safetensors.numpy.save_file(bare, tmp_path / "bare" / "model.safetensors")
    config = json.loads((tmp_path / "whole" / "config.json").read_text()) | {"architectures": ["LlamaModel"]}
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"(?s)embed_tokens.*ForCausalLM.*in place of LlamaModel"):
        hub.load(tmp_path / "bare")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "a folder with a config.json"),
        ({"config.json": "{torn"}, "a folder with a config.json"),
        ({"config.json": '{"model_type": "t5"}'}, "(?s)no converter.*pass the backbone"),
    ],
)
def test_a_folder_that_cannot_be_read_is_explained(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        hub.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (lambda: models.GPT2CausalLM(backbone=families.gpt2(), preprocessor=None), {}, "pass its .backbone"),
        (families.bert, {"dtype": "bfloat16"}, "takes no options"),
        (lambda: 3, {}, "neither a name nor a model"),
        (lambda: "bert_small_en_uncased", {"weights": "imagenet"}, "own weights"),
    ],
)
def test_what_is_no_body_is_refused(source, options, message):
    with pytest.raises(ValueError, match=message):
        hub.load(source(), **options)


@pytest.mark.parametrize(
    ("settings", "strips"),
    [
        ({"do_lower_case": True}, True),
        ({"do_lower_case": True, "strip_accents": None}, True),
        ({"do_lower_case": True, "strip_accents": False}, False),
        ({"do_lower_case": False}, False),
    ],
)
def test_accents_are_read_as_the_body_was_trained(tmp_path, settings, strips):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "vocab.txt").write_text("\n".join(word_pieces().get_vocabulary()))
    found = hub.text_preprocessor(tmp_path, families.bert(), "TextClassifierPreprocessor")
    assert found.tokenizer.strip_accents == strips
    known = word_pieces().token_to_id("creme")
    assert (known in found.tokenizer("crème")) == strips


def test_a_folder_without_a_tokenizer_is_explained(tmp_path):
    families.bert().save_to_preset(tmp_path)
    with pytest.raises(ValueError, match="(?s)the tokenizer from this folder.*preprocessor="):
        hub.text_preprocessor(tmp_path, families.bert(), "TextClassifierPreprocessor")


def test_the_task_fits_the_language_model_inside_blip2():
    assert type(hub.task(None, families.blip2(), "CausalLM")) is models.BLIP2CausalLM


def test_what_a_model_that_writes_sees_with_is_part_of_its_body():
    """PaliGemma's eyes are a model inside the backbone, with most of its layers; no head is what comes after them."""
    model = hub.task(None, families.pali_gemma(), "CausalLM")
    assert blocks(model).names == ("token_embedding", "image", "decoder_block_0", "decoder_block_1")
    assert blocks(model).head is None


def test_a_body_of_ones_own_has_the_task_of_the_class_it_is_based_on():
    class Mine(models.GPT2Backbone):
        pass

    body = Mine(vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16)
    assert hub.writes(body)
    assert hub.reads_from_left(body)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_reads_from_the_left_and_what_writes():
    """KerasHub counts a body that reads one text and writes another among the language models."""
    for family, writes, from_left in [("gpt2", True, True), ("t5", True, False), ("bert", False, False)]:
        body = getattr(families, family)()
        assert (hub.writes(body), hub.reads_from_left(body)) == (writes, from_left), family


def test_packed_inputs_go_past_the_preprocessor_for_as_long_as_it_is_said():
    preprocessor = models.BertTextClassifierPreprocessor(word_pieces(), sequence_length=6)
    task = models.BertTextClassifier(backbone=families.bert(), num_classes=2, preprocessor=preprocessor)
    layers, weights = len(task.layers), len(task.weights)
    with hub.taking_packed_inputs(task):
        found = task.predict(preprocessor(["the film", "it was"]), verbose=0)
    np.testing.assert_allclose(task.predict(["the film", "it was"], verbose=0), found, rtol=1e-5)
    assert task.preprocessor is preprocessor
    assert (len(task.layers), len(task.weights)) == (layers, weights)


# Pictures


def _vit_preset(folder, **converter):
    preprocessor = models.ViTImageClassifierPreprocessor(keras_hub.layers.ViTImageConverter(**converter))
    models.ViTImageClassifier(backbone=families.vit(), preprocessor=preprocessor, num_classes=2).save_to_preset(folder)


def test_pixels_are_scaled_as_the_preset_says(tmp_path):
    converter = {"image_size": (16, 16), "scale": [0.1, 0.2, 0.3], "offset": [1.0, 2.0, 3.0]}
    _vit_preset(tmp_path, **converter)
    found = hub.pictures(tmp_path)
    assert found.image_size == (16, 16)
    x = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(
        found.preprocessing(x), keras_hub.layers.ViTImageConverter(**converter)(x), rtol=1e-5, atol=1e-5
    )


def test_a_converter_that_scales_nothing_leaves_pixels_alone():
    assert hub.rescaling(keras_hub.layers.ImageConverter(image_size=(8, 8))) == "identity"


def test_a_preset_without_a_converter_says_nothing_of_pixels(tmp_path):
    families.vit().save_to_preset(tmp_path)
    assert hub.pictures(tmp_path) is None


@pytest.mark.parametrize(
    ("family", "has"),
    [("vit", True), ("deit", True), ("dinov2", True), ("dinov3", True), ("swin", False)],
)
def test_a_class_token_shows_in_the_number_of_tokens(family, has):
    body = getattr(families, family)()
    assert hub.begins_with_class_token(body, body.output_shape) == has


def test_a_vit_without_class_token_has_none():
    body = models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16,
        use_class_token=False,
    )  # fmt: skip
    assert not hub.begins_with_class_token(body, body.output_shape)


def test_the_shared_llama_is_read(shared, tmp_path):
    preset = tmp_path / "preset"
    shutil.copytree(shared / "weights" / "stories260K_llama_kerashub_preset", preset)
    body = hub.load(preset)
    task = hub.task(preset, body, "CausalLM")
    task.compile(sampler="greedy")
    assert task.generate("Once upon a time", max_length=20).startswith("Once upon a time, there was a little girl")
    assert isinstance(body, keras.Model)

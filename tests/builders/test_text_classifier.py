"""Token ids in, logits out: what the head sees of a body, and what is refused."""

import keras
import keras_hub
import numpy as np
import pytest
from adapters import families
from readers import t5
from vocabularies import byte_pairs, word_pieces

import keras_transfer as kt
from keras_transfer import card
from keras_transfer.backbones import freezing
from keras_transfer.data.model_inputs import preprocessor_of

models = keras_hub.models
TEXTS = ["the film was good", "it was not a very bad film , not very bad", "fine", "", "a fine film ."]
# Every family with the pooling that suits it.
FAMILIES = {
    "bert": "mean", "distil_bert": "mean", "roberta": "mean", "esm": "first", "roformer_v2": "first", "f_net": "pooled",
    "t5": "mean", "bart": "mean", "gpt2": "last", "gpt_neo_x": "last", "gemma": "last", "llama": "last",
    "qwen3": "last", "mixtral": "last", "smollm3": "last",
}  # fmt: skip


def _bert(length=12, **options):
    body = models.BertBackbone(
        vocabulary_size=18, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16, max_sequence_length=length
    )
    return body, models.BertTextClassifierPreprocessor(word_pieces(**options), sequence_length=length)


def _classifier(**options):
    body, preprocessor = _bert()
    model = kt.text_classifier(body, ["bad", "good"], preprocessor=preprocessor, **options)
    _speak(model)
    return model


def _speak(model):
    """A head that tells things apart, in place of the zeros that it starts from."""
    head = model.get_layer("head")
    head.kernel.assign(np.random.default_rng(0).normal(size=head.kernel.shape))


def _masked(model):
    """A batch whose rows have 6, 4 and 1 tokens."""
    x = families.batch(model)
    for row, length in enumerate([6, 4, 1]):
        x["padding_mask"][row, length:] = 0
    return x


def _features(model, x):
    return np.asarray(keras.Model(model.input, model.get_layer("head_dropout").input)(x))


@pytest.mark.both_backends
@pytest.mark.parametrize(("family", "pooling"), FAMILIES.items(), ids=FAMILIES)
def test_every_family_has_a_frozen_body_and_a_head_and_the_pooling_that_suits_it(family, pooling):
    body = getattr(families, family)()
    model = kt.text_classifier(body, ["bad", "good"])
    written = card.read(model)
    assert (written["pooling"], written["backbone"]) == (pooling, type(body).__name__)
    assert [variable.path for variable in model.trainable_variables] == ["head/kernel", "head/bias"]
    found = kt.blocks(model)
    assert found.names[-1] == "head"
    assert "pooled_dense" not in found.names or family == "f_net"
    assert sum(block.parameters for block in found) == model.count_params()
    x = families.batch(model)
    np.testing.assert_array_equal(_features(model, x), _features(model, x))
    assert np.asarray(model(x)).shape == (families.BATCH, 2)


@pytest.mark.parametrize("family", ["bert", "f_net", "esm", "gpt2", "t5"])
def test_every_weight_of_the_body_has_a_gradient(family):
    model = kt.text_classifier(getattr(families, family)(), 2)
    _speak(model)
    freezing.wake(model, [layer for block in kt.blocks(model) for layer in block.layers])
    before = [np.array(variable) for variable in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1.0), model.loss, run_eagerly=True)  # three steps: tracing them takes longer
    model.fit(families.batch(model), np.array([0, 1, 1]), epochs=3, verbose=0)
    still = [
        variable.path
        for variable, was in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(variable, was) and "key/bias" not in variable.path
    ]
    assert len(before) > 20
    assert not still


def test_the_mean_leaves_padding_out():
    model = kt.text_classifier(families.roberta(), 2, pooling="mean")
    x = _masked(model)
    tokens = np.asarray(model.get_layer("roberta_backbone")(x))
    mask = x["padding_mask"][..., None]
    np.testing.assert_allclose(_features(model, x), (tokens * mask).sum(1) / mask.sum(1), rtol=1e-5, atol=1e-6)


def test_of_a_body_that_reads_and_writes_the_encoder_is_taken():
    body = families.t5()
    model = kt.text_classifier(body, 2)
    x = _masked(model)
    read = {f"encoder_{name}": column for name, column in x.items()}
    written = {f"decoder_{name}": column for name, column in x.items()}
    tokens, mask = np.asarray(body({**read, **written})["encoder_sequence_output"]), x["padding_mask"][..., None]
    np.testing.assert_allclose(_features(model, x), (tokens * mask).sum(1) / mask.sum(1), rtol=1e-5, atol=1e-6)
    assert not [variable.path for variable in model.weights if "decoder" in variable.path]


def test_the_last_token_is_the_one_before_the_padding():
    model = kt.text_classifier(families.gpt2(), 2)
    x = _masked(model)
    tokens = np.asarray(model.get_layer("gpt2_backbone")(x))
    np.testing.assert_allclose(_features(model, x), tokens[[0, 1, 2], [5, 3, 0]], rtol=1e-6)


def test_the_first_token_and_the_pooled_output_are_the_bodys_own():
    body = families.bert()
    x = families.batch(body)
    outputs = body(x)
    np.testing.assert_allclose(
        _features(kt.text_classifier(body, 2, pooling="first"), x), outputs["sequence_output"][:, 0], rtol=1e-6
    )
    np.testing.assert_allclose(
        _features(kt.text_classifier(body, 2, pooling="pooled"), x), outputs["pooled_output"], rtol=1e-6
    )


def test_pooling_and_logits_are_in_float32_under_any_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kt.text_classifier(families.bert(), 2)
    assert model.get_layer("pool").compute_dtype == "float32"
    assert keras.backend.standardize_dtype(model(families.batch(model)).dtype) == "float32"


def test_a_preset_folder_brings_its_tokenizer(tmp_path):
    body, preprocessor = _bert()
    task = models.BertTextClassifier(backbone=body, num_classes=2, preprocessor=preprocessor)
    task.save_to_preset(tmp_path)
    from_folder = kt.text_classifier(tmp_path, 2)
    from_object = kt.text_classifier(body, 2, preprocessor=preprocessor)
    for model in (from_folder, from_object):
        _speak(model)
        model.compile(model.optimizer, model.loss, run_eagerly=True)  # a few texts: tracing would take longer
    np.testing.assert_allclose(kt.predict(from_folder, TEXTS), kt.predict(from_object, TEXTS), rtol=1e-5)


def test_the_folder_of_t5_brings_its_tokenizer(tmp_path):
    tokenizer = t5().tokenizer
    body = models.T5Backbone(
        tokenizer.vocabulary_size(), num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16, dropout=0.0
    )
    body.save_to_preset(tmp_path)
    tokenizer.save_to_preset(tmp_path)
    from_folder = kt.text_classifier(tmp_path, 2, max_length=8)
    preprocessor = models.T5Preprocessor(tokenizer, sequence_length=8)
    from_object = kt.text_classifier(body, 2, preprocessor=preprocessor)
    for model in (from_folder, from_object):
        _speak(model)
        model.compile(model.optimizer, model.loss, run_eagerly=True)  # a few texts: tracing would take longer
    np.testing.assert_allclose(kt.predict(from_folder, TEXTS), kt.predict(from_object, TEXTS), rtol=1e-5)


def test_a_language_models_folder_brings_its_tokenizer(shared):
    model = kt.text_classifier(shared / "weights" / "stories260K_llama_kerashub_preset", ["sad", "happy"])
    assert kt.predict(model, ["Once upon a time", "Lily"]).shape == (2, 2)
    assert card.read(model)["pooling"] == "last"


def test_texts_are_cut_to_what_was_asked_for_or_to_what_the_body_can():
    body, preprocessor = _bert(length=12)
    preprocessor.sequence_length = 512
    assert preprocessor_of(kt.text_classifier(body, 2, preprocessor=preprocessor)).sequence_length == 12
    model = kt.text_classifier(body, 2, preprocessor=preprocessor, max_length=5)
    assert preprocessor_of(model).sequence_length == 5
    assert preprocessor.sequence_length == 512


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("bert", {"pooling": "men"}, "nearest: +'mean'"),
        ("distil_bert", {"pooling": "pooled"}, "'auto', 'first'"),
        ("esm", {"pooling": "mean"}, "'auto', 'first'"),
        ("bert", {"dropout": 1.0}, "less than 1"),
        ("t5", {"pooling": "pooled"}, "'auto', 'first'"),
        ("vit", {}, "kt.image_classifier"),
        ("blip2", {}, "kt.image_to_text"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_mistake_is_said_with_its_mend(family, options, message):
    with pytest.raises(ValueError, match=message):
        kt.text_classifier(getattr(families, family)(), 2, **options)


@pytest.mark.parametrize("length", [0, 2, 13, 6.5])
def test_a_length_that_the_body_cannot_read_is_refused(length):
    body, preprocessor = _bert()
    with pytest.raises(ValueError, match="from 3 to 12"):
        kt.text_classifier(body, 2, preprocessor=preprocessor, max_length=length)


def test_a_length_without_a_preprocessor_is_refused():
    with pytest.raises(ValueError, match="preprocessor="):
        kt.text_classifier(families.bert(), 2, max_length=5)


def test_the_tokenizer_of_another_body_is_refused():
    preprocessor = models.GPT2CausalLMPreprocessor(byte_pairs(), sequence_length=6)
    with pytest.raises(ValueError, match="more words than the body"):
        kt.text_classifier(families.gpt2(), 2, preprocessor=preprocessor)


def test_training_by_hand_moves_the_head_alone():
    model = _classifier(dropout=0.0)
    body = [np.array(value) for value in model.get_layer("bert_backbone").get_weights()]
    x = preprocessor_of(model)(TEXTS)
    model.optimizer.learning_rate = 0.05
    history = model.fit(x, np.array([1, 0, 1, 0, 1]), epochs=40, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    for before, after in zip(body, model.get_layer("bert_backbone").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_plan_freezes_anew_what_keras_wakes_when_it_opens_a_file(tmp_path):
    _classifier().save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert len(model.trainable_variables) > 2, "Keras keeps what is frozen: the docstring can lose a sentence"
    head = [layer for layer in kt.blocks(model)["head"].layers]
    freezing.wake(model, head)
    assert [variable.path for variable in model.trainable_variables] == ["head/kernel", "head/bias"]


def test_a_number_of_classes_may_be_numpys_and_splits_are_no_classes():
    assert kt.text_classifier(families.bert(), np.int64(3)).output_shape == (None, 3)
    splits = kt.data.texts((["one", "two", "three", "four"], ["a", "a", "b", "b"]), batch_size=1, validation=0)
    with pytest.raises(ValueError, match=r"splits\.classes"):
        kt.text_classifier(families.bert(), splits)

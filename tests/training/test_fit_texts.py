"""Texts through `fit`: classifiers whose rows come in buckets, and language models on the next token."""

import keras
import keras_hub
import numpy as np
import pytest
from readers import t5
from vocabularies import WORDS, byte_pairs, word_pieces

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.training import compilation

both_backends = pytest.mark.both_backends

FINE = ["a fine film", "fine fun", "it is very fine and fun", "what a fun film it is"]
DULL = ["a dull film", "dull", "it is very dull and long and dull", "what a dull long film"]
NEW_WORDS = sorted({word for text in FINE + DULL for word in text.split()} - set(WORDS))


# The embedding is the head as well: a random body learns nothing to speak of while that is left alone.
TIED = ["token_embedding", "feedforward_*_dense"]


def _reviews(**options):
    texts = FINE * 4 + DULL * 4
    labels = ["good"] * len(FINE) * 4 + ["bad"] * len(DULL) * 4
    return kt.data.texts((texts, labels), **{"batch_size": 4, "validation": 0.25, "buckets": (6, 16), **options})


def _classifier():
    keras.utils.set_random_seed(0)
    tokenizer = word_pieces(words=NEW_WORDS)
    body = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=16,
    )
    reader = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=16)
    return kt.text_classifier(body, ["bad", "good"], preprocessor=reader)


def _language_model():
    keras.utils.set_random_seed(0)
    tokenizer = byte_pairs()
    body = keras_hub.models.GPT2Backbone(
        tokenizer.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=24,
    )
    reader = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=24)
    return kt.causal_lm(body, preprocessor=reader)


@both_backends
def test_lora_on_a_text_body_learns_and_leaves_the_body_alone(tmp_path):
    reviews, model = _reviews(), _classifier()
    body = {path: value for path, value in _base(model).items() if not path.startswith("head")}
    run = kt.fit(
        model, reviews, kt.lora(model, rank=4, targets="all-linear", epochs=8, learning_rate=0.01), verbose=False
    )
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert kt.evaluate(model, reviews, "train").accuracy == 1.0
    for path, value in body.items():
        np.testing.assert_array_equal(_base(model)[path], value, err_msg=path)
    model.save(tmp_path / "model.keras")
    reopened = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(kt.predict(reopened, FINE + DULL), kt.predict(model, FINE + DULL), atol=1e-6)


def _base(model):
    return {
        identity.path: variable.numpy()
        for identity, variable in state.walk(model)
        if "lora" not in identity.path and not state.is_seed(variable)
    }


@pytest.fixture(scope="module")
def head_alone():
    """A classifier whose head was trained, its run, and what it was trained on."""
    reviews, model = _reviews(), _classifier()
    return kt.fit(model, reviews, kt.feature_extraction(model, epochs=1), verbose=False), model, reviews


@both_backends
def test_probabilities_come_in_the_order_of_the_split_although_rows_are_read_by_length(head_alone):
    run, model, reviews = head_alone
    split = reviews.validation
    one_by_one = np.concatenate([kt.predict(model, text) for text in reviews.peek(split, range(len(split)))])
    np.testing.assert_allclose(run.probabilities, one_by_one, atol=1e-5)


def test_the_texts_that_it_is_most_wrong_on_are_written_down(head_alone, tmp_path):
    paths = head_alone[0].plot(tmp_path)
    assert [path.name for path in paths] == ["learning_curves.png", "confusion.png", "most_wrong.txt"]


@both_backends
def test_a_language_model_learns_the_next_token_through_its_adapter_alone():
    texts, model = kt.data.texts(FINE + DULL, label=False, batch_size=4, validation=0.25), _language_model()
    before = _base(model)
    first = kt.evaluate(model, texts, "train").perplexity
    run = kt.fit(model, texts, kt.lora(model, rank=4, targets=TIED, epochs=20, learning_rate=0.03), verbose=False)
    assert kt.evaluate(model, texts, "train").perplexity < first / 2
    assert run.report.split == "validation"
    assert run.probabilities is None
    for path, value in _base(model).items():
        np.testing.assert_array_equal(before[path], value, err_msg=path)


def test_perplexity_is_that_of_a_sum_over_the_tokens_by_hand():
    """Of batches that are padded to several lengths, each token counting the same."""
    corpus = {"train": FINE + DULL, "validation": ["a film", "fine", "fun", *DULL]}
    texts, model = kt.data.texts(corpus, label=False, batch_size=3, buckets=(8, 24)), _language_model()
    lengths = {y.shape[1] for _, y, _ in texts.evaluation_batches(texts.validation, model)}
    assert len(lengths) > 1
    total, tokens = 0.0, 0.0
    for inputs, targets, weights in texts.evaluation_batches(texts.validation, model):
        logits = np.asarray(model({name: np.asarray(value) for name, value in inputs.items()}), "float64")
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        given = np.take_along_axis(logits, np.asarray(targets)[..., None], axis=-1)[..., 0]
        total, tokens = total - float((given * np.asarray(weights)).sum()), tokens + float(np.asarray(weights).sum())
    found = kt.evaluate(model, texts, "validation")
    assert found.cross_entropy == pytest.approx(total / tokens, rel=1e-5)
    assert found.perplexity == pytest.approx(np.exp(total / tokens), rel=1e-5)
    run = kt.fit(model, texts, kt.Plan([kt.Stage("all", 1)]), verbose=False)
    measured_after = kt.evaluate(model, texts, "validation").cross_entropy
    assert run.history[-1]["val_cross_entropy"] == pytest.approx(measured_after, rel=1e-5)


def test_the_prompt_is_not_learnt_and_the_response_is():
    model = _language_model()
    words = ["film", "long", "dull", "very", "what", "much", "some", "none"]
    data = kt.data.prompts((words, ["fun"] * 8), separator=" ", batch_size=4, validation=0.25)
    kt.fit(model, data, kt.lora(model, rank=4, targets=TIED, epochs=20, learning_rate=0.03), verbose=False)
    assert kt.evaluate(model, data, "validation").perplexity < 2
    prompts = kt.data.texts(words, label=False, batch_size=4, validation=0.25)
    assert kt.evaluate(model, prompts, "validation").perplexity > 10


def _reads_and_writes(**options):
    preprocessor = t5(reads=48)
    size = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 16}
    body = keras_hub.models.T5Backbone(preprocessor.tokenizer.vocabulary_size(), **size, **options)
    return kt.seq2seq_lm(body, preprocessor=preprocessor)


def test_perplexity_of_a_model_that_reads_and_writes_is_that_of_its_responses_by_hand():
    model, responses = _reads_and_writes(), ["fine", "a bad film", "it was", "good film"]
    data = kt.data.prompts({"train": (FINE, responses), "test": (DULL, responses)}, batch_size=3, validation=0)
    x, y, weight = model.preprocessor({"encoder_text": DULL, "decoder_text": responses})
    logits = model(x)
    likely = np.take_along_axis(np.asarray(keras.ops.log_softmax(logits)), np.asarray(y)[..., None], axis=-1)[..., 0]
    weight = np.asarray(weight, "float32")
    found = kt.evaluate(model, data, "test")
    np.testing.assert_allclose(found.perplexity, np.exp(-(likely * weight).sum() / weight.sum()), rtol=1e-4)


def test_a_model_that_reads_and_writes_learns_to_write_and_is_saved_with_its_tokenizer(tmp_path):
    keras.utils.set_random_seed(0)
    model = _reads_and_writes(dropout=0.0)
    data = kt.data.prompts((FINE * 4, ["fine"] * 16), batch_size=4, buckets=(48,))
    before = kt.evaluate(model, data, "validation").perplexity
    run = kt.fit(model, data, kt.Plan([kt.Stage("all", 50, learning_rate=0.01)]), verbose=False, workdir=tmp_path)
    assert before > 30
    assert run.report.perplexity < 1.5
    opened = keras.saving.load_model(tmp_path / "model.keras")
    opened.compile(sampler="greedy")
    assert opened.generate(DULL[:2]) == ["fine", "fine"]


@both_backends
def test_lora_on_a_model_that_reads_and_writes_moves_its_adapter_alone():
    model = _reads_and_writes()
    data = kt.data.prompts((FINE * 2, ["fine"] * 8), batch_size=4, buckets=(48,))
    before = {identity.path: value for identity, value in zip(*_weights(model), strict=True)}
    run = kt.fit(model, data, kt.lora(model, rank=2, epochs=1), verbose=False)
    after = {identity.path: value for identity, value in zip(*_weights(model), strict=True)}
    moved = [path for path in before if "seed" not in path and not np.array_equal(before[path], after[path])]
    assert moved == []
    assert any("lora_b" in path and np.any(value) for path, value in after.items())
    assert run.report.cost.stages[0].trainable_parameters == 6 * (16 * 2 + 2 * 16)


def _weights(model):
    return state.identities(model), state.values(model)


def test_training_from_random_weights_redraws_a_language_model_whose_head_is_its_embedding():
    texts, model = kt.data.texts(FINE + DULL, label=False, batch_size=4, validation=0.25), _language_model()
    before = state.values(model)
    kt.fit(model, texts, kt.from_scratch(model, epochs=1), verbose=False)
    assert not np.allclose(before[0], state.values(model)[0], atol=1e-3)


class _BreakOff(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 5:  # of three in an epoch
            raise InterruptedError


@pytest.mark.parametrize("kind", ["labelled texts", "a language model"])
def test_broken_off_in_an_epoch_it_ends_where_an_unbroken_run_ends(tmp_path, kind):
    def start(**options):
        keras.utils.clear_session(free_memory=False)
        model = _classifier() if kind == "labelled texts" else _language_model()
        plan = kt.lora(model, rank=2, targets="attention", epochs=3, dropout=0.2)
        return kt.fit(model, texts, plan, verbose=False, **options), state.values(model)

    texts = _reviews(batch_size=8)
    if kind == "a language model":
        texts = kt.data.texts((FINE + DULL) * 3, label=False, batch_size=8, validation=0.25)
    options = {"workdir": tmp_path, "checkpoint_steps": 1}
    with pytest.raises(InterruptedError):
        start(callbacks=[_BreakOff()], **options)
    (run, weights), (whole, expected) = start(**options), start()
    for here, there in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(here, there)
    assert [{**row, "seconds": 0} for row in run.history] == [{**row, "seconds": 0} for row in whole.history]
    again, weights = start(**options)  # finished: read, not trained
    assert again.report == run.report
    np.testing.assert_array_equal(weights[0], expected[0])


@both_backends
def test_texts_without_labels_are_refused_by_a_classifier():
    texts, model = kt.data.texts(FINE + DULL, label=False, batch_size=4, validation=0.25), _classifier()
    with pytest.raises(ValueError, match="they are for a language model"):
        kt.fit(model, texts, kt.feature_extraction(model, epochs=1))


@both_backends
def test_a_split_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no split of that name"):
        kt.evaluate(_classifier(), _reviews(), "test")


@both_backends
def test_labelled_texts_are_refused_by_a_language_model():
    model = _language_model()
    with pytest.raises(ValueError, match="they are for a classifier"):
        kt.fit(model, _reviews(), kt.lora(model, targets=TIED))


def test_a_language_model_has_no_classes_to_weigh():
    texts, model = kt.data.texts(FINE + DULL, label=False, batch_size=4, validation=0.25), _language_model()
    with pytest.raises(ValueError, match="weighs classes"):
        kt.fit(model, texts, kt.lora(model, targets=TIED), class_weight="balanced", verbose=False)


class _Writes(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        del epoch, logs
        self.written = self.model.generate("a film", max_length=12)


def test_while_a_language_model_trains_it_writes_samples_as_before_and_is_saved_with_its_tokenizer(tmp_path):
    texts, model = kt.data.texts(FINE + DULL, label=False, batch_size=4, validation=0.25), _language_model()
    model.compile(sampler="greedy")
    writes = _Writes()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    plan = kt.Plan([kt.Stage("all", 1)])
    kt.fit(model, texts, plan, callbacks=[writes, checkpoint], verbose=False)
    assert writes.written == model.generate("a film", max_length=12)
    assert isinstance(model.sampler, keras_hub.samplers.GreedySampler)
    with pytest.warns(UserWarning, match="compile"):  # a task's `compile` is its own, Keras says
        reopened = keras.models.load_model(tmp_path / "model.keras")
    reopened.compile(sampler="greedy")
    assert reopened.generate("a film", max_length=12) == writes.written


def test_bitfit_of_a_language_model_moves_its_biases_alone():
    texts, model = kt.data.texts(FINE + DULL, label=False, batch_size=4, validation=0.25), _language_model()
    before = _base(model)
    kt.fit(model, texts, kt.bitfit(model, epochs=1), verbose=False)
    moved = {path for path, value in _base(model).items() if not np.array_equal(before[path], value)}
    assert moved
    assert {path.split("/")[-1] for path in moved} <= {"bias", "beta"}


def test_a_text_body_computes_in_half_precision_and_is_left_as_it_was():
    reviews, model = _reviews(), _classifier()
    policies = [layer.dtype_policy.name for layer in state.sublayers(model)]
    run = kt.fit(model, reviews, kt.staged_fine_tuning(model, epochs=(1, 1)), precision="mixed_bfloat16", verbose=False)
    assert np.isfinite(run.history[-1]["loss"])
    assert [layer.dtype_policy.name for layer in state.sublayers(model)] == policies


def test_a_quantised_body_stays_quantised_in_half_precision():
    model = _classifier()
    body = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    before = kt.predict(model, FINE)
    for layer in state.sublayers(body):
        if isinstance(layer, keras.layers.EinsumDense | keras.layers.Dense):
            layer.quantize("int8")
    dense = next(layer for layer in state.sublayers(body) if isinstance(layer, keras.layers.Dense))
    with compilation.computing_in(model, "mixed_bfloat16"):
        assert dense.dtype_policy.name == "int8_from_mixed_bfloat16"
        model.compile()
        np.testing.assert_allclose(kt.predict(model, FINE), before, atol=0.02)
    assert dense.dtype_policy.name == "int8_from_float32"

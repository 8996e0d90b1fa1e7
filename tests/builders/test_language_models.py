"""Models that write text: KerasHub's own tasks, found from the body."""

import keras_hub
import pytest
from adapters import families
from vocabularies import byte_pairs

import keras_transfer as kt

models = keras_hub.models
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # T5's layers pass no Keras mask on


@pytest.mark.parametrize(
    ("build", "family", "task"),
    [
        (kt.causal_lm, "gpt2", "GPT2CausalLM"),
        (kt.causal_lm, "gemma", "GemmaCausalLM"),
        (kt.causal_lm, "llama", "LlamaCausalLM"),
        (kt.causal_lm, "qwen3", "Qwen3CausalLM"),
        (kt.causal_lm, "smollm3", "SmolLM3CausalLM"),
        (kt.seq2seq_lm, "t5", "T5Seq2SeqLM"),
        (kt.image_to_text, "blip2", "BLIP2CausalLM"),
    ],
)
def test_the_task_is_the_one_that_keras_hub_has(build, family, task):
    model = build(getattr(families, family)())
    assert type(model).__name__ == task
    assert model.compiled
    assert model.output_shape[-1] == families.WORDS
    assert len(model.trainable_variables) == len(model.backbone.trainable_variables) > 10


def test_a_folder_brings_its_tokenizer_and_texts_are_cut(shared):
    model = kt.causal_lm(shared / "weights" / "stories260K_llama_kerashub_preset", max_length=24)
    assert model.preprocessor.sequence_length == 24
    model.compile(sampler="greedy")
    assert model.generate("Once upon a time").startswith("Once upon a time, there was a little girl named Lily.")


def test_a_preprocessor_can_be_given():
    tokenizer = byte_pairs()
    body = models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
        max_sequence_length=16,
    )  # fmt: skip
    model = kt.causal_lm(body, preprocessor=models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=12))
    assert model.generate("the film", max_length=12).startswith("the film")


@pytest.mark.parametrize(
    ("build", "family", "message"),
    [
        (kt.causal_lm, "bert", "(?s)no CausalLM.*GPT2Backbone"),
        (kt.causal_lm, "t5", "kt.seq2seq_lm"),
        (kt.seq2seq_lm, "gpt2", "(?s)no Seq2SeqLM.*T5Backbone"),
        (kt.seq2seq_lm, "blip2", "no Seq2SeqLM"),
        (kt.image_to_text, "llama", "kt.causal_lm"),
        (kt.image_to_text, "t5", "kt.seq2seq_lm"),
        (kt.image_to_text, "vit", "no CausalLM or Seq2SeqLM"),
    ],
)
def test_another_body_is_refused(build, family, message):
    with pytest.raises(ValueError, match=message):
        build(getattr(families, family)())


def test_a_length_without_a_preprocessor_is_refused():
    with pytest.raises(ValueError, match="preprocessor="):
        kt.causal_lm(families.gpt2(), max_length=8)


def _reader(length):
    return models.GPT2CausalLMPreprocessor(byte_pairs(), sequence_length=length)


def test_texts_are_cut_to_what_the_body_can_read():
    body = models.GPT2Backbone(
        vocabulary_size=byte_pairs().vocabulary_size(), num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
        max_sequence_length=16,
    )  # fmt: skip
    assert kt.causal_lm(body, preprocessor=_reader(1024)).preprocessor.sequence_length == 16
    for length in (17, "9"):
        with pytest.raises(ValueError, match="from 3 to 16"):
            kt.causal_lm(body, preprocessor=_reader(12), max_length=length)


def test_the_tokenizer_of_another_body_is_refused():
    with pytest.raises(ValueError, match="more words than the body"):
        kt.causal_lm(families.gpt2(), preprocessor=_reader(12))

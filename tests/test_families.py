"""Every family of bodies under our builders, from the first line to a process that knows nothing of this one."""

import json
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
from adapters import families
from vocabularies import byte_pairs, sentence_pieces, word_pieces

import keras_transfer as kt
from keras_transfer.adapters import base_identity
from keras_transfer.backbones import hub

models = keras_hub.models
TEXTS = ["the film was good", "it was not a very bad film , not very bad", "fine"]
LENGTH = 24

# What the fresh process does: open each file, run it on the saved inputs, and let it read text. Stock Keras opens a
# model without adapters; one with them needs their package, and only that.
OPEN = """
import json, pathlib, sys
import keras
import numpy as np

folder, adapted = pathlib.Path(sys.argv[1]), sys.argv[2] == "adapted"
if adapted:
    import keras_transfer
    from keras_transfer.adapters import base_identity
from keras_transfer.backbones import hub
texts = json.loads((folder / "texts.json").read_text())
said, bases = {}, {}
for file in sorted(folder.glob("*.keras")):
    model = keras.saving.load_model(file)
    inputs = dict(np.load(file.with_suffix(".npz")))
    outputs = model(inputs if len(inputs) > 1 else next(iter(inputs.values())))
    np.save(file.with_suffix(".npy"), np.asarray(outputs))
    if adapted:
        bases[file.stem] = base_identity.weights_digest(model)
    if file.stem in texts:
        import keras_transfer
        said[file.stem] = keras_transfer.predict(model, texts[file.stem]).tolist()
    elif getattr(model, "preprocessor", None) is not None:
        said[file.stem] = np.asarray(model.preprocessor.tokenizer("the film, it was Fine")).tolist()
(folder / "found.json").write_text(json.dumps({"said": said, "bases": bases}))
"""


def _text(cls, tokenizer, grouped=False, **options):
    size = dict(families.GROUPED if grouped else families.TEXT) | {
        "vocabulary_size": max(families.WORDS, tokenizer.vocabulary_size())
    }
    return cls(**size, **options)


def _reader(cls, preprocessor_cls, tokenizer, **options):
    preprocessor = preprocessor_cls(tokenizer, sequence_length=LENGTH)
    return kt.text_classifier(_text(cls, tokenizer, **options), ["bad", "good"], preprocessor=preprocessor)


def _writer(cls, preprocessor_cls, tokenizer, **options):
    preprocessor = preprocessor_cls(tokenizer, sequence_length=LENGTH)
    return kt.causal_lm(_text(cls, tokenizer, **options), preprocessor=preprocessor)


def _seq2seq():
    tokenizer = sentence_pieces(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    preprocessor = models.T5Seq2SeqLMPreprocessor(
        tokenizer, encoder_sequence_length=LENGTH, decoder_sequence_length=LENGTH
    )
    return kt.seq2seq_lm(_text(models.T5Backbone, tokenizer), preprocessor=preprocessor)


def _sees(family):
    return kt.image_classifier(getattr(families, family)(), ["ant", "bee"], preprocessing="torch")


ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
GEMMA = {
    "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>",
    "bos_piece": "<bos>", "control_symbols": ["<start_of_turn>", "<end_of_turn>"],
}  # fmt: skip
MODELS = {
    "bert": lambda: _reader(models.BertBackbone, models.BertTextClassifierPreprocessor, word_pieces()),
    "distil_bert": lambda: _reader(
        models.DistilBertBackbone,
        models.DistilBertTextClassifierPreprocessor,
        word_pieces(keras_hub.tokenizers.DistilBertTokenizer),
    ),
    "roberta": lambda: _reader(
        models.RobertaBackbone,
        models.RobertaTextClassifierPreprocessor,
        byte_pairs(keras_hub.tokenizers.RobertaTokenizer, ROBERTA),
    ),
    "gpt2_reader": lambda: _reader(models.GPT2Backbone, models.GPT2CausalLMPreprocessor, byte_pairs()),
    "gpt2": lambda: _writer(models.GPT2Backbone, models.GPT2CausalLMPreprocessor, byte_pairs()),
    "gemma": lambda: _writer(
        models.GemmaBackbone,
        models.GemmaCausalLMPreprocessor,
        sentence_pieces(keras_hub.tokenizers.GemmaTokenizer, **GEMMA),
        grouped=True, head_dim=4,
    ),
    "llama": lambda: _writer(
        models.LlamaBackbone,
        models.LlamaCausalLMPreprocessor,
        sentence_pieces(keras_hub.tokenizers.LlamaTokenizer, unk_id=0, bos_id=1, eos_id=2),
        grouped=True,
    ),
    "qwen3": lambda: _writer(
        models.Qwen3Backbone,
        models.Qwen3CausalLMPreprocessor,
        byte_pairs(keras_hub.tokenizers.Qwen3Tokenizer, ("<|endoftext|>", "<|im_end|>")),
        grouped=True, head_dim=4,
    ),
    "t5": _seq2seq,
    "t5_reader": lambda: _reader(
        models.T5Backbone, models.T5Preprocessor, sentence_pieces(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    ),
    "blip2": lambda: kt.image_to_text(families.blip2()),
    "blip2_t5": lambda: kt.image_to_text(families.blip2_t5()),
    "pali_gemma": lambda: kt.image_to_text(families.pali_gemma()),
    "vit": lambda: _sees("vit"),
    "swin": lambda: _sees("swin"),
    "dinov3": lambda: _sees("dinov3"),
}  # fmt: skip
READERS = {"bert", "distil_bert", "roberta", "gpt2_reader", "t5_reader"}


def _move(model):
    """Gives the model other weights than those that are drawn anew when it is opened."""
    generator = np.random.default_rng(1)
    for variable in model.weights:
        if "float" in variable.dtype:
            variable.assign_add(generator.uniform(0, 0.1, variable.shape).astype(variable.dtype))


def _adapt(model, name):
    """An adapter, and the head where there is one, trained on one batch until its loss has fallen; nothing else."""
    head = [layer for layer in model.layers if layer.name == "head"]
    base = base_identity.weights_digest(model)
    inputs = families.batch(model)
    outputs = np.asarray(model(inputs))
    table = kt.add_lora(model, rank=2, train=head)
    np.testing.assert_array_equal(np.asarray(model(inputs)), outputs, err_msg=name)
    labels = np.random.default_rng(2).integers(0, 2, outputs.shape[:-1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Eagerly: tracing fourteen training steps would take longer than all the rest.
    model.compile(keras.optimizers.Adam(0.03), loss, metrics=[], run_eagerly=True)
    losses = []
    with hub.taking_packed_inputs(model):
        while len(losses) < 30 and (not losses or losses[-1] > losses[0] - 0.02):
            losses.append(float(np.ravel(model.train_on_batch(inputs, labels))[0]))
    assert losses[-1] < losses[0] - 0.02, (name, losses)
    factors = [variable for variable in model.trainable_variables if "lora_" in variable.path]
    assert len(factors) == 2 * len(table), name
    assert all(np.any(variable) for variable in factors), name
    assert base_identity.weights_digest(model) == base, name
    return base


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["plain", "adapted"])
def test_every_model_predicts_the_same_in_a_fresh_process(kind, tmp_path):
    expected, said, texts, bases = {}, {}, {}, {}
    for name, build in MODELS.items():
        keras.utils.set_random_seed(0)
        model = build()
        _move(model)
        if kind == "adapted":
            bases[name] = _adapt(model, name)
        inputs = families.batch(model)
        expected[name] = np.asarray(model(inputs))
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", **(inputs if isinstance(inputs, dict) else {"pixels": inputs}))
        if getattr(model, "preprocessor", None) is not None:
            said[name] = np.asarray(model.preprocessor.tokenizer("the film, it was Fine")).tolist()
        elif name in READERS:
            texts[name] = TEXTS
            said[name] = kt.predict(model, TEXTS).tolist()
    (tmp_path / "texts.json").write_text(json.dumps(texts))

    subprocess.run([sys.executable, "-c", OPEN, str(tmp_path), kind], check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["bases"] == bases
    assert set(found["said"]) == {*READERS, "gpt2", "gemma", "llama", "qwen3", "t5"}
    for name, outputs in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), outputs, rtol=1e-5, atol=1e-6, err_msg=name)
    for name, read in said.items():
        np.testing.assert_allclose(found["said"][name], read, rtol=1e-5, err_msg=name)

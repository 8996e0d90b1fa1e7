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

# What the fresh process does: open each file, run it on the saved inputs, and let it read text. Stock Keras opens the
# models without adapters; those with one need our package, and so does reading text into a classifier.
OPEN = """
import json, pathlib, sys
import keras
import numpy as np

folder = pathlib.Path(sys.argv[1])
texts = json.loads((folder / "texts.json").read_text())

def opened(kind):
    models = {}
    for file in sorted((folder / kind).glob("*.keras")):
        model = models[file.stem] = keras.saving.load_model(file)
        inputs = dict(np.load(folder / f"{file.stem}.npz"))
        outputs = model(inputs if len(inputs) > 1 else next(iter(inputs.values())))
        np.save(file.with_suffix(".npy"), np.asarray(outputs))
    return models

plain = opened("plain")
assert "keras_transfer" not in sys.modules
import keras_transfer
from keras_transfer.adapters import base_identity
found = {}
for kind, models in {"plain": plain, "adapted": opened("adapted")}.items():
    said = found[kind] = {}
    for name, model in models.items():
        if name in texts:
            said[name] = keras_transfer.predict(model, texts[name]).tolist()
        elif getattr(model, "preprocessor", None) is not None:
            said[name] = np.asarray(model.preprocessor.tokenizer("the film, it was Fine")).tolist()
        if kind == "adapted":
            found.setdefault("bases", {})[name] = base_identity.weights_digest(model)
(folder / "found.json").write_text(json.dumps(found))
"""


def _text(cls, tokenizer, grouped=False, layers=1, **options):
    """One layer is as good as two, but for three of the kinds: a layer that repeats is another thing to find again."""
    size = dict(families.GROUPED if grouped else families.TEXT) | {
        "vocabulary_size": max(families.WORDS, tokenizer.vocabulary_size()), "num_layers": layers
    }  # fmt: skip
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
    "bert": lambda: _reader(
        models.BertBackbone, models.BertTextClassifierPreprocessor, word_pieces(), layers=2
    ),
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
        grouped=True, head_dim=4, layers=2,
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
        models.T5Backbone,
        models.T5Preprocessor,
        sentence_pieces(pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
        layers=2,
    ),
    "blip2": lambda: kt.image_to_text(families.blip2(num_layers=1)),
    "blip2_t5": lambda: kt.image_to_text(families.blip2_t5(num_layers=1)),
    "pali_gemma": lambda: kt.image_to_text(families.pali_gemma(num_layers=1, vit_num_layers=1)),
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


def _adapt(model, name, inputs, outputs):
    """An adapter, and the head where there is one, trained on one batch until its loss has fallen; nothing else."""
    head = [layer for layer in model.layers if layer.name == "head"]
    base = base_identity.weights_digest(model)
    table = kt.add_lora(model, rank=2, train=head)
    np.testing.assert_array_equal(np.asarray(model(inputs)), outputs, err_msg=name)
    labels = np.random.default_rng(2).integers(0, 2, outputs.shape[:-1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=[], run_eagerly=True)
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


def _read(model, name):
    if name in READERS:
        return kt.predict(model, TEXTS).tolist()
    if getattr(model, "preprocessor", None) is not None:
        return np.asarray(model.preprocessor.tokenizer("the film, it was Fine")).tolist()
    return None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_model_predicts_the_same_in_a_fresh_process_without_an_adapter_and_with_one(tmp_path):
    expected, said, bases = {}, {"plain": {}, "adapted": {}}, {}
    for kind in said:
        (tmp_path / kind).mkdir()

    def keep(kind, name, model, outputs):
        expected[kind, name] = outputs
        said[kind][name] = _read(model, name)
        model.save(tmp_path / kind / f"{name}.keras")

    for name, build in MODELS.items():
        keras.utils.set_random_seed(0)
        model = build()
        _move(model)
        # Eagerly, here and under the adapter: tracing all these models would take longer than all the rest.
        model.compile(model.optimizer, model.loss, run_eagerly=True)
        inputs = families.batch(model)
        np.savez(tmp_path / f"{name}.npz", **(inputs if isinstance(inputs, dict) else {"pixels": inputs}))
        outputs = np.asarray(model(inputs))
        keep("plain", name, model, outputs)
        bases[name] = _adapt(model, name, inputs, outputs)
        keep("adapted", name, model, np.asarray(model(inputs)))
    (tmp_path / "texts.json").write_text(json.dumps({name: TEXTS for name in READERS}))

    subprocess.run([sys.executable, "-c", OPEN, str(tmp_path)], check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["bases"] == bases
    for (kind, name), outputs in expected.items():
        opened = np.load(tmp_path / kind / f"{name}.npy")
        np.testing.assert_allclose(opened, outputs, rtol=1e-5, atol=1e-6, err_msg=f"{kind} {name}")
    for kind in said:
        assert set(found[kind]) == {*READERS, "gpt2", "gemma", "llama", "qwen3", "t5"}
        for name, read in found[kind].items():
            np.testing.assert_allclose(read, said[kind][name], rtol=1e-5, err_msg=f"{kind} {name}")

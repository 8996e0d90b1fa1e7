"""Preprocessors of KerasHub with small vocabularies, and a model that reads with them."""

import keras
import keras_hub
import numpy as np
from vocabularies import byte_pairs, sentence_pieces, word_pieces

import keras_transfer as kt
from keras_transfer import card

SENTENCES = [
    "the film was good",
    "a film, fine",
    "Crème: not bad.",
    "the",
    "the film was fine and it was good and it was not very bad and the film was a very good film",
]


def bert(length: int = 32, **options) -> keras.Layer:
    tokenizer = word_pieces(**{"strip_accents": True} | options)
    return keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=length)


def distil_bert(length: int = 32) -> keras.Layer:
    tokenizer = word_pieces(keras_hub.models.DistilBertTokenizer)
    return keras_hub.models.DistilBertTextClassifierPreprocessor(tokenizer, sequence_length=length)


def roberta(length: int = 32) -> keras.Layer:
    tokenizer = byte_pairs(keras_hub.models.RobertaTokenizer, ("<s>", "<pad>", "</s>", "<mask>"))
    return keras_hub.models.RobertaTextClassifierPreprocessor(tokenizer, sequence_length=length)


def gpt2(length: int = 32) -> keras.Layer:
    return keras_hub.models.GPT2CausalLMPreprocessor(byte_pairs(), sequence_length=length)


def gemma(length: int = 32) -> keras.Layer:
    special = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}
    ids = {f"{name}_id": number for number, name in enumerate(special)}
    pieces = {f"{name}_piece": piece for name, piece in special.items()}
    tokenizer = sentence_pieces(keras_hub.models.GemmaTokenizer, **ids, **pieces)
    return keras_hub.models.GemmaCausalLMPreprocessor(tokenizer, sequence_length=length)


def t5(reads: int = 24, writes: int = 12) -> keras.Layer:
    """Of a model that reads one text and writes another."""
    tokenizer = sentence_pieces(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    lengths = {"encoder_sequence_length": reads, "decoder_sequence_length": writes}
    return keras_hub.models.T5Seq2SeqLMPreprocessor(tokenizer, **lengths)


def bart(reads: int = 24, writes: int = 12) -> keras.Layer:
    tokenizer = byte_pairs(keras_hub.models.BartTokenizer, ("<s>", "<pad>", "</s>", "<mask>"))
    lengths = {"encoder_sequence_length": reads, "decoder_sequence_length": writes}
    return keras_hub.models.BartSeq2SeqLMPreprocessor(tokenizer, **lengths)


PREPROCESSORS = {"BERT": bert, "DistilBERT": distil_bert, "RoBERTa": roberta, "GPT-2": gpt2, "Gemma": gemma}


def columns(preprocessor: keras.Layer, texts: list, length: int) -> dict[str, np.ndarray]:
    """What a preprocessor itself gives at a length, by column."""
    preprocessor.sequence_length = length
    x, y, weight = keras.utils.unpack_x_y_sample_weight(preprocessor(texts, y=None))
    given = {**x, **({} if y is None else {"y": y, "sample_weight": weight})}
    return {name: keras.ops.convert_to_numpy(column) for name, column in given.items()}


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Columns of the same names, kinds and values."""
    assert set(ours) == set(theirs)
    for name, column in theirs.items():
        assert ours[name].dtype == column.dtype
        np.testing.assert_array_equal(ours[name], column, err_msg=name)


def model_of(preprocessor: keras.Layer, *names: str) -> keras.Model:
    """A small classifier of stock layers that takes these columns, the preprocessor on its card."""
    names = names or ("token_ids", "padding_mask")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    tokens = keras.layers.Embedding(300, 4)(inputs["token_ids"])
    scores = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(tokens))
    policy = card.policy({"classes": ["bad", "good"]}, preprocessor=preprocessor)
    return keras.Model(inputs, keras.layers.Activation("linear", dtype=policy)(scores))


def text_classifier(layers: int = 2) -> keras.Model:
    """A small BERT with a head for bad and good."""
    tokenizer = word_pieces()
    body = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(), num_layers=layers, num_heads=2, hidden_dim=16, intermediate_dim=32,
        max_sequence_length=16,
    )  # fmt: skip
    reader = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=16)
    return kt.text_classifier(body, ["bad", "good"], preprocessor=reader)

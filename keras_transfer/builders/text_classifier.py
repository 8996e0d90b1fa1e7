"""A pretrained body that reads text, and a new head: token ids in, logits out; the tokenizer travels with the model."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Literal

import keras

from keras_transfer.backbones import freezing, hub
from keras_transfer.builders.heads import check_dropout, class_list, classification_head
from keras_transfer.builders.outputs import compile_as_classifier
from keras_transfer.builders.reading_length import check_vocabulary, fitting_length
from keras_transfer.data import preprocessors
from keras_transfer.errors import explain, nearest

POOLINGS = {
    "mean": "the mean of all tokens, padding left out",
    "first": "the first token, [CLS] in BERT",
    "last": "the last token before the padding, which in a language model has seen all others",
    "pooled": "what the body hands out as `pooled_output`",
}
# How the two halves of a body that reads one text and writes another call their inputs.
_ENCODER, _DECODER = "encoder_", "decoder_"

Pooling = Literal["auto", "mean", "first", "last", "pooled"]


def text_classifier(
    backbone: str | os.PathLike | keras.Model,
    classes: Sequence[str] | int,
    *,
    pooling: Pooling = "auto",
    dropout: float = 0.1,
    preprocessor: keras.Layer | None = None,
    max_length: int | None = None,
    weights: str | None = "pretrained",
    **body_options,
) -> keras.Model:
    """Puts a new classification head on a pretrained body that reads text.

    The body starts frozen, and frozen means frozen: no weight trains, no dropout fires in it. The model is functional,
    KerasHub's layers below and stock layers above; its preprocessor, tokenizer included, is written into it, so that
    `kt.predict(model, texts)` works on the saved file alone. (What is frozen inside KerasHub's layers Keras forgets
    when a file is opened: train such a model with a plan, which freezes it anew.)

    Args:
        backbone: the name of a KerasHub preset, a local folder (a KerasHub preset, or a Hugging Face model with
            config.json and safetensors), or a backbone object, `keras_hub.models.BertBackbone` for instance. Of one
            that reads and writes (T5, BART) the encoder is taken.
        classes: the class names in the order of the labels, or how many there are.
        pooling: what of the body the head sees: `"mean"` of the tokens, the `"first"`, the `"last"`, or the body's own
            `"pooled"` output. `"auto"` suits the body: the last token where it reads from left to right (GPT-2, Llama);
            the mean else (BERT: what a frozen body gathers in its pooled output serves the task it was pretrained on,
            and MiniLM's is not trained at all); where the body takes no padding mask, its pooled output or first token.
        dropout: share of the pooled features dropped in front of the head while training.
        preprocessor: what turns texts into the inputs of the backbone, from KerasHub. A preset or folder has its own;
            a backbone object has none, and without one the model takes token ids alone.
        max_length: the length that texts are cut to, in tokens; the preprocessor's own where `None`, at most the
            body's.
        weights: `"pretrained"`, or `None` for random ones. A backbone object has its weights.
        **body_options: for the constructor of the backbone, `dtype="bfloat16"` for instance.

    Returns:
        A compiled `keras.Model`: a dict of int arrays (batch, length), as the preprocessor gives them, to float32
        logits (batch, classes).

    Raises:
        ValueError: for a backbone that does not exist (with the nearest name) or reads no text, a pooling that it does
            not have, fewer than two classes, or a tokenizer that does not fit the body.
        FileNotFoundError: for a preset that is neither on this machine nor to be had.

    Example:

    >>> from keras_hub.models import BertBackbone
    >>> body = BertBackbone(vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16)
    >>> model = text_classifier(body, ["bad", "good"])
    >>> sorted(model.input), model.output_shape
    (['padding_mask', 'segment_ids', 'token_ids'], (None, 2))
    """
    names = class_list(classes)
    check_dropout(dropout)
    body = hub.load(backbone, weights=weights, **body_options)
    _check_reads_text(body)
    pooling = _pooling(body, pooling)
    if preprocessor is None:
        preprocessor = hub.text_preprocessor(
            backbone, body, "TextClassifierPreprocessor", "CausalLMPreprocessor", "T5Preprocessor"
        )
    if preprocessor is not None:
        check_vocabulary(body, preprocessor)
    length = fitting_length(body, preprocessor, max_length)

    taken = _taken(body)
    given = {name: body.input[own] for name, own in taken.items()}
    inputs = {name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name) for name, tensor in given.items()}
    facts = {"backbone": type(body).__name__, "pooling": pooling}
    body = _reading_part(body, pooling)
    freezing.freeze(body)
    features = _pool(body({own: inputs[name] for name, own in taken.items()}), pooling, inputs.get("padding_mask"))
    with _cut_to(preprocessor, length):
        logits = classification_head(features, names, dropout=dropout, preprocessor=preprocessor, facts=facts)
    model = keras.Model(inputs, logits, name=f"{body.name}_classifier")
    compile_as_classifier(model)
    return model


def _taken(body: keras.Model) -> dict[str, str]:
    """What a body reads: the classifier's name of each input, and the body's own, which in T5 is the encoder's."""
    own = [name for name in body.input if not name.startswith(_DECODER)] if isinstance(body.input, dict) else []
    return {name.removeprefix(_ENCODER): name for name in own}


def _check_reads_text(body: keras.Model) -> None:
    taken = _taken(body)
    if "token_ids" in taken and "images" not in taken:
        return
    raise ValueError(
        explain(
            f"{type(body).__name__} does not read one text.",
            given=f"a body that takes {', '.join(hub.taken_by(body))}",
            expected="one that takes token_ids (and padding_mask, segment_ids)",
            to_mend=f"kt.image_{'to_text(backbone)' if 'token_ids' in taken else 'classifier(backbone, classes)'}",
        )
    )


def _pooling(body: keras.Model, pooling: str) -> str:
    """The pooling that is meant, one that the body can have."""
    has_mask = "padding_mask" in _taken(body)
    has_pooled = isinstance(body.output, dict) and "pooled_output" in body.output
    can = ["first", *(["mean", "last"] if has_mask else []), *(["pooled"] if has_pooled else [])]
    if pooling == "auto":
        if has_mask:
            return "last" if hub.reads_from_left(body) else "mean"
        return "pooled" if has_pooled else "first"
    if pooling not in can:
        found = nearest(str(pooling), POOLINGS)
        raise ValueError(
            explain(
                f"`pooling` is not one that {type(body).__name__} can have.",
                given=repr(pooling),
                nearest=repr(found) if found in can else None,
                expected="'auto', " + ", ".join(f"{name!r} ({POOLINGS[name]})" for name in can),
            )
        )
    return pooling


@contextlib.contextmanager
def _cut_to(preprocessor: keras.Layer | None, length: int | None) -> Iterator[None]:
    """Within it the preprocessor has this length, and is found to read the same once it is saved."""
    if preprocessor is None:
        yield
        return
    own_length = preprocessor.sequence_length
    preprocessor.sequence_length = length
    try:
        preprocessors.check_kept(preprocessor)
        yield
    finally:
        preprocessor.sequence_length = own_length


def _reading_part(body: keras.Model, pooling: str) -> keras.Model:
    """The body up to what is pooled: what lies beside it (BERT's pooler, T5's decoder) would be weights that nothing
    trains."""
    if not isinstance(body.output, dict) or pooling == "pooled":
        return body
    own = list(_taken(body).values())
    output = "encoder_sequence_output" if "encoder_token_ids" in own else "sequence_output"
    return keras.Model({name: body.input[name] for name in own}, body.output[output], name=body.name)


def _pool(features, pooling: str, mask: keras.KerasTensor | None) -> keras.KerasTensor:
    if pooling == "pooled":
        return features["pooled_output"]
    if pooling == "first":
        return features[:, 0]
    if pooling == "last":
        seen = keras.ops.cumsum(mask, axis=1)
        mask = keras.ops.equal(seen * mask, keras.ops.max(seen, axis=1, keepdims=True))
    # In float32: a mean over hundreds of tokens.
    return keras.layers.GlobalAveragePooling1D(dtype="float32", name="pool")(features, mask=mask)

"""Models that write text: KerasHub's own tasks, which have `generate` and keep their tokenizer when saved."""

import os

import keras

from keras_transfer.backbones import hub
from keras_transfer.builders.reading_length import check_vocabulary, fitting_length
from keras_transfer.errors import explain


def causal_lm(
    backbone: str | os.PathLike | keras.Model,
    *,
    preprocessor: keras.Layer | None = None,
    max_length: int | None = None,
    weights: str | None = "pretrained",
    **body_options,
) -> keras.Model:
    """A language model that goes on with a text: GPT-2, Gemma, Llama, Mistral, Qwen and their like.

    All of it trains, since its head is its embedding turned round; a plan says otherwise.

    Args:
        backbone: the name of a KerasHub preset, a local folder (a KerasHub preset, or a Hugging Face model with
            config.json and safetensors), or a backbone object, `keras_hub.models.LlamaBackbone` for instance.
        preprocessor: what turns texts into token ids, from KerasHub. A preset or folder has its own; a backbone object
            has none, and without one the model takes and gives token ids. One that is passed is set to the length.
        max_length: the length that texts are cut to, in tokens; the preprocessor's own where `None`, at most the
            body's.
        weights: `"pretrained"`, or `None` for random ones. A backbone object has its weights.
        **body_options: for the constructor of the backbone, `dtype="bfloat16"` for instance.

    Returns:
        KerasHub's `CausalLM` task, compiled: a dict of int arrays (batch, length) to logits (batch, length,
        vocabulary), and `model.generate(prompt)`.

    Raises:
        ValueError: for a backbone that does not exist (with the nearest name) or is not a language model's, a length
            that it cannot read, or a tokenizer that does not fit it.
        FileNotFoundError: for a preset that is neither on this machine nor to be had.

    Example:

    >>> from keras_hub.models import GPT2Backbone
    >>> body = GPT2Backbone(vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16)
    >>> causal_lm(body).output_shape
    (None, None, 20)
    """
    body = hub.load(backbone, weights=weights, **body_options)
    if "encoder_token_ids" in hub.taken_by(body):
        raise ValueError(
            explain(
                f"{type(body).__name__} reads one text and writes another.",
                given=f"a body that takes {', '.join(hub.taken_by(body))}",
                expected="one that takes token_ids and padding_mask",
                to_mend="kt.seq2seq_lm(backbone)",
            )
        )
    if preprocessor is not None:
        check_vocabulary(body, preprocessor)
    model = hub.task(backbone, body, "CausalLM", preprocessor=preprocessor)
    length = fitting_length(body, model.preprocessor, max_length)
    if length is not None:
        model.preprocessor.sequence_length = length
    return model


def seq2seq_lm(
    backbone: str | os.PathLike | keras.Model,
    *,
    preprocessor: keras.Layer | None = None,
    weights: str | None = "pretrained",
    **body_options,
) -> keras.Model:
    """A language model that reads one text and writes another: T5, BART, T5Gemma.

    All of it trains; a plan says otherwise.

    Args:
        backbone: as in `kt.causal_lm`.
        preprocessor: as in `kt.causal_lm`; it knows two lengths, `encoder_sequence_length` and
            `decoder_sequence_length`.
        weights: as in `kt.causal_lm`.
        **body_options: for the constructor of the backbone.

    Returns:
        KerasHub's `Seq2SeqLM` task, compiled: a dict of `encoder_token_ids`, `decoder_token_ids` and their masks to
        logits (batch, length, vocabulary), and `model.generate(text)`.

    Raises:
        ValueError: for a backbone that does not exist (with the nearest name), or that does not read and write.
        FileNotFoundError: for a preset that is neither on this machine nor to be had.

    Example:

    >>> from keras_hub.models import T5Backbone
    >>> body = T5Backbone(vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16)
    >>> seq2seq_lm(body).output_shape
    (None, None, 20)
    """
    body = hub.load(backbone, weights=weights, **body_options)
    return hub.task(backbone, body, "Seq2SeqLM", preprocessor=preprocessor)


def image_to_text(
    backbone: str | os.PathLike | keras.Model,
    *,
    preprocessor: keras.Layer | None = None,
    weights: str | None = "pretrained",
    **body_options,
) -> keras.Model:
    """A language model that is shown pictures: BLIP-2, PaliGemma, and the Gemmas that see.

    All of it trains; a plan says otherwise.

    Args:
        backbone: as in `kt.causal_lm`.
        preprocessor: as in `kt.causal_lm`, with an image converter in it, which brings pictures to the size and scale
            that the body was trained on.
        weights: as in `kt.causal_lm`.
        **body_options: for the constructor of the backbone.

    Returns:
        KerasHub's task, compiled: a dict of `images`, `token_ids` and `padding_mask` to logits (batch, length,
        vocabulary), and `model.generate`, which takes what the model's own preprocessor does: `{"images": …, "text":
        …}` for BLIP-2, with `"encoder_text"` for it on T5, with `"prompts"` for PaliGemma.

    Raises:
        ValueError: for a backbone that does not exist (with the nearest name), or that sees no pictures or writes no
            text.
        FileNotFoundError: for a preset that is neither on this machine nor to be had.

    Example:

    >>> from keras_hub.models import GPT2Backbone
    >>> body = GPT2Backbone(vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16)
    >>> image_to_text(body)
    Traceback (most recent call last):
    ValueError: GPT2Backbone sees no pictures.
      given:     a body that takes padding_mask, token_ids
      expected:  one that takes images and token_ids
      to mend:   kt.causal_lm(backbone)
    """
    body = hub.load(backbone, weights=weights, **body_options)
    if not {"images", "pixel_values"} & set(hub.taken_by(body)):
        alone = "kt.seq2seq_lm(backbone)" if "encoder_token_ids" in hub.taken_by(body) else "kt.causal_lm(backbone)"
        raise ValueError(
            explain(
                f"{type(body).__name__} sees no pictures.",
                given=f"a body that takes {', '.join(hub.taken_by(body))}",
                expected="one that takes images and token_ids",
                to_mend=alone if hub.writes(body) else None,
            )
        )
    return hub.task(backbone, body, "CausalLM", "Seq2SeqLM", preprocessor=preprocessor)

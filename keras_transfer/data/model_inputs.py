"""What a model reads: the preprocessor that belongs to it, and which of its columns the model takes."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from keras_transfer import card, state
from keras_transfer.data.buckets import bucket_of, choose_lengths
from keras_transfer.data.packing import Packed, pack
from keras_transfer.data.preprocessors import Text
from keras_transfer.errors import explain


def preprocessor_of(model: keras.Model) -> keras.Layer | None:
    """What turns texts into the inputs of `model`: that of a KerasHub task, or the one on the model's card, or `None`.

    Example:

    >>> preprocessor_of(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])) is None
    True
    """
    own = getattr(model, "preprocessor", None)
    return own if own is not None else card.preprocessor(model)


def required_preprocessor(model: keras.Model) -> keras.Layer:
    """The preprocessor of a model that is to read text.

    Raises:
        ValueError: it has none, or one without a tokenizer.
    """
    preprocessor = preprocessor_of(model)
    if getattr(preprocessor, "tokenizer", None) is None:
        raise ValueError(
            explain(
                f"Nothing says how the model {getattr(model, 'name', model)!r} reads text.",
                given="no preprocessor with a tokenizer, neither its own nor on its card",
                expected="a model of kt.text_classifier or kt.causal_lm, or a KerasHub task with its preprocessor",
                to_mend="kt.text_classifier(backbone, classes, preprocessor=…)",
            )
        )
    return preprocessor


def prediction_batches(
    model: keras.Model, texts: Sequence[Text], *, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Texts as a model reads them, the short with the short and the long with the long.

    Args:
        model: a model that reads text.
        texts: what to read.
        batch_size: texts at a time.

    Yields:
        (the numbers of some texts, the model's inputs for them). Every text comes once.

    Raises:
        ValueError: nothing says how the model reads text, or it takes inputs that its preprocessor does not give.
    """
    preprocessor = required_preprocessor(model)
    if not texts:
        return
    packed = pack(preprocessor, texts)
    check_segments(model, packed)
    names = input_names(model, packed)
    padded = bucket_of(packed.lengths, choose_lengths(packed.lengths, packed.max_length), packed.max_length)
    by_length = np.argsort(packed.lengths, kind="stable")
    for start in range(0, len(texts), batch_size):
        numbers = by_length[start : start + batch_size]
        rows = packed.padded(numbers, padded[numbers].max())
        yield numbers, {name: rows[name] for name in names}


def input_names(model: keras.Model, packed: Packed, *, beside: Sequence[str] = ()) -> list[str]:
    """The columns that the model takes, all there are where it does not say; `beside` comes from elsewhere.

    Raises:
        ValueError: it takes one that its preprocessor does not give.
    """
    taken = [tensor.name for tensor in getattr(model, "inputs", None) or [] if tensor.name not in beside]
    missing = [name for name in taken if name not in packed.features]
    if missing:
        raise ValueError(
            explain(
                f"The model {model.name!r} takes inputs that its preprocessor does not give.",
                given=", ".join(packed.features),
                expected=", ".join(taken),
                to_mend="build the model with the preprocessor that belongs to its backbone",
            )
        )
    return taken or list(packed.features)


def check_segments(model: keras.Model, packed: Packed) -> None:
    """Refuses more texts in a row than the model has segments for: looked up beyond its table, JAX gives NaN.

    Raises:
        ValueError: there are more.
    """
    table = next((layer for layer in state.sublayers(model) if layer.name == "segment_embedding"), None)
    known = getattr(table, "input_dim", None)
    numbers = packed.features.get("segment_ids", ())
    if known is not None and len(numbers) and numbers.max() >= known:
        raise ValueError(
            explain(
                f"The model {model.name!r} does not tell so many texts apart.",
                given=f"{numbers.max() + 1} texts in a row",
                expected=f"at most {known}, the segments of its body",
                to_mend="join some of the texts of a row to one",
            )
        )


def require_targets(preprocessor: keras.Layer, packed: Packed) -> Packed:
    """`packed`, if the preprocessor made targets too.

    Raises:
        ValueError: it did not.
    """
    if not packed.targets:
        raise ValueError(
            explain(
                "The data is for a language model, and the model is none.",
                given=f"a {type(preprocessor).__name__}, which does not make the next token what is to be learnt",
                expected="the preprocessor of a causal language model",
                to_mend="kt.causal_lm(…) for this data, or data with labels for this model: kt.data.texts(…)",
            )
        )
    return packed

"""How KerasHub's preprocessors are run: the only place that calls one, which is left to do what it does.

A preprocessor (a `BertTextClassifierPreprocessor`, say, with its tokenizer inside) is the one description of how a body
reads text: start and end tokens, segments, accents, padding.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer import card
from keras_transfer.errors import explain

# What a preprocessor gives beside the inputs of a language model, and where one for two texts keeps their lengths.
TARGETS = ("y", "sample_weight")
TWO_LENGTHS = ("encoder_sequence_length", "decoder_sequence_length")

# A text, or several that are read together, as segments.
Text = str | tuple[str, ...]


def reads_and_writes(preprocessor: keras.Layer) -> bool:
    """Whether a preprocessor is that of a sequence-to-sequence model, which takes two texts."""
    return all(hasattr(preprocessor, name) for name in TWO_LENGTHS)


def takes_prompts(preprocessor: keras.Layer) -> bool:
    """Whether a preprocessor takes picture, prompt and response apart, and gives rows of tokens: PaliGemma's does.

    (Those of the Gemmas that see take the same three, and put places for the picture among the tokens.)
    """
    return any(cls.__name__ == "PaliGemmaCausalLMPreprocessor" for cls in type(preprocessor).__mro__)


def longest_read(preprocessor: keras.Layer) -> int:
    """The length to which a preprocessor packs a text, in tokens; the greater where it has one for each of two.

    Raises:
        ValueError: it does not say.
    """
    if reads_and_writes(preprocessor):
        return max(getattr(preprocessor, name) for name in TWO_LENGTHS)
    length = getattr(preprocessor, "sequence_length", None)
    if not isinstance(length, int):
        raise ValueError(
            explain(
                f"The {type(preprocessor).__name__} does not say to what length it packs a text.",
                given=f"sequence_length={length!r}",
                expected="the preprocessor of a text classifier or a language model, with one length",
            )
        )
    return length


def columns_of(preprocessor: keras.Layer, texts: list[Text], length: int) -> dict[str, np.ndarray]:
    """The columns that a preprocessor gives for some texts, packed to one length."""
    with _set(preprocessor, sequence_length=length):
        if isinstance(texts[0], str):
            given = preprocessor(texts)
        else:  # without `y` the second of two segments would be taken for labels, and never be read
            given = preprocessor(tuple(map(list, zip(*texts, strict=True))), y=None)
        return _rows(preprocessor, _columns(given), (len(texts), length))


def columns_of_prompted(preprocessor: keras.Layer, pairs: list[tuple[str, str]], length: int) -> dict[str, np.ndarray]:
    """As `columns_of`, of prompts and responses; the picture, which has to be there, has one pixel and is left out."""
    prompts, responses = map(list, zip(*pairs, strict=True))
    pixels = np.zeros((len(pairs), 1, 1, 3), "float32")
    with _set(preprocessor, sequence_length=length, image_converter=None):
        columns = _columns(preprocessor({"images": pixels, "prompts": prompts, "responses": responses}))
    columns.pop("images")
    return _rows(preprocessor, columns, (len(pairs), length))


def columns_of_pairs(
    preprocessor: keras.Layer, read: list[str], written: list[str], lengths: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """As `columns_of`; the columns of the encoder have one length, those of the decoder and the targets another."""
    return _columns(preprocessor({"encoder_text": read, "decoder_text": written}, **lengths))


def check_kept(preprocessor: keras.Layer) -> None:
    """Writes a preprocessor as a model's card does, reads it back, and compares how both read some difficult texts.

    Raises:
        ValueError: they differ: a setting is not part of the preprocessor's configuration.
    """
    again = card.read_preprocessor(card.write_preprocessor(preprocessor))
    for text in ("Crème brûlée, NAÏVE?", "don't  (re-)read #42: e-mail\tto a_b@c.org", "我爱你。日本語", "", "🙂 ½ 🇫🇷"):
        first, second = (columns_of(layer, [text], longest_read(preprocessor)) for layer in (preprocessor, again))
        if any(not np.array_equal(first[name], second[name]) for name in first):
            raise ValueError(
                explain(
                    f"The {type(preprocessor).__name__} reads otherwise once it is saved and loaded.",
                    given=f"{text!r} is read as {first['token_ids'][0].tolist()}",
                    expected=f"{second['token_ids'][0].tolist()}, as what its configuration describes reads it",
                    to_mend="leave out what KerasHub does not save of a tokenizer, `split_on_cjk` for instance",
                )
            )


@contextlib.contextmanager
def _set(preprocessor: keras.Layer, **attributes: Any) -> Iterator[None]:
    """Within it the preprocessor has these attributes, its `sequence_length` for instance."""
    own = {name: getattr(preprocessor, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(preprocessor, name, value)
        yield
    finally:
        for name, value in own.items():
            setattr(preprocessor, name, value)


def _rows(preprocessor: keras.Layer, arrays: dict[str, np.ndarray], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """`arrays`, if each is one row of tokens for each text."""
    odd = {name: array.shape for name, array in arrays.items() if array.shape != shape}
    if odd:
        raise ValueError(
            explain(
                f"The {type(preprocessor).__name__} does not give one row of tokens for each text.",
                given=", ".join(f"{name} of shape {shape}" for name, shape in odd.items()),
                expected=f"(texts, tokens), here {shape}",
            )
        )
    return arrays


def _columns(given: Any) -> dict[str, np.ndarray]:
    """What a preprocessor gives, as arrays by name, those of the targets called `y` and `sample_weight`."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(given)
    x = x if isinstance(x, Mapping) else {"token_ids": x}
    columns = {**x, **dict(zip(TARGETS, (y, sample_weight), strict=True))}
    return {
        name: np.asarray(keras.ops.convert_to_numpy(column)) for name, column in columns.items() if column is not None
    }

"""How far a body reads, and whether a tokenizer is one for it."""

import keras

from keras_transfer.errors import explain


def fitting_length(body: keras.Model, preprocessor: keras.Layer | None, max_length: int | None) -> int | None:
    """The length that texts are to be cut to, by a preprocessor and for a body.

    Args:
        body: what reads.
        preprocessor: what turns texts into token ids, or `None`.
        max_length: the length that somebody asked for, in tokens.

    Returns:
        `max_length`, or the preprocessor's own, at most the body's; `None` without a preprocessor.

    Raises:
        ValueError: the body cannot read so far, or there is no preprocessor to cut texts.
    """
    if preprocessor is None:
        if max_length is not None:
            raise ValueError(
                explain(
                    "There is no preprocessor that could cut texts to a length.",
                    given=f"max_length={max_length}",
                    to_mend="pass preprocessor=…",
                )
            )
        return None
    longest = getattr(body, "max_sequence_length", None)
    if max_length is not None and not (isinstance(max_length, int) and 2 < max_length <= (longest or max_length)):
        raise ValueError(
            explain(
                f"`max_length` is not a length that {type(body).__name__} can read.",
                given=repr(max_length),
                expected=f"a whole number from 3 to {longest}" if longest else "a whole number from 3",
            )
        )
    wanted = preprocessor.sequence_length if max_length is None else max_length
    return min(wanted, longest) if longest else wanted


def check_vocabulary(body: keras.Model, preprocessor: keras.Layer) -> None:
    """Raises a `ValueError` where a tokenizer gives ids that the body has no embedding for."""
    words, known = getattr(body, "vocabulary_size", None), preprocessor.tokenizer.vocabulary_size()
    if words is not None and known > words:
        raise ValueError(
            explain(
                "The tokenizer knows more words than the body.",
                given=f"{known:,} in {type(preprocessor.tokenizer).__name__}",
                expected=f"at most {words:,}, the vocabulary_size of {type(body).__name__}",
                to_mend="take the preprocessor from the preset of the body",
            )
        )

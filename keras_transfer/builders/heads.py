"""The head that every classifier gets: features in, logits out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_transfer import card
from keras_transfer.arguments import is_whole
from keras_transfer.errors import explain


def class_list(classes: Sequence[str] | int) -> list[str]:
    """The names of the classes; their numbers where only their count is given.

    Raises:
        ValueError: for fewer than two classes, a name that comes twice, or one string.

    Example:

    >>> class_list(3), class_list(("ant", "bee"))
    (['0', '1', '2'], ['ant', 'bee'])
    """
    if isinstance(classes, str):
        raise ValueError(
            explain("`classes` is one string.", given=repr(classes), expected="a list of class names, or their number")
        )
    is_number = is_whole(classes)
    if not is_number and not isinstance(classes, Iterable):
        raise ValueError(
            explain(
                "`classes` are no classes.",
                given=repr(classes) if isinstance(classes, bool | float) else type(classes).__name__,
                expected="a list of class names, or their number",
                to_mend="splits.classes" if hasattr(classes, "classes") else None,
            )
        )
    names = [str(name) for name in (range(classes) if is_number else classes)]
    if len(names) < 2:
        raise ValueError(
            explain(
                "A classifier needs at least two classes.",
                given=names,
                expected="two or more class names",
                to_mend="add a class of everything else, if only one thing is to be recognised",
            )
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(explain("`classes` names a class more than once.", given=twice, expected="each name once"))
    return names


def check_dropout(dropout: float) -> None:
    """Raises a `ValueError` for what is no share."""
    if not 0 <= dropout < 1:
        raise ValueError(explain("`dropout` is a share.", given=dropout, expected="at least 0 and less than 1"))


def classification_head(
    features: keras.KerasTensor,
    classes: Sequence[str],
    *,
    dropout: float,
    preprocessor: keras.Layer | None = None,
    facts: Mapping[str, Any] | None = None,
) -> keras.KerasTensor:
    """Dropout, a dense layer and the layer that carries the model's card.

    Args:
        features: shape (batch, channels).
        classes: their names.
        dropout: share of the features dropped while training.
        preprocessor: what turns texts into the model's inputs, to be kept with it.
        facts: what else the card is to say.

    Returns:
        Logits, float32 of shape (batch, classes).
    """
    features = keras.layers.Dropout(dropout, name="head_dropout")(features)
    # In float32 like the loss: the head is small, and half precision would round the differences that it learns from.
    # From zero, as in big transfer (Kolesnikov et al. 2020, arXiv:1912.11370): a random head over a thousand features
    # starts with logits that are all noise, and a short first stage would spend itself on forgetting them.
    scores = keras.layers.Dense(len(classes), kernel_initializer="zeros", dtype="float32", name="head")(features)
    written = card.policy({"classes": list(classes), **(facts or {})}, preprocessor=preprocessor)
    return keras.layers.Activation("linear", dtype=written, name="logits")(scores)

"""What predictions must be to be judged: labels, probabilities and class names that fit each other."""

import collections
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from keras_transfer import errors
from keras_transfer.formatting import shortened

SPLITS = ("train", "validation", "test")

# Rows of a float16 or bfloat16 softmax miss 1 by up to about a hundredth.
ROW_SUM_TOLERANCE = 0.02


def check_predictions(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Iterable[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], tuple[str, ...]]:
    """The three as arrays and a tuple, or an error that says which of them does not fit the others, and where.

    Args:
        labels: integers of shape (n,).
        probabilities: shape (n, classes).
        classes: the class names.

    Returns:
        labels as int64, probabilities as float64, class names as a tuple.

    Raises:
        ValueError: as `report` does.

    Example:

    >>> labels, probabilities, classes = check_predictions([1], [[0.25, 0.75]], ["ants", "bees"])
    >>> labels.shape, probabilities.shape, classes
    ((1,), (1, 2), ('ants', 'bees'))
    """
    if isinstance(classes, str):
        raise ValueError(errors.explain("`classes` is one string.", given=classes, expected="a list of class names"))
    classes = tuple(classes)
    check_classes(classes)
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities)
    if labels.ndim != 1 or len(labels) == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            errors.explain(
                "`labels` must be a row of class numbers.",
                given=f"shape {labels.shape}, {labels.dtype}",
                expected="shape (n,) with n of at least 1, integers",
                to_mend="from one-hot rows: labels.argmax(axis=1)" if labels.ndim == 2 else None,
            )
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if outside.size:
        raise ValueError(
            errors.explain(
                "`labels` holds numbers that no class has.",
                given=f"{labels[outside[0]]} at position {outside[0]}; {outside.size:,} of {len(labels):,} are outside",
                expected=f"0 to {len(classes) - 1}, for {len(classes)} classes",
            )
        )
    if probabilities.shape != (len(labels), len(classes)):
        raise ValueError(
            errors.explain(
                "`probabilities` does not fit the labels and classes.",
                given=f"shape {probabilities.shape}",
                expected=f"shape {(len(labels), len(classes))}: {len(labels):,} labels, {len(classes)} classes",
            )
        )
    probabilities = probabilities.astype(np.float64)
    _check_rows(probabilities)
    return labels.astype(np.int64), probabilities, classes


def check_split(split: str) -> None:
    """Raises a `ValueError` with the nearest name where `split` is none of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(
            errors.explain(
                "`split` is not the name of a split.",
                given=repr(split),
                expected=", ".join(map(repr, SPLITS)),
                nearest=errors.nearest(split, SPLITS),
            )
        )


def check_classes(classes: Sequence[str]) -> None:
    """Raises a `ValueError` where these are not the names of at least two classes, each of them once."""
    strange = [name for name in classes if not isinstance(name, str) or not name]
    twice = [] if strange else [name for name, count in collections.Counter(classes).items() if count > 1]
    if len(classes) < 2 or strange or twice:
        raise ValueError(
            errors.explain(
                "`classes` must be the names of at least two classes, each of them once.",
                given=shortened(list(classes)),
                expected="different, non-empty strings",
                not_a_name=shortened(strange) if strange else None,
                more_than_once=shortened(twice) if twice else None,
            )
        )


def _check_rows(probabilities: npt.NDArray[np.float64]) -> None:
    unfinished = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if unfinished.size:
        raise ValueError(
            errors.explain(
                "`probabilities` holds values that are not finite, so nothing can be said about those examples.",
                given=f"{unfinished.size:,} of {len(probabilities):,} rows with NaN or infinity, the first at position "
                f"{unfinished[0]}",
                expected="finite values between 0 and 1",
                to_mend="look for a loss that became NaN, or for pictures that hold NaN themselves",
            )
        )
    off = (probabilities < -ROW_SUM_TOLERANCE).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > ROW_SUM_TOLERANCE)
    if off.any():
        first = int(np.flatnonzero(off)[0])
        shown = ", ".join(f"{value:.3g}" for value in probabilities[first, :5])
        raise ValueError(
            errors.explain(
                "`probabilities` holds rows that are no probabilities.",
                given=f"{int(off.sum()):,} of {len(off):,} rows, the first at position {first}: [{shown}"
                f"{', …' if probabilities.shape[1] > 5 else ''}] with the sum {probabilities[first].sum():.3g}",
                expected="rows of values between 0 and 1 that sum to 1",
                to_mend="models give logits: `kt.predict` or `keras.ops.softmax(logits)` makes them probabilities",
            )
        )

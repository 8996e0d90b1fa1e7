"""Pictures that are given one by one, as arrays or as files, and their labels."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.data.decoding import as_array
from keras_transfer.data.examples import ArrayExamples, EncodedExamples, FileExamples, PictureExamples
from keras_transfer.data.sources import WHOLE, Found
from keras_transfer.errors import explain


def arrays(pictures: Any, labels: Any, *, name: str = "x") -> Found:
    """Pictures and their labels.

    Args:
        pictures: shape (pictures, height, width, 3), (…, 1) or (pictures, height, width); uint8 or float, 0..255; or a
            sequence of such pictures, each of its own size, of Pillow's, of paths, or of the bytes of a file each.
        labels: whole numbers or names, shape (pictures,), or one-hot, shape (pictures, classes).
        name: what the pictures are called in messages.

    Raises:
        ValueError: their lengths disagree, or the pictures or the labels are of no such kind.

    Example:

    >>> arrays([pathlib.Path("ant.jpg"), pathlib.Path("bee.jpg")], ["ants", "bees"]).splits["whole"].describe(1)
    'bee.jpg'
    """
    pictures = in_places(pictures)
    class_names, declared = class_names_of(labels)
    if len(pictures) != len(class_names):
        raise ValueError(
            explain(
                "There are not as many labels as pictures.",
                given=f"{len(pictures)} pictures, {len(class_names)} labels",
                expected="one label for each picture",
            )
        )
    shape = getattr(pictures, "shape", None)
    if holds_numbers(pictures) and not (len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3))):
        raise ValueError(
            explain(
                "`x` does not have the shape of pictures.",
                given=tuple(shape),
                expected="(pictures, height, width, 3), (pictures, height, width, 1) or (pictures, height, width)",
                to_mend="move the channels last: x.transpose(0, 2, 3, 1)"
                if len(shape) == 4 and shape[1] in (1, 3)
                else None,
            )
        )
    return Found({WHOLE: of_one_kind(pictures, class_names, name=name)}, {WHOLE: declared})


def in_places(given: Any) -> Any:
    """What somebody gives one by one, as an array or a sequence: a tensor, a column of a table, an iterator.

    Raises:
        TypeError: it is nothing that can be gone through.

    Example:

    >>> in_places(name for name in ("ant.jpg", "bee.jpg"))
    ['ant.jpg', 'bee.jpg']
    """
    if keras.ops.is_tensor(given):
        return keras.ops.convert_to_numpy(given)
    if hasattr(given, "to_numpy"):  # of pandas and polars, whose rows have names rather than places
        return given.to_numpy()
    return given if hasattr(given, "shape") or isinstance(given, Sequence) else list(given)


def of_one_kind(given: Any, class_names: Sequence[str], *, name: str) -> PictureExamples:
    """Pictures as arrays, as paths or as encoded bytes; which of these, they say themselves.

    Args:
        given: an array of pictures, or a sequence of arrays, of paths, or of the bytes of a file each.
        class_names: one name for each.
        name: what they are called in messages.

    Raises:
        ValueError: they are of several kinds, or their pixels are scaled already.
    """
    if holds_numbers(given):
        check_pixels(given, name)
        return ArrayExamples(given, class_names, name=name)
    kinds = {_kind(picture) for picture in given}
    if kinds == {"path"}:
        return FileExamples([pathlib.Path(picture).expanduser() for picture in given], class_names)
    if kinds == {"bytes"}:
        return EncodedExamples(given.__getitem__, class_names, name=name)
    if kinds <= {"array"}:
        check_pixels(given, name)
        return ArrayExamples(given, class_names, name=name)
    raise ValueError(
        explain(
            f"The pictures of `{name}` are not all of one kind.",
            given=", ".join(sorted({type(picture).__name__ for picture in given})),
            expected="arrays or Pillow's pictures, or paths, or encoded bytes",
        )
    )


def holds_numbers(given: Any) -> bool:
    """Whether it is an array or a tensor of numbers, and not of names, bytes or arrays.

    Example:

    >>> holds_numbers(np.zeros(2)), holds_numbers(np.array(["ant.jpg"])), holds_numbers([0.0])
    (True, False, False)
    """
    return hasattr(given, "shape") and hasattr(given, "dtype") and getattr(given.dtype, "kind", "") not in "OUS"


def _kind(picture: Any) -> str:
    return "path" if isinstance(picture, str | os.PathLike) else "bytes" if isinstance(picture, bytes) else "array"


def class_names_of(labels: Any, *, noun: str = "picture", argument: str = "y") -> tuple[list[str], set[str]]:
    """(The name of each example's class, all names that the labels have room for); errors speak of `noun`s."""
    given = np.asarray(keras.ops.convert_to_numpy(labels) if keras.ops.is_tensor(labels) else labels)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.dtype == object and all(isinstance(label, str) for label in given.flat):
        given = given.astype(str)
    if given.dtype.kind == "f" and (given == np.floor(given)).all():
        given = given.astype(np.int64)
    if given.ndim == 2 and given.dtype.kind in "uib" and (np.sort(given) == [0] * (given.shape[1] - 1) + [1]).all():
        return [str(label) for label in given.argmax(axis=1)], {str(label) for label in range(given.shape[1])}
    if given.ndim != 1 or given.dtype.kind not in "uiUSb":
        parts = given.flat if given.ndim == 1 and given.dtype.kind in "fO" else ()
        odd = next((place for place, label in enumerate(parts) if not _is_label(label)), None)
        raise ValueError(
            explain(
                f"`{argument}` does not hold one label for each {noun}.",
                given=f"shape {given.shape}, type {given.dtype}"
                + ("" if odd is None else f", {given[odd]!r} at place {odd}"),
                expected=f"whole numbers or names of shape ({noun}s,), or one-hot rows of shape ({noun}s, classes)",
            )
        )
    if given.dtype.kind == "i" and given.size and given.min() < 0:
        raise ValueError(
            explain(f"`{argument}` holds a negative label.", given=given.min(), expected="whole numbers from 0")
        )
    names = [label.decode() if isinstance(label, bytes) else str(label) for label in given.tolist()]
    return names, set(names)


def _is_label(given: Any) -> bool:
    return isinstance(given, str) or (isinstance(given, int | float | np.number) and given == given // 1)


def check_pixels(pictures: Any, name: str) -> None:
    """Refuses floats that somebody has scaled already; whole numbers of 8 bits cannot be.

    Args:
        pictures: an array of pictures, or a sequence of them.
        name: what they are called in the message.

    Raises:
        ValueError: no pixel exceeds 1, or some lie outside 0..255.

    Example:

    >>> check_pixels(np.full((1, 2, 2, 3), 255.0), "x")
    """
    if getattr(pictures, "dtype", None) == np.uint8:
        return
    lowest, highest = np.inf, -np.inf
    for number in range(len(pictures)):
        picture = as_array(pictures[number])
        if picture.dtype == np.uint8 or picture.dtype.kind not in "uif" or not picture.size:
            continue
        lowest, highest = (
            np.fmin(lowest, np.fmin.reduce(picture, None)),
            np.fmax(highest, np.fmax.reduce(picture, None)),
        )
    if lowest > highest or (lowest >= 0 and (highest == 0 or 1 < highest <= 255)):
        return
    scaled = lowest >= -1.001 and highest <= 1.001
    raise ValueError(
        explain(
            f"The pixels of `{name}` are scaled already." if scaled else f"The pixels of `{name}` lie outside 0..255.",
            given=f"{lowest:g}..{highest:g}",
            expected="0..255: the model holds its own preprocessing, and would scale a second time",
            to_mend=None if not scaled else f"{name} * 255" if lowest >= 0 else f"({name} + 1) * 127.5",
        )
    )

"""The contact sheet of mistakes: the pictures on which the model was wrong with the most confidence."""

import math
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from keras_transfer import errors
from keras_transfer.evaluation.checks import check_predictions
from keras_transfer.evaluation.plots.sheet import BLUE, INK, LABEL_SIZE, MARGIN, MUTED, ORANGE, Sheet, open_sheet
from keras_transfer.formatting import counted, percent

# Inches.
TILE, GAP, ROW_HEIGHT = 1.75, 0.22, 2.37


def most_wrong(
    pictures: Sequence[npt.ArrayLike] | npt.NDArray,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Iterable[str],
    path: str | os.PathLike,
    count: int = 16,
) -> pathlib.Path:
    """Draws the pictures that were wrong with the most confidence: mislabelled ones stand there, and what to collect.

    Where nothing is wrong it draws the pictures that were least certain, and says so.

    Args:
        pictures: shape (n, height, width, 3), values 0..255, or anything with a length whose items are such pictures.
            Only those drawn are looked at.
        labels: the true classes, integers of shape (n,).
        probabilities: shape (n, classes).
        classes: the class names, in the order of the labels.
        path: the file to write. Its ending says the format; folders that are missing are made.
        count: how many pictures at most.

    Returns:
        the path.

    Raises:
        ValueError: if shapes disagree, labels or probabilities are not such (as `report` says), pictures are not
            0..255, `count` is below 1, or the ending of the path names no picture format.

    Example:

    >>> import tempfile
    >>> pictures = np.full((2, 32, 32, 3), 127)
    >>> most_wrong(pictures, [0, 1], [[.1, .9], [.2, .8]], ["ants", "bees"], tempfile.mkdtemp() + "/wrong.png").name
    'wrong.png'
    """
    labels, probabilities, classes = check_predictions(labels, probabilities, classes)
    if len(pictures) != len(labels):
        raise ValueError(
            errors.explain(
                "`pictures` and `labels` are not equally many.", given=len(pictures), expected=f"{len(labels)} pictures"
            )
        )
    if count < 1:
        raise ValueError(errors.explain("`count` is too small.", given=count, expected="1 or more"))
    with open_sheet(path, classes) as (sheet, names):
        _draw(pictures, labels, probabilities, names, count, sheet)
    return pathlib.Path(path)


def _draw(
    pictures: Sequence[npt.ArrayLike] | npt.NDArray,
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    names: Sequence[str],
    count: int,
    sheet: Sheet,
) -> None:
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    candidates, order = (wrong, -confidence[wrong]) if wrong.size else (np.arange(len(labels)), confidence)
    chosen = candidates[np.argsort(order, kind="stable")][:count]
    tiles = _tiles(pictures, chosen)

    columns = min(len(chosen), 8, max(4, math.ceil(math.sqrt(len(chosen)))))
    sheet.width = max(2 * MARGIN + columns * (TILE + GAP) - GAP, 5.2)
    sheet.heading(*_heading(len(wrong), len(labels), len(chosen)))
    for number, (index, picture) in enumerate(zip(chosen, tiles, strict=True)):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (TILE + GAP), sheet.top + row * ROW_HEIGHT
        panel = sheet.axes(left, top, TILE, TILE)
        panel.imshow(picture)
        panel.set_axis_off()
        panel.set_anchor("SW")
        said, then = np.argsort(-probabilities[index], kind="stable")[:2]
        likely, less_likely = (f" {percent(probabilities[index, which], digits=0)}" for which in (said, then))
        upper = ("said ", names[said], f"{likely},")
        lower = ("is ", names[labels[index]], "") if wrong.size else ("then ", names[then], less_likely)
        place = f"#{index}"
        room = TILE - sheet.measure(place, LABEL_SIZE - 1.5) - 0.08
        color = ORANGE if wrong.size else BLUE
        sheet.write(left, top + TILE + 0.06, sheet.around(*upper, TILE, "bold"), weight="bold", color=color)
        sheet.write(left, top + TILE + 0.24, sheet.around(*lower, room), color=INK)
        sheet.write(left + TILE, top + TILE + 0.26, place, size=LABEL_SIZE - 1.5, ha="right", color=MUTED)
    sheet.top += math.ceil(len(chosen) / columns) * ROW_HEIGHT - 0.1


def _heading(wrong: int, total: int, shown: int) -> tuple[str, str]:
    """The finding, and what goes with it."""
    if wrong:
        title = f"{wrong:,} of {counted(total, 'picture')} wrong"
        facts = f"the {shown} most confident of them" if shown < wrong else "the most confident first"
    else:
        title = f"All {total:,} pictures are right" if total > 1 else "The one picture is right"
        facts = f"these {shown} were the least certain" if shown < total else "the least certain first"
    return title, f"{facts} · # is the picture's position, counted from 0"


def _tiles(
    pictures: Sequence[npt.ArrayLike] | npt.NDArray, chosen: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.uint8]]:
    """The chosen pictures as uint8, or an error that says which is no picture of 0..255."""
    tiles = [np.asarray(pictures[int(index)]) for index in chosen]
    for index, tile in zip(chosen, tiles, strict=True):
        fits = tile.ndim == 3 and tile.shape[-1] == 3 and tile.size > 0 and np.issubdtype(tile.dtype, np.number)
        if not fits or not np.isfinite(tile).all() or tile.min() < -1 or tile.max() > 256:
            values = f", values {tile.min():g} to {tile.max():g}" if fits else ""
            raise ValueError(
                errors.explain(
                    f"Picture {index} cannot be drawn.",
                    given=f"shape {tile.shape}, {tile.dtype}{values}",
                    expected="shape (height, width, 3), values 0 to 255",
                )
            )
    brightest = max(float(tile.max()) for tile in tiles)
    if 0 < brightest <= 1 and all(np.issubdtype(tile.dtype, np.floating) for tile in tiles):
        raise ValueError(
            errors.explain(
                "`pictures` are scaled to 0..1.",
                given=f"floating-point values up to {brightest:g}",
                expected="values 0 to 255",
                to_mend="pass 255 * pictures",
            )
        )
    return [np.clip(np.rint(tile), 0, 255).astype(np.uint8) for tile in tiles]

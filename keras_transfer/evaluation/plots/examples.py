"""A contact sheet of pictures with two lines beneath each: pairs side by side, or one by one."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keras_transfer.evaluation.plots.sheet import INK, LABEL_SIZE, MARGIN, MUTED, ORANGE, Sheet, open_sheet

# Inches.
TILE, GAP, BETWEEN, ROW_HEIGHT = 1.5, 0.08, 0.28, 2.12
# So many groups at most: a sheet that nobody scrolls through shows nothing.
MOST = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """A picture and what is written beneath it.

    Attributes:
        picture: shape (height, width, 3), values 0..255.
        upper: the first line.
        lower: the second line.
        place: small, at the end of the second line.
    """

    picture: npt.NDArray
    upper: str
    lower: str
    place: str


def contact_sheet(groups: Sequence[Sequence[Tile]], title: str, facts: str, path: str | os.PathLike) -> pathlib.Path:
    """Draws groups of pictures that belong together, each group side by side.

    Args:
        groups: equally many tiles in each; the first 32 groups are drawn, which the sheet says.
        title: the finding.
        facts: what goes with it.
        path: the file to write. Its ending says the format; folders that are missing are made.

    Returns:
        the path.

    Raises:
        ValueError: if the ending of the path names no picture format.

    Example:

    >>> import tempfile
    >>> tile = Tile(np.full((8, 8, 3), 127, "uint8"), "train", "ant", "#3")
    >>> contact_sheet([[tile, tile]], "1 pair", "side by side", tempfile.mkdtemp() + "/pairs.png").name
    'pairs.png'
    """
    shown = list(groups[:MOST])
    if len(shown) < len(groups):
        facts += f"; {len(shown)} of {len(groups)} are shown"
    words = [word for group in shown for tile in group for word in (tile.upper, tile.lower)]
    with open_sheet(path, words) as (sheet, names):
        lines = iter(names)
        size = len(shown[0])
        width = size * TILE + (size - 1) * GAP
        columns = min(len(shown), max(1, math.floor(14 / (width + BETWEEN))), max(2, math.ceil(math.sqrt(len(shown)))))
        sheet.width = max(2 * MARGIN + columns * (width + BETWEEN) - BETWEEN, 5.2)
        sheet.heading(title, facts)
        for number, group in enumerate(shown):
            row, column = divmod(number, columns)
            for place, tile in enumerate(group):
                left = MARGIN + column * (width + BETWEEN) + place * (TILE + GAP)
                _draw(sheet, tile, next(lines), next(lines), left, sheet.top + row * ROW_HEIGHT)
        sheet.top += math.ceil(len(shown) / columns) * ROW_HEIGHT - 0.1
    return pathlib.Path(path)


def _draw(sheet: Sheet, tile: Tile, upper: str, lower: str, left: float, top: float) -> None:
    panel = sheet.axes(left, top, TILE, TILE)
    panel.imshow(np.clip(np.rint(tile.picture), 0, 255).astype(np.uint8))
    panel.set_axis_off()
    panel.set_anchor("SW")
    size = LABEL_SIZE - 1.5
    room = TILE - sheet.measure(tile.place, size) - 0.08
    sheet.write(left, top + TILE + 0.06, sheet.shorten(upper, TILE, weight="bold"), weight="bold", color=ORANGE)
    sheet.write(left, top + TILE + 0.24, sheet.shorten(lower, room), color=INK)
    sheet.write(left + TILE, top + TILE + 0.26, tile.place, size=size, ha="right", color=MUTED)

"""Maps of examples: where they lie by their features, in groups, and what is typical of a group."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from keras_transfer import errors
from keras_transfer.evaluation.plots.sheet import INK, MARGIN, MUTED, RULE, Sheet, open_sheet

# Okabe and Ito's colours stay apart for every common kind of colour blindness; black and yellow are left out, which
# are text and too light here. What goes beyond them has another shape.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
# Inches.
PANEL, GAP, TILE, LINE = 4.4, 0.4, 0.78, 0.22
NAME, BETWEEN = 2.1, 0.06


@dataclasses.dataclass(frozen=True, eq=False)
class Cloud:
    """One map.

    Attributes:
        title: what stands above it.
        places: of the examples, shape (examples, 2).
        groups: the number of each example's group, which is its colour.
        names: of the groups.
        hollow: which examples are drawn as rings.
        looks: for each group the number of its colour and shape, so that groups of several maps that belong together
            look alike; its own number if not given.
    """

    title: str
    places: np.ndarray
    groups: np.ndarray
    names: Sequence[str]
    hollow: np.ndarray | None = None
    looks: Sequence[int] | None = None

    def look(self, group: int) -> tuple[str, str]:
        """Colour and shape of a group: as many as there are of both together, then again from the first."""
        number = group if self.looks is None else self.looks[group]
        return COLOURS[number % len(COLOURS)], SHAPES[number // len(COLOURS) % len(SHAPES)]


def draw_map(
    clouds: Sequence[Cloud],
    path: str | os.PathLike,
    *,
    title: str,
    facts: str,
    strips: Sequence[tuple[str, Sequence[Any]]] = (),
) -> pathlib.Path:
    """Draws maps beside each other, and under them a row of pictures for each group.

    Args:
        clouds: one to three maps.
        path: the file to write. Its ending says the format; folders that are missing are made.
        title: the finding.
        facts: what goes with it.
        strips: a name and pictures of 0..255 for each group of the first map, in the order of their numbers.

    Returns:
        The path.

    Raises:
        ValueError: if a map's places, groups and names do not fit together, or the ending of the path names no picture
            format.

    Example:

    >>> import tempfile
    >>> cloud = Cloud("by insect", np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([0, 1]), ["ant", "bee"])
    >>> draw_map([cloud], tempfile.mkdtemp() + "/map.png", title="2 insects", facts="of two kinds").name
    'map.png'
    """
    for cloud in clouds:
        _check(cloud)
    spelt = [name for cloud in clouds for name in cloud.names] + [name for name, _ in strips]
    with open_sheet(path, spelt) as (sheet, names):
        most = max((len(pictures) for _, pictures in strips), default=0)
        sheet.width = 2 * MARGIN + max(len(clouds) * (PANEL + GAP) - GAP, NAME + most * (TILE + BETWEEN) if most else 0)
        sheet.heading(title, facts)
        # The legend of a map takes as many lines as its names need.
        shown = [[names.pop(0) for _ in cloud.names] for cloud in clouds]
        heights = [
            _draw_cloud(sheet, MARGIN + number * (PANEL + GAP), cloud, shown[number])
            for number, cloud in enumerate(clouds)
        ]
        sheet.top += max(heights)
        for group, (_, pictures) in enumerate(strips):
            _draw_strip(sheet, clouds[0].look(group), names.pop(0), pictures)
    return pathlib.Path(path)


def _draw_cloud(sheet: Sheet, left: float, cloud: Cloud, names: Sequence[str]) -> float:
    """Draws a map with its title and legend below the sheet's top; says how high it all is."""
    sheet.write(left, sheet.top, sheet.shorten(cloud.title, PANEL, weight="bold"), weight="bold", color=INK)
    axes = sheet.axes(left, sheet.top + LINE, PANEL, PANEL)
    _draw_points(axes, cloud)
    top = sheet.top + LINE + PANEL + 0.1
    place = left
    for group, name in enumerate(names):
        if not np.any(cloud.groups == group):
            continue
        name = sheet.shorten(name, PANEL - 0.3)
        width = 0.16 + sheet.measure(name) + 0.2
        if place > left and place + width > left + PANEL:
            place, top = left, top + LINE
        _chip(sheet, place, top, cloud.look(group))
        sheet.write(place + 0.16, top, name, color=MUTED)
        place += width
    return top + LINE + 0.15 - sheet.top


def _draw_points(axes: Axes, cloud: Cloud) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(RULE)
    axes.margins(0.04)
    hollow = np.zeros(len(cloud.groups), bool) if cloud.hollow is None else np.asarray(cloud.hollow, bool)
    size = float(np.clip(9000 / max(len(cloud.groups), 1), 8, 34))
    for group in np.unique(cloud.groups):
        colour, shape = cloud.look(int(group))
        for ring in (False, True):
            places = cloud.places[(cloud.groups == group) & (hollow == ring)]
            if len(places):
                how = {"facecolors": "none", "edgecolors": colour} if ring else {"color": colour, "alpha": 0.75}
                axes.scatter(*places.T, s=size, marker=shape, linewidths=1.0 if ring else 0.0, **how)


def _draw_strip(sheet: Sheet, look: tuple[str, str], name: str, pictures: Sequence[Any]) -> None:
    _chip(sheet, MARGIN, sheet.top + TILE / 2 - 0.07, look)
    sheet.write(MARGIN + 0.16, sheet.top + TILE / 2, sheet.shorten(name, NAME - 0.3), va="center", color=INK)
    for number, picture in enumerate(pictures):
        panel = sheet.axes(MARGIN + NAME + number * (TILE + BETWEEN), sheet.top, TILE, TILE)
        panel.imshow(np.clip(np.rint(np.asarray(picture)), 0, 255).astype(np.uint8))
        panel.set_axis_off()
    sheet.top += TILE + 0.08


def _chip(sheet: Sheet, left: float, top: float, look: tuple[str, str]) -> None:
    colour, shape = look
    panel = sheet.axes(left, top + 0.01, 0.12, 0.12)
    panel.scatter([0], [0], s=26, color=colour, marker=shape, linewidths=0, clip_on=False)
    panel.set_axis_off()


def _check(cloud: Cloud) -> None:
    count = len(cloud.groups)
    fits = np.shape(cloud.places) == (count, 2) and (cloud.hollow is None or len(cloud.hollow) == count)
    groups = np.asarray(cloud.groups)
    if not count or not fits or groups.min() < 0 or groups.max() >= len(cloud.names):
        raise ValueError(
            errors.explain(
                f"The map {cloud.title!r} does not fit together.",
                given=f"places of shape {np.shape(cloud.places)}, {count} groups, {len(cloud.names)} names",
                expected="a place, a group and a name of it for each example",
            )
        )
    if not math.isfinite(float(np.abs(cloud.places).max())):
        raise ValueError(errors.explain(f"The map {cloud.title!r} has places that are none.", given="NaN or infinity"))

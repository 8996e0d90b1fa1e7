"""Pictures of several methods side by side: accuracy against cost, learning curves, differences class by class."""

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from keras_transfer import errors
from keras_transfer.evaluation.plots.sheet import BAND, BLUE, INK, MARGIN, MUTED, ORANGE, Sheet, open_sheet
from keras_transfer.formatting import duration, percent

# Okabe and Ito's colours, that stay apart for every common kind of colour blindness; then other shapes.
COLORS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#8C6D00", "#56B4E9", "#5B4B8A", "#4D4D4D")
SHAPES = ("o", "s", "^", "D")
GREY = "#C3CBD3"
MOST_CLASSES = 40


@dataclasses.dataclass(frozen=True)
class Point:
    """A method's accuracy and what it costs.

    Attributes:
        name: of the method.
        accuracy, low, high: mean, and the ends of its interval.
        seconds: of training.
        bytes: to store per task.
    """

    name: str
    accuracy: float
    low: float
    high: float
    seconds: float
    bytes: int


@dataclasses.dataclass(frozen=True)
class ClassDifference:
    """How much more of a class one method finds than another.

    Attributes:
        name: of the class.
        value, low, high: difference of the recalls and the ends of its interval.
    """

    name: str
    value: float
    low: float
    high: float


def accuracy_against_cost(points: Sequence[Point], path: str | os.PathLike) -> pathlib.Path:
    """Draws the accuracy of methods over their training time, and over what they leave to store.

    Args:
        points: one for each method.
        path: the file to write. Its ending says the format; folders that are missing are made.

    Returns:
        the path.

    Raises:
        ValueError: if there is no point, or the ending names no picture format.

    Example:

    >>> import tempfile
    >>> points = [Point("head", 0.8, 0.7, 0.9, 3.0, 10_000), Point("all", 0.9, 0.8, 1.0, 60.0, 9_000_000)]
    >>> accuracy_against_cost(points, tempfile.mkdtemp() + "/cost.png").name
    'cost.png'
    """
    _check_any(points, "points", "one for each method")
    with open_sheet(path, [point.name for point in points]) as (sheet, names):
        _draw_costs(points, sheet, names)
    return pathlib.Path(path)


def _draw_costs(points: Sequence[Point], sheet: Sheet, names: Sequence[str]) -> None:
    left, width, height = 0.95, 3.5, 3.2
    sheet.width = left + 2 * width + 0.25 + 2.6 + MARGIN
    top = max(points, key=lambda point: (point.accuracy, -point.seconds))
    quick = min(points, key=lambda point: point.seconds)
    title = f"{percent(top.accuracy)} is the highest accuracy, in {duration(top.seconds)} of training"
    fact = "bars are 95 % intervals"
    if quick is not top:
        fact = f"the quickest takes {duration(quick.seconds)} and has {percent(quick.accuracy)} · {fact}"
    sheet.heading(title, fact)
    panels = []
    for number, (costs, label) in enumerate((
        ([point.seconds for point in points], "seconds of training"),
        ([point.bytes / 2**20 for point in points], "MiB to store per task"),
    )):  # fmt: skip
        shared = panels[0] if panels else None
        panel = sheet.axes(left + number * (width + 0.25), sheet.top, width, height, sharey=shared)
        _draw_points(panel, points, costs)
        panel.set_xlabel(label, color=INK)
        panel.tick_params(length=0, labelleft=number == 0)
        panels.append(panel)
    panels[0].yaxis.set_major_formatter(ticker.FuncFormatter(_percent_tick))
    panels[0].set_ylabel("accuracy", color=INK)
    _draw_key(sheet, points, names, left + 2 * width + 0.5)
    sheet.top += height + 0.5


def _draw_points(panel: Axes, points: Sequence[Point], costs: Sequence[float]) -> None:
    panel.set_facecolor(BAND)
    panel.grid(color="white", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
    for number, (point, cost) in enumerate(zip(points, costs, strict=True)):
        look = {"color": _color(number), "marker": _shape(number)}
        panel.plot([cost, cost], [point.low, point.high], color=look["color"], linewidth=1.4, alpha=0.55)
        panel.plot([cost], [point.accuracy], markersize=8, markeredgecolor="white", **look)
    if min(costs) > 0 and max(costs) > 8 * min(costs):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.set_xlim(min(costs) / 1.5, max(costs) * 1.5)
    else:
        panel.set_xlim(0, max(costs) * 1.12 or 1)
        panel.xaxis.set_major_locator(ticker.MaxNLocator(nbins=5))
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.3g}"))


def _draw_key(sheet: Sheet, points: Sequence[Point], names: Sequence[str], left: float) -> None:
    """The methods from the most accurate down, each with its mark."""
    ranked = sorted(range(len(points)), key=lambda number: -points[number].accuracy)
    row = min(0.3, 3.0 / len(points))
    for place, number in enumerate(ranked):
        middle = sheet.top + 0.1 + place * row
        mark = sheet.axes(left, middle - 0.08, 0.16, 0.16)
        mark.plot([0], [0], color=_color(number), marker=_shape(number), markersize=7, clip_on=False)
        mark.set_axis_off()
        sheet.write(left + 0.26, middle, sheet.shorten(names[number], 1.6), va="center")
        sheet.write(sheet.width - MARGIN, middle, percent(points[number].accuracy), ha="right", va="center")


def method_curves(
    histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: str | os.PathLike
) -> pathlib.Path:
    """Draws for each method the accuracy over the epochs: the mean of its seeds, and from the lowest to the highest.

    The other methods stand behind it in grey, borders between stages are dotted.

    Args:
        histories: for each method, by name, the history of each seed, as in `learning_curves`.
        path: the file to write. Its ending says the format; folders that are missing are made.

    Returns:
        the path.

    Raises:
        ValueError: if there is no history, or the ending names no picture format.

    Example:

    >>> import tempfile
    >>> rows = [{"stage": "head", "epoch": n, "accuracy": 0.5 + n / 10, "val_accuracy": n / 10} for n in (1, 2, 3)]
    >>> method_curves({"head only": [rows, rows]}, tempfile.mkdtemp() + "/curves.png").name
    'curves.png'
    """
    _check_any(histories, "histories", "those of one method or more")
    for name, of_seeds in histories.items():
        _check_any(
            [rows for rows in of_seeds if rows], f"histories[{name!r}]", "one of each seed, with a row per epoch"
        )
    with open_sheet(path, list(histories)) as (sheet, names):
        _draw_curves(list(histories.values()), sheet, names)
    return pathlib.Path(path)


@dataclasses.dataclass(frozen=True)
class _Spread:
    """A figure over the epochs: the mean of the seeds, the lowest and the highest, NaN where none was measured."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _draw_curves(every: Sequence[Sequence[Sequence[Mapping[str, Any]]]], sheet: Sheet, names: Sequence[str]) -> None:
    # Four make a square.
    columns, width, height = 2 if len(every) == 4 else min(3, len(every)), 3.1, 1.9
    sheet.width = max(0.85 + columns * (width + 0.2) + MARGIN, 6.0)
    measured = all(_finite(row, "val_accuracy") for of_seeds in every for rows in of_seeds for row in rows)
    column = "val_accuracy" if measured else "accuracy"
    spreads = [_spread(of_seeds, column) for of_seeds in every]
    ends = [spread.mean[-1] for spread in spreads]
    first = int(np.nanargmax(ends)) if np.isfinite(ends).any() else 0
    who = "Validation" if measured else "Train"
    sheet.heading(
        f"{who} accuracy ends highest with {sheet.shorten(names[first], 2.4)}, {percent(ends[first])}",
        "line: mean of the seeds · band: lowest to highest · dashed: training · grey: the other methods",
    )
    panels: list[Axes] = []
    for number, of_seeds in enumerate(every):
        if number % columns == 0:
            sheet.top += (height + 0.35) * (number > 0) + 0.22
        left = 0.85 + (number % columns) * (width + 0.2)
        panel = sheet.axes(left, sheet.top, width, height, sharex=panels[0] if panels else None)
        panels.append(panel)
        sheet.write(left, sheet.top - 0.05, sheet.shorten(names[number], width), va="bottom", weight="bold")
        for other in (spread for place, spread in enumerate(spreads) if place != number):
            panel.plot(other.epochs, other.mean, color=GREY, linewidth=1)
        _draw_method(panel, of_seeds, spreads[number], number)
        panel.tick_params(length=0, labelleft=number % columns == 0, labelbottom=number + columns >= len(every))
    drawn = np.concatenate([[*spread.low, *spread.high] for spread in spreads])
    low, high = np.nanmin(drawn, initial=1.0), np.nanmax(drawn, initial=0.0)
    for panel in panels:
        panel.set_ylim(max(low - 0.05, 0) - 0.02, min(high + 0.05, 1) + 0.02)
        panel.yaxis.set_major_locator(ticker.MaxNLocator(nbins=5))
        panel.yaxis.set_major_formatter(ticker.FuncFormatter(_percent_tick))
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    sheet.top += height + 0.25
    sheet.write(0.85, sheet.top + 0.05, "epoch", color=MUTED)
    sheet.top += 0.2


def _draw_method(panel: Axes, of_seeds: Sequence[Sequence[Mapping[str, Any]]], spread: _Spread, number: int) -> None:
    panel.set_facecolor(BAND)
    panel.grid(axis="y", color="white", linewidth=0.8)
    panel.spines[:].set_visible(False)
    train = _spread(of_seeds, "accuracy")
    color, dot = _color(number), {"marker": "o", "markersize": 3} if len(spread.epochs) == 1 else {}
    panel.plot(train.epochs, train.mean, color=color, linewidth=1, linestyle="--", alpha=0.7, **dot)
    panel.fill_between(spread.epochs, spread.low, spread.high, color=color, alpha=0.2, linewidth=0)
    panel.plot(spread.epochs, spread.mean, color=color, linewidth=1.8, **dot)
    longest = max(of_seeds, key=len)
    for before, after in itertools.pairwise(longest):
        if before["stage"] != after["stage"]:
            panel.axvline((before["epoch"] + after["epoch"]) / 2, color=MUTED, linewidth=0.8, linestyle=":")


def _spread(of_seeds: Sequence[Sequence[Mapping[str, Any]]], column: str) -> _Spread:
    """Mean, lowest and highest of the seeds at each epoch that one of them reached; one that ended before then stays
    as it ended."""
    epochs = sorted({int(row["epoch"]) for rows in of_seeds for row in rows})
    found: list[list[float]] = [[] for _ in epochs]
    for rows in filter(None, of_seeds):
        by_epoch = {int(row["epoch"]): row for row in rows}
        for values, epoch in zip(found, epochs, strict=True):
            row = by_epoch.get(min(epoch, max(by_epoch)), {})
            if _finite(row, column):
                values.append(float(row[column]))
    found = [values or [math.nan] for values in found]
    return _Spread(np.array(epochs), *(np.array([of(values) for values in found]) for of in (np.mean, min, max)))


def _finite(row: Mapping[str, Any], column: str) -> bool:
    return row.get(column) is not None and math.isfinite(float(row[column]))


def class_differences(
    differences: Sequence[ClassDifference], first: str, second: str, path: str | os.PathLike
) -> pathlib.Path:
    """Draws of which classes one method finds more than another; of more than 40, where they differ most.

    Args:
        differences: one for each class.
        first, second: names of the methods; above zero the first finds more.
        path: the file to write. Its ending says the format; folders that are missing are made.

    Returns:
        the path.

    Raises:
        ValueError: if there is no class, or the ending names no picture format.

    Example:

    >>> import tempfile
    >>> differences = [ClassDifference("ant", 0.1, 0.02, 0.18), ClassDifference("bee", -0.05, -0.2, 0.1)]
    >>> class_differences(differences, "fine-tuned", "head only", tempfile.mkdtemp() + "/classes.png").name
    'classes.png'
    """
    _check_any(differences, "differences", "one for each class")
    with open_sheet(path, [first, second, *(each.name for each in differences)]) as (sheet, names):
        shown = [dataclasses.replace(each, name=name) for each, name in zip(differences, names[2:], strict=True)]
        _draw_differences(shown, names[0], names[1], sheet)
    return pathlib.Path(path)


def _draw_differences(every: Sequence[ClassDifference], first: str, second: str, sheet: Sheet) -> None:
    shown = sorted(sorted(every, key=lambda each: -abs(each.value))[:MOST_CLASSES], key=lambda each: -each.value)
    room = max(sheet.measure(sheet.shorten(each.name, 2.2)) for each in shown)
    left, width, row = MARGIN + room + 0.2, 5.0, 0.24
    sheet.width = left + width + 0.9 + MARGIN
    beyond = [each for each in every if each.low > 0 or each.high < 0]
    title = "In no class the two differ beyond the noise"
    if beyond:
        title = f"In {len(beyond)} of {len(every)} classes the two differ beyond the noise"
    facts = "recall, in points · 95 % intervals, each class by itself"
    more = f" · the {len(shown)} of {len(every)} classes that differ most" if len(shown) < len(every) else ""
    sheet.heading(title, facts + more)
    sheet.top += 0.25
    panel = sheet.axes(left, sheet.top, width, row * len(shown))
    panel.set_facecolor(BAND)
    panel.spines[:].set_visible(False)
    panel.grid(axis="x", color="white", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.axvline(0, color=MUTED, linewidth=1)
    for place, each in enumerate(shown):
        color = GREY if each not in beyond else BLUE if each.value > 0 else ORANGE
        panel.barh(place, 100 * each.value, height=0.62, color=color)
        panel.plot([100 * each.low, 100 * each.high], [place, place], color=INK, linewidth=1, alpha=0.7)
    panel.set_ylim(len(shown) - 0.5, -0.5)
    most = max(5.0, *(100 * abs(end) for each in shown for end in (each.low, each.high, each.value)))
    panel.set_xlim(-1.05 * most, 1.05 * most)
    panel.set_yticks(range(len(shown)), [sheet.shorten(each.name, 2.2) for each in shown])
    panel.tick_params(length=0, labelcolor=INK)
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:+.3g}" if value else "0"))
    for place, each in enumerate(shown):
        middle = sheet.top + (place + 0.5) * row
        sheet.write(left + width + 0.75, middle, _signed(each.value), ha="right", va="center_baseline")
    half = width / 2 - 0.1
    sheet.write(left, sheet.top - 0.06, f"← {sheet.shorten(second, half)} finds more", va="bottom", color=ORANGE)
    words = f"{sheet.shorten(first, half)} finds more →"
    sheet.write(left + width, sheet.top - 0.06, words, va="bottom", ha="right", color=BLUE)
    sheet.top += row * len(shown) + 0.3


def _signed(difference: float) -> str:
    """Example:

    >>> _signed(0.0), _signed(0.123), _signed(-0.0001)
    ('0.0', '+12.3', '0.0')
    """
    said = f"{100 * difference:+.1f}"
    return "0.0" if said in ("+0.0", "-0.0") else said


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _shape(number: int) -> str:
    return SHAPES[number // len(COLORS) % len(SHAPES)]


def _percent_tick(share: float, _: int) -> str:
    return f"{100 * share:.4g} %"


def _check_any(given: Any, name: str, expected: str) -> None:
    if not len(given):
        raise ValueError(errors.explain(f"`{name}` is empty.", given="nothing", expected=expected))

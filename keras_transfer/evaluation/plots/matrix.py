"""The confusion matrix: which class was taken for which, how often, and the mistakes that are most frequent."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colors
from matplotlib.axes import Axes

from keras_transfer.evaluation.plots.sheet import BAND, INK, LABEL_SIZE, MARGIN, MUTED, Sheet, open_sheet
from keras_transfer.evaluation.report import Report
from keras_transfer.formatting import percent

RIGHT = colors.LinearSegmentedColormap.from_list("right", ["#D9E8F5", "#6FA8D6", "#0B4F8A"])
WRONG = colors.LinearSegmentedColormap.from_list("wrong", ["#FBDCC0", "#EE9350", "#A83C00"])

# The matrix shows counts up to so many classes, names up to so many, and lists its mistakes above so many.
LARGEST_WITH_COUNTS = 60
LARGEST_WITH_NAMES = 250
LARGEST_WITHOUT_LIST = 12
LISTED_MISTAKES = 15


def confusion(report: Report, path: str | os.PathLike) -> pathlib.Path:
    """Draws which class was taken for which: counts, shaded by their share of the true class.

    Every row is a true class, every column a predicted one. What is right is blue, what is wrong orange. Above 60
    classes the cells are too small for counts. Above 12 the largest mistakes are also listed beside the matrix.

    Args:
        report: what `kt.fit` reports.
        path: the file to write. Its ending says the format; folders that are missing are made.

    Returns:
        the path.

    Raises:
        ValueError: if the ending of the path names no picture format.

    Example:

    >>> import tempfile
    >>> from keras_transfer.evaluation.report import report
    >>> found = report([0, 0, 1, 1], [[.9, .1], [.4, .6], [.2, .8], [.3, .7]], ["ants", "bees"], split="test")
    >>> confusion(found, tempfile.mkdtemp() + "/confusion.png").name
    'confusion.png'
    """
    with open_sheet(path, report.classes) as (sheet, names):
        _draw(report, sheet, names)
    return pathlib.Path(path)


def _draw(report: Report, sheet: Sheet, names: Sequence[str]) -> None:
    count = len(names)
    with_counts = count <= LARGEST_WITH_COUNTS
    cell = _cell_inches(count)
    side = cell * count
    labels = _class_labels(sheet, names, cell)
    listed = _worst_mistakes(report, names, LISTED_MISTAKES) if count > LARGEST_WITHOUT_LIST else []
    left = MARGIN + 0.25 + labels.room_at_left
    right = left + side + (1.5 if with_counts else 0.1)
    sheet.width = max(right + (4.0 if listed else 0.0) + MARGIN, 6.4)
    sheet.heading(*_heading(report, names, sheet))
    _draw_key(sheet)

    sheet.top += 0.25 if with_counts else 0.1
    top = sheet.top
    panel = sheet.axes(left, top, side, side)
    panel.imshow(_cell_colors(report.confusion), interpolation="nearest", aspect="auto")
    panel.spines[:].set_visible(False)
    labels.draw(panel)
    every = 1 if with_counts else 10 if count <= LARGEST_WITH_NAMES else 100
    borders = np.arange(every - 0.5, count - 1, every)
    panel.set_xticks(borders, minor=True)
    panel.set_yticks(borders, minor=True)
    panel.tick_params(which="minor", length=0)
    panel.grid(which="minor", color="white", linewidth=1.2 if with_counts else 0.8)
    if with_counts:
        _draw_counts(panel, sheet, report.confusion, cell)
        _draw_recalls(sheet, report, left + side, top, cell)

    sheet.write(MARGIN, top + side / 2, "true class", rotation=90, va="center", color=MUTED)
    sheet.write(left + side / 2, top + side + labels.room_below, "predicted class", ha="center", color=MUTED)
    list_height = _draw_mistakes(sheet, listed, right + 0.3, top) if listed else 0.0
    sheet.top = top + max(side + labels.room_below + 0.3, list_height)


def _cell_inches(count: int) -> float:
    """The side of a cell: large enough for a count, then for a name, then as small as a picture of 20 inches wants."""
    if count <= LARGEST_WITH_COUNTS:
        return min(1.1, max(0.3, 5.0 / count))
    if count <= LARGEST_WITH_NAMES:
        return max(0.085, 12.0 / count)
    return 20.0 / count


@dataclasses.dataclass(frozen=True)
class _ClassLabels:
    """The class names along a matrix: below it level, slanting or upright, as its columns have room.

    They are measured before they are drawn, for the room that they need says where the matrix begins. Of more classes
    than can be named, `texts` has every hundredth number.
    """

    places: Sequence[int]
    texts: list[str]
    size: float
    longest: float
    degrees: int
    room_at_left: float

    @property
    def room_below(self) -> float:
        """Inches from the matrix down to where the labels end."""
        return {0: 0.25, 45: 0.15 + 0.72 * self.longest, 90: 0.1 + self.longest}[self.degrees]

    def draw(self, panel: Axes) -> None:
        slanting = {"ha": "right", "rotation_mode": "anchor"} if self.degrees == 45 else {}
        panel.tick_params(length=0, pad=2 if self.degrees == 90 else 4, labelsize=self.size, labelcolor=INK)
        panel.set_yticks(self.places, self.texts)
        panel.set_xticks(self.places, self.texts, rotation=self.degrees, **slanting)


def _class_labels(sheet: Sheet, names: Sequence[str], cell: float) -> _ClassLabels:
    count = len(names)
    if count > LARGEST_WITH_NAMES:
        places = range(0, count, 100)
        return _ClassLabels(places, list(map(str, places)), LABEL_SIZE, 0.5, 0, 0.5)
    size = LABEL_SIZE if count <= LARGEST_WITH_COUNTS else min(LABEL_SIZE, 0.75 * 72 * cell)
    texts = [sheet.shorten(name, 1.8, size) for name in names]
    longest = max(sheet.measure(text, size) for text in texts)
    degrees = 0 if longest <= cell - 0.08 else 45 if count <= LARGEST_WITH_COUNTS else 90
    return _ClassLabels(range(count), texts, size, longest, degrees, longest + 0.1)


def _heading(report: Report, names: Sequence[str], sheet: Sheet) -> tuple[str, str]:
    """The finding, and what goes with it."""
    title = f"Accuracy {percent(report.accuracy)} on {report.examples:,} {report.split} examples"
    low, high = report.accuracy_interval
    facts = [f"95 % interval {percent(low)} to {percent(high)}"]
    if report.split == "validation":
        facts.insert(0, "there was no test split")
    worst = _worst_mistakes(report, names, 1)
    if worst:
        true, said, times, support = worst[0]
        true, said = sheet.shorten(true, 2.4), sheet.shorten(said, 2.4)
        facts.append(f"most frequent mistake: {true} taken for {said}, {times:,} of {support:,}")
    else:
        facts.append("no mistake")
    return title, " · ".join(facts)


def _worst_mistakes(report: Report, names: Sequence[str], count: int) -> list[tuple[str, str, int, int]]:
    """(true, predicted, how often, examples of the true class), in names that can be drawn."""
    shown = dict(zip(report.classes, names, strict=True))
    return [
        (shown[true], shown[said], times, report.per_class[true].support)
        for true, said, times in report.mistakes(count)
    ]


def _cell_colors(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Colours, shape (classes, classes, 3), by the share of the row: the diagonal blue, the rest orange, zero grey."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    shades = np.where(diagonal[..., None], RIGHT(shares), _wrong(shares))[..., :3]
    return np.where((counts > 0)[..., None], shades, colors.to_rgb(BAND))


def _wrong(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Orange that deepens fast: most mistakes are few of their row, and a sixth must look worse than a fortieth."""
    return WRONG(np.sqrt(shares))


def _draw_counts(panel: Axes, sheet: Sheet, counts: npt.NDArray[np.int64], cell: float) -> None:
    light = _cell_colors(counts) @ [0.2126, 0.7152, 0.0722] > 0.55
    widest = sheet.measure(_count(counts.max()))
    size = LABEL_SIZE * min(1.0, (cell - 0.05) / widest)
    for true, said in np.argwhere(counts):
        color = INK if light[true, said] else "white"
        panel.text(said, true, _count(counts[true, said]), ha="center", va="center_baseline", size=size, color=color)


def _count(count: int) -> str:
    return f"{count:,}" if count < 10_000 else f"{count / 1000:.0f}k"


def _draw_recalls(sheet: Sheet, report: Report, left: float, top: float, cell: float) -> None:
    """Two columns at the right of the matrix: recall, and of how many."""
    sheet.write(left + 0.72, top - 0.06, "recall", ha="right", va="bottom", color=MUTED)
    sheet.write(left + 1.47, top - 0.06, "examples", ha="right", va="bottom", color=MUTED)
    for row, score in enumerate(report.per_class.values()):
        middle = top + (row + 0.5) * cell
        recall = "–" if math.isnan(score.recall) else percent(score.recall)
        sheet.write(left + 0.72, middle, recall, ha="right", va="center_baseline")
        sheet.write(left + 1.47, middle, f"{score.support:,}", ha="right", va="center_baseline", color=MUTED)


def _draw_mistakes(sheet: Sheet, worst: list[tuple[str, str, int, int]], left: float, top: float) -> float:
    """The list of the most frequent mistakes; gives back its height in inches."""
    line = 0.24
    sheet.write(left, top, "most frequent mistakes", weight="bold")
    for row, (true, said, times, support) in enumerate(worst, start=1):
        middle = top + 0.15 + row * line
        sheet.write(left + 0.75, middle, f"{times:,} of {support:,}", ha="right", va="center_baseline", color=MUTED)
        words = f"{sheet.shorten(true, 1.35)} → {sheet.shorten(said, 1.35)}"
        sheet.write(left + 0.87, middle, words, va="center_baseline")
    return 0.3 + (len(worst) + 1) * line


def _draw_key(sheet: Sheet) -> None:
    """What the colours mean: two strips from the palest to the fullest shade."""
    sheet.top += 0.08
    left = MARGIN
    for shades, words in ((RIGHT, "right"), (_wrong, "taken for another")):
        strip = sheet.axes(left, sheet.top, 0.7, 0.12)
        strip.imshow(shades(np.linspace(0, 1, 64))[None], aspect="auto")
        strip.set_axis_off()
        sheet.write(left + 0.78, sheet.top + 0.06, words, va="center")
        left += 0.78 + sheet.measure(words) + 0.25
    sheet.write(left, sheet.top + 0.06, "shade: 0 to 100 % of the true class", va="center", color=MUTED)
    sheet.top += 0.25

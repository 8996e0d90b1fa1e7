"""Pictures of a run: its learning curves, what it confuses, where it was surely wrong. The only door to matplotlib.

Matplotlib takes long to import, so import this module when the first picture is drawn. Figures are objects of their
own: no `pyplot`, no display, and matplotlib's settings are left as they were.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colors, font_manager, style, ticker, transforms
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from keras_transfer import errors
from keras_transfer.evaluation.report import Report, check_predictions, duration, percent

INK = "#1F2933"
MUTED = "#66727F"
GREY = "#8A96A3"
RULE = "#C9D1D9"
BAND = "#F2F5F8"
BAND_ALTERNATE = "#E4EAF0"
# Blue and orange stay apart for every common kind of colour blindness, and in print.
BLUE = "#0B5FA5"
ORANGE = "#C8500A"
RIGHT = colors.LinearSegmentedColormap.from_list("right", ["#D9E8F5", "#6FA8D6", "#0B4F8A"])
WRONG = colors.LinearSegmentedColormap.from_list("wrong", ["#FBDCC0", "#EE9350", "#A83C00"])

DOTS_PER_INCH = 150
MARGIN = 0.35
TITLE_SIZE, LABEL_SIZE = 13.0, 9.0
FONT = "DejaVu Sans"

# A confusion matrix shows counts up to so many classes, names up to so many, and lists its mistakes above so many.
LARGEST_WITH_COUNTS = 60
LARGEST_WITH_NAMES = 250
LARGEST_WITHOUT_LIST = 12
LISTED_MISTAKES = 15

SETTINGS = {
    "font.size": LABEL_SIZE,
    "text.color": INK,
    # A class may be called "$5 note".
    "text.parse_math": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": LABEL_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def learning_curves(history: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> pathlib.Path:
    """Draws accuracy, loss and learning rate over the epochs, the stages as named bands.

    Args:
        history: one row per epoch, in order: `stage`, `epoch` (counted from 1 over all stages), `loss`, `accuracy`,
            `learning_rate`, and where they were measured `val_loss`, `val_accuracy`, `seconds`. Other keys are left.
        path: the file to write. Its ending says the format; folders that are missing are made.

    Returns:
        the path.

    Raises:
        ValueError: if there is no row, a row lacks a key, epochs do not rise, or the ending names no picture format.

    Example:

    >>> import tempfile
    >>> row = {"stage": "head", "loss": 0.9, "accuracy": 0.6, "val_loss": 0.8, "val_accuracy": 0.7}
    >>> history = [{"epoch": epoch, "learning_rate": 0.001, **row} for epoch in (1, 2)]
    >>> path = learning_curves(history, tempfile.mkdtemp() + "/curves.png")
    >>> path.name, path.stat().st_size > 0
    ('curves.png', True)
    """
    curves = _curves(history)
    with _sheet(path, [band.stage for band in curves.bands]) as (sheet, stages):
        _draw_learning_curves(curves, sheet, stages)
    return pathlib.Path(path)


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
    with _sheet(path, report.classes) as (sheet, names):
        _draw_confusion(report, sheet, names)
    return pathlib.Path(path)


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
    with _sheet(path, classes) as (sheet, names):
        _draw_most_wrong(pictures, labels, probabilities, names, count, sheet)
    return pathlib.Path(path)


# --- learning curves -------------------------------------------------------------------------------------------------

NEEDED = ("stage", "epoch", "loss", "accuracy", "learning_rate")
MEASURED = ("loss", "accuracy", "learning_rate", "val_loss", "val_accuracy", "seconds")


@dataclasses.dataclass(frozen=True)
class _Band:
    """The epochs of one stage: rows `first` to `last` of the history, both included."""

    stage: str
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class _Curves:
    """A history by columns, each of shape (epochs,), NaN where nothing (or nothing finite) was measured."""

    epochs: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[np.float64]]
    bands: list[_Band]
    broken: list[int]

    @property
    def judged_by(self) -> str:
        """The column that counts: accuracy on validation, where it was measured."""
        return "val_accuracy" if np.isfinite(self.columns["val_accuracy"]).any() else "accuracy"


def _curves(history: Sequence[Mapping[str, Any]]) -> _Curves:
    if not history:
        raise ValueError(errors.explain("`history` is empty.", given="no row", expected="one row per epoch"))
    for number, row in enumerate(history):
        missing = [name for name in NEEDED if row.get(name) is None]
        if missing:
            raise ValueError(
                errors.explain(
                    f"Row {number} of `history` lacks {', '.join(missing)}.",
                    given=", ".join(map(str, row)),
                    expected=", ".join(NEEDED),
                    nearest=errors.nearest(missing[0], [str(name) for name in row if name not in NEEDED]),
                )
            )
    epochs = np.array([row["epoch"] for row in history], np.int64)
    if (np.diff(epochs) <= 0).any():
        raise ValueError(
            errors.explain(
                "The epochs of `history` do not rise.",
                given=", ".join(map(str, epochs)),
                expected="numbers from 1 that go on over the stages",
            )
        )
    columns = {
        name: np.array([math.nan if row.get(name) is None else float(row[name]) for row in history])
        for name in MEASURED
    }
    broken = epochs[~np.isfinite(columns["loss"])].tolist()
    columns = {name: np.where(np.isfinite(values), values, math.nan) for name, values in columns.items()}
    bands, first = [], 0
    for stage, rows in itertools.groupby(history, key=lambda row: str(row["stage"])):
        length = len(list(rows))
        bands.append(_Band(stage, first, first + length - 1))
        first += length
    return _Curves(epochs, columns, bands, broken)


def _draw_learning_curves(curves: _Curves, sheet: "_Sheet", stages: Sequence[str]) -> None:
    left, width = 1.2, 6.9
    sheet.width = left + width + 1.4 + MARGIN
    sheet.heading(*_curves_heading(curves))
    labels = _band_labels(sheet, curves, stages, left, width)
    sheet.top += labels.height
    panels: dict[str, Axes] = {}
    heights = {"accuracy": 2.75, "loss": 1.95, "learning_rate": 0.85}
    for name, height in heights.items():
        panels[name] = sheet.axes(left, sheet.top, width, height, sharex=panels.get("accuracy"))
        sheet.top += height + 0.2
    sheet.top += 0.3

    edges = [*(curves.epochs[band.first] - 0.5 for band in curves.bands), curves.epochs[-1] + 0.5]
    for name, panel in panels.items():
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            panel.axvspan(start, end, color=(BAND, BAND_ALTERNATE)[number % 2], linewidth=0, zorder=0)
        panel.grid(axis="y", color=RULE, linewidth=0.5)
        panel.tick_params(length=0, labelbottom=name == "learning_rate")
        panel.spines[:].set_visible(False)
        panel.set_ylabel(name.replace("_", "\n"), color=INK)
        panel.yaxis.set_label_coords(-0.72 / width, 0.5)
        panel.set_xlim(edges[0], edges[-1])
    labels.draw(panels["accuracy"])
    for name in ("accuracy", "loss"):
        _draw_pair(panels[name], curves, name, heights[name])
    panels["accuracy"].yaxis.set_major_formatter(ticker.FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))
    _draw_rate(panels["learning_rate"], curves)
    panels["learning_rate"].xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=16, min_n_ticks=1))
    panels["learning_rate"].set_xlabel("epoch", color=INK)


def _curves_heading(curves: _Curves) -> tuple[str, str]:
    """The finding, and what goes with it."""
    values = curves.columns[curves.judged_by]
    measured = np.flatnonzero(np.isfinite(values))
    who = "Validation" if curves.judged_by == "val_accuracy" else "Train"
    title, facts = "No accuracy was ever finite", []
    if measured.size:
        last, best = measured[-1], int(np.nanargmax(values))
        title = f"{who} accuracy {percent(values[last])} after epoch {curves.epochs[last]}"
        if values[best] > values[last]:
            facts.append(f"best {percent(values[best])} after epoch {curves.epochs[best]}, ringed")
        if who == "Validation" and np.isfinite(curves.columns["accuracy"][last]):
            facts.append(f"train accuracy {percent(curves.columns['accuracy'][last])}")
    if np.isfinite(curves.columns["seconds"]).all():
        facts.append(duration(curves.columns["seconds"].sum()))
    if curves.broken:
        more = f" and {len(curves.broken) - 1} more" if len(curves.broken) > 1 else ""
        facts.append(f"the loss was not finite in epoch {curves.broken[0]}{more}")
    return title, " · ".join(facts)


@dataclasses.dataclass(frozen=True)
class _BandLabels:
    """The stages' names over their bands: level where they fit side by side, else slanting."""

    texts: list[tuple[float, str]]
    slanting: bool
    height: float

    def draw(self, panel: Axes) -> None:
        lift = transforms.ScaledTranslation(0, 0.06, panel.figure.dpi_scale_trans)
        how = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if self.slanting else {"ha": "center"}
        for middle, text in self.texts:
            panel.text(
                middle, 1.0, text, transform=panel.get_xaxis_transform() + lift, va="bottom", linespacing=1.3, **how
            )


def _band_labels(sheet: "_Sheet", curves: _Curves, stages: Sequence[str], left: float, width: float) -> _BandLabels:
    start, span = curves.epochs[0] - 0.5, curves.epochs[-1] - curves.epochs[0] + 1.0
    values = curves.columns[curves.judged_by]
    middles, names, ends = [], [], []
    for band, stage in zip(curves.bands, stages, strict=True):
        middles.append(float(curves.epochs[band.first] + curves.epochs[band.last]) / 2)
        names.append(sheet.shorten(stage, 1.7))
        ends.append(
            f"{names[-1]}\nends at {percent(values[band.last])}" if np.isfinite(values[band.last]) else names[-1]
        )
    places = [left + (middle - start) / span * width for middle in middles]
    for texts, height in ((ends, 0.45), (names, 0.28)):
        halves = [max(sheet.measure(line) for line in text.split("\n")) / 2 for text in texts]
        overlap = any(
            place + half + 0.12 > next_place - next_half
            for (place, half), (next_place, next_half) in itertools.pairwise(zip(places, halves, strict=True))
        )
        if not overlap and places[0] - halves[0] > 0:
            return _BandLabels(list(zip(middles, texts, strict=True)), False, height)
    longest = max(sheet.measure(name) for name in names)
    # Of more names than lines of text fit side by side, every second (third, ...) is written.
    step = math.ceil(0.17 / min((after - before for before, after in itertools.pairwise(places)), default=1.0))
    return _BandLabels(list(zip(middles, names, strict=True))[::step], True, 0.25 + 0.72 * longest)


def _draw_pair(panel: Axes, curves: _Curves, name: str, inches: float) -> None:
    """Train thin and grey, validation strong and blue; each with its name and last value at its right end."""
    ends = []
    for column, who, color, line_width in ((name, "train", GREY, 1.3), (f"val_{name}", "validation", BLUE, 2.0)):
        values = curves.columns[column]
        measured = values[np.isfinite(values)]
        if not measured.size:
            continue
        panel.plot(curves.epochs, values, color=color, linewidth=line_width, label=who, **_marker(curves, 3.5))
        if column == curves.judged_by and measured.max() > measured[-1]:
            best = int(np.nanargmax(values))
            ring = {"markersize": 10, "markerfacecolor": "none", "clip_on": False}
            panel.plot(curves.epochs[best], values[best], "o", color=color, **ring)
        said = percent(measured[-1]) if name == "accuracy" else f"{measured[-1]:.3g}"
        ends.append((float(measured[-1]), f"{who} {said}", color))
    panel.margins(y=0.08)
    low, high = panel.get_ylim()
    if name == "accuracy":
        # Where the epochs are nearly equal, a close view would make much of nothing.
        spread = max(0.0, 0.1 - (high - low)) / 2
        low, high = max(low - spread, 0.0), min(high + spread, 1.0)
        panel.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    elif ends:
        drawn = np.concatenate([line.get_ydata() for line in panel.lines])
        least, most = min(0.0, np.nanmin(drawn)), np.nanmax(drawn)
        panel.set_ylim(least, most + 0.08 * (most - least) if most > least else 1.0)
    _label_ends(panel, ends, inches)


def _label_ends(panel: Axes, ends: list[tuple[float, str, str]], inches: float) -> None:
    """Writes (value, words, colour) beside the ends of the lines, moved apart where they would overlap."""
    low, high = panel.get_ylim()
    ends = sorted(ends)
    gap = 0.17 / inches * (high - low)
    lack = max(0.0, gap - (ends[-1][0] - ends[0][0])) / 2 if len(ends) == 2 else 0.0
    for (value, words, color), move in zip(ends, (-lack, lack), strict=False):
        panel.annotate(
            words,
            (1.0, value + move),
            xycoords=panel.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=BLUE if color == BLUE else MUTED,
            weight="bold" if color == BLUE else "normal",
            annotation_clip=False,
        )


def _marker(curves: _Curves, size: float) -> dict[str, Any]:
    """Dots on a line, as long as there is room between them."""
    return {"marker": "o", "markersize": size} if len(curves.epochs) <= 40 else {}


def _draw_rate(panel: Axes, curves: _Curves) -> None:
    rates = curves.columns["learning_rate"]
    # A line across a border would draw rates that never were: every stage has its own schedule.
    for band in curves.bands:
        rows = slice(band.first, band.last + 1)
        panel.plot(curves.epochs[rows], rates[rows], color=INK, linewidth=1.2, **_marker(curves, 2.5))
    positive = rates[np.isfinite(rates) & (rates > 0)]
    if positive.size == np.isfinite(rates).sum() and positive.size and positive.max() > 30 * positive.min():
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(ticker.LogLocator(numticks=4))
        panel.yaxis.set_minor_locator(ticker.NullLocator())
    else:
        panel.set_ylim(bottom=0.0)
        panel.yaxis.set_major_locator(ticker.MaxNLocator(nbins=3))
    panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))


# --- confusion -------------------------------------------------------------------------------------------------------


def _draw_confusion(report: Report, sheet: "_Sheet", names: Sequence[str]) -> None:
    count = len(names)
    with_counts = count <= LARGEST_WITH_COUNTS
    cell = _cell_inches(count)
    side = cell * count
    labels = _class_labels(sheet, names, cell)
    listed = _worst_mistakes(report, names, LISTED_MISTAKES) if count > LARGEST_WITHOUT_LIST else []
    left = MARGIN + 0.25 + labels.room_at_left
    right = left + side + (1.5 if with_counts else 0.1)
    sheet.width = max(right + (4.0 if listed else 0.0) + MARGIN, 6.4)
    sheet.heading(*_confusion_heading(report, names, sheet))
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


@dataclasses.dataclass(frozen=True)
class _ClassLabels:
    """The class names along a matrix: below it level, slanting or upright, as its columns have room.

    Of more classes than can be named, `texts` has every hundredth number.
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
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if self.degrees == 45 else {}
        panel.tick_params(length=0, pad=2 if self.degrees == 90 else 4, labelsize=self.size, labelcolor=INK)
        panel.set_yticks(self.places, self.texts)
        panel.set_xticks(self.places, self.texts, **(turned or {"rotation": self.degrees}))


def _class_labels(sheet: "_Sheet", names: Sequence[str], cell: float) -> _ClassLabels:
    count = len(names)
    if count > LARGEST_WITH_NAMES:
        places = range(0, count, 100)
        return _ClassLabels(places, list(map(str, places)), LABEL_SIZE, 0.5, 0, 0.5)
    size = LABEL_SIZE if count <= LARGEST_WITH_COUNTS else min(LABEL_SIZE, 0.75 * 72 * cell)
    texts = [sheet.shorten(name, 1.8, size) for name in names]
    longest = max(sheet.measure(text, size) for text in texts)
    degrees = 0 if longest <= cell - 0.08 else 45 if count <= LARGEST_WITH_COUNTS else 90
    return _ClassLabels(range(count), texts, size, longest, degrees, longest + 0.1)


def _cell_inches(count: int) -> float:
    """The side of a cell: large enough for a count, then for a name, then as small as a picture of 20 inches wants."""
    if count <= LARGEST_WITH_COUNTS:
        return min(1.1, max(0.3, 5.0 / count))
    if count <= LARGEST_WITH_NAMES:
        return max(0.085, 12.0 / count)
    return 20.0 / count


def _confusion_heading(report: Report, names: Sequence[str], sheet: "_Sheet") -> tuple[str, str]:
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
    shades = np.where(diagonal[..., None], _right(shares), _wrong(shares))[..., :3]
    return np.where((counts > 0)[..., None], shades, colors.to_rgb(BAND))


def _right(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return RIGHT(shares)


def _wrong(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Orange that deepens fast: most mistakes are few of their row, and a sixth must look worse than a fortieth."""
    return WRONG(np.sqrt(shares))


def _draw_counts(panel: Axes, sheet: "_Sheet", counts: npt.NDArray[np.int64], cell: float) -> None:
    light = _cell_colors(counts) @ [0.2126, 0.7152, 0.0722] > 0.55
    widest = sheet.measure(_count(counts.max()))
    size = LABEL_SIZE * min(1.0, (cell - 0.05) / widest)
    for true, said in np.argwhere(counts):
        color = INK if light[true, said] else "white"
        panel.text(said, true, _count(counts[true, said]), ha="center", va="center_baseline", size=size, color=color)


def _count(count: int) -> str:
    return f"{count:,}" if count < 10_000 else f"{count / 1000:.0f}k"


def _draw_recalls(sheet: "_Sheet", report: Report, left: float, top: float, cell: float) -> None:
    """Two columns at the right of the matrix: recall, and of how many."""
    sheet.write(left + 0.72, top - 0.06, "recall", ha="right", va="bottom", color=MUTED)
    sheet.write(left + 1.47, top - 0.06, "examples", ha="right", va="bottom", color=MUTED)
    for row, score in enumerate(report.per_class.values()):
        middle = top + (row + 0.5) * cell
        recall = "–" if math.isnan(score.recall) else percent(score.recall)
        sheet.write(left + 0.72, middle, recall, ha="right", va="center_baseline")
        sheet.write(left + 1.47, middle, f"{score.support:,}", ha="right", va="center_baseline", color=MUTED)


def _draw_mistakes(sheet: "_Sheet", worst: list[tuple[str, str, int, int]], left: float, top: float) -> float:
    """The list of the most frequent mistakes; gives back its height in inches."""
    line = 0.24
    sheet.write(left, top, "most frequent mistakes", weight="bold")
    for row, (true, said, times, support) in enumerate(worst, start=1):
        middle = top + 0.15 + row * line
        sheet.write(left + 0.75, middle, f"{times:,} of {support:,}", ha="right", va="center_baseline", color=MUTED)
        words = f"{sheet.shorten(true, 1.35)} → {sheet.shorten(said, 1.35)}"
        sheet.write(left + 0.87, middle, words, va="center_baseline")
    return 0.3 + (len(worst) + 1) * line


def _draw_key(sheet: "_Sheet") -> None:
    """What the colours mean: two strips from the palest to the fullest shade."""
    sheet.top += 0.08
    left = MARGIN
    for shades, words in ((_right, "right"), (_wrong, "taken for another")):
        strip = sheet.axes(left, sheet.top, 0.7, 0.12)
        strip.imshow(shades(np.linspace(0, 1, 64))[None], aspect="auto")
        strip.set_axis_off()
        sheet.write(left + 0.78, sheet.top + 0.06, words, va="center")
        left += 0.78 + sheet.measure(words) + 0.25
    sheet.write(left, sheet.top + 0.06, "shade: 0 to 100 % of the true class", va="center", color=MUTED)
    sheet.top += 0.25


# --- most wrong ------------------------------------------------------------------------------------------------------


def _draw_most_wrong(
    pictures: Sequence[npt.ArrayLike] | npt.NDArray,
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    names: Sequence[str],
    count: int,
    sheet: "_Sheet",
) -> None:
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    candidates, order = (wrong, -confidence[wrong]) if wrong.size else (np.arange(len(labels)), confidence)
    chosen = candidates[np.argsort(order, kind="stable")][:count]
    tiles = _tiles(pictures, chosen)

    tile, gap, row_height = 1.75, 0.22, 2.37
    columns = min(len(chosen), min(8, max(4, math.ceil(math.sqrt(len(chosen))))))
    sheet.width = max(2 * MARGIN + columns * (tile + gap) - gap, 5.2)
    sheet.heading(*_most_wrong_heading(len(wrong), len(labels), len(chosen)))
    for number, (index, picture) in enumerate(zip(chosen, tiles, strict=True)):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (tile + gap), sheet.top + row * row_height
        panel = sheet.axes(left, top, tile, tile)
        panel.imshow(picture)
        panel.set_axis_off()
        panel.set_anchor("SW")
        said, then = np.argsort(-probabilities[index], kind="stable")[:2]
        likely, less_likely = (f" {percent(probabilities[index, which], digits=0)}" for which in (said, then))
        upper = ("said ", names[said], f"{likely},")
        lower = ("is ", names[labels[index]], "") if wrong.size else ("then ", names[then], less_likely)
        place = f"#{index}"
        room = tile - sheet.measure(place, LABEL_SIZE - 1.5) - 0.08
        color = ORANGE if wrong.size else BLUE
        sheet.write(left, top + tile + 0.06, sheet.around(*upper, tile, "bold"), weight="bold", color=color)
        sheet.write(left, top + tile + 0.24, sheet.around(*lower, room), color=INK)
        sheet.write(left + tile, top + tile + 0.26, place, size=LABEL_SIZE - 1.5, ha="right", color=MUTED)
    sheet.top += math.ceil(len(chosen) / columns) * row_height - 0.1


def _most_wrong_heading(wrong: int, total: int, shown: int) -> tuple[str, str]:
    if wrong:
        title = f"{wrong:,} of {total:,} {'picture' if total == 1 else 'pictures'} wrong"
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


# --- the sheet they are drawn on -------------------------------------------------------------------------------------


class _Sheet:
    """A white page that is measured in inches from its upper left corner and filled downwards.

    Matplotlib places everything in shares of a figure whose size must be known first. Here the size follows from what
    is on it, so places are noted in inches and turned into shares by `finish`.

    Attributes:
        figure: the matplotlib figure.
        width: inches, may be set until `finish`.
        top: inches from the upper edge down to where the sheet is still empty.
    """

    def __init__(self):
        self.figure = Figure(figsize=(1.0, 1.0), dpi=DOTS_PER_INCH)
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()
        # From inches, counted downwards from the upper left corner, to pixels.
        self._inches = self.figure.dpi_scale_trans + transforms.ScaledTranslation(0, 1, self.figure.transFigure)
        self._panels: list[tuple[Axes, tuple[float, float, float, float]]] = []
        self.width = 1.0
        self.top = MARGIN

    def measure(self, text: str, size: float = LABEL_SIZE, weight: str = "normal") -> float:
        """How wide the text would be, in inches."""
        artist = self.figure.text(0, 0, text, size=size, weight=weight)
        width = artist.get_window_extent(self._renderer).width / DOTS_PER_INCH
        artist.remove()
        return width

    def shorten(self, text: str, inches: float, size: float = LABEL_SIZE, weight: str = "normal") -> str:
        """The text, its middle left out where it is wider than `inches`: names that start alike often end apart."""
        kept = len(text)
        shown = text
        while kept > 1 and self.measure(shown, size, weight) > inches:
            kept -= 1
            shown = text[: math.ceil(kept / 2)] + "…" + text[len(text) - kept // 2 :]
        return shown

    def around(self, before: str, name: str, after: str, inches: float, weight: str = "normal") -> str:
        """One line of at most `inches`, of which only the name gives way."""
        room = inches - self.measure(before + after, weight=weight)
        return before + self.shorten(name, room, weight=weight) + after

    def write(self, left: float, top: float, text: str, **how: Any) -> Text:
        """Text whose upper left corner (unless `ha` and `va` say otherwise) lies there."""
        how = {"va": "top", "size": LABEL_SIZE, "rotation_mode": "default", **how}
        return self.figure.text(left, -top, text, transform=self._inches, **how)

    def heading(self, title: str, facts: str) -> None:
        """The finding in large letters and the facts beneath it, in as many lines as the sheet's width needs."""
        for words, size, weight, color, line in (
            (title, TITLE_SIZE, "bold", INK, 0.26),
            (facts, LABEL_SIZE, "normal", MUTED, 0.18),
        ):
            for text in self._lines(words, size, weight):
                self.write(MARGIN, self.top, text, size=size, weight=weight, color=color)
                self.top += line
        self.top += 0.12

    def _lines(self, words: str, size: float, weight: str) -> list[str]:
        room = self.width - 2 * MARGIN
        lines: list[str] = []
        for word in words.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.measure(longer, size, weight) <= room:
                lines[-1] = longer
            else:
                lines.append(self.shorten(word, room, size, weight))
        return lines

    def axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        """A panel whose upper left corner lies there; all in inches."""
        axes = self.figure.add_axes((0, 0, 1, 1), label=str(len(self._panels)), **options)
        self._panels.append((axes, (left, top, width, height)))
        return axes

    def finish(self) -> Figure:
        """Gives the figure its size and every panel its place."""
        full_height = self.top + MARGIN
        self.figure.set_size_inches(self.width, full_height)
        for axes, (left, top, width, height) in self._panels:
            bottom = full_height - top - height
            axes.set_position((left / self.width, bottom / full_height, width / self.width, height / full_height))
        return self.figure


@contextlib.contextmanager
def _sheet(path: str | os.PathLike, names: Sequence[str]) -> Iterator[tuple[_Sheet, list[str]]]:
    """A sheet to draw on, written to `path` when it is done, whole or not at all; and the names as they can be drawn.

    Matplotlib takes many settings from where it was started. Here they are its defaults and ours while the sheet is
    drawn, and the user's own afterwards.
    """
    path = pathlib.Path(path)
    formats = FigureCanvasAgg.get_supported_filetypes()
    ending = path.suffix.lower().removeprefix(".")
    if ending not in formats:
        raise ValueError(
            errors.explain(
                "The path does not end like a picture.",
                given=str(path),
                expected="one of ." + ", .".join(sorted(formats)),
                nearest=str(path.with_suffix(".png")) if path.name else None,
            )
        )
    drawable, families = _drawable(names)
    with style.context([SETTINGS, {"font.family": families}], after_reset=True):
        sheet = _Sheet()
        yield sheet, drawable
        if drawable != _plain(names):
            sheet.top += 0.1
            sheet.write(MARGIN, sheet.top, "“no. …”: a name with letters that no installed font has", color=MUTED)
            sheet.top += 0.15
        figure = sheet.finish()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            figure.savefig(unfinished, format=ending, dpi=DOTS_PER_INCH)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def _drawable(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names as they can be drawn, and the fonts it takes.

    A name with letters that no installed font has would come out as empty boxes: it becomes its number instead.
    """
    names = _plain(names)
    families = [FONT]
    lacking = set("".join(names)) - _letters(font_manager.findfont(FONT))
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: font.name):
        # This one draws a box for every letter there is.
        if font.name.startswith("Last Resort") or font.name in families:
            continue
        if not lacking:
            break
        found = lacking & _letters(font.fname)
        if found:
            families.append(font.name)
            lacking -= found
    return [f"no. {number}" if lacking & set(name) else name for number, name in enumerate(names)], families


def _plain(names: Sequence[str]) -> list[str]:
    """The names without line breaks and other control characters."""
    return ["".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in name) for name in names]


def _letters(font: str) -> set[str]:
    return {chr(code) for code in FT2Font(font).get_charmap()}

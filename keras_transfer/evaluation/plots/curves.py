"""Learning curves: accuracy, loss and learning rate over the epochs, with the stages as bands behind them."""

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import ticker, transforms
from matplotlib.axes import Axes

from keras_transfer import errors
from keras_transfer.evaluation.plots.sheet import BAND, BLUE, INK, MARGIN, MUTED, RULE, Sheet, open_sheet
from keras_transfer.formatting import duration, percent

GREY = "#8A96A3"
BAND_ALTERNATE = "#E4EAF0"

NEEDED = ("stage", "epoch", "loss", "accuracy", "learning_rate")
MEASURED = ("loss", "accuracy", "learning_rate", "val_loss", "val_accuracy", "seconds")

# Inches.
PANEL_LEFT, PANEL_WIDTH = 1.2, 6.9
PANEL_HEIGHTS = {"accuracy": 2.75, "loss": 1.95, "learning_rate": 0.85}


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
    with open_sheet(path, [band.stage for band in curves.bands]) as (sheet, stages):
        _draw(curves, sheet, stages)
    return pathlib.Path(path)


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
    columns = {name: np.array([_finite_or_nan(row.get(name)) for row in history]) for name in MEASURED}
    bands, first = [], 0
    for stage, rows in itertools.groupby(history, key=lambda row: str(row["stage"])):
        length = len(list(rows))
        bands.append(_Band(stage, first, first + length - 1))
        first += length
    return _Curves(epochs, columns, bands)


def _finite_or_nan(value: Any) -> float:
    return float(value) if value is not None and math.isfinite(float(value)) else math.nan


def _draw(curves: _Curves, sheet: Sheet, stages: Sequence[str]) -> None:
    sheet.width = PANEL_LEFT + PANEL_WIDTH + 1.4 + MARGIN
    sheet.heading(*_heading(curves))
    labels = _band_labels(sheet, curves, stages)
    sheet.top += labels.height
    panels: dict[str, Axes] = {}
    for name, height in PANEL_HEIGHTS.items():
        panels[name] = sheet.axes(PANEL_LEFT, sheet.top, PANEL_WIDTH, height, sharex=panels.get("accuracy"))
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
        panel.yaxis.set_label_coords(-0.72 / PANEL_WIDTH, 0.5)
        panel.set_xlim(edges[0], edges[-1])
    labels.draw(panels["accuracy"])
    _draw_accuracy(panels["accuracy"], curves)
    _draw_loss(panels["loss"], curves)
    _draw_rate(panels["learning_rate"], curves)
    panels["learning_rate"].xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=16, min_n_ticks=1))
    panels["learning_rate"].set_xlabel("epoch", color=INK)


def _heading(curves: _Curves) -> tuple[str, str]:
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
    broken = curves.epochs[np.isnan(curves.columns["loss"])]
    if broken.size:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        facts.append(f"the loss was not finite in epoch {broken[0]}{more}")
    return title, " · ".join(facts)


@dataclasses.dataclass(frozen=True)
class _BandLabels:
    """The stages' names over their bands: level where they fit side by side, else slanting.

    They are measured before they are drawn, for `height` says where the first panel begins.
    """

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


def _band_labels(sheet: Sheet, curves: _Curves, stages: Sequence[str]) -> _BandLabels:
    start, span = curves.epochs[0] - 0.5, curves.epochs[-1] - curves.epochs[0] + 1.0
    values = curves.columns[curves.judged_by]
    middles, names, ends = [], [], []
    for band, stage in zip(curves.bands, stages, strict=True):
        name, value = sheet.shorten(stage, 1.7), values[band.last]
        middles.append(float(curves.epochs[band.first] + curves.epochs[band.last]) / 2)
        names.append(name)
        ends.append(f"{name}\nends at {percent(value)}" if np.isfinite(value) else name)
    places = [PANEL_LEFT + (middle - start) / span * PANEL_WIDTH for middle in middles]
    for texts, height in ((ends, 0.45), (names, 0.28)):
        if _fit_side_by_side(sheet, texts, places):
            return _BandLabels(list(zip(middles, texts, strict=True)), False, height)
    longest = max(sheet.measure(name) for name in names)
    # Of more names than lines of text fit side by side, every second (third, ...) is written.
    step = math.ceil(0.17 / min((after - before for before, after in itertools.pairwise(places)), default=1.0))
    return _BandLabels(list(zip(middles, names, strict=True))[::step], True, 0.25 + 0.72 * longest)


def _fit_side_by_side(sheet: Sheet, texts: Sequence[str], places: Sequence[float]) -> bool:
    """Whether the texts, their middles at these places (inches), leave each other and the left edge alone."""
    halves = [max(sheet.measure(line) for line in text.split("\n")) / 2 for text in texts]
    spans = [(place - half, place + half) for place, half in zip(places, halves, strict=True)]
    apart = all(end + 0.12 <= next_start for (_, end), (next_start, _) in itertools.pairwise(spans))
    return apart and spans[0][0] > 0


def _draw_accuracy(panel: Axes, curves: _Curves) -> None:
    ends = _draw_train_and_validation(panel, curves, "accuracy")
    low, high = panel.get_ylim()
    # Where the epochs are nearly equal, a close view would make much of nothing.
    spread = max(0.0, 0.1 - (high - low)) / 2
    low, high = max(low - spread, 0.0), min(high + spread, 1.0)
    panel.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))
    _label_ends(panel, ends, percent, PANEL_HEIGHTS["accuracy"])


def _draw_loss(panel: Axes, curves: _Curves) -> None:
    ends = _draw_train_and_validation(panel, curves, "loss")
    if ends:
        drawn = np.concatenate([line.get_ydata() for line in panel.lines])
        least, most = min(0.0, np.nanmin(drawn)), np.nanmax(drawn)
        panel.set_ylim(least, most + 0.08 * (most - least) if most > least else 1.0)
    _label_ends(panel, ends, "{:.3g}".format, PANEL_HEIGHTS["loss"])


def _draw_train_and_validation(panel: Axes, curves: _Curves, name: str) -> dict[str, float]:
    """Train thin and grey, validation strong and blue; gives back the last value of each that was measured."""
    ends = {}
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
        ends[who] = float(measured[-1])
    panel.margins(y=0.08)
    return ends


def _label_ends(panel: Axes, ends: dict[str, float], spell: Callable[[float], str], inches: float) -> None:
    """Writes name and last value beside the ends of the lines, moved apart where two would overlap.

    `inches` is the panel's height, `spell` writes a value.
    """
    low, high = panel.get_ylim()
    gap = 0.17 / inches * (high - low)
    lack = max(0.0, gap - abs(ends["train"] - ends["validation"])) / 2 if len(ends) == 2 else 0.0
    for (who, value), move in zip(sorted(ends.items(), key=lambda end: end[1]), (-lack, lack), strict=False):
        panel.annotate(
            f"{who} {spell(value)}",
            (1.0, value + move),
            xycoords=panel.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=BLUE if who == "validation" else MUTED,
            weight="bold" if who == "validation" else "normal",
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
    finite = rates[np.isfinite(rates)]
    if finite.size and finite.min() > 0 and finite.max() > 30 * finite.min():
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(ticker.LogLocator(numticks=4))
        panel.yaxis.set_minor_locator(ticker.NullLocator())
    else:
        panel.set_ylim(bottom=0.0)
        panel.yaxis.set_major_locator(ticker.MaxNLocator(nbins=3))
    panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))

"""The loss against a learning rate that rises from step to step."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from keras_transfer.evaluation.plots.sheet import BLUE, INK, MARGIN, MUTED, ORANGE, RULE, open_sheet

# Inches.
LEFT, WIDTH, HEIGHT = 0.95, 6.4, 3.2


def range_test(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    marks: Mapping[str, float],
    path: str | os.PathLike,
    *,
    title: str,
) -> pathlib.Path:
    """Draws what a range test found.

    Args:
        rates: of each step, rising.
        losses: of each step.
        smoothed: the same, smoothed.
        marks: up to three rates to be marked, by what they are; of these, those within `rates`.
        path: the file to write. Its ending says the format; folders that are missing are made.
        title: the finding.

    Returns:
        the path.

    Raises:
        ValueError: if the ending names no picture format.

    Example:

    >>> import tempfile
    >>> curve = [1.0, 0.8, 0.9]
    >>> path = tempfile.mkdtemp() + "/rates.png"
    >>> range_test([1e-4, 1e-3, 1e-2], curve, curve, {"suggestion": 3e-4}, path, title="0.0003").name
    'rates.png'
    """
    with open_sheet(path, []) as (sheet, _):
        sheet.width = LEFT + WIDTH + MARGIN
        facts = f"{len(rates)} steps from {rates[0]:.2g} to {rates[-1]:.2g}; single batches grey, smoothed blue"
        sheet.heading(title, facts)
        sheet.top += 0.2
        panel = sheet.axes(LEFT, sheet.top, WIDTH, HEIGHT)
        sheet.top += HEIGHT + 0.45
        panel.set_xscale("log")
        panel.plot(rates, losses, color=RULE, linewidth=1.0)
        panel.plot(rates, smoothed, color=BLUE, linewidth=2.0)
        panel.set_xlim(rates[0], rates[-1])
        # What has exploded would flatten what is to be seen.
        least, first = min(smoothed), smoothed[0]
        most = max(first + 1.5 * (first - least), float(np.percentile(losses, 75)), 1.2 * first)
        panel.set_ylim(least - 0.15 * (most - least), most)
        panel.grid(axis="y", color=RULE, linewidth=0.5)
        panel.set_xlabel("peak learning rate", color=INK)
        panel.set_ylabel("loss", color=INK)
        panel.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")  # not in mathematics, which is not set here
        panel.xaxis.set_minor_formatter("")
        middle = float(np.sqrt(rates[0] * rates[-1]))
        for (name, rate), color, height in zip(marks.items(), (ORANGE, MUTED, INK), (0.95, 0.86, 0.77), strict=False):
            if not rates[0] <= rate <= rates[-1]:
                continue
            panel.axvline(rate, color=color, linewidth=1.2)
            panel.annotate(
                f"{name} {rate:.2g}",
                (rate, height),
                xycoords=panel.get_xaxis_transform(),
                xytext=(6 if rate < middle else -6, 0),
                textcoords="offset points",
                ha="left" if rate < middle else "right",
                va="center",
                color=color,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
    return pathlib.Path(path)

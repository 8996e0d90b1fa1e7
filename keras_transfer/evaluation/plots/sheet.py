"""The page that pictures are drawn on, and the colours and sizes that they share.

Figures are objects of their own: no `pyplot`, no display, and matplotlib's settings are left as they were.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib import style, transforms
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from keras_transfer import errors
from keras_transfer.evaluation.plots.fonts import drawable
from keras_transfer.formatting import without_middle

INK = "#1F2933"
MUTED = "#66727F"
RULE = "#C9D1D9"
BAND = "#F2F5F8"
# Blue and orange stay apart for every common kind of colour blindness, and in print.
BLUE = "#0B5FA5"
ORANGE = "#C8500A"

DOTS_PER_INCH = 150
MARGIN = 0.35
TITLE_SIZE, LABEL_SIZE = 13.0, 9.0

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


class Sheet:
    """A white page that is measured in inches from its upper left corner and filled downwards.

    Matplotlib places everything in shares of a figure whose size must be known first. Here the size follows from what
    is on it, so places are noted in inches and turned into shares by `finish`.

    Attributes:
        figure: the matplotlib figure.
        width: inches, may be set until `finish`.
        top: inches from the upper edge down to where the sheet is still empty.

    Example:

    >>> sheet = Sheet()
    >>> sheet.width = 4.0
    >>> sheet.heading("Accuracy 90.0 %", "best 91.0 %")
    >>> sheet.finish().get_size_inches().round(2).tolist()
    [4.0, 1.26]
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
        """The text, its middle left out where it is wider than `inches`."""
        return without_middle(text, lambda shown: self.measure(shown, size, weight) <= inches)

    def around(self, before: str, name: str, after: str, inches: float, weight: str = "normal") -> str:
        """One line of at most `inches`, of which only the name gives way."""
        room = inches - self.measure(before + after, weight=weight)
        return before + self.shorten(name, room, weight=weight) + after

    def write(self, left: float, top: float, text: str, **how: Any) -> Text:
        """Text whose upper left corner (unless `ha` and `va` say otherwise) lies there."""
        return self.figure.text(left, -top, text, transform=self._inches, **{"va": "top", "size": LABEL_SIZE, **how})

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
def open_sheet(path: str | os.PathLike, names: Sequence[str]) -> Iterator[tuple[Sheet, list[str]]]:
    """A sheet to draw on, written to `path` when it is done, whole or not at all; and the names as they can be drawn.

    Matplotlib takes many settings from where it was started. Here they are its defaults and ours while the sheet is
    drawn, and the user's own afterwards.

    Args:
        path: the file to write. Its ending says the format; folders that are missing are made.
        names: of the classes or stages, as the user spelt them.

    Raises:
        ValueError: if the ending names no picture format.

    Example:

    >>> import tempfile
    >>> with open_sheet(tempfile.mkdtemp() + "/ants.png", ["ants"]) as (sheet, names):
    ...     sheet.width = 3.0
    ...     sheet.heading(names[0], "1 class")
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
    names, families, all_spelt_out = drawable(names)
    with style.context([SETTINGS, {"font.family": families}], after_reset=True):
        sheet = Sheet()
        yield sheet, names
        if not all_spelt_out:
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

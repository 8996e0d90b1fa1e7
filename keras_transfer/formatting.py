"""Figures, names and tables as people read them: percent, durations, memory, columns that align."""

import math
import unicodedata
from collections.abc import Callable, Sequence

LINE_WIDTH = 100


def percent(share: float, digits: int = 1) -> str:
    """A share for people to read. What is not quite all or nothing is never rounded to it.

    Args:
        share: 0..1.
        digits: digits after the point.

    Example:

    >>> percent(0.895), percent(1), percent(0.9999), percent(0.9999, digits=0)
    ('89.5 %', '100.0 %', '> 99.9 %', '> 99 %')
    """
    step = 10.0**-digits
    if 100 - step / 2 <= 100 * share < 100:
        return f"> {100 - step:.{digits}f} %"
    if 0 < 100 * share <= step / 2:
        return f"< {step:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """A time for people to read.

    Args:
        seconds: how long.

    Example:

    >>> duration(8.04), duration(125), duration(7380)
    ('8.0 s', '2 min 5 s', '2 h 3 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, whole_seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {whole_seconds} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min"


def memory_size(count: int) -> str:
    """A number of bytes for people to read.

    Example:

    >>> memory_size(3 * 2**20), memory_size(3 * 2**29)
    ('3 MiB', '1.50 GiB')
    """
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def score_text(value: float) -> str:
    """A precision, recall or F1, 0..1; a dash where it is unknown (NaN).

    Example:

    >>> score_text(0.5), score_text(math.nan)
    ('0.500', '–')
    """
    return "–" if math.isnan(value) else f"{value:.3f}"


def shortened(value: object, length: int = 200) -> str:
    """The `repr` of a value for an error, cut after `length` letters.

    Example:

    >>> shortened(["ants", "bees"]), shortened("a" * 300, length=5)
    ("['ants', 'bees']", "'aaa…")
    """
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def counted(number: int, noun: str) -> str:
    """How many there are of what.

    Args:
        number: how many.
        noun: what one of them is called; several take an "s".

    Example:

    >>> counted(1, "epoch"), counted(0, "epoch"), counted(1200, "step")
    ('1 epoch', '0 epochs', '1,200 steps')
    """
    return f"{number:,} {noun}" + "s" * (number != 1)


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    Args:
        names: one at least.

    Example:

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def table(rows: Sequence[Sequence[str]], words: Sequence[int] = (0,), *, width: float = LINE_WIDTH) -> list[str]:
    """The rows as aligned lines: words to the left, figures to the right, the first column cut where it must be.

    Args:
        rows: cells, equally many in each.
        words: which columns hold words.
        width: how long a line may be before the first column is cut.

    Example:

    >>> print("\\n".join(table([("stage", "epochs"), ("head", "3"), ("all", "10")])))
    stage  epochs
    head        3
    all        10
    """
    widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], width - sum(widths[1:]) - 2 * len(widths[1:]))
    lines = []
    for row in rows:
        cells = []
        for number, (cell, room) in enumerate(zip(row, widths, strict=True)):
            cell = cut(cell, room)
            blanks = " " * (room - _columns(cell))
            cells.append(cell + blanks if number in words else blanks + cell)
        lines.append("  ".join(cells).rstrip())
    return lines


def table_with_total(rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> list[str]:
    """A table whose heading and whose last row are set off by rules; nothing is cut, since paths are there to be used.

    Args:
        rows: the heading, the rows, and their total; cells, equally many in each.
        words: which columns hold words.

    Example:

    >>> print("\\n".join(table_with_total([("block", "layers"), ("stem", "3"), ("top", "12"), ("2 blocks", "15")])))
    block     layers
    ────────────────
    stem           3
    top           12
    ────────────────
    2 blocks      15
    """
    lines = table(rows, words, width=math.inf)
    rule = "─" * max(map(len, lines))
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def cut(text: str, width: int) -> str:
    """The text on at most `width` columns of a terminal; a longer one ends with an ellipsis and fills them.

    Example:

    >>> cut("ants", 4), cut("bumblebees", 4)
    ('ants', 'bum…')
    """
    text = _printable(text)
    if _columns(text) <= width:
        return text
    while _columns(text) > width - 1:
        text = text[:-1]
    # A letter that takes two columns may leave one over.
    return text + "…" + " " * (width - 1 - _columns(text))


def cut_apart(names: Sequence[str], width: int) -> list[str]:
    """Names on at most `width` columns each, but as many more as it takes for different ones to look different.

    Example:

    >>> cut_apart(["fine-tuning, insects", "fine-tuning, plants", "head"], 12)
    ['fine-t…sects', 'fine-t…lants', 'head']
    >>> cut_apart(["the first of two names", "the third of two names"], 12)
    ['the fi…names', 'the th…names']
    """
    names = [_printable(name) for name in names]
    for columns in range(width, max(map(_columns, names), default=0)):
        shown = [without_middle(name, lambda text, most=columns: _columns(text) <= most) for name in names]
        if len(set(shown)) == len(set(names)):
            return shown
    return names


def without_middle(text: str, fits: Callable[[str], bool]) -> str:
    """The text, or as much of its two ends as fits: names that start alike often end apart.

    Example:

    >>> without_middle("fine-tuning, insects", lambda text: len(text) <= 12)
    'fine-t…sects'
    """
    kept = len(text)
    shown = text
    while kept > 1 and not fits(shown):
        kept -= 1
        shown = text[: math.ceil(kept / 2)] + "…" + text[len(text) - kept // 2 :]
    return shown


def _printable(text: str) -> str:
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) == "Cc" else letter for letter in text)


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes: Chinese letters take two, combining accents none."""
    return sum(
        0 if unicodedata.category(letter) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )

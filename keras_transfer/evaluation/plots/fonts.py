"""Names in any script: which installed fonts can draw them, and what stands for those that none can."""

import unicodedata
from collections.abc import Sequence

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

FONT = "DejaVu Sans"


def drawable(names: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """The names as they can be drawn, the font families that it takes, and whether every name is spelt out.

    A name with letters that no installed font has would come out as empty boxes: it becomes its number instead.
    Line breaks and other control characters become blanks.

    Example:

    >>> drawable(["ants", "two\\nlines"])
    (['ants', 'two lines'], ['DejaVu Sans'], True)
    """
    names = ["".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in name) for name in names]
    families = [FONT]
    lacking = set("".join(names)) - _letters(font_manager.findfont(FONT))
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: font.name):
        if not lacking:
            break
        # Last Resort draws a box for every letter there is.
        if font.name.startswith("Last Resort") or font.name in families:
            continue
        found = lacking & _letters(font.fname)
        if found:
            families.append(font.name)
            lacking -= found
    names = [f"no. {number}" if lacking & set(name) else name for number, name in enumerate(names)]
    return names, families, not lacking


def _letters(font: str) -> set[str]:
    return {chr(code) for code in FT2Font(font).get_charmap()}

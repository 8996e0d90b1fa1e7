"""The words of every error: what was given, what was expected, how to mend it, the nearest name."""

import difflib
from collections.abc import Iterable


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate spelt most like `name`, or `None` where nothing comes near.

    Example:

    >>> nearest("blok6h", ["stem", "block6h", "top"])
    'block6h'
    """
    by_lower_case = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.5)
    return by_lower_case[found[0]] if found else None


def explain(problem: str, **parts: object) -> str:
    """The text of an error: a sentence, then one aligned line for each part that is not `None`.

    Args:
        problem: what is wrong, one sentence.
        **parts: the lines beneath it in order, for instance `given=`, `expected=`, `nearest=`, `to_mend=`. Underscores
            in their names are printed as blanks.

    Example:

    >>> print(explain("`rank` must be positive.", given=0, expected="an integer of at least 1"))
    `rank` must be positive.
      given:     0
      expected:  an integer of at least 1
    """
    lines = [problem]
    shown = {name.replace("_", " "): value for name, value in parts.items() if value is not None}
    width = max([len("expected"), *map(len, shown)]) + 1
    for name, value in shown.items():
        text = str(value).replace("\n", "\n" + " " * (width + 4))
        lines.append(f"  {name + ':':<{width}}  {text}")
    return "\n".join(lines)

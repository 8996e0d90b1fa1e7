"""The texts that a classifier is most confidently wrong on, to be read."""

import textwrap
from collections.abc import Sequence

import numpy as np


def most_wrong_texts(
    texts: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], *, count: int = 16
) -> str:
    """Those texts whose wrong class has the highest probability, the worst first.

    Args:
        texts: one for each row of `probabilities`.
        labels: class numbers, shape (texts,).
        probabilities: shape (texts, classes).
        classes: the names.
        count: how many.

    Example:

    >>> print(most_wrong_texts(["dull", "fine"], np.array([0, 1]), np.array([[0.1, 0.9], [0.2, 0.8]]), ["bad", "good"]))
    bad, taken for good with 90 %:
        dull
    """
    taken = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    wrong = [number for number in np.argsort(-sure, kind="stable") if taken[number] != labels[number]][:count]
    if not wrong:
        return "nothing was taken for another class"
    return "\n\n".join(
        f"{classes[labels[number]]}, taken for {classes[taken[number]]} with {100 * sure[number]:.0f} %:\n"
        + textwrap.indent(textwrap.shorten(texts[int(number)], 1000, placeholder=" …"), "    ")
        for number in wrong
    )

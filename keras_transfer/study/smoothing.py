"""The losses of single steps, smoothed, and how far chance alone would move them."""

from collections.abc import Sequence

import numpy as np

# The losses are smoothed by a bell over the steps on both sides, of this share of all steps in width.
WIDTH = 0.04
# A loss of more than so many times the median counts as that.
MOST = 8.0
# Neighbours that differ by more than so many times the usual tell of an explosion, and not of noise.
_MOST_OF_NOISE = 5.0


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Each loss with its neighbours on both sides, so that no fall comes late; not what explodes at the end.

    Example:

    >>> smooth([1.0, 1.0, 4.0, 1.0, 1.0]).round(1).tolist()
    [1.2, 1.8, 2.2, 1.8, 1.2]
    """
    return weights_of(len(losses)) @ bounded(losses)


def bounded(losses: Sequence[float]) -> np.ndarray:
    """The losses, none of them beyond all measure: one of a thousand would hide all that came before it."""
    return np.minimum(losses, MOST * np.median(losses))


def weights_of(steps: int) -> np.ndarray:
    """What each loss counts in each smoothed one, shape (steps, steps): a bell over its neighbours."""
    places = np.arange(steps)
    bell = np.exp(-(((places[:, None] - places) / width(steps)) ** 2) / 2)
    return bell / bell.sum(axis=1, keepdims=True)


def width(steps: int) -> float:
    """Of the bell, in steps."""
    return max(1.0, WIDTH * steps)


def spread(losses: Sequence[float]) -> float:
    """The standard deviation of a loss: from how much neighbours differ, which a slow fall does not touch.

    Those that explode at the end are few, and count for no more than noise could.
    """
    distances = np.abs(np.diff(losses))
    return float(np.sqrt(np.mean(np.minimum(distances, _MOST_OF_NOISE * np.median(distances)) ** 2) / 2))

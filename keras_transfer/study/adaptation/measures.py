"""How far two domains lie apart in the features that a head reads: no labels are needed."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_transfer.study.domain_shift import shift_between

# More examples of a domain than this say no more, and make it slow.
MOST_EXAMPLES = 2_000


@dataclasses.dataclass(frozen=True)
class Gap:
    """What lies between the features of two domains; of a domain with a single example only the means are known.

    Attributes:
        means: how far the means lie apart, in spreads (root mean square over the features).
        covariances: the CORAL distance of features in units of the source's spread, times 4: the mean square difference
            of two entries of the covariances.
        proxy_a: the proxy A-distance, see `shift_between`: 0 where the domains cannot be told apart, 2 where they
            always can.

    Example:

    >>> draw = np.random.default_rng(0).normal(size=(3, 200, 4))
    >>> near, far = gap(draw[0], draw[1]), gap(draw[0], draw[2] + 9)
    >>> near.means < 0.2, far.means > 8, near.proxy_a < 0.5, far.proxy_a
    (True, True, True, 2.0)
    """

    means: float
    covariances: float
    proxy_a: float

    def __str__(self) -> str:
        return (
            f"means {self.means:.2f} spreads apart, covariances {self.covariances:.3g}, "
            f"proxy A-distance {self.proxy_a:.2f} of 2"
        )


def gap(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> Gap:
    """What lies between two domains.

    Args:
        source: features, shape (examples, features).
        target: likewise.
        seed: of which examples are taken where there are more than 2,000, and of the parts of the cross-validation.
    """
    source, target = (features[some(len(features), seed)].astype("float64") for features in (source, target))
    spread = np.sqrt(source.var(axis=0) / 2 + target.var(axis=0) / 2)
    spread = np.where(spread > 0, spread, 1.0)
    means = np.sqrt(np.mean(((source.mean(0) - target.mean(0)) / spread) ** 2))
    usual = np.sqrt(source.var(axis=0).mean()) or 1.0
    if min(len(source), len(target)) < 2:
        return Gap(float(means), float("nan"), float("nan"))
    apart = shift_between(source, target, ("source", "target"), seed=seed).distance
    return Gap(float(means), 4 * covariance_distance(source / usual, target / usual), apart)


def mean_gap(gaps: Sequence[Gap]) -> Gap:
    """The mean of several.

    Example:

    >>> mean_gap([Gap(1.0, 0.5, 2.0), Gap(2.0, 0.5, 1.0)])
    Gap(means=1.5, covariances=0.5, proxy_a=1.5)
    """
    return Gap(*np.mean([dataclasses.astuple(each) for each in gaps], axis=0).tolist())


def halves(count: int, seed: int) -> list[np.ndarray]:
    """The numbers of two parts of some examples, at random: halves, or 1,000 each where that is less.

    Example:

    >>> [part.tolist() for part in halves(5, seed=0)], [len(part) for part in halves(5_000, seed=0)]
    ([[2, 3, 4], [0, 1]], [1000, 1000])
    """
    drawn = np.random.default_rng(seed).permutation(count)[:MOST_EXAMPLES]
    return [np.sort(part) for part in np.array_split(drawn, 2)]


def covariance_distance(source: np.ndarray, target: np.ndarray) -> float:
    """The CORAL distance of all examples, as `coral_distance` has it for a batch.

    Example:

    >>> covariance_distance(np.array([[0.0], [2.0]]), np.array([[0.0], [4.0]]))
    9.0
    """
    difference = np.atleast_2d(np.cov(source, rowvar=False)) - np.atleast_2d(np.cov(target, rowvar=False))
    return float(np.sum(difference**2) / (4 * len(difference) ** 2))


def some(count: int, seed: int) -> np.ndarray:
    """The numbers of all examples, in order; of 2,000 drawn at random where there are more.

    Example:

    >>> some(3, seed=0).tolist(), len(some(5_000, seed=0))
    ([0, 1, 2], 2000)
    """
    return np.sort(np.random.default_rng(seed).permutation(count)[:MOST_EXAMPLES])

"""How sure a figure is that was measured on some examples, with models of some seeds.

A figure would come out otherwise with other seeds, and with other test examples. Every figure here is a mean over
seeds, and its variance is the sum of two parts: that of the seeds' figures, over their number, and that which the
choice of the examples leaves open, found with the infinitesimal jackknife (Efron 1982, "The Jackknife, the Bootstrap
and Other Resampling Plans"): from how much each example moves the mean over the seeds. Of two methods the difference is
taken example by example and seed by seed, so that what is hard for both is noise of neither; with one seed that comes
to McNemar's comparison (1947), as an interval. Two imagined examples on which they disagree are added (Bonett and Price
2012), for else a handful would be taken for certain. Each part has Student's quantile for its own degrees of freedom,
so that few seeds that differ make a wide interval. One number of degrees of freedom for the sum (Satterthwaite 1946)
would be narrower, and wrong where many pairs are corrected for: three seeds that happen to agree would be believed, and
of eight equal methods one is then called beaten several times as often as in the promised 5 % of the cases. A
percentile bootstrap over three seeds is no way round that either: it knows three values.

What chance does to single examples in single seeds is counted in both parts, so the intervals are rather too wide:
`benchmarks/intervals.py` simulates how often they are wrong. With one seed, how seeds differ is not in them at all:
they are of those very models, and of methods that are equal one is often better in that sense.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

# Examples on which the figures are imagined to be wrong, beside those that are there.
_IMAGINED = 2


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure and the interval in which it lies, as far as chance in seeds and examples goes.

    Attributes:
        value: the mean over the seeds.
        low, high: ends of the interval.
        examples: on how many it was measured.
        level: how often such intervals hold what they are to hold.
        seeds: how many there are; with one, nothing is known of how much seeds differ.

    Example:

    >>> print(Estimate(0.1, -0.02, 0.22, 60))
    +10.0 points (95 % interval -2.0 to +22.0)
    """

    value: float
    low: float
    high: float
    examples: int
    _: dataclasses.KW_ONLY
    level: float = 0.95
    seeds: int = 1

    @property
    def is_clear(self) -> bool:
        """Of a difference, whether it is beyond the noise: 0 is not in its interval."""
        return self.low > 0 or self.high < 0

    def __neg__(self) -> Self:
        """The same difference, seen from the other side."""
        return dataclasses.replace(self, value=-self.value, low=-self.high, high=-self.low)

    def __add__(self, other: Self) -> Self:
        """The sum of two differences that were measured apart, each with its own noise."""
        middle = (self.low + self.high + other.low + other.high) / 2
        half = math.hypot(self.high - self.low, other.high - other.low) / 2
        examples, seeds = min(self.examples, other.examples), min(self.seeds, other.seeds)
        value = self.value + other.value
        return dataclasses.replace(
            self, value=value, low=middle - half, high=middle + half, examples=examples, seeds=seeds
        )

    def __str__(self) -> str:
        ends = f"{level_said(self.level)} interval {100 * self.low:+.1f} to {100 * self.high:+.1f}"
        return f"{100 * self.value:+.1f} points ({ends})"

    def within(self, least: float, most: float) -> Self:
        """The same, its ends no lower and no higher than the figure can be."""
        return dataclasses.replace(self, low=max(self.low, least), high=min(self.high, most))


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """A figure for each seed, and what each example does to it.

    Attributes:
        values: shape (seeds,).
        influences: how much a figure would change, to first order, times the number of examples, if an example weighed
            more: shape (seeds, examples), each row with the mean 0.

    Example:

    >>> scores = accuracy(np.array([0, 1, 1, 1]), np.array([[0, 1, 1, 0]]))
    >>> scores.values.tolist(), scores.influences.tolist()
    ([0.75], [[0.25, 0.25, 0.25, -0.75]])
    """

    values: npt.NDArray[np.float64]
    influences: npt.NDArray[np.float64]

    def minus(self, other: Self) -> Self:
        """The difference, seed by seed and example by example."""
        return Scores(self.values - other.values, self.influences - other.influences)

    def estimate(self, level: float = 0.95) -> Estimate:
        """The mean over the seeds, with its interval."""
        from scipy.special import stdtrit

        seeds, examples = self.influences.shape
        value = float(np.mean(self.values))
        of_seeds = float(np.var(self.values, ddof=1)) / seeds if seeds > 1 else 0.0
        squares = float(np.sum(np.mean(self.influences, axis=0) ** 2)) + _IMAGINED
        of_examples = squares / examples / max(examples - 1, 1)
        ends = [
            math.sqrt(variance) * float(stdtrit(max(count - 1, 1), (1 + level) / 2))
            for variance, count in ((of_seeds, seeds), (of_examples, examples))
        ]
        half = math.hypot(*ends)
        return Estimate(value, value - half, value + half, examples, level=level, seeds=seeds)


def covariance(figures: Sequence[Scores]) -> npt.NDArray[np.float64]:
    """How figures on the same examples would vary together if the examples were others, shape (figures, figures).

    Args:
        figures: of the same examples, each a mean over its seeds.

    Example:

    >>> right = np.arange(50) % 5 > 0
    >>> covariance([accuracy(np.ones(50, bool), right[None])] * 2).round(4).tolist()
    [[0.0037, 0.0033], [0.0033, 0.0037]]
    """
    influences = np.stack([np.mean(each.influences, axis=0) for each in figures])
    examples = influences.shape[1]
    # Of a difference of two figures, half of the imagined examples is each one's own.
    own = _IMAGINED / 2 * np.eye(len(figures))
    return (influences @ influences.T + own) / examples / max(examples - 1, 1)


def level_said(level: float) -> str:
    """The level of an interval; never 100 %.

    Example:

    >>> level_said(0.95), level_said(1 - 0.05 / 6), level_said(0.99999)
    ('95 %', '99.2 %', '99.9 %')
    """
    return f"{100 * min(level, 0.999):.3g} %"


# What `of_difference` and `Comparison.difference` give.
Difference = Estimate


def of_difference(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> Difference:
    """How much more often one is right than the other on the same examples, with its 95 % interval.

    Only examples count on which they disagree, and those that are imagined.

    Args:
        one: whether it was right, bool of shape (examples,).
        other: the same of the other.

    Example:

    >>> print(of_difference(np.array([True] * 9 + [False]), np.array([True] * 7 + [False] * 3)))
    +20.0 points (95 % interval -25.2 to +65.2)
    """
    truth = np.ones(len(one), bool)
    return accuracy(truth, one[None]).minus(accuracy(truth, other[None])).estimate().within(-1, 1)


def accuracy(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> Scores:
    """The share of the examples that was classified rightly.

    Args:
        labels: the true classes, shape (examples,).
        predicted: shape (seeds, examples).
    """
    return mean((predicted == labels).astype("float64"))


def mean(figures: npt.NDArray[np.float64]) -> Scores:
    """The mean of what each example has, shape (seeds, examples).

    Example:

    >>> mean(np.array([[0.0, 1.0, 0.5, 0.5]])).values.tolist()
    [0.5]
    """
    values = figures.mean(axis=1)
    return Scores(values, figures - values[:, None])


def macro_f1(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> Scores:
    """The mean of the classes' F1, of those that are there or were predicted, as in `Report.macro_f1`.

    Args:
        labels: the true classes, shape (examples,).
        predicted: shape (seeds, examples).
        classes: how many there are.

    Example:

    >>> macro_f1(np.array([0, 0, 1, 1]), np.array([[0, 1, 1, 1]]), 2).values.round(3).tolist()
    [0.733]
    """
    found = [_macro_f1(labels, of_seed, classes) for of_seed in predicted]
    return Scores(np.array([value for value, _ in found]), np.array([influences for _, influences in found]))


def _macro_f1(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int
) -> tuple[float, npt.NDArray[np.float64]]:
    right = np.bincount(labels[labels == predicted], minlength=classes).astype("float64")
    # F1 = 2 right / (true + predicted), so what an example does to it follows from the class that it is of, and from
    # the class that it was taken for.
    either = (np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)).astype("float64")
    there = either > 0
    f1 = np.divide(2 * right, either, out=np.zeros(classes), where=there)
    falls = np.divide(f1, either, out=np.zeros(classes), where=there)
    rises = np.divide(2.0, either, out=np.zeros(classes), where=there)
    hit = np.where(labels == predicted, rises[labels], 0.0)
    influences = len(labels) * (hit - falls[labels] - falls[predicted]) / there.sum()
    return float(f1[there].mean()), influences

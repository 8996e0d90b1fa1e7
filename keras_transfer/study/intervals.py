"""How far a figure that was measured on some examples can be trusted."""

import dataclasses
import math
import statistics

import numpy as np

Z = statistics.NormalDist().inv_cdf(0.975)


def of_share(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Example:

    >>> [round(end, 2) for end in of_share(2, 2)]
    [0.34, 1.0]
    """
    share = count / total
    middle = (share + Z**2 / (2 * total)) / (1 + Z**2 / total)
    half = Z / (1 + Z**2 / total) * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of two accuracies, and what chance alone leaves open.

    Attributes:
        value: as it was measured.
        low: lower end of its 95 % interval.
        high: upper end.
        examples: on how many examples it was measured.
    """

    value: float
    low: float
    high: float
    examples: int

    @property
    def is_clear(self) -> bool:
        """Whether it is beyond the noise: 0 is not in its interval."""
        return self.low > 0 or self.high < 0

    def __add__(self, other: "Difference") -> "Difference":
        """The sum of two differences that were measured apart, each with its own noise."""
        middle = (self.low + self.high + other.low + other.high) / 2
        half = math.hypot(self.high - self.low, other.high - other.low) / 2
        examples = min(self.examples, other.examples)
        return Difference(self.value + other.value, middle - half, middle + half, examples)

    def __neg__(self) -> "Difference":
        return Difference(-self.value, -self.high, -self.low, self.examples)

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} points (95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f})"


def of_difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """How much more often one is right than the other on the same examples.

    Only examples count on which they disagree. The interval adds half an example to each of the four cases (Agresti and
    Min 2005, "Simple improved confidence intervals for comparing matched proportions"), so that it is honest where
    there are few.

    Args:
        one: whether it was right, bool of shape (examples,).
        other: the same of the other.

    Example:

    >>> print(of_difference(np.array([True] * 9 + [False]), np.array([True] * 7 + [False] * 3)))
    +20.0 points (95 % interval -10.0 to +43.3)
    """
    count = len(one)
    only_one, only_other = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    total, disagree = count + 2, only_one + only_other + 1
    middle = (only_one - only_other) / total
    half = Z * math.sqrt(disagree - (only_one - only_other) ** 2 / total) / total
    return Difference((only_one - only_other) / count, middle - half, middle + half, count)

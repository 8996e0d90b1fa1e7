"""What each body is expected to come to by each method, and by how much the best of them leads."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from keras_transfer.study import intervals
from keras_transfer.study.evidence import Evidence
from keras_transfer.study.intervals import Difference
from keras_transfer.study.rules import METHODS, Rule, leaning
from keras_transfer.study.trials import Trial

# What a method is thought to gain over a frozen body before it is tried: one point, if the flow chart points to it, and
# give or take three: on small picture sets nearly all gains lay within twice that. A trial on few examples is believed
# in part, by its own error beside these three points.
LEAD, SPREAD = 0.01, 0.03
# A 95 % interval is so many standard errors wide.
_INTERVAL = 2 * 1.96


@dataclasses.dataclass(frozen=True)
class Prospect:
    """What a body is expected to come to by a method.

    Attributes:
        body: the candidate's name.
        method: the way to adapt it.
        accuracy: of its linear probe under cross-validation, and the gain that is expected over that.
        gain: what was measured of that gain in trials; `None` where there was none.
    """

    body: str
    method: str
    accuracy: float
    gain: Difference | None

    @property
    def was_tried(self) -> bool:
        """Whether it has been measured: the frozen body has, as a linear probe."""
        return self.gain is not None or self.method == METHODS[0]

    def __str__(self) -> str:
        return f"{self.method} of {self.body}"


@dataclasses.dataclass(frozen=True)
class Margin:
    """By how much what is recommended leads.

    Attributes:
        over: the next best.
        difference: how much more accurate, with its interval.
    """

    over: str
    difference: Difference

    @property
    def is_clear(self) -> bool:
        """Whether it is better beyond the noise."""
        return self.difference.low > 0

    def __str__(self) -> str:
        if self.is_clear:
            return f"{self.difference} better than {self.over}"
        return (
            f"no difference beyond noise, {self.difference} beside {self.over}, on {self.difference.examples} examples"
        )


def prospects(
    evidence: Sequence[Evidence], trials: Sequence[Trial], charts: Mapping[str, Sequence[Rule]]
) -> list[Prospect]:
    """Every body by every method that it allows, the best first; of equals the one that trains less.

    Args:
        evidence: what the frozen features are worth.
        trials: the short fits.
        charts: what the flow chart says of each body.
    """
    found = [
        Prospect(row.body, method, *_expected(row, method, trials, leaning(charts[row.body])))
        for row in evidence
        for method in row.methods
    ]
    parameters = {row.body: row.parameters for row in evidence}
    return sorted(found, key=lambda one: (-one.accuracy, METHODS.index(one.method), parameters[one.body]))


def _expected(row: Evidence, method: str, trials: Sequence[Trial], points_to: str) -> tuple[float, Difference | None]:
    """The accuracy that is expected, and the gain that was measured."""
    if method == METHODS[0]:
        return row.measures.accuracy, None
    gain = measured_gain(trials, row.body, method)
    expected = LEAD if points_to == method else -LEAD if points_to == METHODS[0] else 0.0
    if gain is not None:
        belief = SPREAD**2 / (SPREAD**2 + ((gain.high - gain.low) / _INTERVAL) ** 2)
        expected += belief * (gain.value - expected)
    return row.measures.accuracy + expected, gain


def measured_gain(trials: Sequence[Trial], body: str, method: str) -> Difference | None:
    """What a method gained over the frozen body, on the examples of all its rounds; `None` where it was not tried."""
    own = [trial for trial in trials if (trial.body, trial.method) == (body, method)]
    if not own:
        return None
    return intervals.of_difference(_joined(own, "right"), _joined(own, "probe_right"))


def body_margin(ranked: Sequence[Prospect], evidence: Sequence[Evidence]) -> Margin | None:
    """By how much the best prospect's body leads the best one of another body; `None` where there is no other."""
    best = ranked[0]
    other = next((one for one in ranked if one.body != best.body), None)
    if other is None:
        return None
    right = {row.body: row.measures.right for row in evidence}
    difference = intervals.of_difference(right[best.body], right[other.body])
    difference = difference + best.gain if best.gain else difference
    return Margin(str(other), difference + -other.gain if other.gain else difference)


def method_margin(ranked: Sequence[Prospect], trials: Sequence[Trial]) -> Margin | None:
    """By how much the best prospect's method leads the next on its body; `None` where they were not both measured."""
    best = ranked[0]
    other = next((one for one in ranked[1:] if one.body == best.body and one.was_tried), None)
    if other is None or not best.was_tried:
        return None
    own = {method: [t for t in trials if (t.body, t.method) == (best.body, method)] for method in METHODS}
    rounds = set.intersection(*({t.round for t in own[one.method]} for one in (best, other) if one.gain))
    right = [_right(own, one, rounds) for one in (best, other)]
    return Margin(other.method, intervals.of_difference(*right))


def _right(own: Mapping[str, Sequence[Trial]], one: Prospect, rounds: set[int]) -> np.ndarray:
    """Whether a prospect was right about each example that judged some rounds."""
    if one.gain:
        return _joined([trial for trial in own[one.method] if trial.round in rounds], "right")
    beside = next(trials for trials in own.values() if rounds <= {trial.round for trial in trials})
    return _joined([trial for trial in beside if trial.round in rounds], "probe_right")


def _joined(trials: Sequence[Trial], attribute: str) -> np.ndarray:
    return np.concatenate([getattr(trial, attribute) for trial in sorted(trials, key=lambda trial: trial.round)])

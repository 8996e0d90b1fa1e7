"""What each body is expected to come to by each method, and by how much the best of them leads."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_transfer.study import intervals
from keras_transfer.study.evidence import Evidence
from keras_transfer.study.intervals import Difference
from keras_transfer.study.rules import METHODS, Rule, leaning
from keras_transfer.study.transferability import noise_of
from keras_transfer.study.trials import Trial

# What is thought before anything is tried is in log-odds, in which accuracies on one task go with those on another
# (Kornblith et al. 2019, arXiv:1805.08974): a third more right for each that is wrong is worth five points to a body
# that is right three times of four, and one to a body that is seldom wrong.
#
# Training is thought to gain a quarter, which was three points in the mean on folds of the training pictures of the
# four shared sets, where the flow chart points to it, and to lose a twelfth where the chart points to the frozen body.
LEAD, LOSS = 0.25, 1 / 12
# Give or take three points that all bodies have in common, since it is the task that asks for it, and two of each
# body's own: on small picture sets nearly all gains lay within twice that. A trial on few examples is believed in part,
# by its noise.
SPREAD, OWN_SPREAD = 0.03, 0.02
# A body of twice the parameters is thought to be better by a ninth, and bodies of one size to differ by a fifth: so the
# accuracies of the 38 ImageNet bodies of Keras Applications go with their parameters without the classifier, within
# families as over all of them (benchmarks/size_and_accuracy.py). Beyond that, probes of bodies differ because this task
# suits one of them: a lead on few examples may be chance, and is believed by that measure.
LEAD_OF_TWICE, BEYOND_SIZE = 0.11, 0.21
# By half, what frozen features are beyond what the size of their body says is thought to hold once the body is trained.
# A judgement: of public ImageNet bodies their accuracy there said nearly all when they were fine-tuned, and little when
# they were frozen, which depends on how they had been regularised (r^2 .86 and .24 in that paper's first version).
KEPT_IN_TRAINING = 0.5
# A 95 % interval is so many standard errors wide.
_INTERVAL = 2 * 1.96


@dataclasses.dataclass(frozen=True)
class Prospect:
    """What a body is expected to come to by a method.

    Attributes:
        body: the candidate's name.
        method: the way to adapt it.
        accuracy: what its frozen features are thought to be worth, and the gain that is expected over that.
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
        not_tried: which of the two was not measured, so that the difference is in part what is expected of it.
    """

    over: str
    difference: Difference
    not_tried: tuple[str, ...] = ()

    @property
    def is_clear(self) -> bool:
        """Whether it is better beyond the noise."""
        return self.difference.low > 0

    def __str__(self) -> str:
        untried = f"; not tried: {', '.join(self.not_tried)}" if self.not_tried else ""
        if self.is_clear:
            return f"{self.difference} better than {self.over}{untried}"
        beside = f"{self.difference} beside {self.over}, on {self.difference.examples} examples"
        return f"no difference beyond noise, {beside}{untried}"


def prospects(
    evidence: Sequence[Evidence], trials: Sequence[Trial], charts: Mapping[str, Sequence[Rule]]
) -> list[Prospect]:
    """Every body by every method that it allows, the best first; of equals the one that trains less.

    Args:
        evidence: what the frozen features are worth.
        trials: the short fits.
        charts: what the flow chart says of each body.
    """
    frozen = features_worth(METHODS[0], evidence)
    found = [Prospect(row.body, METHODS[0], float(worth), None) for row, worth in zip(evidence, frozen, strict=True)]
    for method in METHODS[1:]:
        places = [place for place, row in enumerate(evidence) if method in row.methods]
        if not places:
            continue
        rows = [evidence[place] for place in places]
        measured = [measured_gain(trials, row.body, method) for row in rows]
        # The charts differ where one body's features lie a hair to this side of a bound, the other's to that: no reason
        # to think better of the worse.
        of_training = float(np.mean([_of_training(method, charts[row.body]) for row in rows]))
        thought = raised(features_worth(method, evidence)[places], of_training) - frozen[places]
        reached = np.minimum(frozen[places] + expected_gains(thought, measured), 1.0)
        found += [
            Prospect(row.body, method, float(accuracy), of_trials)
            for row, accuracy, of_trials in zip(rows, reached, measured, strict=True)
        ]
    parameters = {row.body: row.parameters for row in evidence}
    return sorted(found, key=lambda one: (-one.accuracy, METHODS.index(one.method), parameters[one.body]))


def _of_training(method: str, chart: Sequence[Rule]) -> float:
    """What training is thought to gain before it is tried, in log-odds."""
    points_to = leaning(chart)
    return LEAD if points_to == method else -LOSS if points_to == METHODS[0] else 0.0


def features_worth(method: str, rows: Sequence[Evidence]) -> np.ndarray:
    """What each body's features, as a method begins with them, are thought to be worth to it: accuracies.

    Of bodies that are not clearly worse than the best, the accuracies of linear probes are drawn towards what their
    sizes say: as far as these examples may have been kinder to one of them, and for a method that trains the body, as
    far as features are thought to become others. That is the mean of a normal distribution of unknown level, given its
    values with noise. To the frozen body, on many examples, they are worth the accuracies that were measured.

    A body that there was no time to ask with what a method begins is thought to be better for it by what the others
    are, in the mean: whether the minutes sufficed, which they do sooner for a small body, is no merit.

    Args:
        method: that begins.
        rows: what is known of each body, of one at least.
    """
    measured = [row.beginning(method) for row in rows]
    accuracies = np.array([each.accuracy for each in measured])
    if method == METHODS[1]:
        gained = [row.beginning(method).accuracy - row.measures.accuracy for row in rows if row.calibration is not None]
        accuracies[[row.beginning_is_unknown for row in rows]] += np.mean(gained) if gained else 0.0
    best = measured[int(accuracies.argmax())]
    near = [place for place, each in enumerate(measured) if best.lead_over(each).low <= 0]
    slope = _slope(accuracies[near].mean(), best.right.shape[-1])
    sizes = slope * size_leads([rows[place].parameters for place in near])
    prior = (slope * BEYOND_SIZE) ** 2 * np.eye(len(near))
    weights = np.linalg.inv(prior + noise_of([measured[place] for place in near]))
    beyond_size = accuracies[near] - sizes
    level = weights.sum(axis=0) @ beyond_size / weights.sum()
    kept = 1.0 if method == METHODS[0] else KEPT_IN_TRAINING
    accuracies[near] = level + sizes + kept * prior @ weights @ (beyond_size - level)
    return np.clip(accuracies, 0.0, 1.0)


def _slope(accuracy: float, examples: int) -> float:
    """How many of accuracy one of log-odds is; of what was never wrong, or never right, as if half an example was."""
    smoothed = (accuracy * examples + 0.5) / (examples + 1)
    return smoothed * (1 - smoothed)


def raised(accuracies: np.ndarray, log_odds: float) -> np.ndarray:
    """Accuracies, the log of right to wrong raised by so much.

    Example:

    >>> raised(np.array([0.0, 0.5, 0.75, 1.0]), np.log(2)).round(3).tolist()
    [0.0, 0.667, 0.857, 1.0]
    """
    right = accuracies * math.exp(log_odds)
    return right / (right + 1 - accuracies)


def size_leads(parameters: Sequence[int]) -> np.ndarray:
    """By how much each body is thought to be better, for its size, than the candidates are in the mean; in log-odds.

    Args:
        parameters: of each body, of one at least.

    Example:

    >>> size_leads([1_000_000, 2_000_000]).tolist()
    [-0.055, 0.055]
    """
    doublings = np.log2(np.maximum(np.array(parameters, "float64"), 1.0))
    return LEAD_OF_TWICE * (doublings - doublings.mean())


def expected_gains(thought: Sequence[float], measured: Sequence[Difference | None]) -> np.ndarray:
    """What a method is expected to gain on each body, from what was thought and what was measured on some of them.

    A trial speaks for its body, and in part for the others: the mean of a normal distribution whose variables have a
    part in common, given some of them with noise.

    Args:
        thought: the gain on each body before anything was tried: what a method begins with, and what it adds to that.
        measured: the gain on each that was tried, `None` for the others.

    Example:

    >>> sure = Difference(0.05, 0.04, 0.06, 1000)
    >>> expected_gains([0.0, 0.0], [sure, None]).round(3).tolist()
    [0.049, 0.034]
    >>> expected_gains([0.0, 0.0], [Difference(0.05, -0.05, 0.15, 30), None]).round(3).tolist()
    [0.017, 0.012]
    """
    expected = np.array(thought, "float64")
    tried, kept = _weights(measured)
    surprise = [measured[place].value - expected[place] for place in tried]
    return expected + kept @ np.array(surprise)


def gain_covariance(measured: Sequence[Difference | None]) -> np.ndarray:
    """How sure `expected_gains` is: the covariance that is left of the gains on the bodies, shape (bodies, bodies).

    Args:
        measured: the gain on each body that was tried, `None` for the others.

    Example:

    >>> gain_covariance([Difference(0.05, 0.04, 0.06, 1000), None]).diagonal().round(4).tolist()
    [0.0, 0.0007]
    """
    tried, kept = _weights(measured)
    before = _covariance(len(measured))
    return before - kept @ before[tried]


def _covariance(bodies: int) -> np.ndarray:
    """Of the gains on so many bodies, before anything is tried."""
    return SPREAD**2 + OWN_SPREAD**2 * np.eye(bodies)


def _weights(measured: Sequence[Difference | None]) -> tuple[list[int], np.ndarray]:
    """The bodies that were tried, and how far each body's expected gain follows each of their surprises."""
    tried = [place for place, gain in enumerate(measured) if gain is not None]
    noise = np.array([(measured[place].high - measured[place].low) / _INTERVAL for place in tried])
    covariance = _covariance(len(measured))
    return tried, np.linalg.solve(covariance[np.ix_(tried, tried)] + np.diag(noise**2), covariance[tried]).T


def measured_gain(trials: Sequence[Trial], body: str, method: str) -> Difference | None:
    """What a method gained over the frozen body, on the examples of all its rounds; `None` where it was not tried."""
    own = [trial for trial in trials if (trial.body, trial.method) == (body, method)]
    if not own:
        return None
    return intervals.of_difference(_joined(own, "right"), _joined(own, "probe_right"))


def body_margin(ranked: Sequence[Prospect], evidence: Sequence[Evidence]) -> Margin | None:
    """By how much the best prospect's body leads the best one of another body; `None` where there is no other.

    The difference is that of the ranking, so that what was tried is not held against what was not, and a lead of probes
    is believed in part. Its interval has the noise of the linear probes on the features that the methods begin with,
    and what is not known of the gains.
    """
    best = ranked[0]
    other = next((one for one in ranked if one.body != best.body), None)
    if other is None:
        return None
    rows = {row.body: row for row in evidence}
    beginnings = [rows[one.body].beginning(one.method) for one in (best, other)]
    lead = beginnings[0].lead_over(beginnings[1])
    not_tried = tuple(str(one) for one in (best, other) if not one.was_tried)
    return Margin(str(other), (lead + _lead_in_gain(best, other, ranked, lead)).within(-1, 1), not_tried)


def _lead_in_gain(best: Prospect, other: Prospect, ranked: Sequence[Prospect], of_probes: Difference) -> Difference:
    """By how much one body is expected to lead another more than its probe does, with the interval of their gains."""
    variance = 0.0
    for method in METHODS[1:]:  # what two methods gain has nothing in common; the frozen body gains nothing
        rows = [one for one in ranked if one.method == method]
        side = np.array([(one is best) - float(one is other) for one in rows])
        variance += float(side @ gain_covariance([one.gain for one in rows]) @ side) if side.any() else 0.0
    value = float(best.accuracy - other.accuracy) - of_probes.value
    half = _INTERVAL / 2 * math.sqrt(variance)
    examples = min([of_probes.examples, *(one.gain.examples for one in (best, other) if one.gain)])
    return Difference(value, value - half, value + half, examples)


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

"""What `advise` answers: a body and a method, by how much, on what evidence, and what to run next."""

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np

from keras_transfer.evaluation.formatting import LINE_WIDTH, duration, percent, table
from keras_transfer.study import intervals
from keras_transfer.study.intervals import Difference
from keras_transfer.study.pitfalls import Pitfalls
from keras_transfer.study.rules import METHODS, Rule
from keras_transfer.study.transferability import Measures
from keras_transfer.study.trials import Trial


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """What a candidate's frozen features are worth.

    Attributes:
        body: the candidate's name.
        code: the expression that makes its model.
        parameters: of the whole model.
        measures: linear probe, nearest neighbours and LogME, on train and validation.
        seconds: how long it took.
    """

    body: str
    code: str
    parameters: int
    measures: Measures
    seconds: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a body is thought to come to by a method.

    Attributes:
        body: the candidate's name.
        method: the way to adapt it.
        accuracy: of its linear probe under cross-validation, and what the method gained over feature extraction.
        gain: that gain, on the same held-out examples; nothing for feature extraction itself.
    """

    body: str
    method: str
    accuracy: float
    gain: Difference

    def __str__(self) -> str:
        return f"{self.method} of {self.body}"


@dataclasses.dataclass(frozen=True, eq=False)
class Advice:
    """A body and a method for a task, and what speaks for them. `print` it.

    Attributes:
        body: the name of the candidate that is recommended.
        method: `"feature_extraction"`, `"staged_fine_tuning"` or `"lora"`.
        code: the line to run next, with `splits` (and `backbones`) as they were given.
        was_tried: whether the method was tried on this body, or is what the rules say.
        over: the next best that was tried, or `None` where there is none.
        margin: how much better than `over`, with its interval.
        estimates: everything that was tried, the best first.
        evidence: the candidates' features, the best first.
        rules: what the flow chart says.
        trials: the short fits.
        pitfalls: what is the matter with the data.
        not_reached: what the minutes did not allow.
        examples: labelled examples that the evidence comes from.
        seconds: how long all of it took.
        minutes: how long it was allowed to take.
    """

    body: str
    method: str
    code: str
    was_tried: bool
    over: Estimate | None
    margin: Difference | None
    estimates: tuple[Estimate, ...]
    evidence: tuple[Evidence, ...]
    rules: tuple[Rule, ...]
    trials: tuple[Trial, ...]
    pitfalls: Pitfalls
    not_reached: tuple[str, ...]
    examples: int
    seconds: float
    minutes: float

    @property
    def order(self) -> tuple[str, ...]:
        """The candidates, the best features first."""
        return tuple(row.body for row in self.evidence)

    @property
    def is_clear(self) -> bool:
        """Whether the recommendation is better than the next best beyond the noise."""
        return self.margin is not None and self.margin.is_clear

    def __str__(self) -> str:
        parts = [
            self._headline(),
            f"next:\n  {self.code}",
            "\n".join(["frozen features, on train and validation, cross-validated:", *self._evidence_table()]),
            "\n".join(["the flow chart says:", *map(_bullet, self.rules)]),
        ]
        if self.trials:
            heading = "tried, on examples that were held out of train and validation:"
            parts.insert(3, "\n".join([heading, *self._trial_table()]))
        parts.append(str(self.pitfalls))
        if self.not_reached:
            parts.append("\n".join(["not reached:", *map(_bullet, self.not_reached)]))
        parts.append(f"{duration(self.seconds)} of {self.minutes:g} minutes; the test split had no say in any of it")
        return "\n\n".join(parts)

    def _headline(self) -> str:
        said = f"{self.method} of {self.body}"
        if not self.was_tried:
            return _filled(f"Recommended: {said}. This is what the flow chart says; it was not tried.")
        if self.over is None or self.margin is None:
            return _filled(f"Recommended: {said}. There was nothing else to compare it with.")
        if self.is_clear:
            return _filled(f"Recommended: {said}: {self.margin} better than {self.over}.")
        return _filled(
            f"No difference beyond noise: {said} came out best, {self.margin} beside {self.over}, on "
            f"{self.margin.examples} examples. Whichever is cheaper will do as far as these data can tell."
        )

    def _evidence_table(self) -> list[str]:
        rows = [("body", "parameters", "probe", "95 % interval", "log loss", "5 nearest", "LogME", "seconds")]
        for row in self.evidence:
            low, high = row.measures.interval
            rows.append((
                row.body, f"{row.parameters:,}", percent(row.measures.accuracy),
                f"{percent(low)} to {percent(high)}", f"{row.measures.log_loss:.3f}",
                percent(row.measures.neighbours), f"{row.measures.log_me:+.3f}", f"{row.seconds:.1f}",
            ))  # fmt: skip
        return [f"  {line}" for line in table(rows)]

    def _trial_table(self) -> list[str]:
        rows = [("body", "method", "epochs", "right", "of", "accuracy", "seconds")]
        for (body, method), trials in grouped(self.trials).items():
            right = np.concatenate([trial.right for trial in trials])
            epochs = "/".join(f"{trial.epochs}{' (cut)' if trial.was_cut else ''}" for trial in trials)
            seconds = sum(trial.seconds for trial in trials)
            figures = epochs, f"{right.sum()}", f"{len(right)}", percent(float(right.mean())), f"{seconds:.1f}"
            rows.append((body, method, *figures))
        return [f"  {line}" for line in table(rows, words=(0, 1))]


def _bullet(item: object) -> str:
    return textwrap.fill(str(item), LINE_WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _filled(text: str) -> str:
    return textwrap.fill(text, LINE_WIDTH)


def grouped(trials: Sequence[Trial]) -> dict[tuple[str, str], list[Trial]]:
    """The trials of each (body, method), in the order of their rounds."""
    found: dict[tuple[str, str], list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.round):
        found.setdefault((trial.body, trial.method), []).append(trial)
    return found


def estimates(evidence: Sequence[Evidence], trials: Sequence[Trial]) -> list[Estimate]:
    """What each body is thought to come to by each method that was tried on it, the best first.

    A trial is judged on few examples, and which these are moves every method alike. So it is asked only what a method
    gained over feature extraction on the same examples; where feature extraction itself stands, the linear probe says
    on all of them.
    """
    by_method, found = grouped(trials), []
    for row in evidence:
        accuracy, count = row.measures.accuracy, len(row.measures.right)
        found.append(Estimate(row.body, METHODS[0], accuracy, Difference(0.0, 0.0, 0.0, count)))
        for method in METHODS[1:]:
            gain = _gain(by_method, row.body, method)
            if gain is not None:
                found.append(Estimate(row.body, method, accuracy + gain.value, gain))
    parameters = {row.body: row.parameters for row in evidence}
    return sorted(found, key=lambda one: (-one.accuracy, METHODS.index(one.method), parameters[one.body]))


def _gain(trials: dict[tuple[str, str], list[Trial]], body: str, method: str) -> Difference | None:
    """What a method gained over feature extraction, in the rounds that both took part in."""
    of_method = {trial.round: trial.right for trial in trials.get((body, method), [])}
    of_probe = {trial.round: trial.right for trial in trials.get((body, METHODS[0]), [])}
    common = sorted(of_method.keys() & of_probe.keys())
    if not common:
        return None
    right = [np.concatenate([rounds[number] for number in common]) for rounds in (of_method, of_probe)]
    return intervals.of_difference(*right)


def difference(one: Estimate, other: Estimate, evidence: Sequence[Evidence], trials: Sequence[Trial]) -> Difference:
    """How much better one estimate is than another, with what chance leaves open."""
    if one.body == other.body and METHODS[0] not in (one.method, other.method):
        by_method = grouped(trials)
        rounds = [{t.round: t.right for t in by_method[one.body, each.method]} for each in (one, other)]
        common = sorted(rounds[0].keys() & rounds[1].keys())
        if common:
            return intervals.of_difference(*(np.concatenate([each[number] for number in common]) for each in rounds))
    gains = one.gain + -other.gain
    if one.body == other.body:
        return gains
    right = {row.body: row.measures.right for row in evidence}
    return intervals.of_difference(right[one.body], right[other.body]) + gains

"""What `advise` answers: a body and a method, by how much, on what evidence, and what to run next."""

import dataclasses
import textwrap

import numpy as np

from keras_transfer.formatting import LINE_WIDTH, duration, listed, percent, table
from keras_transfer.study.evidence import Evidence
from keras_transfer.study.pitfalls import Pitfalls
from keras_transfer.study.prospects import Margin, Prospect
from keras_transfer.study.rules import METHODS, Rule, leaning
from keras_transfer.study.trials import Trial


@dataclasses.dataclass(frozen=True, eq=False)
class Advice:
    """A body and a method for a task, and what speaks for them. `print` it.

    Attributes:
        body: the name of the candidate that is recommended.
        method: `"feature_extraction"`, `"staged_fine_tuning"` or `"lora"`.
        code: the line to run next, with `splits` (and `backbones`) as they were given.
        body_margin: by how much the body leads the next one; `None` where there is no other.
        method_margin: by how much the method leads the next one on this body; `None` where it was not tried.
        prospects: every body by every method, the best first.
        evidence: what the frozen features are worth, the best first.
        rules: what the flow chart says of the body.
        trials: the short fits.
        pitfalls: what is the matter with the data; `None` where the minutes did not allow to look.
        not_reached: what else the minutes did not allow.
        unknown: the candidates of which nothing is known, for want of minutes.
        examples: labelled examples that the evidence comes from.
        seconds: how long all of it took.
        minutes: how long it was allowed to take.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=20, batch_size=8)
    >>> small = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> found = kt.advise(digits, {"small": small}, minutes=0.05, verbose=False)
    >>> found.order, found.is_clear, len(found.rules)
    (('small',), False, 4)
    """

    body: str
    method: str
    code: str
    body_margin: Margin | None
    method_margin: Margin | None
    prospects: tuple[Prospect, ...]
    evidence: tuple[Evidence, ...]
    rules: tuple[Rule, ...]
    trials: tuple[Trial, ...]
    pitfalls: Pitfalls | None
    not_reached: tuple[str, ...]
    unknown: tuple[str, ...]
    examples: int
    seconds: float
    minutes: float

    @property
    def order(self) -> tuple[str, ...]:
        """The candidates, the best prospect first."""
        return tuple(dict.fromkeys(one.body for one in self.prospects))

    @property
    def is_clear(self) -> bool:
        """Whether body and method are both better than the next best beyond the noise."""
        has_others = len(self.evidence) > 1 or bool(self.unknown)
        margins = [self.method_margin] + ([self.body_margin] if has_others else [])
        return all(margin is not None and margin.is_clear for margin in margins)

    def __str__(self) -> str:
        parts = [
            self._headline(),
            self._next(),
            "\n".join(["frozen features, on train and validation, cross-validated:", *self._evidence_table()]),
            "\n".join([f"the flow chart says of {self.body}:", *map(_bullet, self.rules)]),
        ]
        if self.trials:
            heading = "tried, on examples that were held out of train and validation, beside the frozen body:"
            parts.insert(3, "\n".join([heading, *self._trial_table()]))
        parts += [str(self.pitfalls)] if self.pitfalls else []
        if self.not_reached:
            parts.append("\n".join(["not reached:", *map(_bullet, self.not_reached)]))
        parts.append(f"{duration(self.seconds)} of {self.minutes:g} minutes; the test split had no say in the advice")
        return "\n\n".join(parts)

    def _headline(self) -> str:
        margins = [margin for margin in (self.body_margin, self.method_margin) if margin]
        said = f"{self.method} of {self.body}"
        was_measured = self.method == METHODS[0] or bool(self._own_trials())
        best = "came out best" if was_measured else "is thought to do best, and was not tried"
        if not margins:
            first = f"Nothing to compare with: {said} {'is what was measured' if was_measured else best}."
        elif not any(margin.is_clear for margin in margins):
            first = f"No difference beyond noise: {said} {best}."
            first += " Whichever is cheaper will do as far as these data can tell."
        else:
            first = f"Recommended: {said}."
        return "\n".join([_filled(first), *map(_bullet, [self._of_body(), self._of_method()])])

    def _next(self) -> str:
        lines = ["next:", f"  {self.code}"]
        if "backbones" in self.code:
            lines.append("  Here `backbones` is what `kt.advise` was given.")
        own = self._own_trials()
        if any(trial.epochs < trial.whole for trial in own):
            lines.append(f"  This is the whole plan, and takes longer: trials had {own[0].length} epochs of the body.")
        return "\n".join(lines)

    def _own_trials(self) -> list[Trial]:
        """Those of what is recommended."""
        return [trial for trial in self.trials if (trial.body, trial.method) == (self.body, self.method)]

    def _of_body(self) -> str:
        unknown = f"of {listed(self.unknown)} nothing is known: the minutes were over" if self.unknown else ""
        if self.body_margin:
            return f"the body: {self.body_margin}" + (f"; {unknown}" if unknown else "")
        return f"the body: {unknown or 'there was no other to compare it with'}"

    def _of_method(self) -> str:
        return f"the method: {self.method_margin or self._why_without_margin()}"

    def _why_without_margin(self) -> str:
        if self.method == METHODS[0]:
            return "its linear probe was measured; nothing else was tried on this body"
        if any(trial.method == self.method for trial in self.trials):
            return "it was tried on another body, not on this one"
        chart = leaning(self.rules)
        if chart == self.method:
            return "this is what the flow chart says; it was not tried"
        return f"{self._speaks_for()} speaks for it, where the flow chart says {chart}; it was not tried"

    def _speaks_for(self) -> str:
        """What an untried method rests on that the flow chart does not point to."""
        own = next(row for row in self.evidence if row.body == self.body)
        if own.calibrated and own.calibrated.accuracy > own.measures.accuracy:
            return "the probe after its statistics have been moved"
        return "the size of the body, and what is known of the others,"

    def _evidence_table(self) -> list[str]:
        rows = [("body", "parameters", "probe", "95 %", "log loss", "5 nearest", "LogME", "moved", "seconds")]
        for row in self.evidence:
            worth, (low, high) = row.measures, row.measures.interval
            moved = percent(row.calibrated.accuracy) if row.calibrated else ""
            rows.append((
                row.body, f"{row.parameters:,}", percent(worth.accuracy),
                f"{100 * low:.1f}–{100 * high:.1f}", f"{worth.log_loss:.3f}",
                percent(worth.neighbours), f"{worth.log_me:+.3f}", moved, f"{row.seconds:.1f}",
            ))  # fmt: skip
        if any(row.calibrated for row in self.evidence):
            said = "moved: the probe after staged fine-tuning has moved the statistics of batch norms, before it trains"
            return [f"  {line}" for line in [*table(rows), said]]
        column = rows[0].index("moved")
        return [f"  {line}" for line in table([row[:column] + row[column + 1 :] for row in rows])]

    def _trial_table(self) -> list[str]:
        rows = [("body", "method", "rounds", "epochs", "accuracy", "frozen", "of", "seconds")]
        for body, method in dict.fromkeys((trial.body, trial.method) for trial in self.trials):
            own = [trial for trial in self.trials if (trial.body, trial.method) == (body, method)]
            right, frozen = (np.concatenate([getattr(t, name) for t in own]) for name in ("right", "probe_right"))
            epochs = "/".join(dict.fromkeys(trial.length for trial in own))
            accuracies = percent(float(right.mean())), percent(float(frozen.mean()))
            seconds = sum(trial.seconds for trial in own)
            rows.append((body, method, str(len(own)), epochs, *accuracies, str(len(right)), f"{seconds:.1f}"))
        return [f"  {line}" for line in table(rows, words=(0, 1))]


def _bullet(item: object) -> str:
    return textwrap.fill(str(item), LINE_WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _filled(text: str) -> str:
    return textwrap.fill(text, LINE_WIDTH)

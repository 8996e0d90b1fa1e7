"""`advise`: which body and which method, from the data at hand, in minutes."""

import dataclasses
import gc
from collections.abc import Callable, Sequence
from typing import Any

from keras_transfer.arguments import check_seed, is_number
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.formatting import duration, percent
from keras_transfer.study import folds, prospects
from keras_transfer.study.advice import Advice
from keras_transfer.study.arguments import check_labelled
from keras_transfer.study.candidates import Candidate, candidates
from keras_transfer.study.evidence import Built, Frozen, built, calibrated, frozen
from keras_transfer.study.folds import Sample
from keras_transfer.study.pace import FEWEST_EPOCHS, Clock
from keras_transfer.study.pitfalls import Pitfalls, of_the_whole, pitfalls
from keras_transfer.study.rules import METHODS, Rule, rules
from keras_transfer.study.several_models import one_after_another
from keras_transfer.study.transferability import Measures
from keras_transfer.study.trials import Trial, run_trial

# More examples than this change no order of bodies, and take the minutes that the trials need; fewer are not worth it,
# and each class is to be in each part of the cross-validation.
MOST_EXAMPLES, FEWEST_EXAMPLES = 4_000, 200
# So many bodies are tried at most.
MOST_TRIED = 3
# Features of all bodies may take so much of the minutes, and mirrored pictures so much of what is left then.
FEATURES_SHARE, MIRRORED_SHARE = 0.4, 0.25
# To ask how far its statistics are to be moved, a body may take so much of what is left then.
CALIBRATION_SHARE = 0.4
# A first round of trials may be thought to take so much of what is left: before one, that is known to a factor of two.
TRIALS_SHARE = 0.5


def advise(splits: Splits, backbones: Any, *, minutes: float = 5.0, seed: int = 0, verbose: bool = True) -> Advice:
    """Which body to take and how to adapt it, by evidence from the data at hand.

    It begins with the flow chart of the courses, as rules that say what they go by. Then it asks the data: every body's
    features are computed once and kept, and judged by a linear probe under cross-validation, nearest neighbours and
    LogME. Of bodies that are not clearly worse than the best, and meet another domain, the features are judged once
    more under the statistics that staged fine-tuning begins with. Then these bodies are fitted by the methods in
    question (staged fine-tuning, LoRA on transformers) beside a linear probe, for the same epochs and on the same
    examples, as often as the minutes allow. What is tried is what is recommended, the methods' plans with nothing set;
    where the minutes allow a part of their epochs only, that is said. A gain or a lead on few examples is believed in
    part only. Everything that decides is measured on train and validation: the test split is looked at for
    near-duplicates and for being unlike, and has no say in the advice.

    Args:
        splits: labelled pictures or texts, from `kt.data`.
        backbones: the candidates: names as `kt.image_classifier` and `kt.text_classifier` take them, functions from
            splits to a model, or models; a sequence, or a mapping of names to these. A model of your own is put
            back as it was.
        minutes: what it may take. The clock is looked at before each part and at each step of training; what was not
            reached is said.
        seed: of the folds, the trials, and what is random in the candidates.
        verbose: whether to say what is going on.

    Returns:
        The `kt.Advice`: print it.

    Raises:
        ValueError: for data without labels, candidates of no known kind, models of other classes, or a seed or minutes
            that are none.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=20, batch_size=8)
    >>> def small(splits):
    ...     return kt.image_classifier("MobileNet", splits.classes, weights=None, image_size=32, alpha=0.25)
    >>> found = kt.advise(digits, [small], minutes=0.05, verbose=False)
    >>> found.body, found.code.split("(")[0]
    ('small', 'run = kt.fit')
    """
    _check(splits, minutes, seed)
    study = _Study(Clock(minutes), int(seed), verbose)
    with one_after_another():
        models = study.built(candidates(splits, backbones, seed=study.seed), splits)
        some = study.sampled(splits, models)
        bodies = study.features(models, some.splits)
        found = study.pitfalls(bodies[0], some)
        # Of the time that there is, before it is spent.
        charts = {body.name: study.chart(body, some) for body in bodies}
        bodies = study.calibrated(bodies, some.splits)
        return study.answer(bodies, charts, study.trials(bodies, some.splits), found)


def _check(splits: Splits, minutes: float, seed: int) -> None:
    check_labelled(splits)
    if not is_number(minutes) or minutes <= 0:
        raise ValueError(
            explain("`minutes` is no time.", given=repr(minutes), expected="a number above 0", to_mend="minutes=5")
        )
    check_seed(seed)


@dataclasses.dataclass
class _Study:
    """What the steps of one `advise` have in common.

    Attributes:
        clock: the minutes.
        seed: of everything random.
        verbose: whether to say what is going on.
        not_reached: what the minutes did not allow.
        unknown: the candidates of which nothing is known for that reason.
    """

    clock: Clock
    seed: int
    verbose: bool
    not_reached: list[str] = dataclasses.field(default_factory=list)
    unknown: list[str] = dataclasses.field(default_factory=list)

    def say(self, text: str) -> None:
        """Says what is going on."""
        if self.verbose:
            print(text, flush=True)

    def built(self, found: Sequence[Candidate], splits: Splits) -> list[Built]:
        """The models of the candidates, of the first in any case."""
        models: list[Built] = []
        for candidate in found:
            if models and self.clock.left <= 0:
                self.unknown.append(candidate.name)
                continue
            models.append(built(candidate, splits))
        return models

    def sampled(self, splits: Splits, models: Sequence[Built]) -> Sample:
        """So many examples of each split that the features of all bodies fit into their share of the minutes."""
        each = sum(model.forward for model in models) * (1 + (splits.validation is not None))
        fit_in = int(FEATURES_SHARE * self.clock.seconds / each)
        fewest = max(FEWEST_EXAMPLES, folds.PARTS * len(splits.classes))
        some = folds.sampled(splits, max(fewest, min(MOST_EXAMPLES, fit_in)), seed=self.seed)
        for name, part in some.parts.items():
            self.not_reached.append(f"all of {name}: {part} examples were used")
        return some

    def features(self, models: list[Built], splits: Splits) -> list[Frozen]:
        """What is known of each body from its features, the best first; models are let go of one by one."""
        found = []
        while models:
            model = models.pop(0)
            if found and self.clock.left <= 0:
                self.unknown.append(model.candidate.name)
                continue
            body = frozen(model, splits, seed=self.seed)
            found.append(body)
            self.say(f"{body.name}: linear probe {percent(body.evidence.measures.accuracy)} under cross-validation")
            del model
            gc.collect()
        return sorted(found, key=lambda one: (-one.evidence.measures.accuracy, one.evidence.measures.log_loss))

    def pitfalls(self, body: Frozen, some: Sample) -> Pitfalls | None:
        """What is the matter with the data, as far as there is time to look."""
        once = body.pace.forward * sum(map(len, some.splits.all))
        if once > self.clock.left:
            self.not_reached.append("the pitfalls in the data: kt.pitfalls(splits, model) looks for them")
            return None
        flips = 2 * once < MIRRORED_SHARE * self.clock.left
        if not flips:
            self.not_reached.append("near-duplicates that are mirrored")
        self.say("looking for pitfalls in the data")
        found = pitfalls(some.splits, body.candidate.model(), flips=flips, seed=self.seed)
        return of_the_whole(found, some)

    def calibrated(self, bodies: Sequence[Frozen], splits: Splits) -> list[Frozen]:
        """The bodies, and of those that may be tried what their features are worth with which fine-tuning begins."""
        found, near = [], _near(bodies)
        for body in bodies:
            if body in near and body.evidence.calibrates:
                body = calibrated(body, splits, seconds=CALIBRATION_SHARE * self.clock.left, seed=self.seed)
                gc.collect()
                if body.evidence.beginning_is_unknown:
                    self.not_reached.append(f"how far fine-tuning moves the statistics of {body.name}")
                elif body.evidence.calibrated:
                    worth = percent(body.evidence.calibrated.accuracy)
                    self.say(f"{body.name}: {worth} with its statistics moved towards those of the data")
            found.append(body)
        return found

    def chart(self, body: Frozen, sample: Sample) -> list[Rule]:
        """What the flow chart says of a body on the whole data, from features of some of them."""
        some, whole = sample.splits, sample.whole
        chance_level = max(some.train.counts.values()) / len(some.train)
        nearness = (body.evidence.measures.neighbours - chance_level) / (1 - chance_level)
        return rules(
            per_class=len(whole.train) / len(whole.classes),
            nearness=max(0.0, nearness),
            parameters=body.evidence.parameters,
            is_transformer=METHODS[2] in body.evidence.methods,
            epochs_in_time=max(0.0, self.clock.left) / (body.pace.epoch * len(whole.train) / len(some.train)),
        )

    def trials(self, bodies: Sequence[Frozen], splits: Splits) -> list[Trial]:
        """Short fits of what is in question, round after round, until the minutes are over or the answer is clear."""
        in_question, epochs = self._in_question(bodies)
        done: list[Trial] = []
        for number in range(folds.rounds(splits) if in_question else 0):
            if number and (self.clock.left < 1.1 * _expected(in_question, epochs) or _is_clear(done, in_question)):
                break
            for body, method in in_question:
                trial = self._trial(body, splits, method, number, epochs)
                if trial is None:
                    self.not_reached.append(f"{method} of {body.name}, round {number + 1}")
                    return done
                done.append(trial)
        return done

    def _in_question(self, bodies: Sequence[Frozen]) -> tuple[list[tuple[Frozen, str]], int]:
        """What is to be tried, for how many epochs: the weakest bodies are left out before epochs become too few."""
        near = _near(bodies)
        while near:
            pairs = [(body, method) for body in near for method in body.evidence.methods[1:]]
            most = max(body.pace.most_epochs[method] for body, method in pairs)
            there = TRIALS_SHARE * self.clock.left
            for epochs in range(most, FEWEST_EPOCHS - 1, -1):
                if _expected(pairs, epochs) < there:
                    return pairs, epochs
            if len(near) == 1:
                # The last that there is to try may take all that is left: nothing else would come of it.
                there = self.clock.left
                if _expected(pairs, FEWEST_EPOCHS) < there:
                    return pairs, FEWEST_EPOCHS
            names, needed = " and ".join(body.name for body in near), _expected(pairs, FEWEST_EPOCHS)
            self.not_reached.append(
                f"trials of {near.pop().name}: {FEWEST_EPOCHS} epochs of {names} are thought to take "
                f"{duration(needed)}, and {duration(max(0.0, there))} are left for them"
            )
        return [], 0

    def _trial(self, body: Frozen, splits: Splits, method: str, number: int, epochs: int) -> Trial | None:
        if self.clock.left <= 0:
            return None
        trial = run_trial(body, splits, method, number, epochs=epochs, clock=self.clock, seed=self.seed)
        if trial:
            body.pace.learn(method, epochs, took=trial.seconds)
            beside = percent(float(trial.probe_right.mean()))
            self.say(f"{method} of {body.name}: {percent(trial.accuracy)} of {len(trial.right)}, frozen {beside}")
        return trial

    def answer(
        self,
        bodies: Sequence[Frozen],
        charts: dict[str, list[Rule]],
        trials: Sequence[Trial],
        found: Pitfalls | None,
    ) -> Advice:
        """The advice that follows."""
        evidence = [body.evidence for body in bodies]
        ranked = prospects.prospects(evidence, trials, charts)
        best = ranked[0]
        cut = {trial.method: trial for trial in trials if trial.epochs < trial.whole}
        for method, trial in cut.items():
            self.not_reached.append(f"the whole plan of {method}: {trial.length} epochs were tried")
        code = {body.name: body.candidate.code for body in bodies}[best.body]
        return Advice(
            body=best.body,
            method=best.method,
            code=f"run = kt.fit(model := {code}, splits, kt.{best.method}(model))",
            body_margin=prospects.body_margin(ranked, evidence),
            method_margin=prospects.method_margin(ranked, trials),
            prospects=tuple(ranked),
            evidence=tuple(evidence),
            rules=tuple(charts[best.body]),
            trials=tuple(trials),
            pitfalls=found,
            not_reached=(*(f"the features of {name}" for name in self.unknown), *self.not_reached),
            unknown=tuple(self.unknown),
            examples=len(bodies[0].labels),
            seconds=self.clock.spent,
            minutes=self.clock.seconds / 60,
        )


def _near(bodies: Sequence[Frozen]) -> list[Frozen]:
    """Those that are not clearly worse than the best to fine-tune, the best first; of more than a few the best few.

    They are compared as fine-tuning begins with them where that is known of all, and as they are frozen where not.
    """
    near = _not_clearly_worse(bodies, lambda body: body.evidence.measures)
    if any(body.evidence.beginning_is_unknown for body in near):
        return near
    return _not_clearly_worse(near, lambda body: body.evidence.beginning(METHODS[1]))


def _not_clearly_worse(bodies: Sequence[Frozen], worth: Callable[[Frozen], Measures]) -> list[Frozen]:
    in_order = sorted(bodies, key=lambda body: (-worth(body).accuracy, worth(body).log_loss))
    return [body for body in in_order if worth(in_order[0]).lead_over(worth(body)).low <= 0][:MOST_TRIED]


def _expected(pairs: Sequence[tuple[Frozen, str]], epochs: int) -> float:
    """The seconds that one trial of each is thought to take."""
    return sum(body.pace.seconds(method, epochs) for body, method in pairs)


def _is_clear(trials: Sequence[Trial], in_question: Sequence[tuple[Frozen, str]]) -> bool:
    """Whether every method that is in question is better or worse than the frozen body beyond the noise."""
    return all(prospects.measured_gain(trials, body.name, method).is_clear for body, method in in_question)

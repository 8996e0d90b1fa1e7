"""`advise`: which body and which method, from the data at hand, in minutes."""

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.evaluation.formatting import percent
from keras_transfer.plans import methods
from keras_transfer.study import folds, intervals
from keras_transfer.study.advice import Advice, Evidence, difference, estimates
from keras_transfer.study.candidates import Candidate, candidates
from keras_transfer.study.embedding import features_of
from keras_transfer.study.pitfalls import Pitfalls, pitfalls
from keras_transfer.study.rules import METHODS, Rule, leaning, rules
from keras_transfer.study.transferability import measures
from keras_transfer.study.trials import Clock, Pace, Trial, run_trial, seconds_forward
from keras_transfer.training.objectives import objective_of

# More examples than this change no order of bodies, and take the minutes that the trials need.
MOST_EXAMPLES = 4_000
# So many bodies are tried at most.
MOST_TRIED = 3
# The looking for pitfalls may take so much of what is left.
PITFALLS_SHARE = 0.25


def advise(splits: Splits, backbones: Any, *, minutes: float = 5.0, seed: int = 0, verbose: bool = True) -> Advice:
    """Which body to take and how to adapt it, by evidence from the data at hand.

    It begins with the flow chart of the courses, as rules that say what they go by. Then it asks the data: every body's
    features are computed once and kept, and judged by a linear probe under cross-validation, nearest neighbours and
    LogME. Bodies that are not clearly worse than the best are then fitted by the methods in question (feature
    extraction, staged fine-tuning, LoRA on transformers), for the same epochs and on the same examples, as often as the
    minutes allow. Everything happens on train and validation: what is recommended has not seen the test split.

    Args:
        splits: labelled pictures or texts, from `kt.data`.
        backbones: the candidates: names as `kt.image_classifier` and `kt.text_classifier` take them, functions from
            splits to a model, or models; a sequence, or a mapping of names to these. A model of your own has its
            weights again afterwards.
        minutes: what it may take. The clock is looked at before each step and at each step of training; what was not
            reached is said.
        seed: of the folds and the trials.
        verbose: whether to say what is going on.

    Returns:
        The `kt.Advice`: print it.

    Raises:
        ValueError: for data without labels, candidates of no known kind, or models of other classes.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=20, batch_size=8)
    >>> def small(splits):
    ...     return kt.image_classifier("MobileNetV2", splits.classes, weights=None, image_size=32, alpha=0.35)
    >>> found = kt.advise(digits, [small], minutes=0.05, verbose=False)
    >>> found.body, found.code.split("(")[0]
    ('small', 'run = kt.fit')
    """
    _check(splits, minutes)
    say: Callable[[str], None] = (lambda text: print(text, flush=True)) if verbose else lambda text: None
    clock, wanted, not_reached = Clock(minutes), candidates(splits, backbones), []
    some = folds.sampled(splits, MOST_EXAMPLES, seed=seed)
    if some is not splits:
        not_reached.append(
            f"{len(splits.train) - MOST_EXAMPLES:,} of the training examples: {MOST_EXAMPLES:,} were used"
        )
    evidence, paces = _evidence(wanted, some, clock, not_reached, say, seed)
    by_name = {candidate.name: candidate for candidate in wanted}
    best = by_name[evidence[0].body]
    found = _pitfalls(best, some, clock, paces[best.name], not_reached, say, seed)
    in_question = {
        row.body: _methods(next(c for c in wanted if c.name == row.body)) for row in _near_the_best(evidence)
    }
    chart = _rules(some, evidence[0], METHODS[2] in in_question[best.name], paces[best.name], clock)
    trials = _trials(by_name, in_question, some, clock, paces, not_reached, say, seed)
    return _advice(by_name, evidence, chart, trials, found, not_reached, clock)


def _check(splits: Splits, minutes: float) -> None:
    if not isinstance(splits, Splits) or not splits.classes:
        raise ValueError(
            explain(
                "`splits` are no labelled data.",
                given=type(splits).__name__,
                expected="pictures or texts with labels, from kt.data.images or kt.data.texts",
            )
        )
    if not minutes > 0 or not math.isfinite(minutes):
        raise ValueError(explain("`minutes` is no time.", given=repr(minutes), expected="a number above 0"))


def labelled(model: keras.Model, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of train and validation, one after the other."""
    parts = [split for split in (splits.train, splits.validation) if split is not None]
    features = np.concatenate([features_of(model, splits, split) for split in parts])
    return features, np.concatenate([split.labels for split in parts])


def _evidence(
    wanted: Sequence[Candidate], splits: Splits, clock: Clock, not_reached: list[str], say: Callable, seed: int
) -> tuple[list[Evidence], dict[str, Pace]]:
    """What the features of each candidate are worth, the best first, and how fast it is."""
    found, paces = [], {}
    for candidate in wanted:
        if clock.left <= 0 and found:
            not_reached.append(f"the features of {candidate.name}")
            continue
        begun, model = clock.spent, candidate.model()
        objective_of(splits).check(model, splits)
        paces[candidate.name] = Pace(len(splits.train), seconds_forward(model, splits))
        features, labels = labelled(model, splits)
        in_folds = folds.stratified(labels, seed=seed)
        worth = measures(features, labels, in_folds, seed=seed)
        found.append(Evidence(candidate.name, candidate.code, model.count_params(), worth, clock.spent - begun))
        say(f"{candidate.name}: linear probe {percent(worth.accuracy)} under cross-validation")
        del model
        gc.collect()
    return sorted(found, key=lambda row: (-row.measures.accuracy, row.measures.log_loss)), paces


def _near_the_best(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Bodies whose probe is not clearly worse than the best one's."""
    best = evidence[0].measures.right
    near = [row for row in evidence if intervals.of_difference(best, row.measures.right).low <= 0]
    return near[:MOST_TRIED]


def _methods(candidate: Candidate) -> tuple[str, ...]:
    """The methods that a body allows: LoRA where it has attention."""
    try:
        methods.lora(candidate.model())
    except ValueError:
        return METHODS[:2]
    return METHODS


def _pitfalls(
    candidate: Candidate, splits: Splits, clock: Clock, pace: Pace, not_reached: list[str], say: Callable, seed: int
) -> Pitfalls:
    expected = 2 * pace.forward * sum(map(len, splits.all))
    flips = expected < PITFALLS_SHARE * clock.left
    if not flips:
        not_reached.append("near-duplicates that are mirrored")
    say("looking for pitfalls in the data")
    return pitfalls(splits, candidate.model(), flips=flips, seed=seed)


def _rules(splits: Splits, best: Evidence, is_transformer: bool, pace: Pace, clock: Clock) -> list[Rule]:
    chance = max(splits.train.counts.values()) / len(splits.train)
    nearness = max(0.0, (best.measures.neighbours - chance) / (1 - chance))
    return rules(
        per_class=len(splits.train) / len(splits.classes),
        nearness=nearness,
        parameters=best.parameters,
        is_transformer=is_transformer,
        epochs_in_time=max(0.0, clock.left) / pace.epoch,
    )


def _trials(
    by_name: Mapping[str, Candidate],
    in_question: dict[str, tuple[str, ...]],
    splits: Splits,
    clock: Clock,
    paces: dict[str, Pace],
    not_reached: list[str],
    say: Callable,
    seed: int,
) -> list[Trial]:
    """Short fits of what is in question, round after round, until the minutes are over or the answer is clear."""
    epochs = _epochs(in_question, paces, clock, not_reached)
    done: list[Trial] = []
    for number in range(folds.rounds(splits) if epochs else 0):
        expected = sum(paces[body].seconds(method, count) for (body, method), count in epochs.items())
        if number and (clock.left < 1.1 * expected or _is_clear(done)):
            break
        for (body, method), count in epochs.items():
            if clock.left <= 0:
                not_reached.append(f"{method} of {body}")
                continue
            trial = run_trial(by_name[body], splits, method, number, epochs=count, clock=clock, seed=seed)
            paces[body].found[method, count] = trial.seconds
            done.append(trial)
            cut = ", cut short" if trial.was_cut else ""
            say(f"{method} of {body}: {percent(trial.accuracy)} of {len(trial.right)} held out{cut}")
    return done


def _epochs(
    in_question: dict[str, tuple[str, ...]], paces: dict[str, Pace], clock: Clock, not_reached: list[str]
) -> dict[tuple[str, str], int]:
    """How many epochs each trial of a round has: what fits, shared evenly; the weakest bodies are left out first."""
    bodies = list(in_question)
    while bodies:
        pairs = [(body, method) for body in bodies for method in in_question[body]]
        share = 0.9 * clock.left / max(1, len([pair for pair in pairs if pair[1] != METHODS[0]]))
        found = {pair: paces[pair[0]].epochs(pair[1], share) for pair in pairs}
        if all(found.values()):
            return found
        left_out = bodies.pop()
        not_reached.append(f"trials of {left_out}: the minutes do not allow two epochs of all that is in question")
    return {}


def _is_clear(trials: Sequence[Trial]) -> bool:
    """Whether, of every body, one method is better than the others beyond the noise."""
    for body in {trial.body for trial in trials}:
        right: dict[str, list[np.ndarray]] = {}
        for trial in trials:
            if trial.body == body:
                right.setdefault(trial.method, []).append(trial.right)
        by_method = sorted((np.concatenate(parts) for parts in right.values()), key=lambda found: -found.mean())
        if len(by_method) < 2 or not intervals.of_difference(by_method[0], by_method[1]).is_clear:
            return False
    return True


def _advice(
    by_name: Mapping[str, Candidate],
    evidence: Sequence[Evidence],
    chart: Sequence[Rule],
    trials: Sequence[Trial],
    found: Pitfalls,
    not_reached: Sequence[str],
    clock: Clock,
) -> Advice:
    ranked = estimates(evidence, trials)
    best, over = ranked[0], ranked[1] if len(ranked) > 1 else None
    was_tried = any(trial.body == best.body and trial.method != METHODS[0] for trial in trials)
    method = best.method if was_tried else leaning(chart)
    return Advice(
        body=best.body,
        method=method,
        code=f"run = kt.fit(model := {by_name[best.body].code}, splits, kt.{method}(model))",
        was_tried=was_tried or method == METHODS[0],
        over=over,
        margin=difference(best, over, evidence, trials) if over else None,
        estimates=tuple(ranked),
        evidence=tuple(evidence),
        rules=tuple(chart),
        trials=tuple(trials),
        pitfalls=found,
        not_reached=tuple(not_reached),
        examples=len(evidence[0].measures.right),
        seconds=clock.spent,
        minutes=clock.seconds / 60,
    )

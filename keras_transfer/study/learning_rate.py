"""`find_learning_rate`: Smith's range test on a stage's own terms, with the model as it was afterwards."""

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.arguments import check_seed, is_number, is_whole
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.plans.fates import fates
from keras_transfer.plans.methods import staged_fine_tuning
from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.study.put_back import as_it_was
from keras_transfer.study.smoothing import bounded, smooth, spread, weights_of, width
from keras_transfer.training import compilation
from keras_transfer.training.features import Cache, Keeping, features
from keras_transfer.training.l2_sp import pretrained
from keras_transfer.training.linear_probe import linear_head
from keras_transfer.training.objectives import objective_of
from keras_transfer.training.stages import (
    augmented_for,
    calibrate_statistics,
    default_views,
    draw_at_start,
    fit_head,
    prepare,
)

FEWEST_STEPS = 10
# The test ends where the loss has come to so many times its lowest, both smoothed over the steps before.
DIVERGED, MEMORY = 4.0, 0.8
# The rates of this share of all steps move nothing yet: the mean of their losses is what a fall is measured from.
BEGINNING = 1 / 5
# So many standard errors are no fall, nor a rise. The lowest of many smoothed losses is compared, which chance alone
# puts 2.4 to 2.8 below in one case of twenty (simulated: 10 to 200 steps, normal, exponential and gamma noise).
NOISE = 2.8
# Nor is less than this share of the loss: a head that starts at zero has no noise at all, and falls by a rounding.
LEAST = 1e-3


@dataclasses.dataclass(frozen=True)
class LearningRates:
    """What a range test found. Printed, it is the suggestion and what it rests on.

    Attributes:
        stage: the name of the stage that was tried.
        rates: the peak rate of each step, rising.
        losses: the loss on each step's batch, before the step.
        smoothed: the same, each with its neighbours.
        steepest: the rate at which the smoothed loss falls fastest, before its lowest point; not within the width of
            the smoothing from either end, where a slope rests on half of the steps.
        tenth: a tenth of the rate at that lowest point.
        clear: whether the loss fell beyond its noise, from the mean of the first fifth of the steps. Where it is mere
            noise, that is said by mistake in about one test of twenty.
        diverged: whether the test ended because the loss had risen, and not at the highest rate.
        suggestion: the peak rate to take, where the fall is `clear`; else a tenth of where the loss rises, or of the
            highest rate that was tried where it does not.
        own: the peak rate that the stage has.
    """

    stage: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float
    tenth: float
    clear: bool
    diverged: bool
    suggestion: float
    own: float

    def __str__(self):
        end = "where the loss had diverged" if self.diverged else "with the loss still in bounds"
        why = "where the loss falls fastest" if self.clear else self._why_unclear
        lowest = f"lowest {min(self.smoothed):.3f} at {10 * self.tenth:.2g}, a tenth of that rate {self.tenth:.2g}"
        return "\n".join([
            f"learning rate of stage {self.stage!r}: {self.suggestion:.2g}, {why}",
            f"  smoothed loss {self.smoothed[0]:.3f} at first, {lowest}",
            f"  {len(self.rates)} steps from {self.rates[0]:.2g} to {self.rates[-1]:.2g}, {end}",
            f"  the stage's own rate is {self.own:g}, {self._at_own}",
        ])  # fmt: skip

    @property
    def _at_own(self) -> str:
        if not self.rates[0] <= self.own <= self.rates[-1]:
            return "which was not tried"
        return f"where the smoothed loss was {np.interp(math.log(self.own), np.log(self.rates), self.smoothed):.3f}"

    @property
    def _why_unclear(self) -> str:
        if self.diverged or not math.isclose(10 * self.suggestion, self.rates[-1]):
            return "a tenth of where it rises: it never falls beyond noise"
        return "a tenth of the highest: the loss neither falls nor rises beyond noise, so this says nothing"

    def plot(self, path: str | os.PathLike) -> pathlib.Path:
        """Draws the loss against the rate.

        Args:
            path: the picture to write; its ending says the format.
        """
        from keras_transfer.evaluation import plots

        marks = {"suggestion": self.suggestion, "a tenth of the lowest's": self.tenth, "the stage's own": self.own}
        return plots.range_test(self.rates, self.losses, self.smoothed, marks, path, title=str(self).splitlines()[0])


def find_learning_rate(
    model: keras.Model,
    splits: Splits,
    *,
    plan: Plan | None = None,
    stage: Stage | str | None = None,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    seed: int = 0,
    precision: str | None = None,
    cache: Cache = "auto",
    verbose: bool = True,
) -> LearningRates:
    """Tries a stage at rates that rise from step to step, and leaves the model as it was, to the last bit.

    The range test of Smith (2017, arXiv:1506.01186; the exponential rise and the smoothing: Gugger 2018): as long as
    the loss falls the rate is not too high. It is done on the stage's own terms: what trains, at which ratios, with
    which optimizer, batch norms, adapters and pull, on the same batches in the same order as under `fit`. The model is
    put back also where the test is broken off.

    The suggestion is the rate at which the smoothed loss falls fastest. A tenth of the rate of the lowest loss, which
    is the other common rule, is given beside it; it is no use in a stage that starts from a fitted head, whose loss is
    near its lowest from the start: there it names a rate at which nothing would train. Where the loss never falls
    beyond its noise the suggestion is a tenth of the rate at which it rises.

    Not for choosing between rates that are close: the losses are those of single batches, and nothing here looks at
    validation. A rate that falls fastest for a hundred steps need not generalise best.

    Args:
        model: what is to be trained.
        splits: the data; the training examples alone are looked at.
        plan: whose stage is tried; `kt.staged_fine_tuning(model)` if not given. The stages before it are not trained,
            but begun: where one of them draws its weights, calibrates statistics or starts from a probe, so does the
            test.
        stage: which stage of the plan, by name (its last if not given), or a stage of your own, without a plan.
        lowest: the first peak rate.
        highest: the last one.
        steps: how many steps there are from one to the other, at least 10.
        seed: of order, augmentation and dropout.
        precision: as in `fit`.
        cache: as in `fit`.
        verbose: whether to print what was found.

    Returns:
        The rates, the losses and the suggestion. `plot(path)` draws them.

    Raises:
        ValueError: where model, data and stage do not fit together, or the rates do not rise; where the loss is no
            number at the lowest rate already.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=20)
    >>> model = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> stage = kt.Stage("head", epochs=3, optimizer="sgd")
    >>> found = find_learning_rate(model, digits, stage=stage, steps=12, verbose=False)
    >>> len(found.rates), found.rates[0] == 1e-7, found.stage
    (12, True, 'head')
    """
    for name, given, kind, made_by in (
        ("model", model, keras.Model, "a keras.Model, from kt.image_classifier(…) for instance"),
        ("splits", splits, Splits, "what kt.data.images or kt.data.texts returns"),
        ("plan", plan, Plan | None, "a kt.Plan, from kt.staged_fine_tuning(model) for instance"),
    ):
        if not isinstance(given, kind):
            raise ValueError(explain(f"`{name}` is out of place.", given=type(given).__name__, expected=made_by))
    check_seed(seed)
    _check_rates(lowest, highest, steps)
    steps = int(steps)
    objective_of(splits).check(model, splits)
    tried, before = _stage_of(model, splits, plan, stage)
    if tried.is_from_probe:
        linear_head(model)  # or the reason why there is none
    with as_it_was(model):
        losses = _losses(
            model, splits, tried, before, Rise(lowest, highest, steps=steps), seed, precision, Keeping(cache)
        )
    if len(losses) < FEWEST_STEPS // 2:
        raise ValueError(
            explain(
                "The loss diverges at the lowest rates.",
                given=f"losses {', '.join(f'{loss:.3g}' for loss in losses) or 'not one that is a number'}",
                to_mend=f"lowest={lowest / 1000:g}, or look at the data",
            )
        )
    found = _judged(tried, Rise(lowest, highest, steps=steps).rates[: len(losses)], losses, len(losses) < steps)
    if verbose:
        print(found)
    return found


class Rise(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that grows from `lowest` to `highest` in `steps` steps, by the same factor each.

    Example:

    >>> [round(rate, 6) for rate in Rise(0.001, 0.1, steps=3).rates]
    [0.001, 0.01, 0.1]
    """

    def __init__(self, lowest: float, highest: float, *, steps: int):
        self.lowest, self.highest, self.steps = lowest, highest, steps

    def __call__(self, step):
        share = keras.ops.cast(step, "float32") / (self.steps - 1)
        return keras.ops.exp(math.log(self.lowest) + share * math.log(self.highest / self.lowest))

    @property
    def rates(self) -> list[float]:
        """The rate of every step."""
        return np.geomspace(self.lowest, self.highest, self.steps).tolist()

    def get_config(self):
        return {"lowest": self.lowest, "highest": self.highest, "steps": self.steps}


class _UntilDiverged(keras.callbacks.Callback):
    """Notes the loss of each step, and ends the training where it has grown for good or is no number."""

    def __init__(self):
        super().__init__()
        self.losses: list[float] = []
        self._recent = self._lowest = math.inf

    def on_epoch_end(self, epoch, logs=None):
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            self.model.stop_training = True
            return
        self.losses.append(loss)
        self._recent = loss if len(self.losses) == 1 else MEMORY * self._recent + (1 - MEMORY) * loss
        self._lowest = min(self._lowest, self._recent)
        # The first few rates move nothing: what rises there is one batch against another.
        has_begun = len(self.losses) > FEWEST_STEPS
        if has_begun and self._recent > DIVERGED * self._lowest and self._recent > self.losses[0]:
            self.model.stop_training = True


def _losses(
    model: keras.Model,
    splits: Splits,
    stage: Stage,
    before: Sequence[Stage],
    rise: Rise,
    seed: int,
    precision: str | None,
    keeping: Keeping,
) -> list[float]:
    """The loss of each step at rising rates; the model is left wherever that leads."""
    objective, start = objective_of(splits), pretrained(model) if stage.l2_sp else {}
    splits = augmented_for(stage, splits)
    # Counted over the plan, as under `fit`: the order of an epoch is a function of its number.
    each, begun = splits.steps_per_epoch(model), sum(earlier.epochs for earlier in before)
    epochs = range(begun, begun + -(-rise.steps // each))
    state.seed(model, seed)
    for earlier in before:
        draw_at_start(model, earlier, seed=seed)
        calibrate_statistics(model, earlier, splits, seed=seed, verbose=False)
    stage_fates = prepare(model, stage, fates(model, stage), seed=seed, verbose=False)
    calibrate_statistics(model, stage, splits, seed=seed, verbose=False)
    keeping = keeping.with_views(default_views(splits, stage_fates))
    kept = features(model, splits, keeping, epochs=epochs, seed=seed, verbose=False)
    watch = _UntilDiverged()
    with (
        compilation.training_as(model, stage, rise.steps, precision),
        (kept or splits).in_use() as batches,
    ):
        fit_head(model, stage, batches, seed=seed)
        optimizer = compilation.optimizer(stage, stage_fates, rise.steps, precision, pretrained=start, rate=rise)
        objective.compile(model, optimizer, "auto")
        model.optimizer.build(model.trainable_variables)
        model.fit(
            batches.training_batches(model, seed=seed, first_step=begun * each, epochs=epochs.stop),
            epochs=rise.steps,
            steps_per_epoch=1,  # an epoch's loss is then that of one batch, and no mean over those before it
            callbacks=[watch],
            shuffle=False,
            verbose=0,
        )
    return watch.losses


def _judged(stage: Stage, rates: Sequence[float], losses: Sequence[float], diverged: bool) -> LearningRates:
    """What the losses say."""
    smoothed, weights, edge = smooth(losses), weights_of(len(losses)), math.ceil(width(len(losses)))
    bottom, first = int(np.argmin(smoothed)), max(2, int(BEGINNING * len(losses)))
    before = float(np.mean(bounded(losses)[:first]))
    # Near the ends a smoothed loss is a mean of fewer, and is off by more.
    error = spread(losses) * math.sqrt(1 / first + float(np.sum(weights[bottom] ** 2)))
    beyond = max(NOISE * error, LEAST * before)
    last = min(bottom, len(losses) - 1 - edge)
    clear = last >= edge and bool(before - smoothed[bottom] > beyond)
    steepest = rates[edge + int(np.argmin(np.gradient(smoothed)[edge : max(last, edge) + 1]))]
    higher = np.flatnonzero(smoothed[bottom:] > before + beyond)
    rises = rates[bottom + int(higher[0])] if higher.size else rates[-1]
    return LearningRates(
        stage=stage.name,
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=tuple(smoothed.tolist()),
        steepest=steepest,
        tenth=rates[bottom] / 10,
        clear=clear,
        diverged=diverged,
        suggestion=steepest if clear else rises / 10,
        own=stage.learning_rate,
    )


def _stage_of(
    model: keras.Model, splits: Splits, plan: Plan | None, stage: Stage | str | None
) -> tuple[Stage, Sequence[Stage]]:
    """The stage to be tried, with the start that it has within its plan, and those before it."""
    if isinstance(stage, Stage):
        if plan is not None:
            raise ValueError(
                explain(
                    "`stage` is one of its own, and `plan` holds others.",
                    given=f"{stage.name!r} and {plan.name}",
                    to_mend="leave the plan out, or name a stage of it",
                )
            )
        return dataclasses.replace(stage, ema=None), ()
    plan = (staged_fine_tuning(model) if plan is None else plan).over(splits.steps_per_epoch(model))
    names = [each.name for each in plan]
    if stage is not None and stage not in names:
        raise ValueError(
            explain(
                f"{plan.name} has no stage of that name.",
                given=repr(stage),
                nearest=nearest(str(stage), names),
                expected="one of " + ", ".join(map(repr, names)),
            )
        )
    place = len(names) - 1 if stage is None else names.index(stage)
    before, tried = plan.stages[:place], plan.stages[place]
    # A head that was fitted before all weights were drawn is gone.
    since_drawn = itertools.takewhile(lambda each: each.start != "random", reversed(before))
    starts = [tried.start, *(each.start for each in since_drawn)]
    start = next((start for start in starts if start != "pretrained"), "pretrained")
    return dataclasses.replace(tried, ema=None, start=start), before


def _check_rates(lowest: float, highest: float, steps: int) -> None:
    above = f"a rate above the lowest, {lowest!r}"
    whole = f"a whole number from {FEWEST_STEPS} up"
    for name, given, kind, fine, expected, to_mend in (
        ("lowest", lowest, is_number, lambda: lowest > 0, "a rate above 0", "lowest=1e-7"),
        ("highest", highest, is_number, lambda: lowest < highest, above, "highest=1.0"),
        ("steps", steps, is_whole, lambda: steps >= FEWEST_STEPS, whole, "steps=100"),
    ):
        if not kind(given) or not fine():
            said = explain(f"`{name}` is out of range.", given=repr(given), expected=expected, to_mend=to_mend)
            raise ValueError(said)

"""The plans that `advise` recommends, as they are if nobody sets anything: what its trials have to try."""

import dataclasses

import keras

from keras_transfer.data.splits import Splits
from keras_transfer.plans import methods
from keras_transfer.plans.plan import Plan
from keras_transfer.study import folds


def whole_plan(method: str, model: keras.Model, splits: Splits) -> Plan:
    """The plan of a method with nothing set, and with the epochs that it has on these data.

    Args:
        method: `"staged_fine_tuning"` or `"lora"`.
        model: what it is for.
        splits: the data: on small ones its least steps make more epochs.
    """
    plans = {"staged_fine_tuning": methods.staged_fine_tuning, "lora": methods.lora}
    return plans[method](model).over(splits.steps_per_epoch(model))


def shortened(plan: Plan, epochs: int) -> Plan:
    """The plan with so many epochs at most in its last stage, in which the body learns.

    Example:

    >>> from keras_transfer.plans.plan import Stage
    >>> plan = Plan([Stage("head", epochs=3), Stage("all", epochs=50)])
    >>> [stage.epochs for stage in shortened(plan, 12)], shortened(plan, 60) == plan
    ([3, 12], True)
    """
    *before, last = plan
    return dataclasses.replace(plan, stages=[*before, dataclasses.replace(last, epochs=min(epochs, last.epochs))])


def calibrates(plan: Plan) -> bool:
    """Whether one of its stages chooses the statistics of batch norms first.

    Example:

    >>> from keras_transfer.plans.plan import Stage
    >>> plan = Plan([Stage("head", epochs=3, start="probe", statistics="calibrated"), Stage("all", epochs=5)])
    >>> calibrates(plan), calibrates(with_statistics_kept(plan))
    (True, False)
    """
    return any(stage.statistics == "calibrated" for stage in plan)


def with_statistics_kept(plan: Plan) -> Plan:
    """The plan for a model whose statistics have been chosen already."""
    return dataclasses.replace(plan, stages=[dataclasses.replace(stage, statistics="kept") for stage in plan])


def most_epochs(method: str, model: keras.Model, splits: Splits, *, seed: int) -> int:
    """The epochs that the whole plan of a method has for the body, on the smallest of the parts that trials learn from.

    Args:
        method: `"staged_fine_tuning"` or `"lora"`.
        model: what it is for.
        splits: the data before they are divided.
        seed: of the division.
    """
    parts = [folds.division(splits, number, seed=seed) for number in range(folds.rounds(splits))]
    learnt_from = [folds.divided(splits, part) for part in parts] or [splits]
    return max(whole_plan(method, model, data).stages[-1].epochs for data in learnt_from)

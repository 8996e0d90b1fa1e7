"""The same budget for every method: epochs shared out among the stages of a plan."""

import dataclasses
import math

from keras_transfer.errors import explain
from keras_transfer.formatting import counted
from keras_transfer.plans.plan import Plan


def with_epochs(plan: Plan, epochs: int, *, name: str = "") -> Plan:
    """The same plan with so many epochs in all: each stage keeps its share, and has at least one.

    Args:
        plan: any.
        epochs: of all stages together.
        name: of the method, for the error.

    Raises:
        ValueError: if there are more stages than epochs.

    Example:

    >>> from keras_transfer.plans.plan import Stage
    >>> plan = Plan([Stage("head", 3), Stage("all", 10)])
    >>> [stage.epochs for stage in with_epochs(plan, 6)], [stage.epochs for stage in with_epochs(plan, 2)]
    ([1, 5], [1, 1])
    """
    if epochs < len(plan):
        stages = f"{counted(len(plan), 'stage')}: {', '.join(stage.name for stage in plan)}"
        raise ValueError(
            explain(
                f"The plan of {name or plan.name} has more stages than there are epochs for it.",
                given=f"{counted(epochs, 'epoch')} for {stages}",
                expected="at least one epoch a stage",
                to_mend=f"epochs={len(plan)} or more, or a plan of fewer stages",
            )
        )
    shares = [stage.epochs * epochs / plan.epochs for stage in plan]
    given = [max(1, math.floor(share)) for share in shares]
    while sum(given) != epochs:
        step = 1 if sum(given) < epochs else -1
        movable = [number for number, count in enumerate(given) if count + step >= 1]
        number = max(movable, key=lambda number: step * (shares[number] - given[number]))
        given[number] += step
    stages = [dataclasses.replace(stage, epochs=count, least_steps=0) for stage, count in zip(plan, given, strict=True)]
    return dataclasses.replace(plan, stages=stages)

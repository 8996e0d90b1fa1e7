"""One call of `fit`: what is to be done on what, and what has been found so far."""

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_transfer.data.splits import Splits
from keras_transfer.evaluation.cost import StageCost
from keras_transfer.plans.plan import Plan
from keras_transfer.training.audit import Audit
from keras_transfer.training.callbacks import History
from keras_transfer.training.features import Keeping
from keras_transfer.training.keeper import Keeper
from keras_transfer.training.objectives import Objective
from keras_transfer.training.snapshot import Position, Result, Snapshot, Training
from keras_transfer.training.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Settings:
    """What holds for every stage of one `fit`."""

    seed: int
    callbacks: Sequence[keras.callbacks.Callback]
    class_weight: dict[int, float] | None
    precision: str | None
    jit_compile: bool | str
    keeping: Keeping
    verbose: bool
    objective: Objective


@dataclasses.dataclass(frozen=True)
class Job:
    """One call of `fit`: what is to be done on what, and where it is kept."""

    model: keras.Model
    splits: Splits
    plan: Plan
    settings: Settings
    pretrained: Mapping[int, np.ndarray]
    home: Workdir | None = None
    keeper: Keeper = dataclasses.field(default_factory=lambda: Keeper(None))


@dataclasses.dataclass(frozen=True)
class Done:
    """What has been found so far: rows of the history, and audit and cost of the stages that are done."""

    history: History
    audits: list[Audit] = dataclasses.field(default_factory=list)
    costs: list[StageCost] = dataclasses.field(default_factory=list)

    def snapshot(
        self,
        position: Position,
        weights: Sequence[np.ndarray],
        training: Training | None = None,
        result: Result | None = None,
    ) -> Snapshot:
        """The run at a position, with what has been found until then."""
        found = list(self.history.rows), list(self.audits), list(self.costs)
        return Snapshot(position, weights, *found, training, result)

    def take_back(self, begun: Snapshot) -> None:
        """What had been found when the snapshot was taken."""
        self.history.rows[:], self.audits[:], self.costs[:] = begun.history, begun.audits, begun.costs
        self.history.write()


def at_stage(plan: Plan, number: int) -> Position:
    """Where a stage begins: its epochs are counted on from those of the stages before it, as the plan has them."""
    return Position(number, sum(stage.epochs for stage in plan.stages[:number]))

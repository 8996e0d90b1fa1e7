"""A run at one moment: how far it has come, and all that it needs to go on from there."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from keras_transfer.evaluation.cost import StageCost
from keras_transfer.training.audit import Audit
from keras_transfer.training.calibration import Calibration


@dataclasses.dataclass(frozen=True)
class Position:
    """How far a plan has been carried out.

    Attributes:
        stage: the number of the stage that comes next or is in training; the number of all stages at the end.
        epoch: whole epochs done, those of earlier stages as the plan has them among them.
        step: steps done of the epoch that is running, fewer than it has.
    """

    stage: int
    epoch: int
    step: int = 0

    def stretches(self, steps: int, last_epoch: int) -> Iterator["Stretch"]:
        """What is left of a stage that ends with `last_epoch`, of `steps` an epoch: the rest of one, then whole ones.

        Example:

        >>> [(left.first_step, left.steps, left.last_epoch) for left in Position(0, 2, 7).stretches(10, 5)]
        [(27, 3, 3), (30, 10, 5)]
        """
        whole = self.epoch
        if self.step:
            whole += 1
            yield Stretch(self.epoch, whole, steps - self.step, self.epoch * steps + self.step)
        if whole < last_epoch:
            yield Stretch(whole, last_epoch, steps, whole * steps)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Epochs of as many steps each: what one call of Keras' `fit` trains.

    Attributes:
        first_epoch: epochs that come before.
        last_epoch: epochs that are done with it.
        steps: of each of its epochs.
        first_step: steps that come before, counted from the first epoch of the plan.
    """

    first_epoch: int
    last_epoch: int
    steps: int
    first_step: int


@dataclasses.dataclass(frozen=True)
class Outset:
    """What was settled before the first step of a stage.

    Attributes:
        before: raw values of the model, statistics calibrated and the head fitted where the stage does that.
        kept_in: where the features are kept that it is trained on: `"disk"`, `"memory"`, or nowhere (`"off"`).
        calibration: which statistics its batch norms were given, where they were calibrated.
    """

    before: Sequence[np.ndarray]
    kept_in: str
    calibration: Calibration | None = None

    def to_dict(self) -> dict[str, Any]:
        """The outset as dictionaries, lists, strings, numbers and arrays."""
        calibration = None if self.calibration is None else dataclasses.asdict(self.calibration)
        return vars(self) | {"calibration": calibration}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The outset that `to_dict` wrote."""
        found = parts["calibration"]
        return cls(parts["before"], parts["kept_in"], None if found is None else Calibration.from_dict(found))


@dataclasses.dataclass(frozen=True)
class Training:
    """What a stage in the middle of its training consists of, beside the weights.

    Attributes:
        outset: how it began.
        optimizer: those of the optimizer: slots, steps, loss scale.
        metrics: those of the metrics' sums over the running epoch; none at its beginning.
        callbacks: of each callback that keeps something, by its name, what it keeps.
        seconds: spent on the stage.
    """

    outset: Outset
    optimizer: Sequence[np.ndarray]
    metrics: Sequence[np.ndarray]
    callbacks: Mapping[str, Mapping[str, Any]]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What it consists of as dictionaries, lists, strings, numbers and arrays."""
        return vars(self) | {"outset": self.outset.to_dict()}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote."""
        return cls(**{**parts, "outset": Outset.from_dict(parts["outset"])})


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished run found: its report as JSON, and the class probabilities where there are any."""

    report: str
    probabilities: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        position: how far it has come.
        weights: raw values of the model, in the order of the canonical walk.
        history: one row per epoch.
        audits: of the stages that are done.
        costs: of the same.
        training: where a stage is in training.
        result: where the run is finished.
    """

    position: Position
    weights: Sequence[np.ndarray]
    history: Sequence[Mapping[str, Any]]
    audits: Sequence[Audit] = ()
    costs: Sequence[StageCost] = ()
    training: Training | None = None
    result: Result | None = None

    def to_dict(self) -> dict[str, Any]:
        """The snapshot as dictionaries, lists, strings, numbers and arrays."""
        # Not `dataclasses.asdict`, which would copy every array.
        return {
            "position": dataclasses.asdict(self.position),
            "weights": list(self.weights),
            "history": list(self.history),
            "audits": [dataclasses.asdict(audit) for audit in self.audits],
            "costs": [dataclasses.asdict(cost) for cost in self.costs],
            "training": None if self.training is None else self.training.to_dict(),
            "result": None if self.result is None else vars(self.result),
        }

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The snapshot that `to_dict` wrote."""
        training, result = parts["training"], parts["result"]
        return cls(
            Position(**parts["position"]),
            parts["weights"],
            parts["history"],
            [Audit.from_dict(audit) for audit in parts["audits"]],
            [StageCost(**cost) for cost in parts["costs"]],
            None if training is None else Training.from_dict(training),
            None if result is None else Result(**result),
        )

"""One method with one seed: what came of it, as `kt.compare` keeps it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from keras_transfer.plans.plan import Plan

FAILED, LEFT_OUT = "failed", "left out"


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to adapt a model, as it was carried out.

    Attributes:
        name: what it is called in `plans`.
        plan: its plan, with the epochs that it was given.
        body: which of several bodies it begins with; empty where there is one only, or where it begins with none.
    """

    name: str
    plan: Plan
    body: str = ""

    @property
    def transfers(self) -> bool:
        """Whether it begins with the pretrained weights."""
        return self.plan.stages[0].start != "random"

    def to_dict(self) -> dict[str, Any]:
        """The method as plain data."""
        return {"name": self.name, "plan": self.plan.to_dict(), "body": self.body}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The method that `to_dict` wrote."""
        return cls(parts["name"], Plan.from_dict(parts["plan"]), parts["body"])


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """What came of one method with one seed.

    Attributes:
        method: its name.
        seed: of the head's start, the order of the examples and all else that is random.
        predicted: the class number of each example of the split that is reported on, shape (examples,).
        history: one row per epoch, as in `kt.Run`.
        seconds: of training, a linear probe and features that were computed included, building and evaluating not.
        trainable_parameters: how many numbers the stage with most of them could change.
        stored_bytes: of the weights that differ from those the model was built with, the head's always among them: what
            has to be kept for this task beside the pretrained body.
        memory_bytes: the most memory of the host in use at once, beyond that before the model was built; `None` where
            it was not measured.
        made_features: whether features were computed and put on disk; `False` where they were found there, or where
            none were used; `None` where that was not seen.
        source_accuracy: on the source task, with the weights as this run left them; `None` where it was not measured.
        problem: why there are no figures: `"failed: …"` or `"left out: …"`; empty where there are.
    """

    method: str
    seed: int
    predicted: npt.NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    history: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    trainable_parameters: int = 0
    stored_bytes: int = 0
    memory_bytes: int | None = None
    made_features: bool | None = None
    source_accuracy: float | None = None
    problem: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it came to an end and has figures."""
        return not self.problem

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain data."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"predicted": self.predicted.tolist(), "history": [dict(row) for row in self.history]}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The trial that `to_dict` wrote."""
        return cls(**{**parts, "predicted": np.array(parts["predicted"], np.int64)})

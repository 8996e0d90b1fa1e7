"""What a run took: seconds, updates, memory, parameters."""

import dataclasses
import math
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

from keras_transfer import errors
from keras_transfer.formatting import duration, memory_size, table


@dataclasses.dataclass(frozen=True)
class StageCost:
    """What one stage of a plan took.

    Attributes:
        name: the stage's name.
        epochs: epochs that were run.
        seconds: wall-clock time of the stage.
        examples_per_second: training examples seen, divided by the seconds of the stage, with all that these hold.
        trainable_parameters: how many numbers the stage could change.
        steps: updates of the weights.

    Raises:
        ValueError: if a number is negative or not finite.

    Example:

    >>> StageCost("head", epochs=3, seconds=12.5, examples_per_second=96, trainable_parameters=6405, steps=39).seconds
    12.5
    """

    name: str
    epochs: int
    seconds: float
    examples_per_second: float
    trainable_parameters: int
    steps: int

    def __post_init__(self):
        _measure(self, "seconds", "examples_per_second", kind=float)
        _measure(self, "epochs", "trainable_parameters", "steps", kind=int)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a whole run took.

    Attributes:
        stages: one `StageCost` per stage, in the order in which they ran.
        total_seconds: wall-clock time of the run, with what lies between and around the stages.
        peak_memory_bytes: the most memory in use at once, or `None` where it was not measured.

    Raises:
        ValueError: if a number is negative or not finite.

    Example:

    >>> Cost(stages=[], total_seconds=2, peak_memory_bytes=None)
    Cost(stages=(), total_seconds=2.0, peak_memory_bytes=None)
    """

    stages: Sequence[StageCost]
    total_seconds: float
    peak_memory_bytes: int | None

    def __post_init__(self):
        object.__setattr__(self, "stages", tuple(self.stages))
        _measure(self, "total_seconds", kind=float)
        if self.peak_memory_bytes is not None:
            _measure(self, "peak_memory_bytes", kind=int)

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The cost that `dataclasses.asdict` wrote."""
        return cls(**{**parts, "stages": [StageCost(**stage) for stage in parts["stages"]]})

    def __str__(self) -> str:
        rows = [
            (
                stage.name,
                f"{stage.epochs:,}",
                f"{stage.steps:,}",
                f"{stage.seconds:,.1f}",
                f"{stage.examples_per_second:,.1f}",
                f"{stage.trainable_parameters:,}",
            )
            for stage in self.stages
        ]
        heads = ("stage", "epochs", "steps", "seconds", "examples/s", "trainable parameters")
        memory = "not measured" if self.peak_memory_bytes is None else memory_size(self.peak_memory_bytes)
        total = f"in all {duration(self.total_seconds)}, peak memory {memory}"
        return "\n".join([*table([heads, *rows]), total] if rows else [total])


def _measure(cost: Any, *names: str, kind: type) -> None:
    """Turns the named fields into plain numbers (NumPy's do not go into JSON) and refuses what cannot be measured."""
    for name in names:
        value = getattr(cost, name)
        if not math.isfinite(value) or value < 0:
            raise ValueError(
                errors.explain(
                    f"`{name}` of a {type(cost).__name__} cannot be that.", given=value, expected="finite, 0 or more"
                )
            )
        object.__setattr__(cost, name, kind(value))


_STATUS = pathlib.Path("/proc/self/status")


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes.

    Example:

    >>> peak_memory() > 2**20
    True
    """
    if _STATUS.exists():  # what Linux tells of resource usage is handed on to processes that are started from this one
        (kilobytes,) = re.findall(r"VmHWM:\s*(\d+) kB", _STATUS.read_text())
        return int(kilobytes) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

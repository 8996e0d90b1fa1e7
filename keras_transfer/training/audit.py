"""What a stage really changed: measured on the weights, not read off the flags."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.adapters import layers
from keras_transfer.backbones.blocks import Block
from keras_transfer.errors import explain
from keras_transfer.plans.fates import Fate
from keras_transfer.plans.plan import Stage
from keras_transfer.training.calibration import Calibration
from keras_transfer.training.safeguard import Interpolation


class AuditError(RuntimeError):
    """A stage changed what it was to leave alone, or left alone what it was to change."""


@dataclasses.dataclass(frozen=True)
class Moved:
    """How far a stage moved one block.

    Args:
        block: its name.
        ratio: its share of the learning rate; `None` where it was frozen.
        weights: relative change of what can train, |after - before| / |before|; `None` where all of it was 0 before, as
            a head is that nothing has been fitted to.
        statistics: the same for moving averages; `None` where the block has none.
    """

    block: str
    ratio: float | None
    weights: float | None
    statistics: float | None


@dataclasses.dataclass(frozen=True)
class Audit:
    """What one stage did to the model.

    Attributes:
        stage: its name.
        moved: what its training moved, block by block, bottom to top.
        interpolation: how much of that was kept, where it was safeguarded.
        calibration: which statistics batch norms had been given before, where they were calibrated.
    """

    stage: str
    moved: Sequence[Moved]
    interpolation: Interpolation | None = None
    calibration: Calibration | None = None

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The audit that `dataclasses.asdict` wrote."""
        kept, calibrated = parts["interpolation"], parts["calibration"]
        return cls(
            parts["stage"],
            tuple(Moved(**row) for row in parts["moved"]),
            None if kept is None else Interpolation.from_dict(kept),
            None if calibrated is None else Calibration.from_dict(calibrated),
        )

    def __str__(self):
        width = max(len("block"), *(len(moved.block) for moved in self.moved))
        lines = [f"what {self.stage!r} moved", f"  {'block':<{width}}   ratio    weights  statistics"]
        for moved in self.moved:
            ratio = "frozen" if moved.ratio is None else f"{moved.ratio:.4g}"
            statistics = "-" if moved.statistics is None else _share(moved.statistics)
            weights = "from 0" if moved.weights is None else _share(moved.weights)
            lines.append(f"  {moved.block:<{width}}  {ratio:>6}  {weights:>9}  {statistics:>10}")
        lines += [f"  {each}" for each in (self.calibration, self.interpolation) if each]
        return "\n".join(lines)


def audit(model: keras.Model, stage: Stage, fates: Sequence[Fate], before: Sequence[np.ndarray]) -> Audit:
    """Compares the model with its values from before the stage.

    Args:
        model: the model after the stage.
        stage: the stage that ran.
        fates: what it was to do to each block.
        before: `state.values(model)` from before the stage.

    Raises:
        AuditError: if anything that was frozen changed by a single bit, moving statistics included; if a block that was
            to train did not move.
    """
    was = {id(variable): value for (_, variable), value in zip(state.walk(model), before, strict=True)}
    trained = {id(variable) for variable in model.trainable_variables}
    factors = {id(variable) for variable in layers.factor_variables(model)}
    moved = []
    changed = []
    for fate in fates:
        weights, statistics = [], []
        no_statistics = _trainable_by_nature(fate.block) | factors
        for variable in fate.block.variables:
            if state.is_seed(variable):
                continue
            pair = (was[id(variable)], np.asarray(variable.numpy()))
            is_statistic = id(variable) not in no_statistics
            (statistics if is_statistic else weights).append(pair)
            may_move = id(variable) in trained or (is_statistic and not fate.frozen and stage.batch_norm == "adapt")
            if not may_move and not _is_same([pair]):
                changed.append(variable.path)
        moved.append(
            Moved(
                fate.block.name,
                fate.ratio,
                _relative_change(weights),
                _relative_change(statistics) if statistics else None,
            )
        )
    if changed:
        raise AuditError(
            explain(
                f"Stage {stage.name!r} changed what it was to leave alone.",
                given=changed,
                expected="not one bit of it different",
                to_mend="look for a callback that assigns weights, or a layer that two blocks share",
            )
        )
    idle = [row.block for row in moved if row.ratio is not None and row.weights == 0]
    if idle:
        raise AuditError(
            explain(
                f"Stage {stage.name!r} did not move what it was to train.",
                given=idle,
                expected="some change in every block that trains",
                to_mend="look for a rate too small for the precision, or a part that the loss does not depend on",
            )
        )
    return Audit(stage.name, tuple(moved))


def _trainable_by_nature(block: Block) -> set[int]:
    return {id(variable) for layer in block.layers for variable in state.own_trainable_variables(layer)}


def _is_same(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    return all(np.array_equal(before, after, equal_nan=True) for before, after in pairs)


def _relative_change(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """|after - before| / |before| over all pairs together; a change of any size is more than 0, and one of nothing but
    zeros has no size."""
    if _is_same(pairs):
        return 0.0
    change = sum(float(np.sum((after.astype("float64") - before) ** 2)) for before, after in pairs)
    size = sum(float(np.sum(before.astype("float64") ** 2)) for before, _ in pairs)
    return max(float(np.sqrt(change / size)), float(np.finfo("float64").tiny)) if size else None


def _share(change: float) -> str:
    return "0" if change == 0 else f"{change:.2e}" if change < 1e-4 else f"{change:.2%}"

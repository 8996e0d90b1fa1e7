"""What a stage does to each block: a pure function of (model, stage), so that a resumed run cannot disagree with
itself."""

import dataclasses
from collections.abc import Sequence

import keras

from keras_transfer.backbones.blocks import Block, blocks
from keras_transfer.errors import explain, nearest
from keras_transfer.plans.plan import Plan, Stage


@dataclasses.dataclass(frozen=True)
class Fate:
    """What a stage does to one block. `ratio` is its share of the learning rate; `None` means frozen."""

    block: Block
    ratio: float | None

    @property
    def frozen(self) -> bool:
        """Whether nothing of the block may change."""
        return self.ratio is None


def fates(model: keras.Model, stage: Stage) -> list[Fate]:
    """The fate of every block of the model in this stage, bottom to top, the head last.

    Raises:
        ValueError: if the stage names a block that the model does not have, or gives a ratio to one that is frozen.
    """
    every = list(blocks(model))
    wanted = [stage.train] if isinstance(stage.train, str) else list(stage.train)
    awake = {block.name for block in blocks(model).select(wanted)}
    awake |= {block.name for block in every if block.name == "head"}
    for name in stage.ratios:
        if name not in awake:
            raise ValueError(
                explain(
                    f"Stage {stage.name!r} gives a ratio to a block that it does not train.",
                    given=f"ratios={{{name!r}: {stage.ratios[name]}}}",
                    nearest=nearest(name, awake),
                    expected="one of the blocks that it trains: " + ", ".join(b.name for b in every if b.name in awake),
                )
            )
    steps_below_head = {block.name: steps for steps, block in enumerate(reversed(every))}
    return [
        Fate(
            block,
            stage.ratios.get(block.name, stage.layer_decay ** steps_below_head[block.name])
            if block.name in awake
            else None,
        )
        for block in every
    ]


def check(model: keras.Model, name: str, stages: Sequence[Stage]) -> Plan:
    """The plan of these stages, once every one of them has been found to fit the model.

    Raises:
        ValueError: as `fates`.
    """
    for stage in stages:
        fates(model, stage)
    return Plan(stages, name=name)

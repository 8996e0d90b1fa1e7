"""What a stage does to each block: a pure function of (model, stage), so that a resumed run cannot disagree with
itself."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import keras

from keras_transfer.adapters import attach
from keras_transfer.backbones.blocks import Block, Blocks, blocks
from keras_transfer.backbones.freezing import batch_norms, weights_of
from keras_transfer.errors import explain, nearest
from keras_transfer.plans.plan import Plan, Stage


@dataclasses.dataclass(frozen=True)
class Fate:
    """What a stage does to one block.

    Attributes:
        block: the block.
        ratio: its share of the learning rate; `None` means frozen.
        part: what of it trains: the whole, its biases, its norms, or the adapters on it (and what the adapter's spec
            names beside them).
    """

    block: Block
    ratio: float | None
    part: Literal["whole", "biases", "norms", "adapters"] = "whole"

    @property
    def frozen(self) -> bool:
        """Whether nothing of the block may change."""
        return self.ratio is None


def fates(model: keras.Model, stage: Stage) -> list[Fate]:
    """The fate of every block of the model in this stage, bottom to top, the head last.

    Raises:
        ValueError: if the stage names a block that the model does not have, or gives a ratio to one that is frozen; if
            its adapters fit no layer; if it calibrates statistics and there are none.
    """
    every = blocks(model)
    if stage.statistics == "calibrated" and not batch_norms(model):
        raise ValueError(
            explain(
                f"Stage {stage.name!r} is to calibrate the statistics of batch norms, and {model.name} has none.",
                given="statistics='calibrated'",
                to_mend="leave `statistics` out",
            )
        )
    parts = _parts(model, every, stage)
    for name in stage.ratios:
        if name not in parts:
            expected = ", ".join(block.name for block in every if block.name in parts)
            raise ValueError(
                explain(
                    f"Stage {stage.name!r} gives a ratio to a block that it does not train.",
                    given=f"ratios={{{name!r}: {stage.ratios[name]}}}",
                    nearest=nearest(name, parts),
                    expected=f"one of the blocks that it trains: {expected}",
                )
            )
    if stage.l2_sp:
        _check_pulled(every, parts, stage)
    steps_below_head = {block.name: steps for steps, block in enumerate(reversed(every))}
    return [
        Fate(
            block,
            stage.ratios.get(block.name, stage.layer_decay ** steps_below_head[block.name]),
            parts[block.name],
        )
        if block.name in parts
        else Fate(block, None)
        for block in every
    ]


def _parts(model: keras.Model, every: Blocks, stage: Stage) -> dict[str, str]:
    """What trains of each block that is not frozen, by its name."""
    parts = {}
    if stage.train:
        wanted = [stage.train] if isinstance(stage.train, str) else list(stage.train)
        chosen = every.select(wanted, argument="train")
        if stage.part != "whole":
            chosen = [b for b in chosen if any(weights_of(layer, stage.part) for layer in b.layers)]
            _check_part(model, chosen, stage)
        parts = {block.name: stage.part for block in chosen}
        if every.head is not None:
            parts[every.head.name] = "whole"
    if stage.adapters is not None:
        train = [layer for block in every if block.name in parts for layer in block.layers]
        touched = {id(layer) for layer in attach.touched(model, stage.adapters, train=train)}
        for block in every:
            if block.name not in parts and any(id(layer) in touched for layer in block.layers):
                parts[block.name] = "adapters"
    return parts


def _check_part(model: keras.Model, chosen: Sequence[Block], stage: Stage) -> None:
    if not [block for block in chosen if block.name != "head"]:
        raise ValueError(
            explain(
                f"Stage {stage.name!r} is to train {stage.part} of {model.name}, and there are none.",
                given=f"train={stage.train!r}, part={stage.part!r}",
                expected={
                    "biases": "blocks with biases that are not of batch norms",
                    "norms": "blocks with layer, group or RMS norms (batch norms train with batch_norm='affine')",
                }[stage.part],
            )
        )


def _check_pulled(every: Blocks, parts: dict[str, str], stage: Stage) -> None:
    own = [block.name for block in every.body if parts.get(block.name, "adapters") != "adapters"]
    if not own and (stage.adapters is None or stage.adapters.biases == "none"):
        raise ValueError(
            explain(
                f"Stage {stage.name!r} is to pull weights towards the pretrained ones, and trains none of those.",
                given=f"l2_sp={stage.l2_sp:g}, and what trains begins anew: {', '.join(parts)}",
                expected="a stage that trains blocks of the body themselves",
                to_mend="leave `l2_sp` out; weight_decay pulls heads and adapters towards 0",
            )
        )


def check(model: keras.Model, name: str, stages: Sequence[Stage]) -> Plan:
    """The plan of these stages, once every one of them has been found to fit the model.

    Raises:
        ValueError: as `fates`.
    """
    for stage in stages:
        fates(model, stage)
    return Plan(stages, name=name)

"""Plans are data: what trains, how fast, for how long. They never touch a model; `fit` carries them out."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from keras_transfer.adapters.lora import LoRA
from keras_transfer.arguments import is_number, is_whole
from keras_transfer.backbones.freezing import BATCH_NORMS, PARTS, BatchNorm, Part
from keras_transfer.errors import explain, nearest
from keras_transfer.formatting import counted

Schedule = Literal["cosine", "linear", "constant"]
OPTIMIZERS = ("adamw", "adam", "sgd", "lion")
SCHEDULES = ("cosine", "linear", "constant")
# From which weights a stage may start, and what a printed plan says of it.
_STARTS = {
    "pretrained": [],
    "probe": ["from a linear probe"],
    "standardised_probe": ["from a standardised linear probe"],
    "tempered_probe": ["from a tempered linear probe"],
    "random": ["from random weights"],
}
# What batch norms may normalise by, and what a printed plan says of it.
_STATISTICS = {"kept": "", "calibrated": " on calibrated statistics"}
# Those of _STARTS that fit a head first.
PROBES = ("probe", "standardised_probe", "tempered_probe")


# Numbers of a stage that need not be given.
_MAY_BE_NONE = ("ema", "clip_norm", "patience")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stretch of training in which the same blocks train.

    Args:
        train: what trains, the head always with it: `"head"`, `"top:2"` (the upper two blocks), `"all"`, a block's
            name, or several of these. Nothing (`()`) is possible beside adapters: a language model has no new head.
        epochs: passes over the training data, at least 1.
        name: how the stage is called in progress, history and report; made from `train` where it is left out.
        learning_rate: the peak rate, that of whatever has ratio 1.
        ratios: for blocks by name, the `"head"` too: the share of `learning_rate` at which they learn. Comes before
            `layer_decay`.
        layer_decay: from the head down, every block learns at this share of the rate of the one above it.
        schedule: how the rate goes after the warm-up: `"cosine"` or `"linear"` down to 0, or `"constant"`.
        warmup: share of the stage's steps in which the rate climbs from 0 to its peak.
        batch_norm: `"frozen"` keeps every batch normalisation as it was pretrained, also in blocks that train;
            `"affine"` trains scale and offset of those in awake blocks (Frankle et al. 2021, arXiv:2003.00152);
            `"adapt"` these, and lets their statistics follow the data.
        statistics: what batch norms normalise by from the first step on: `"kept"` goes on with the statistics there
            are; `"calibrated"` asks, without labels, whether the training pictures are of another domain, and if so
            puts them between these and the pictures' own, as far towards the latter as a linear probe gains by it
            under cross-validation (see `Calibration`). It looks at 256 pictures at most, once or a few times.
        weight_decay: decoupled, per step `rate * weight_decay` of each kernel (not of biases and norms).
        optimizer: `"adamw"`, `"adam"`, `"sgd"` (momentum 0.9) or `"lion"`.
        patience: stop the stage when validation loss has not improved for so many epochs, and go back to the best
            weights. `None` never stops early and keeps the last.
        start: `"pretrained"` goes on from the weights there are; `"probe"` puts the best linear head on the features
            as they are first, for a body that is to learn on; `"standardised_probe"` one on features brought to the
            same deviation each, the better head for a body that stays as it is; `"tempered_probe"` one that is as
            unsure of the examples that it was fitted to as of others, so that adapters have something to learn;
            `"random"` draws every weight anew.
        part: which weights of the blocks that train: the `"whole"` of them, their `"biases"` (BitFit), or scale and
            offset of their `"norms"` (batch norms are left to `batch_norm`). The head is always whole.
        adapters: low-rank adapters that train beside what `train` names, on a body that is frozen otherwise. `fit` puts
            them on; a later stage with the same ones goes on with them.
        safeguard: end the stage between the weights that it began with and those that it reached, where validation
            says (WiSE-FT, Wortsman et al. 2022), and never below where it began. Without a validation split, three
            quarters of the way. A head that trains alone is kept as it was trained, or put back.
        l2_sp: pull every pretrained weight that trains towards its value before `fit` began, biases and norms too: per
            step by `rate * l2_sp` of the distance (L2-SP, Li et al. 2018). Under AdamW a weight that is driven one way
            goes no further than about 1 / l2_sp, so that 10 to 100 is a pull that can be felt. What starts anew, head
            and adapters, is not pulled; `weight_decay` beside it holds for that alone.
        ema: keep the exponential moving average of the weights that train, with this momentum: it is what validation
            sees at the end of each epoch, and what the stage ends with. About the last 1 / (1 - ema) steps count; the
            moving statistics of batch norms are an average already, and stay.
        clip_norm: scale the gradients of a step, all of them together, down to this norm where theirs is greater
            (Pascanu et al. 2013, arXiv:1211.5063). For `"sgd"` above all, whose steps are as large as the gradients.
        sam: take every step by the gradient so far uphill (as the length of all changes to the weights together), and
            so towards where the loss is low all around (SAM, Foret et al. 2021): 0.05 is the paper's choice. A step
            then takes two passes, and the stage up to twice as long.
        least_steps: where the data are so small that `epochs` have fewer steps than these, as many epochs more as it
            takes: what a stage can learn depends on its steps (BiT-HyperRule, Kolesnikov et al. 2020).
        augment: `"stronger"` augments pictures that are given to be augmented lightly as strongly as `"strong"` does: a
            body that trains on a few hundred pictures learns them by heart otherwise, a head alone does not. Data that
            say `"none"`, `"strong"` or something of their own are left as they are.

    Example:

    >>> Stage("top:2", epochs=5, learning_rate=3e-4).name
    'top:2'
    """

    train: str | Sequence[str]
    epochs: int
    name: str = ""
    _: dataclasses.KW_ONLY
    learning_rate: float = 1e-3
    ratios: Mapping[str, float] = dataclasses.field(default_factory=dict)
    layer_decay: float = 1.0
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    batch_norm: BatchNorm = "frozen"
    statistics: Literal["kept", "calibrated"] = "kept"
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    patience: int | None = None
    start: Literal["pretrained", "probe", "standardised_probe", "tempered_probe", "random"] = "pretrained"
    part: Part = "whole"
    adapters: LoRA | None = None
    safeguard: bool = False
    l2_sp: float = 0.0
    ema: float | None = None
    clip_norm: float | None = None
    sam: float = 0.0
    least_steps: int = 0
    augment: Literal["as given", "stronger"] = "as given"

    def __post_init__(self):
        train = self.train if isinstance(self.train, str) else tuple(self.train)
        object.__setattr__(self, "train", train)
        object.__setattr__(self, "ratios", dict(self.ratios))
        if not self.name:
            object.__setattr__(self, "name", self._made_name())
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("batch_norm", self.batch_norm, BATCH_NORMS)
        _check_choice("statistics", self.statistics, tuple(_STATISTICS))
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("start", self.start, tuple(_STARTS))
        _check_choice("part", self.part, PARTS)
        _check("adapters", self.adapters, isinstance(self.adapters, LoRA | None), "a kt.LoRA, or None")
        _check("train", train, bool(train) or self.adapters is not None, "at least one block, or adapters beside none")
        if self.adapters is not None and self.part != "whole":
            raise ValueError(
                explain(
                    "A stage trains adapters or a part of the body's own weights.",
                    given=f"adapters and part={self.part!r}",
                    to_mend='LoRA(biases="all") trains biases beside the adapters',
                )
            )
        if self.adapters is not None and self.statistics != "kept":
            raise ValueError(
                explain(
                    "Adapters leave the body that they stand on as it is, and its statistics.",
                    given=f"adapters and statistics={self.statistics!r}",
                    to_mend="leave `statistics` out",
                )
            )
        self._check_numbers()
        _check_choice("augment", self.augment, ("as given", "stronger"))
        self._check_pull()

    def _check_numbers(self) -> None:
        positive, at_least_none = "a positive number", "0 or a positive number"
        of_rate = f"{positive}, the peak; `schedule` and `warmup` say how the rate goes"
        for name, kind, is_fine, expected in (
            ("epochs", is_whole, lambda given: given >= 1, "a whole number, at least 1"),
            ("learning_rate", is_number, lambda given: given > 0, of_rate),
            ("layer_decay", is_number, lambda given: 0 < given <= 1, "above 0 and at most 1"),
            ("warmup", is_number, lambda given: 0 <= given < 1, "a share of the steps, at least 0 and below 1"),
            ("weight_decay", is_number, lambda given: given >= 0, at_least_none),
            ("l2_sp", is_number, lambda given: given >= 0, at_least_none),
            ("sam", is_number, lambda given: given >= 0, at_least_none),
            ("least_steps", is_whole, lambda given: given >= 0, "0, or a number of steps, a whole one"),
            ("ema", is_number, lambda given: 0 < given < 1, "None, or a momentum between 0 and 1"),
            ("clip_norm", is_number, lambda given: given > 0, f"None, or {positive}"),
            ("patience", is_whole, lambda given: given >= 1, "None, or a whole number of epochs from 1 up"),
        ):
            given = getattr(self, name)
            if given is None and name in _MAY_BE_NONE:
                continue
            _check(name, given, kind(given) and is_fine(given), expected)
            # Of NumPy's numbers a plan would not be the same after `to_json` and `from_json`.
            object.__setattr__(self, name, int(given) if is_whole(given) else float(given))
        for block, ratio in self.ratios.items():
            expected = f"{positive} (leave a block out of `train` to freeze it)"
            _check(f"ratios[{block!r}]", ratio, is_number(ratio) and ratio > 0, expected)
        object.__setattr__(self, "ratios", {block: float(ratio) for block, ratio in self.ratios.items()})

    def _check_pull(self) -> None:
        fastest = max([1.0, *(ratio for block, ratio in self.ratios.items() if block != "head")])
        most = 1 / (self.learning_rate * fastest)
        _check("l2_sp", self.l2_sp, self.l2_sp <= most, f"at most {most:g}, 1 / rate: more would overshoot the start")
        if self.l2_sp and self.start == "random":
            raise ValueError(
                explain(
                    "A stage cannot draw its weights anew and pull them to where they were.",
                    given=f"start='random' and l2_sp={self.l2_sp}",
                    to_mend="weight_decay, which pulls towards 0",
                )
            )

    def _made_name(self) -> str:
        blocks = self.train if isinstance(self.train, str) else "+".join(self.train)
        words = ["lora" if self.adapters else "", self.part if self.part != "whole" else "", blocks]
        return " ".join(word for word in words if word)

    @property
    def is_from_probe(self) -> bool:
        """Whether a linear head is fitted at once, before the first step."""
        return self.start in PROBES

    def to_dict(self) -> dict[str, Any]:
        """The stage as dicts, lists, strings and numbers."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["train"] = self.train if isinstance(self.train, str) else list(self.train)
        fields["ratios"] = dict(self.ratios)
        fields["adapters"] = None if self.adapters is None else self.adapters.to_dict()
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Stage":
        """The stage that `to_dict` wrote."""
        adapters = fields.get("adapters")
        return cls(**{**fields, "adapters": None if adapters is None else LoRA.from_dict(adapters)})


@dataclasses.dataclass(frozen=True)
class Plan:
    """Stages, one after another. Printable, comparable, and the same after `to_json` and `from_json`.

    Example:

    >>> plan = Plan([Stage("head", epochs=3), Stage("all", epochs=10, layer_decay=0.75)])
    >>> Plan.from_json(plan.to_json()) == plan
    True
    >>> plan.epochs
    13
    """

    stages: Sequence[Stage]
    name: str = "plan"

    def __post_init__(self):
        stages = tuple(self.stages) if isinstance(self.stages, Iterable) else ()
        if not stages or not all(isinstance(stage, Stage) for stage in stages):
            given = [type(stage).__name__ for stage in stages] or type(self.stages).__name__
            raise ValueError(
                explain(
                    "A plan is made of stages.",
                    given=given,
                    expected='one kt.Stage or more, for instance kt.Plan([kt.Stage("head", epochs=3)])',
                )
            )
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(
                explain(
                    "Two stages of the plan have one name.",
                    given=names,
                    expected="a name of its own for each, since history and report speak of stages by name",
                    to_mend='name them: kt.Stage("head", epochs=3, name="head again")',
                )
            )
        object.__setattr__(self, "stages", stages)
        self._check_pulls()

    def _check_pulls(self) -> None:
        drawn = [stage.name for stage in self.stages if stage.start == "random"]
        pulled = [stage.name for stage in self.stages if stage.l2_sp]
        if drawn and pulled:
            raise ValueError(
                explain(
                    "A plan draws its weights anew, and is to pull them towards the pretrained ones.",
                    given=f"start='random' in stage {drawn[0]!r}, l2_sp in stage {pulled[0]!r}",
                    to_mend="weight_decay, which pulls towards 0",
                )
            )

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def over(self, steps_per_epoch: int) -> "Plan":
        """The plan on data of so many steps an epoch: each stage with the epochs that its least steps take.

        Example:

        >>> print(Plan([Stage("head", epochs=3), Stage("all", epochs=10, least_steps=400)], "tune").over(8))
        tune: 2 stages, 53 epochs
          1 head: trains head, 3 epochs, adamw 0.001, cosine, warm-up 10%, batch norm frozen
          2 all: trains all, 50 epochs, adamw 0.001, cosine, warm-up 10%, batch norm frozen
        """
        stages = [
            dataclasses.replace(
                stage, epochs=max(stage.epochs, -(-stage.least_steps // steps_per_epoch)), least_steps=0
            )
            for stage in self
        ]
        return dataclasses.replace(self, stages=stages)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def to_dict(self) -> dict[str, Any]:
        """The plan as dicts, lists, strings and numbers."""
        return {"name": self.name, "stages": [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, plan: Mapping[str, Any]) -> "Plan":
        """The plan that `to_dict` wrote."""
        return cls([Stage.from_dict(stage) for stage in plan["stages"]], name=plan["name"])

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    def __str__(self):
        or_more = " or more" if any(stage.least_steps for stage in self) else ""
        lines = [f"{self.name}: {counted(len(self), 'stage')}, {counted(self.epochs, 'epoch')}{or_more}"]
        for number, stage in enumerate(self.stages, 1):
            trains = stage.train if isinstance(stage.train, str) else ", ".join(stage.train)
            trains = {"whole": "", "biases": "biases of ", "norms": "norms of "}[stage.part] + (trains or "no block")
            details = [str(stage.adapters)] if stage.adapters else []
            details += [f"{stage.optimizer} {stage.learning_rate:g}", stage.schedule]
            details += [f"warm-up {stage.warmup:.0%}"] if stage.warmup else []
            details += [f"layer decay {stage.layer_decay:g}"] if stage.layer_decay < 1 else []
            details += [f"{block} × {ratio:g}" for block, ratio in stage.ratios.items()]
            details += [f"weight decay {stage.weight_decay:g}"] if stage.weight_decay else []
            details += [f"L2-SP {stage.l2_sp:g}"] if stage.l2_sp else []
            details += [f"average of weights {stage.ema:g}"] if stage.ema else []
            details += [f"gradients clipped at norm {stage.clip_norm:g}"] if stage.clip_norm else []
            details += [f"sharpness-aware {stage.sam:g}"] if stage.sam else []
            details += [f"batch norm {stage.batch_norm}" + _STATISTICS[stage.statistics]]
            details += ["augmented more strongly"] if stage.augment == "stronger" else []
            details += [f"patience {stage.patience}"] if stage.patience else []
            details += ["safeguarded"] if stage.safeguard else []
            details += _STARTS[stage.start]
            length = counted(stage.epochs, "epoch")
            length += f" or {counted(stage.least_steps, 'step')}" if stage.least_steps else ""
            lines.append(f"  {number} {stage.name}: trains {trains}, {length}, {', '.join(details)}")
        return "\n".join(lines)


def _check(argument: str, given: object, fine: bool, expected: str) -> None:
    if not fine:
        raise ValueError(explain(f"`{argument}` of a stage is out of range.", given=repr(given), expected=expected))


def _check_choice(argument: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise ValueError(
            explain(
                f"`{argument}` of a stage names nothing that exists.",
                given=repr(given),
                nearest=nearest(str(given), choices),
                expected="one of " + ", ".join(map(repr, choices)),
            )
        )

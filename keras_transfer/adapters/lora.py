"""What kind of adapter, on which layers: plain data, checked when it is made."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras

from keras_transfer.errors import explain, nearest

ALPHA = 8.0

_CHOICES = {
    "scaling": ("lora", "rslora"),
    "biases": ("none", "adapted", "all"),
    "factors": ("paper", "keras"),
}


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: beside a frozen matrix W, two thin ones that are learnt, `W + scale · A · B`.

    Hu et al. 2021, arXiv:2106.09685. At rank r they are r · (in + out) numbers for a matrix of in · out. B starts at
    zero, so the model starts as it was; A is drawn as PEFT draws it, uniformly within ±1/sqrt(in) (of an embedding it
    is A that starts at zero, and B that is drawn from a normal distribution).

    Not for: a task far from what the body has seen, with data enough for full fine-tuning; or a model so small that its
    head is most of it.

    Args:
        rank: columns of A and rows of B. 4 to 16 is common; more numbers, and seldom more accuracy.
        alpha: the update counts `alpha / rank` times. `None` is 8, PEFT's default, whatever the rank: doubling the rank
            halves the scale.
        targets: which layers. `"attention"`: the projections to queries and values of every attention layer, or the one
            that makes queries, keys and values together (the choice of the paper, and PEFT's for BERT and Llama).
            `"all-linear"`: every Dense and EinsumDense of the body, as in QLoRA (arXiv:2305.14314); the head is left
            out. Or a pattern over layer paths, or several, with `*`, `?` and `[…]` as in a shell, matched from the
            right and
            in whole names: `"query"`, `"transformer_layer_1?/*/value"`, `"*conv"`. Or layers.
        dropout: the share of the adapter's input that is dropped in training.
        scaling: `"lora"`, or `"rslora"` to divide alpha by sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732), which
            keeps high ranks learning.
        biases: which biases train as well: `"none"`, those of the `"adapted"` layers, or `"all"` (offsets of
            normalisation layers too, batch normalisation's not: its statistics would move with them).
        factors: `"paper"`, or `"keras"` for the shapes of Keras' own `enable_lora`: other, on EinsumDense.
        dora: learn a length for each column beside the direction (Liu et al. 2024, arXiv:2402.09353). About a third
            more time in training; helps most at ranks of 4 and below.
        ranks: other ranks for some of the targets, by pattern: `{"value": 4}`.
        blocks: only within these blocks: `"top:4"`, the upper four of those that hold a target; a block's name; or
            several.

    Raises:
        ValueError: where an argument is out of range, or names nothing that exists.

    Example:

    >>> LoRA(rank=16, targets="all-linear").to_dict()["rank"]
    16
    >>> LoRA.from_dict(LoRA(targets=["query", "value"]).to_dict()) == LoRA(targets=("query", "value"))
    True
    """

    rank: int = 8
    alpha: float | None = None
    targets: str | Sequence[str] | Sequence[keras.Layer] = "attention"
    _: dataclasses.KW_ONLY
    dropout: float = 0.0
    scaling: Literal["lora", "rslora"] = "lora"
    biases: Literal["none", "adapted", "all"] = "none"
    factors: Literal["paper", "keras"] = "paper"
    dora: bool = False
    ranks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    blocks: str | Sequence[str] | None = None

    def __post_init__(self):
        for name in ("targets", "blocks"):
            value = getattr(self, name)
            if isinstance(value, keras.Layer):
                object.__setattr__(self, name, (value,))
            elif value is not None and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "ranks", dict(self.ranks))
        _check_rank("rank", self.rank)
        for pattern, rank in self.ranks.items():
            _check_rank(f"ranks[{pattern!r}]", rank)
        alpha = self.alpha_or_default
        _check("alpha", self.alpha, _is_number(alpha) and 0 < alpha < math.inf, "a positive number")
        _check("dropout", self.dropout, _is_number(self.dropout) and 0 <= self.dropout < 1, "at least 0 and below 1")
        _check("dora", self.dora, isinstance(self.dora, bool), "True or False")
        for name, choices in _CHOICES.items():
            given = getattr(self, name)
            if given not in choices:
                raise ValueError(
                    explain(
                        f"`{name}` of a LoRA names nothing that exists.",
                        given=repr(given),
                        nearest=nearest(str(given), choices),
                        expected="one of " + ", ".join(map(repr, choices)),
                    )
                )
        targets = (self.targets,) if isinstance(self.targets, str) else self.targets
        kinds = {isinstance(target, keras.Layer) for target in targets}
        whole = bool(targets) and len(kinds) == 1 and all(isinstance(t, str | keras.Layer) and t != "" for t in targets)
        _check("targets", targets, whole, "'attention', 'all-linear', patterns over layer paths, or layers")
        if self.dora and self.factors == "keras":
            raise ValueError(
                explain(
                    "DoRA learns the lengths of a matrix' columns; Keras' factors of an EinsumDense are not a matrix'.",
                    given='dora=True, factors="keras"',
                    to_mend='factors="paper"',
                )
            )

    @property
    def alpha_or_default(self) -> float:
        """The alpha that counts."""
        return ALPHA if self.alpha is None else self.alpha

    def to_dict(self) -> dict[str, Any]:
        """The spec as strings, numbers, lists and dicts.

        Raises:
            ValueError: if the targets are layers, which no file can name; give patterns.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("targets", "blocks"):
            if isinstance(fields[name], tuple):
                fields[name] = list(fields[name])
        if not isinstance(self.targets, str) and not all(isinstance(target, str) for target in self.targets):
            raise ValueError(
                explain(
                    "A LoRA whose targets are layers cannot be written down.",
                    given=", ".join(layer.name for layer in self.targets),
                    to_mend="name them by patterns over layer paths, as the table of `add_lora` prints these",
                )
            )
        return {**fields, "ranks": dict(self.ranks)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "LoRA":
        """The spec that `to_dict` wrote."""
        return cls(**fields)

    def to_json(self) -> str:
        """The spec as JSON text."""
        return json.dumps(self.to_dict())

    def __str__(self):
        targets = self.targets if isinstance(self.targets, str) else ", ".join(map(_spoken, self.targets))
        words = [
            f"{'DoRA' if self.dora else 'LoRA'} rank {self.rank}",
            f"alpha {self.alpha_or_default:g}",
            f"on {targets}",
        ]
        words += (
            [f"in {self.blocks if isinstance(self.blocks, str) else ', '.join(self.blocks)}"] if self.blocks else []
        )
        words += [f"{pattern} at rank {rank}" for pattern, rank in self.ranks.items()]
        words += [f"dropout {self.dropout:g}"] if self.dropout else []
        words += ["rsLoRA scaling"] if self.scaling == "rslora" else []
        words += [f"biases {self.biases}"] if self.biases != "none" else []
        words += ["Keras' factors"] if self.factors == "keras" else []
        return ", ".join(words)


def _spoken(target: str | keras.Layer) -> str:
    return target if isinstance(target, str) else target.name


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_rank(argument: str, rank: object) -> None:
    _check(
        argument, rank, isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1, "an integer of at least 1"
    )


def _check(argument: str, given: object, fine: bool, expected: str) -> None:
    if not fine:
        raise ValueError(explain(f"`{argument}` of a LoRA is out of range.", given=repr(given), expected=expected))

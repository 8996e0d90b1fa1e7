"""What an adapter trains beside its factors: the head, biases, norms. Each adapter has values of its own for them.

The values of the adapter that counts are in the layers; those of the others, and the base's, are kept here as arrays.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.errors import explain

_BESIDE = "_lora_beside"
_BASE = "base"  # not a possible name of an adapter: see `attach.check_name`


@dataclasses.dataclass
class Beside:
    """What the adapters of one model train beside their factors.

    Attributes:
        variables: all that any of them trains.
        base: their values without any adapter.
        values: by adapter, the values; of the one that counts they are out of date, the variables have them.
        trained: by adapter, the places in `variables` of those that it trains.
    """

    variables: list[keras.Variable] = dataclasses.field(default_factory=list)
    base: list[np.ndarray] = dataclasses.field(default_factory=list)
    values: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    trained: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def add(self, name: str, variables: Sequence[keras.Variable], counting: str | None) -> None:
        """Enters a new adapter, which starts from the base's values."""
        self.put_away(counting)
        known = {id(variable): place for place, variable in enumerate(self.variables)}
        places = []
        for variable in variables:
            if id(variable) not in known:
                known[id(variable)] = len(self.variables)
                self.variables.append(variable)
                for values in (self.base, *self.values.values()):
                    values.append(_value(variable))
            places.append(known[id(variable)])
        self.values[name] = [np.array(value) for value in self.base]
        self.trained[name] = places

    def put_away(self, counting: str | None) -> None:
        """Takes note of the values in the layers, which are those of the adapter that counts."""
        if counting in self.values:
            self.values[counting] = [_value(variable) for variable in self.variables]

    def bring(self, name: str | None) -> None:
        """Puts an adapter's values, or with `None` the base's, into the layers."""
        for variable, value in zip(self.variables, self.values.get(name, self.base), strict=True):
            variable.assign(value)

    def forget(self, name: str) -> None:
        """Takes an adapter out."""
        self.values.pop(name, None)
        self.trained.pop(name, None)

    def trains(self, name: str | None) -> list[keras.Variable]:
        """The variables that an adapter trains."""
        return [self.variables[place] for place in self.trained.get(name, ())]


def of(layer: keras.Layer) -> Beside | None:
    """What is kept at one layer."""
    return layer.__dict__.get(_BESIDE)


def at(layer: keras.Layer) -> Beside:
    """What is kept at one layer, made where there is nothing yet."""
    return layer.__dict__.setdefault(_BESIDE, Beside())


def put(layer: keras.Layer, kept: Beside) -> None:
    """Keeps something at a layer again."""
    layer.__dict__[_BESIDE] = kept


def drop(layer: keras.Layer) -> None:
    """Forgets what is kept at one layer."""
    layer.__dict__.pop(_BESIDE, None)


def everywhere(model: keras.Layer) -> list[Beside]:
    """All that is kept at and below a model."""
    return [of(layer) for layer in [model, *state.sublayers(model)] if of(layer)]


def stored(layer: keras.Layer) -> Iterator[tuple[str, np.ndarray]]:
    """What a weights file needs beside the variables, by key."""
    kept = of(layer)
    if kept:
        for name, values in {_BASE: kept.base, **kept.values}.items():
            for place, value in enumerate(values):
                yield f"beside.{name}.{place}", value


def load(layer: keras.Layer, values: Mapping[str, Any]) -> dict[str, Any]:
    """Takes out of a weights file what `stored` put in, and hands back the rest.

    Raises:
        ValueError: if that is not what the layer has.
    """
    mine = {key for key, _ in stored(layer)}
    there = {key for key in values if key.startswith("beside.")}
    if mine != there:
        raise ValueError(
            explain(
                f"This file does not hold what the adapters of {layer.name!r} train beside their factors.",
                given=_adapters(there) or "nothing of the kind",
                expected=_adapters(mine) or "nothing of the kind",
                to_mend="load a file into the model from which it was saved, with the same adapters",
            )
        )
    kept = of(layer)
    if kept:
        for name, arrays in {_BASE: kept.base, **kept.values}.items():
            for place in range(len(arrays)):
                arrays[place] = np.array(values[f"beside.{name}.{place}"])
    return {key: value for key, value in values.items() if key not in there}


def _adapters(keys) -> str:
    counts: dict[str, int] = {}
    for key in keys:
        name = key.removeprefix("beside.").rsplit(".", 1)[0]
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} values of {name!r}" for name, count in sorted(counts.items()))


def _value(variable: keras.Variable) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable.value))

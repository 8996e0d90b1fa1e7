"""A model put back as it was, whatever was tried on it."""

import contextlib
import dataclasses
import random
from collections.abc import Iterator
from typing import Any, Self

import keras
import numpy as np

from keras_transfer import state
from keras_transfer.adapters import attach, beside, switch


@contextlib.contextmanager
def as_it_was(model: keras.Model) -> Iterator[None]:
    """Within it anything may be done to a model that `fit` does; after it, nothing was: also where an error ends it.

    Put back to the last bit are weights, statistics and the seeds of random layers, what is trainable and what follows
    `training`, adapters, optimizer, losses, metrics and compiled steps; and the generators of Python and NumPy, from
    which Keras draws.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> optimizer, before = model.optimizer, state.values(model)
    >>> with as_it_was(model):
    ...     model.compile("adam", "mse")
    ...     _ = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    >>> model.optimizer is optimizer, bool(np.all(state.values(model)[0] == before[0]))
    (True, True)
    """
    kept = _Kept.of(model)
    try:
        yield
    finally:
        kept.put_back()


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A model at one moment.

    Attributes:
        model: the model.
        attributes: of it and of every layer below it.
        variables: every variable, its value, and whether it trains.
        adapters: the names of its adapters.
        counting: that of the one that counts.
        generators: the states of Python's and NumPy's.
    """

    model: keras.Model
    attributes: list[tuple[keras.Layer, dict[str, tuple[Any, Any]]]]
    variables: list[tuple[keras.Variable, np.ndarray, bool]]
    adapters: tuple[str, ...]
    counting: str | None
    generators: tuple[Any, Any]

    @classmethod
    def of(cls, model: keras.Model) -> Self:
        """What there is to be put back."""
        variables = [variable for _, variable in state.walk(model)]
        trainable = [variable.trainable for variable in variables]
        return cls(
            model,
            [(layer, _attributes(layer)) for layer in [model, *state.sublayers(model)]],
            list(zip(variables, state.values_of(variables), trainable, strict=True)),
            attach.names(model),
            attach.active(model),
            (random.getstate(), np.random.get_state()),  # noqa: NPY002 - Keras draws from them
        )

    def put_back(self) -> None:
        """Makes the model what it was."""
        for name in attach.names(self.model):
            if name not in self.adapters:
                switch.remove_adapter(self.model, name)
        if self.adapters and attach.active(self.model) != self.counting:
            attach.activate(self.model, self.counting, attach.active(self.model))
        for layer, attributes in self.attributes:
            # Past `__setattr__`, which would hand flags on to the layers below and wrap what it is given.
            vars(layer).clear()
            vars(layer).update(_as_they_were(attributes))
        for variable, value, trainable in self.variables:
            variable.trainable = trainable
            variable.assign(value)
        random.setstate(self.generators[0])
        np.random.set_state(self.generators[1])  # noqa: NPY002


def _attributes(layer: keras.Layer) -> dict[str, tuple[Any, Any]]:
    """Each attribute of a layer, and a copy of what it holds where that may change in place."""
    return {name: (value, _contents(value)) for name, value in vars(layer).items()}


def _contents(value: Any) -> Any:
    if isinstance(value, beside.Beside):
        values = {name: list(arrays) for name, arrays in value.values.items()}
        trained = {name: list(places) for name, places in value.trained.items()}
        return beside.Beside(list(value.variables), list(value.base), values, trained)
    # Plain ones only: those that Keras tracks are emptied of adapters when these are taken off.
    return value.copy() if type(value) in (list, dict) else None


def _as_they_were(attributes: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    for value, contents in attributes.values():
        if isinstance(value, beside.Beside):
            vars(value).update(vars(contents))
        elif type(value) is list:
            value[:] = contents
        elif type(value) is dict:
            value.clear()
            value.update(contents)
    return {name: value for name, (value, _) in attributes.items()}

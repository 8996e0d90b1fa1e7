"""A model's variables: which is which, and their raw values in and out.

A variable is known by its position in one canonical walk over the model, with its path and shape as a cross-check:
paths alone collide or change between processes (T5 repeats them, a reloaded Sequential renames them). Everything that
speaks of "the same weight" later on (ratios, audits, adapters, checkpoints) means this position.

Raw values are what the variables hold, not what a layer would write: Keras' own saving merges adapters into kernels.

This is also the one module that touches private attributes of Keras' layers; `tests/test_state.py` fails when they
change.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from keras_transfer.errors import explain

# What is used of Keras' private side: where a layer keeps the layers below it, and its own variables.
_PRIVATE = ("_flatten_layers", "_trainable_variables", "_non_trainable_variables")
_missing = [name for name in _PRIVATE if not hasattr(keras.layers.Identity(name="probe"), name)]
if _missing:
    raise ImportError(
        explain(
            "This version of Keras keeps a layer's parts in another place.",
            given=f"keras {keras.__version__}, whose `Layer` has no {', '.join(_missing)}",
            expected="keras 3.15, for which this keras_transfer was written",
            to_mend="install keras 3.15, or a newer keras_transfer",
        )
    )


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which variable of a model: its position in the canonical walk, cross-checked by path, shape and dtype."""

    position: int
    path: str
    shape: tuple[int, ...]
    dtype: str


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """Every layer below `layer`, itself left out, depth first in the order of creation, each once.

    Unlike `model.layers` this looks inside composite layers too (a `MultiHeadAttention` holds four `EinsumDense`).

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="head")])
    >>> [layer.name for layer in sublayers(model)][-1]
    'head'
    """
    found: list[keras.Layer] = []
    seen = {id(layer)}
    for below in layer._flatten_layers(include_self=False, recursive=True):
        if id(below) not in seen:
            seen.add(id(below))
            found.append(below)
    return found


def own_trainable_variables(layer: keras.Layer) -> list[keras.Variable]:
    """What `layer` itself created to be trained, whether it is frozen just now or not; without the layers below it."""
    return list(layer._trainable_variables)


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Every weight that `layer` itself created, moving statistics included; without the layers below it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def walk(model: keras.Model) -> Iterator[tuple[Identity, keras.Variable]]:
    """The canonical walk: every variable of the model once, weights and seeds alike, metrics and optimizer left out.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="head")])
    >>> [(identity.position, identity.shape) for identity, _ in walk(model)]
    [(0, (2, 3)), (1, (3,))]
    """
    for position, variable in enumerate(model.variables):
        yield Identity(position, variable.path, tuple(variable.shape), str(variable.dtype)), variable


def identities(model: keras.Model) -> list[Identity]:
    """The identity of every variable of the model, in the order of the canonical walk."""
    return [identity for identity, _ in walk(model)]


def values(model: keras.Model) -> list[np.ndarray]:
    """A copy of every variable's raw value, in the order of the canonical walk."""
    return values_of([variable for _, variable in walk(model)])


def assign(model: keras.Model, arrays: Sequence[np.ndarray]) -> None:
    """Puts raw values back, in the order of the canonical walk.

    Raises:
        ValueError: if `arrays` are not as many as the model's variables, or one has another shape. Nothing is then
            assigned.
    """
    variables = list(walk(model))
    if len(arrays) != len(variables):
        raise ValueError(
            explain(
                f"These values do not belong to the model {model.name!r}.",
                given=f"{len(arrays)} arrays",
                expected=f"{len(variables)}, one for each variable",
            )
        )
    for (identity, _), array in zip(variables, arrays, strict=True):
        if identity.shape != tuple(np.shape(array)):
            raise ValueError(
                explain(
                    f"The value for {identity.path!r} (position {identity.position}) has another shape.",
                    given=tuple(np.shape(array)),
                    expected=identity.shape,
                )
            )
    for (_, variable), array in zip(variables, arrays, strict=True):
        variable.assign(array)


def values_of(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """A copy of each variable's raw value: of an optimizer's slots, say, or a metric's sums."""
    return [np.array(variable.numpy()) for variable in variables]


def assign_to(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray], *, noun: str) -> None:
    """Puts raw values back that `values_of` took.

    Args:
        variables: what was read, or the same of a model built anew.
        arrays: their values.
        noun: what they are, for the error.

    Raises:
        ValueError: if number or shapes disagree. Nothing is then assigned.
    """
    expected = [tuple(variable.shape) for variable in variables]
    given = [tuple(np.shape(array)) for array in arrays]
    if given != expected:
        raise ValueError(explain(f"These values do not belong to {noun}.", given=given, expected=expected))
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def is_seed(variable: keras.Variable) -> bool:
    """Whether the variable is the counter of a random generator (dropout's, say) and not a weight."""
    return variable.path.split("/")[-1] == "seed_generator_state"


def seed(model: keras.Model, seed: int) -> None:
    """Starts every random generator inside the model anew, each from (seed, its position)."""
    for identity, variable in walk(model):
        if is_seed(variable):
            key = np.random.SeedSequence([seed, identity.position]).generate_state(2, np.uint32)
            variable.assign(key.astype(identity.dtype))

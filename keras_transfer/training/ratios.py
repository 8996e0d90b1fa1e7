"""Which variable learns at which ratio of the rate: every one has exactly one, or it is an error."""

import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_transfer import errors
from keras_transfer.arguments import is_number


def check(ratios: Mapping | Sequence) -> dict | list:
    """A copy of `ratios`; what can be wrong without any variables at hand is an error now.

    Args:
        ratios: a mapping from layers, blocks (anything with `.variables`) or names to numbers, or a sequence of numbers
            (or of the rows of `rows`).

    Raises:
        ValueError: for a number that is negative, infinite or none; for a key that can cover no variables.

    Example:

    >>> check({"stem": 0.1, "head": -1})
    Traceback (most recent call last):
        ...
    ValueError: The ratio of 'head' is not one.
      given:     -1
      expected:  a finite number of at least 0
    """
    if isinstance(ratios, str) or not isinstance(ratios, Iterable):
        expected = "a mapping from layers to numbers, or one number for each trainable variable"
        raise ValueError(errors.explain("`ratios` says nothing of any layer.", given=repr(ratios), expected=expected))
    ratios = dict(ratios) if isinstance(ratios, Mapping) else list(ratios)
    for key, row in ratios.items() if isinstance(ratios, dict) else enumerate(ratios):
        ratio = row if isinstance(ratios, dict) else _ratio(row)
        if not is_number(ratio) or ratio < 0:
            problem = f"The ratio of {name(key)!r} is not one."
            raise ValueError(errors.explain(problem, given=repr(ratio), expected="a finite number of at least 0"))
        if isinstance(ratios, dict) and not isinstance(key, str) and not hasattr(key, "variables"):
            problem = "A key of `ratios` covers no variables."
            raise ValueError(errors.explain(problem, given=repr(key), expected="a layer, a block, or a layer's name"))
    return ratios


def resolve(ratios: dict | list, variables: Sequence[keras.Variable]) -> tuple[float, ...]:
    """The ratio of each variable.

    Of several keys that fit a variable the one that covers less wins: a layer before the model that holds it, and of
    two names the deeper one in `variable.path`.

    Args:
        ratios: as from `check`.
        variables: the trainable variables, in the model's order.

    Raises:
        ValueError: for a variable without a ratio, a key without a variable, keys that disagree on a variable while
            none covers less, and a sequence that is not one row for each variable.

    Example:

    >>> stem, head = keras.layers.Dense(2, name="stem"), keras.layers.Dense(2, name="head")
    >>> model = keras.Sequential([keras.Input((3,)), stem, head])
    >>> resolve({model: 0.5, "head": 1.0}, model.trainable_variables)
    (0.5, 0.5, 1.0, 1.0)
    >>> resolve({"stem": 0.5, "haed": 1.0}, model.trainable_variables)
    Traceback (most recent call last):
        ...
    ValueError: A key of `ratios` fits no trainable variable.
      given:     'haed'
      nearest:   head
      to mend:   leave it out if its layer is frozen; give the layer itself if no `variable.path` names it
    """
    return tuple(_by_key(ratios, variables) if isinstance(ratios, dict) else _by_position(ratios, variables))


def rows(ratios: Sequence[float], variables: Sequence[keras.Variable], decays: Sequence[bool]) -> list[list]:
    """What `resolve` takes back in another process: path, shape, ratio and whether weights decay, for each variable."""
    together = zip(variables, ratios, decays, strict=True)
    return [[variable.path, list(variable.shape), ratio, decay] for variable, ratio, decay in together]


def undecayed(ratios: dict | list, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """The variables that `rows` says do not decay; none where `ratios` are not such rows."""
    if isinstance(ratios, dict):
        return []
    together = zip(ratios, variables, strict=True)
    return [variable for row, variable in together if not isinstance(row, numbers.Number) and not row[3]]


def name(key: Any) -> str:
    """How a key of `ratios` is called."""
    return key if isinstance(key, str) else getattr(key, "name", repr(key))


def _ratio(row: Any) -> Any:
    return row[2] if isinstance(row, Sequence) and not isinstance(row, str) and len(row) == 4 else row


def _by_position(ratios: list, variables: Sequence[keras.Variable]) -> list[float]:
    if len(ratios) != len(variables):
        raise ValueError(
            errors.explain(
                "There must be one ratio for each trainable variable.",
                given=f"{len(ratios)} ratios",
                expected=f"{len(variables)}",
                to_mend="give them in the order of `model.trainable_variables`, or by layer",
            )
        )
    for position, (row, variable) in enumerate(zip(ratios, variables, strict=True)):
        path, shape = (variable.path, variable.shape) if isinstance(row, numbers.Number) else row[:2]
        if tuple(shape) != tuple(variable.shape) or not _same_place(path, variable.path):
            raise ValueError(
                errors.explain(
                    f"Trainable variable {position} is not the one whose ratio was saved.",
                    given=f"{variable.path} {tuple(variable.shape)}",
                    expected=f"{path} {tuple(shape)}",
                    to_mend="build the optimizer on the model it was saved with, or give the ratios anew",
                )
            )
    return [float(_ratio(row)) for row in ratios]


def _same_place(path: str, other: str) -> bool:
    """Whether two paths can be of one variable: on reloading Keras renumbers layers, and drops a Sequential's name."""
    ends = [re.sub(r"_\d+(?=/|$)", "", each).split("/")[::-1] for each in (path, other)]
    return all(one == two for one, two in zip(*ends, strict=False))


def _by_key(ratios: dict, variables: Sequence[keras.Variable]) -> list[float]:
    paths = [variable.path.split("/") for variable in variables]
    covered = {key: {id(each) for each in key.variables} for key in ratios if not isinstance(key, str)}
    positions = {
        key: {
            position
            for position, variable in enumerate(variables)
            if (key in paths[position] if isinstance(key, str) else id(variable) in covered[key])
        }
        for key in ratios
    }
    for key in ratios:
        if not positions[key]:
            raise ValueError(
                errors.explain(
                    "A key of `ratios` fits no trainable variable.",
                    given=repr(name(key)),
                    nearest=errors.nearest(name(key), {part for path in paths for part in path}),
                    to_mend="leave it out if its layer is frozen; give the layer itself if no `variable.path` names it",
                )
            )

    def covers_less(key: Any, other: Any, path: list[str]) -> bool:
        names = isinstance(key, str) + isinstance(other, str)
        if names == 2:
            return path[::-1].index(key) < path[::-1].index(other)
        return positions[key] < positions[other] if names else covered[key] < covered[other]

    stated = []
    for position, path in enumerate(paths):
        fitting = [key for key in ratios if position in positions[key]]
        best = [key for key in fitting if not any(covers_less(other, key, path) for other in fitting)]
        if not best:
            near = filter(None, (errors.nearest(part, map(name, ratios)) for part in path))
            raise ValueError(
                errors.explain(
                    "A trainable variable has no ratio.",
                    given="/".join(path),
                    expected=f"a key that covers it; there are: {', '.join(map(name, ratios)) or 'none'}",
                    nearest=next(near, None),
                )
            )
        if len({float(ratios[key]) for key in best}) > 1:
            raise ValueError(
                errors.explain(
                    "Keys of `ratios` disagree on a variable, and none covers less than the others.",
                    given=", ".join(f"{name(key)!r}: {ratios[key]}" for key in best),
                    expected=f"one ratio for {'/'.join(path)}",
                )
            )
        stated.append(float(ratios[best[0]]))
    return stated

"""The bodies that are to be compared, each as a way to a model."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_transfer.backbones import applications
from keras_transfer.builders.image_classifier import image_classifier
from keras_transfer.builders.text_classifier import text_classifier
from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.study.arguments import takes
from keras_transfer.study.put_back import as_it_was


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A body with a head for the task.

    Attributes:
        name: what it is called in tables.
        code: the expression that makes its model again, of `splits` and `backbones` as they were given.
        model: makes it, as it was pretrained.
        lent: within it a model may be trained: one of the user's own is put back afterwards.
    """

    name: str
    code: str
    model: Callable[[], keras.Model]
    lent: Callable[[keras.Model], AbstractContextManager[None]] = contextlib.nullcontext


def candidates(splits: Splits, backbones: Any, *, seed: int) -> list[Candidate]:
    """The candidates that are meant.

    Args:
        splits: the task.
        backbones: names, functions from splits to a model, or models: a mapping of names to these, or a sequence.
        seed: of what is random in a model that is made: the same each time.

    Raises:
        ValueError: there is none, one is of no such kind, or two have one name.
    """
    if isinstance(backbones, str | keras.Model) or callable(backbones):
        found = [_candidate(splits, _name(backbones, 1), backbones, "backbones", seed)]
    elif isinstance(backbones, Mapping):
        found = [_candidate(splits, str(name), item, f"backbones[{name!r}]", seed) for name, item in backbones.items()]
    elif isinstance(backbones, Sequence):
        found = [
            _candidate(splits, _name(item, place + 1), item, f"backbones[{place}]", seed)
            for place, item in enumerate(backbones)
        ]
    else:
        raise ValueError(
            explain(
                "`backbones` are no bodies.",
                given=type(backbones).__name__,
                expected="names, functions from splits to a model, or models: a list, or a mapping of names to these",
            )
        )
    names = [candidate.name for candidate in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not found or twice:
        raise ValueError(
            explain(
                "`backbones` names no body." if not found else "`backbones` names a body more than once.",
                given=twice or "none",
                to_mend="{name: backbone, …}" if twice else 'kt.advise(splits, ["MobileNetV2"])',
            )
        )
    return found


def _name(item: Any, number: int) -> str:
    """What a body is called in tables; one that has no name of its own by its number."""
    name = item if isinstance(item, str) else getattr(item, "name", None) or getattr(item, "__name__", None)
    return f"body {number}" if name in (None, "<lambda>") else name


def _candidate(splits: Splits, name: str, item: Any, expression: str, seed: int) -> Candidate:
    if isinstance(item, str):
        pictures = isinstance(splits, ImageSplits)
        if not pictures and item in applications.names():
            raise ValueError(
                explain(
                    f"The backbone {name!r} sees pictures, and these data are texts.",
                    given=repr(item),
                    expected='the name of a preset that reads texts, for instance "bert_small_en_uncased"',
                )
            )
        build = image_classifier if pictures else text_classifier
        code = f"kt.{build.__name__}({item!r}, splits.classes)"
        return Candidate(name, code, _seeded(seed, lambda: build(item, splits.classes)))
    if isinstance(item, keras.Model):
        return Candidate(name, expression, lambda: item, as_it_was)
    if callable(item):
        _check_function(name, item)
        return Candidate(name, f"{expression}(splits)", _seeded(seed, lambda: _made(name, item(splits))))
    raise ValueError(
        explain(
            f"The backbone {name!r} is of no kind that is known.",
            given=type(item).__name__,
            expected="a name, a function from splits to a model, or a keras.Model",
        )
    )


def _check_function(name: str, item: Callable[..., Any]) -> None:
    if getattr(keras.applications, getattr(item, "__name__", ""), None) is item:
        raise ValueError(
            explain(
                f"The backbone {name!r} is the function that makes it without a head for these classes.",
                given=f"keras.applications.{item.__name__}",
                to_mend=f"its name, {item.__name__!r}; or lambda splits: kt.image_classifier(…, splits.classes)",
            )
        )
    if not takes(item, 1):
        raise ValueError(
            explain(
                f"The backbone {name!r} cannot be called with the splits.",
                given=f"a function that takes {inspect.signature(item)}",
                expected="a function from splits to a model: lambda splits: kt.image_classifier(…, splits.classes)",
            )
        )


def _seeded(seed: int, make: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    def model() -> keras.Model:
        keras.utils.set_random_seed(seed)
        return make()

    return model


def _made(name: str, model: Any) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise ValueError(
            explain(
                f"The function {name!r} makes no model of the splits.",
                given=type(model).__name__,
                expected="a keras.Model, from kt.image_classifier(…, splits.classes) for instance",
            )
        )
    return model

"""Arguments that mean nothing are refused here, before anything is built: those of `compare`, and what others share."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_transfer.arguments import is_number, is_whole
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain, nearest
from keras_transfer.study.source import Source
from keras_transfer.training.fit import fit

# What a function that fits several times says itself to `fit`.
_OWN = ("model", "splits", "plan", "workdir", "seed", "verbose")
_OF_FIT = tuple(name for name in inspect.signature(fit).parameters if name not in _OWN)
_COUNTED = ("no argument", "one argument")
_OF_COMPARE = ("build", "splits", "plans", "seeds", "epochs", "minutes", "workdir", "source", "verbose")


def checked_seeds(seeds: int | Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """The seeds one by one.

    Raises:
        ValueError: if there are none.

    Example:

    >>> checked_seeds(3), checked_seeds([7, 9])
    ((0, 1, 2), (7, 9))
    """
    chosen = tuple(_seed_list(seeds))
    if not chosen or len(set(chosen)) < len(chosen) or not all(is_whole(seed) and seed >= 0 for seed in chosen):
        raise ValueError(
            explain(
                "`seeds` names no seeds.",
                given=repr(seeds),
                expected="how many, at least 1, or different whole numbers from 0 up",
                to_mend="seeds=3, or seeds=[0, 1, 2]",
            )
        )
    return tuple(map(int, chosen))


def _seed_list(seeds: object) -> Sequence[object]:
    if is_whole(seeds):
        return range(int(seeds))
    if isinstance(seeds, np.ndarray):
        return seeds.tolist() if seeds.ndim == 1 else ()
    return seeds if isinstance(seeds, Sequence) else ()


def check(
    build: object,
    splits: object,
    plans: object,
    *,
    epochs: object,
    minutes: object,
    source: object,
    fit_options: Mapping[str, Any],
) -> None:
    """Raises a `ValueError` for arguments that mean nothing."""
    _check_functions(
        "build",
        build if isinstance(build, Mapping) else {"build": build},
        0,
        "a function that makes a model, not the model: lambda: kt.image_classifier(…); or such functions by name",
    )
    _check_functions(
        "plans", plans, 1, 'functions from a model to a plan by name, for instance {"head only": kt.feature_extraction}'
    )
    _check_splits(splits)
    for name, given, fine, expected, to_mend in (
        ("epochs", epochs, is_whole(epochs) and epochs >= 1, "None, or a whole number from 1 up", "epochs=10"),
        ("minutes", minutes, is_number(minutes) and minutes > 0, "None, or a positive number", "minutes=5"),
    ):
        if given is not None and not fine:
            raise ValueError(_out_of_place(name, given, expected, to_mend))
    if epochs is not None and minutes is not None:
        raise ValueError(
            explain(
                "There are two budgets.",
                given=f"epochs={epochs} and minutes={minutes:g}",
                expected="one of them; without any, each plan is carried out as it is",
            )
        )
    if source is not None and not isinstance(source, Source):
        raise ValueError(_out_of_place("source", source, "None, or a kt.Source", "source=kt.Source(splits)"))
    if source is not None and isinstance(build, Mapping) and len(build) > 1:
        raise ValueError(
            explain(
                "`source` is the task of one body, and several are compared.",
                given=", ".join(map(repr, build)),
                to_mend="compare one body at a time to see what each method forgets",
            )
        )
    check_fit_options("compare", _OF_COMPARE, fit_options)


def check_labelled(splits: object) -> None:
    """Raises a `ValueError` for what is no data, for data without classes, and for one split of some data."""
    if not isinstance(splits, Splits) or not splits.classes:
        raise ValueError(
            explain(
                "`splits` are no labelled data.",
                given=f"{type(splits).__name__}{' without classes' if isinstance(splits, Splits) else ''}",
                expected="what kt.data.images or kt.data.texts returns, whole, with classes",
                to_mend="splits = kt.data.images(…)",
            )
        )


def _check_splits(splits: Splits) -> None:
    check_labelled(splits)
    if not splits.test and not splits.validation:
        raise ValueError(
            explain(
                "There is nothing to compare the methods on.",
                given=f"{len(splits.train):,} examples to train on, no test and no validation split",
                expected="examples that no method is trained on",
                to_mend="keep some: kt.data.images(…, validation=0.2), or test=0.2",
            )
        )


def _out_of_place(name: str, given: object, expected: str, to_mend: str | None) -> str:
    return explain(f"`{name}` of compare is out of place.", given=repr(given)[:200], expected=expected, to_mend=to_mend)


def _check_functions(name: str, given: object, count: int, expected: str) -> None:
    named = isinstance(given, Mapping) and given and all(isinstance(key, str) and key for key in given)
    if not named or not all(map(callable, given.values())) or any(_is_class_or_model(each) for each in given.values()):
        said = (
            ", ".join(f"{key!r}: {type(each).__name__}" for key, each in given.items()) if named else repr(given)[:200]
        )
        raise ValueError(explain(f"`{name}` gives nothing to compare.", given=said, expected=expected))
    for key, each in given.items():
        if not takes(each, count):
            raise ValueError(
                explain(
                    f"The function {key!r} of `{name}` cannot be called with {_COUNTED[count]}.",
                    given=f"{key!r}, which takes {inspect.signature(each)}",
                    expected=expected,
                )
            )


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments; of one that does not say, it is believed.

    Example:

    >>> takes(lambda model: model, 1), takes(lambda model: model, 0), takes(lambda model, rank=8: model, 1)
    (True, False, True)
    """
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _is_class_or_model(given: object) -> bool:
    # A keras.Model is callable as well, and a class would be called for an instance.
    return isinstance(given, type) or hasattr(given, "layers")


def check_fit_options(function: str, own: Sequence[str], fit_options: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for what is to be handed on to the `kt.fit` of each run, and which that does not take.

    Args:
        function: that was given them.
        own: its other arguments.
        fit_options: what is to be handed on.
    """
    for name, given in fit_options.items():
        if name not in _OF_FIT:
            raise ValueError(
                explain(
                    f"There is no such argument of `{function}`, nor of the `kt.fit` of its runs.",
                    given=f"{name}={given!r}",
                    nearest=nearest(name, [*_OF_FIT, *own]),
                )
            )

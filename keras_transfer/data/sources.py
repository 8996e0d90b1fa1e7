"""What every kind of source comes to: examples by split, the classes it names, and what is wrong with it."""

import dataclasses

from keras_transfer.data.examples import Examples
from keras_transfer.data.scanning import Problem

SPLITS = ("train", "validation", "test")
"""The splits, in the order in which they are used."""

WHOLE = "whole"
"""What a source calls its examples when they are not divided into splits."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclasses.dataclass
class Found:
    """What a source holds, before anything is looked at closely.

    Attributes:
        splits: the examples of each split, or of `WHOLE` alone.
        declared: per split the classes that the source names, those without any example included.
        classes: the order of the classes, where the source has one of its own.
        problems: what is wrong already, leaving no example to skip.
        notes: what a reader of the splits should know.
        is_labelled: whether the examples have classes to be told apart.
    """

    splits: dict[str, Examples]
    declared: dict[str, set[str]]
    classes: tuple[str, ...] | None = None
    problems: list[Problem] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    is_labelled: bool = True


def split_name(name: str) -> str | None:
    """The split that a folder, a column or a key means by this name, or `None`.

    Example:

    >>> split_name("Val"), split_name("dev"), split_name("daisy")
    ('validation', 'validation', None)
    """
    return SPLIT_NAMES.get(name.strip().lower())


def in_order(class_names: set[str]) -> tuple[str, ...]:
    """Class names in their order: as numbers where all of them are numbers, else as Python sorts text.

    Example:

    >>> in_order({"10", "9", "1"}), in_order({"bees", "ants"})
    (('1', '9', '10'), ('ants', 'bees'))
    """
    if all(name.isdecimal() for name in class_names):
        return tuple(sorted(class_names, key=lambda name: (int(name), name)))
    return tuple(sorted(class_names))

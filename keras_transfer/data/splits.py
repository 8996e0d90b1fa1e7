"""Train, validation and test, with their classes: the noun that data comes in, and how examples are held out."""

import abc
import contextlib
import dataclasses
import functools
import hashlib
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from keras_transfer.data.examples import Examples
from keras_transfer.errors import explain

if TYPE_CHECKING:
    from keras_transfer.data.pipeline import Dataset


def order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch goes through `count` examples: a permutation that is a function of (seed, epoch).

    TensorFlow's `index_shuffle` needs no memory, but knows only 256 orders of 40 examples (run here, TensorFlow 2.21).

    Example:

    >>> order(5, seed=0, epoch=1).tolist() == order(5, seed=0, epoch=1).tolist()
    True
    >>> sorted(order(5, seed=0, epoch=2).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.random.default_rng((seed, epoch)).permutation(count)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its first column on the left, the others on the right.

    Example:

    >>> table([["class", "train"], ["ant", "12"]])
    ['class  train', 'ant       12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


class Split:
    """One of train, validation and test: labelled examples, each reached by its number.

    Attributes:
        name: `"train"`, `"validation"` or `"test"`.
        labels: class numbers, int64 of shape (examples,); none where there are no classes.
        classes: the names that they number.
        digests: SHA-256 of the content of each example.

    Example:

    >>> from keras_transfer.data import digits
    >>> train = digits([3, 8], per_class=10, batch_size=4).train
    >>> len(train), train.counts, train.labels[:4].tolist()
    (16, {'3': 8, '8': 8}, [0, 0, 0, 1])
    """

    def __init__(self, name: str, examples: Examples, classes: Sequence[str], digests: Sequence[bytes]) -> None:
        numbers = {class_name: number for number, class_name in enumerate(classes)}
        self.name = name
        self.classes = tuple(classes)
        self.examples = examples
        self.digests = list(digests)
        named = examples.class_names if classes else ()
        self.labels = np.array([numbers[class_name] for class_name in named], np.int64)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def counts(self) -> dict[str, int]:
        """How many examples each class has."""
        return dict(zip(self.classes, np.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))

    def select(self, numbers: Sequence[int], name: str | None = None) -> "Split":
        """Some of the examples, in the order given, with the labels and classes that they have here.

        Example:

        >>> from keras_transfer.data import digits
        >>> some = digits([3, 8], per_class=10, batch_size=4).train.select([3, 0])
        >>> some.name, some.labels.tolist()
        ('train', [1, 0])
        """
        digests = [self.digests[number] for number in numbers]
        chosen = Split(name or self.name, self.examples.select(numbers), self.classes, digests)
        chosen.labels = self.labels[numbers]
        return chosen

    def describe(self, number: int) -> str:
        """What a reader finds an example by: its path, or its place in an array."""
        return self.examples.describe(number)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the examples' content and labels in their order."""
        return hashlib.sha256(b"".join(self.digests) + self.labels.tobytes()).hexdigest()

    @functools.cached_property
    def content(self) -> str:
        """SHA-256, in hexadecimal, of the examples' content in their order, whatever their labels are."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest()

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} examples of {len(self.classes)} classes)"


@dataclasses.dataclass(frozen=True)
class Divided:
    """The splits of a source, and what is to be said about them.

    Attributes:
        train: what is learnt from.
        validation: what choices are made on, or `None`.
        test: what is reported on, or `None`.
        notes: what a reader of results should know about the data.
        skipped: what was left out as unreadable, one line each.
    """

    train: Split
    validation: Split | None
    test: Split | None
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class Batches(abc.ABC):
    """What a model is trained and evaluated on: the examples of some splits, or what was computed of them.

    Attributes:
        train: what is learnt from.
        validation: what choices are made on, or `None`.
        test: what is reported on, or `None`.
        classes: the names of the classes, in the order of the model's outputs.
    """

    train: Split
    validation: Split | None
    test: Split | None
    classes: tuple[str, ...]

    @property
    @abc.abstractmethod
    def whole(self) -> "Splits":
        """The data as they are."""

    @property
    def kept_in(self) -> str:
        """Where they are kept if they are features: `"disk"`, `"memory"`, or nowhere (`"off"`)."""
        return "off"

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Self]:
        """Within it a model takes these batches."""
        yield self

    @abc.abstractmethod
    def training_batches(
        self, model: Any, *, seed: int | None = None, first_step: int = 0, epochs: int | None = None
    ) -> "Dataset":
        """Batches (x, y) of the epochs, one after another, from any step on; see the kind of data for their shapes."""

    @abc.abstractmethod
    def evaluation_batches(self, split: Split, model: Any, *, in_order: bool = True) -> "Dataset":
        """Batches (x, y) of one split, once, unchanged, in its order or in that of `evaluation_order`."""

    @abc.abstractmethod
    def evaluation_order(self, split: Split, model: Any) -> np.ndarray:
        """The numbers of a split's examples in the order that is quickest to go through them in."""


class Splits(Batches):
    """Train, validation and test of one task: what every kind of data has in common.

    Attributes:
        train: what is learnt from.
        validation: what choices are made on, or `None`.
        test: what is reported on, or `None`.
        classes: the names of the classes, in the order of the model's outputs.
        batch_size: examples per step.
        seed: where the order of the epochs starts from.
        notes: what a reader of results should know about the data.
        skipped: what was left out as unreadable, one line each.
    """

    def __init__(
        self,
        parts: Divided,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self.train, self.validation, self.test = parts.train, parts.validation, parts.test
        self.notes, self.skipped = parts.notes, parts.skipped
        self.classes = self.train.classes
        self.batch_size = batch_size
        self.seed = seed
        self._check_batch_size()

    def _most_rows(self) -> int | None:
        """How many rows there are to train on, or `None` where that is not known yet."""
        return len(self.train)

    def _check_batch_size(self) -> None:
        most = self._most_rows()
        too_small = not isinstance(self.batch_size, numbers.Integral) or self.batch_size < 1
        if too_small or (most is not None and self.batch_size > most):
            raise ValueError(
                explain(
                    "`batch_size` does not fit the training set.",
                    given=self.batch_size,
                    expected="a whole number from 1"
                    + ("" if most is None else f" to {most}, the number of training examples"),
                    to_mend=f"batch_size={min(32, most or 32)}",
                )
            )

    @property
    def all(self) -> tuple[Split, ...]:
        """The splits that exist."""
        return tuple(split for split in (self.train, self.validation, self.test) if split is not None)

    @property
    def reported(self) -> Split:
        """The one that a report is on: test, where there is none validation, and where there is neither train."""
        return self.test or self.validation or self.train

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many examples each class has in each split."""
        return {split.name: split.counts for split in self.all}

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of classes, content, labels and order of every split; file names do not matter."""
        parts = ["\0".join(self.classes), *(f"{split.name} {split.fingerprint}" for split in self.all)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """What decides about the batches beside the examples and their order, as JSON can hold it.

        Together with `fingerprint` and the seed of a run it says whether two runs see the same batches.
        """
        return {"batch_size": int(self.batch_size)}

    def steps_per_epoch(self, model: Any = None) -> int:
        """How many batches go through the training set once; the last one may be smaller.

        Args:
            model: what they are for; only a text that is cut into windows has a number of them that depends on it.
        """
        del model
        return -(-len(self.train) // self.batch_size)

    def evaluation_order(self, split: Split, model: Any) -> np.ndarray:
        del model
        return np.arange(len(split))

    @property
    def whole(self) -> "Splits":
        return self

    @property
    def augments(self) -> bool:
        """Whether an example is another one in each epoch."""
        return False

    def more_strongly_augmented(self) -> "Splits":
        """The same data, augmented strongly where they are augmented lightly."""
        return self

    @abc.abstractmethod
    def rows_of_step(self, model: Any, *, seed: int | None = None) -> Callable[[int], tuple[int, np.ndarray]]:
        """Which examples `training_batches` has in which step: from the number of a step to its epoch and its rows."""

    @abc.abstractmethod
    def without_pictures(self, split: Split, model: Any, rows: np.ndarray) -> tuple:
        """A batch (x, y) of rows of a split as in `training_batches`, x being `None` where it would be pictures."""

    @abc.abstractmethod
    def view(
        self, split: Split, model: Any, *, epoch: int | None, seed: int | None = None, batch_size: int | None = None
    ) -> "Dataset":
        """Batches of x alone, of all examples of a split, once, in the order of `evaluation_order`.

        Args:
            split: which.
            model: what they are for.
            epoch: as they are augmented in this epoch, or `None`: as they are.
            seed: of the augmentation; that of the splits if not given.
            batch_size: examples per batch; that of the splits if not given.
        """

    @abc.abstractmethod
    def view_identity(
        self, split: Split, model: Any, *, epoch: int | None, seed: int | None = None
    ) -> dict[str, Any] | None:
        """What `view` is a function of, as plain data; `None` where a function of the user's own is part of it."""

    @abc.abstractmethod
    def peek(self, split: Split, numbers: Sequence[int], model: Any) -> np.ndarray:
        """Some examples as the model is evaluated on them."""

    def _more(self) -> list[str]:
        """Lines to print beneath the classes."""
        return []

    def _settings(self) -> str:
        return f"batches of {self.batch_size}, seed {self.seed}"

    def __str__(self) -> str:
        """A table of classes by splits, and what there is to say about them."""
        shown = self.classes if len(self.classes) <= 30 else self.classes[:25]
        rows = [["class" if self.classes else "", *(split.name for split in self.all)]]
        counts = [split.counts for split in self.all]
        rows += [[name, *(str(count[name]) for count in counts)] for name in shown]
        if len(shown) < len(self.classes):
            rows.append([f"… {len(self.classes) - len(shown)} more", *("" for _ in self.all)])
        rows.append(["all", *(str(len(split)) for split in self.all)])
        lines = [*table(rows), *self._more()]
        lines.append(f"fingerprint {self.fingerprint[:16]}, {self._settings()}")
        if self.test is None:
            lines.append(f"no test split: what is reported is measured on {self.reported.name}")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"left out: {line}" for line in self.skipped]
        return "\n".join(line.rstrip() for line in lines)

"""How well a model classifies one split, in numbers: accuracy, F1, per class, what is taken for what."""

import dataclasses
import json
import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from keras_transfer import errors
from keras_transfer.evaluation.checks import check_classes, check_predictions, check_split
from keras_transfer.evaluation.cost import Cost
from keras_transfer.formatting import LINE_WIDTH, cut, percent, score_text, shortened, table

CLASSES_SHOWN_IN_FULL = 40
WEAKEST_SHOWN = 20
FORMAT = "keras_transfer.report"
FORMAT_VERSION = 1

SPLIT_WORDS = {
    "train": "This is the training split: it says how well its own examples were learnt, nothing about new ones.",
    "validation": (
        "There was no test split, so this is measured on the validation split. If that also chose the best epoch or "
        "the settings, expect somewhat less on new examples."
    ),
}


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How one class fared. A score whose denominator is zero is NaN, not 0: it is unknown.

    Attributes:
        precision: of the examples said to be of this class, the share that is; NaN where none was said to be.
        recall: of the examples of this class, the share that was found; NaN where the split has none.
        f1: the harmonic mean of the two; NaN where the class was neither there nor predicted.
        support: how many examples of this class the split has.

    Example:

    >>> ClassScore(precision=1.0, recall=0.5, f1=2 / 3, support=4).recall
    0.5
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """How well a model classifies one split, and what it cost to get there. `print` it for a table.

    Attributes:
        split: the split it was measured on: `"train"`, `"test"`, or `"validation"` where there was no test split.
        classes: the class names, in the order of the labels.
        accuracy: the share of the examples that was classified rightly, 0..1.
        macro_f1: the mean of the classes' F1. A class that is neither in the split nor ever predicted has none and is
            left out, as scikit-learn does.
        per_class: from class name to `ClassScore`, in the order of `classes`.
        confusion: counts, shape (classes, classes); rows are the true class, columns the predicted one. Read-only.
        cost: what the run took, or `None` where it was not measured.

    Raises:
        ValueError: if the parts disagree: a confusion of another shape, an accuracy or a support that is not the one in
            the confusion.

    Example:

    >>> found = report([0, 0, 1, 1], [[.9, .1], [.4, .6], [.2, .8], [.3, .7]], ["ants", "bees"], split="test")
    >>> found.accuracy, found.confusion.tolist()
    (0.75, [[1, 1], [0, 2]])
    >>> Report.from_json(found.to_json()) == found
    True
    """

    split: str
    classes: Sequence[str]
    accuracy: float
    macro_f1: float
    per_class: dict[str, ClassScore]
    confusion: npt.NDArray[np.int64]
    cost: Cost | None = None

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))
        confusion = np.array(self.confusion, np.int64)
        confusion.setflags(write=False)
        object.__setattr__(self, "confusion", confusion)
        check_split(self.split)
        check_classes(self.classes)
        count = len(self.classes)
        if confusion.shape != (count, count) or confusion.min() < 0 or confusion.sum() == 0:
            raise ValueError(
                errors.explain(
                    "`confusion` does not fit the classes.",
                    given=f"an array of shape {confusion.shape} with the sum {confusion.sum()}",
                    expected=f"counts, not all zero, of shape {(count, count)}",
                )
            )
        accuracy = confusion.trace() / confusion.sum()
        if not math.isclose(self.accuracy, accuracy, abs_tol=1e-9):
            raise ValueError(
                errors.explain(
                    "`accuracy` is not the one that `confusion` gives.", given=self.accuracy, expected=accuracy
                )
            )
        supports = dict(zip(self.classes, confusion.sum(axis=1).tolist(), strict=True))
        given = {name: score.support for name, score in self.per_class.items()}
        if list(given.items()) != list(supports.items()):
            raise ValueError(
                errors.explain(
                    "`per_class` is not of the classes, or not with the supports, that `confusion` gives.",
                    given=shortened(given),
                    expected=shortened(supports),
                )
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    @property
    def examples(self) -> int:
        """How many examples were classified."""
        return int(self.confusion.sum())

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy: what chance alone, in the choice of the examples, leaves open.

        Example:

        >>> found = report([0, 1], [[.9, .1], [.2, .8]], ["ants", "bees"], split="test")
        >>> low, high = found.accuracy_interval
        >>> f"two right of two: {low:.2f} to {high:.2f}"
        'two right of two: 0.34 to 1.00'
        """
        return interval_of_share(round(self.accuracy * self.examples), self.examples)

    def mistakes(self, count: int | None = None) -> list[tuple[str, str, int]]:
        """The pairs of classes that were confused, the most frequent first.

        Args:
            count: how many pairs at most; `None` for all.

        Returns:
            (true class, predicted class, how often) for every pair that occurred. Of two that occurred equally often,
            the one that is the larger share of its true class comes first.

        Example:

        >>> report([0, 0, 1, 1], [[.9, .1], [.4, .6], [.2, .8], [.3, .7]], ["ants", "bees"], split="test").mistakes()
        [('ants', 'bees', 1)]
        """
        wrong = self.confusion * (1 - np.eye(len(self.classes), dtype=np.int64))
        supports = self.confusion.sum(axis=1)
        pairs = sorted(np.argwhere(wrong).tolist(), key=lambda pair: (-wrong[tuple(pair)], supports[pair[0]]))
        return [(self.classes[true], self.classes[said], int(wrong[true, said])) for true, said in pairs[:count]]

    def to_json(self) -> str:
        """The report as JSON text, one part to a line; unknown scores are `null`. `from_json` reads it back exactly."""
        parts = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "split": self.split,
            "classes": self.classes,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "per_class": {
                name: {key: None if math.isnan(value) else value for key, value in dataclasses.asdict(score).items()}
                for name, score in self.per_class.items()
            },
            "confusion": self.confusion.tolist(),
            "cost": None if self.cost is None else dataclasses.asdict(self.cost),
        }
        lines = (f'  "{name}": {json.dumps(part, ensure_ascii=False, allow_nan=False)}' for name, part in parts.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Args:
            text: the JSON text itself, not the path of a file.

        Raises:
            ValueError: if the text is no JSON, no report, of another version, or if its parts disagree.
        """
        try:
            parts = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                errors.explain(
                    "This is not JSON.",
                    given=f"{text[:60]!r} ({error})",
                    expected="the text that `Report.to_json()` gave",
                    to_mend='pass what the file holds, not its path: Report.from_json(path.read_text("utf-8"))',
                )
            ) from error
        kind = (parts.get("format"), parts.get("version")) if isinstance(parts, dict) else None
        if kind != (FORMAT, FORMAT_VERSION):
            raise ValueError(
                errors.explain(
                    "This JSON is not a report that this version reads.",
                    given=f"{text[:60]!r}" if kind is None else f"format {kind[0]!r}, version {kind[1]!r}",
                    expected=f"format {FORMAT!r}, version {FORMAT_VERSION}",
                )
            )
        try:
            scores = {
                name: ClassScore(**{key: math.nan if value is None else value for key, value in score.items()})
                for name, score in parts["per_class"].items()
            }
            cost = parts["cost"]
            if cost is not None:
                cost = Cost.from_dict(cost)
            others = {name: parts[name] for name in ("split", "classes", "accuracy", "macro_f1", "confusion")}
            return cls(per_class=scores, cost=cost, **others)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                errors.explain(
                    "A part of this report is missing or unknown.",
                    given=f"{type(error).__name__}: {error}",
                    expected="the text that `Report.to_json()` gave, unchanged",
                )
            ) from error

    def __str__(self) -> str:
        low, high = self.accuracy_interval
        parts = [
            f"{self.split}: accuracy {percent(self.accuracy)}, macro-F1 {self.macro_f1:.3f}, "
            f"on {self.examples:,} examples of {len(self.classes)} classes\n"
            f"(the accuracy's 95 % interval is {percent(low)} to {percent(high)})"
        ]
        parts += [textwrap.fill(words, LINE_WIDTH) for words in self._remarks()]
        parts.append(self._class_table())
        if self.cost is not None:
            parts.append(str(self.cost))
        return "\n\n".join(parts)

    def _remarks(self) -> list[str]:
        """What a reader must know to read the figures rightly, one sentence or two each."""
        remarks = [SPLIT_WORDS[self.split]] if self.split in SPLIT_WORDS else []
        absent = sum(score.support == 0 for score in self.per_class.values())
        if absent:
            remarks.append(
                f"{absent} of the {len(self.classes)} classes {'has' if absent == 1 else 'have'} no example in the "
                f"{self.split} split: the model was not tried on {'it' if absent == 1 else 'them'}."
            )
        return remarks

    def _class_table(self) -> str:
        """One line per class; of very many classes the weakest only, and a line that says so."""
        names = list(self.classes)
        heading, remainder = "class", ""
        if len(names) > CLASSES_SHOWN_IN_FULL:
            ranked = sorted(
                (name for name in names if not math.isnan(self.per_class[name].f1)),
                key=lambda name: (self.per_class[name].f1, -self.per_class[name].support),
            )
            names, others = ranked[:WEAKEST_SHOWN], [self.per_class[name].f1 for name in ranked[WEAKEST_SHOWN:]]
            heading = f"weakest {len(names)} of {len(self.classes)}"
            if others:
                remainder = (
                    f"\nThe F1 of the other {len(others)} runs from {others[0]:.3f} to {others[-1]:.3f}, "
                    f"median {statistics.median(others):.3f}; all are in `per_class`."
                )
        mistaken = self._most_often_taken_for()
        rows = [(heading, "precision", "recall", "F1", "examples", "most often taken for")]
        for name in names:
            score = self.per_class[name]
            figures = map(score_text, (score.precision, score.recall, score.f1))
            rows.append((name, *figures, f"{score.support:,}", mistaken[name]))
        return "\n".join(table(rows, words=(0, 5))) + remainder

    def _most_often_taken_for(self) -> dict[str, str]:
        mistaken = dict.fromkeys(self.classes, "")
        # From the rarest to the most frequent, so that of each class the most frequent one stays.
        for true, said, count in reversed(self.mistakes()):
            times = f" ({count:,})"
            mistaken[true] = cut(said, 26 - len(times)) + times
        for name, score in self.per_class.items():
            if score.support == 0:
                mistaken[name] = f"no {self.split} examples"
        return mistaken


def report(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Iterable[str],
    *,
    split: str,
    cost: Cost | None = None,
) -> Report:
    """Measures predictions against the truth.

    Args:
        labels: the true classes, integers of shape (n,), 0 up to the number of classes less 1.
        probabilities: what the model said, shape (n, classes), every row summing to 1. The class that is said is the
            row's largest, of equals the first.
        classes: the class names, in the order of the labels; classes with no example here belong to it too.
        split: which split this is: `"train"`, `"test"`, or `"validation"` where there is no test split.
        cost: what the run took.

    Returns:
        the `Report`.

    Raises:
        ValueError: if shapes disagree, there are no examples, labels are no integers or out of range, or probabilities
            are not finite, not within 0..1, or do not sum to 1.

    Example:

    >>> print(report([0, 0, 1, 1], [[.9, .1], [.4, .6], [.2, .8], [.3, .7]], ["ants", "bees"], split="test"))
    test: accuracy 75.0 %, macro-F1 0.733, on 4 examples of 2 classes
    (the accuracy's 95 % interval is 30.1 % to 95.4 %)
    <BLANKLINE>
    class  precision  recall     F1  examples  most often taken for
    ants       1.000   0.500  0.667         2  bees (1)
    bees       0.667   1.000  0.800         2
    """
    from sklearn import metrics

    labels, probabilities, classes = check_predictions(labels, probabilities, classes)
    predicted = probabilities.argmax(axis=1)
    every_class = np.arange(len(classes))
    scores = metrics.precision_recall_fscore_support(labels, predicted, labels=every_class, zero_division=np.nan)
    return Report(
        split=split,
        classes=classes,
        accuracy=float(metrics.accuracy_score(labels, predicted)),
        macro_f1=float(metrics.f1_score(labels, predicted, average="macro", zero_division=0.0)),
        per_class={
            name: ClassScore(float(precision), float(recall), float(f1), int(support))
            for name, precision, recall, f1, support in zip(classes, *scores, strict=True)
        },
        confusion=metrics.confusion_matrix(labels, predicted, labels=every_class),
        cost=cost,
    )


def interval_of_share(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share of independent cases (Wilson 1927).

    Example:

    >>> [round(end, 2) for end in interval_of_share(2, 2)]
    [0.34, 1.0]
    """
    z = statistics.NormalDist().inv_cdf(0.975)
    share = count / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)

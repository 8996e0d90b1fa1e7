"""What a run reached and what it cost, in numbers: accuracy, F1, per class, confusion; seconds, memory, parameters."""

import collections
import dataclasses
import json
import math
import statistics
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from keras_transfer import errors

SPLITS = ("train", "validation", "test")

LINE_WIDTH = 100
CLASSES_SHOWN_IN_FULL = 40
WEAKEST_SHOWN = 20
FORMAT = "keras_transfer.report"
FORMAT_VERSION = 1

# Rows of a float16 or bfloat16 softmax miss 1 by up to about a hundredth.
ROW_SUM_TOLERANCE = 0.02

SPLIT_WORDS = {
    "train": "This is the training split: it says how well its own examples were learnt, nothing about new ones.",
    "validation": (
        "There was no test split, so this is measured on the validation split. If that also chose the best epoch or "
        "the settings, expect somewhat less on new examples."
    ),
    "test": None,
}


@dataclasses.dataclass(frozen=True)
class StageCost:
    """What one stage of a plan took.

    Attributes:
        name: the stage's name.
        epochs: epochs that were run.
        seconds: wall-clock time of the stage.
        images_per_second: training examples seen, divided by the time that training them took.
        trainable_parameters: how many numbers the stage could change.
        steps: updates of the weights.

    Raises:
        ValueError: if a number is negative or not finite.

    Example:

    >>> StageCost("head", epochs=3, seconds=12.5, images_per_second=96, trainable_parameters=6405, steps=39).seconds
    12.5
    """

    name: str
    epochs: int
    seconds: float
    images_per_second: float
    trainable_parameters: int
    steps: int

    def __post_init__(self):
        _measure(self, "seconds", "images_per_second", kind=float)
        _measure(self, "epochs", "trainable_parameters", "steps", kind=int)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a whole run took.

    Attributes:
        stages: one `StageCost` per stage, in the order in which they ran.
        total_seconds: wall-clock time of the run, with what lies between and around the stages.
        peak_memory_bytes: the most memory in use at once, or `None` where it was not measured.

    Raises:
        ValueError: if a number is negative or not finite.

    Example:

    >>> Cost(stages=[], total_seconds=2, peak_memory_bytes=None)
    Cost(stages=(), total_seconds=2.0, peak_memory_bytes=None)
    """

    stages: Sequence[StageCost]
    total_seconds: float
    peak_memory_bytes: int | None

    def __post_init__(self):
        object.__setattr__(self, "stages", tuple(self.stages))
        _measure(self, "total_seconds", kind=float)
        if self.peak_memory_bytes is not None:
            _measure(self, "peak_memory_bytes", kind=int)

    def __str__(self) -> str:
        rows = [
            (
                stage.name,
                f"{stage.epochs:,}",
                f"{stage.steps:,}",
                f"{stage.seconds:,.1f}",
                f"{stage.images_per_second:,.1f}",
                f"{stage.trainable_parameters:,}",
            )
            for stage in self.stages
        ]
        heads = ("stage", "epochs", "steps", "seconds", "images/s", "trainable parameters")
        memory = "not measured" if self.peak_memory_bytes is None else _bytes(self.peak_memory_bytes)
        total = f"in all {duration(self.total_seconds)}, peak memory {memory}"
        return "\n".join([*_table([heads, *rows]), total] if rows else [total])


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
        _check_split(self.split)
        _check_classes(self.classes)
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
                    given=_shortened(given),
                    expected=_shortened(supports),
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
        z = statistics.NormalDist().inv_cdf(0.975)
        share, count = self.accuracy, self.examples
        middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
        return max(0.0, middle - half), min(1.0, middle + half)

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
            return cls(
                split=parts["split"],
                classes=parts["classes"],
                accuracy=parts["accuracy"],
                macro_f1=parts["macro_f1"],
                per_class=scores,
                confusion=parts["confusion"],
                cost=cost and Cost(**{**cost, "stages": [StageCost(**stage) for stage in cost["stages"]]}),
            )
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
        remarks = [SPLIT_WORDS[self.split]] if SPLIT_WORDS[self.split] else []
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
        scores = {name: self.per_class[name] for name in names}
        rows = [
            (
                name,
                _score(score.precision),
                _score(score.recall),
                _score(score.f1),
                f"{score.support:,}",
                mistaken[name],
            )
            for name, score in scores.items()
        ]
        heads = (heading, "precision", "recall", "F1", "examples", "most often taken for")
        return "\n".join(_table([heads, *rows], words=(0, 5))) + remainder

    def _most_often_taken_for(self) -> dict[str, str]:
        mistaken = dict.fromkeys(self.classes, "")
        # From the rarest to the most frequent, so that of each class the most frequent one stays.
        for true, said, count in reversed(self.mistakes()):
            times = f" ({count:,})"
            mistaken[true] = _fit(said, min(_columns(said), 26 - len(times))) + times
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


def check_predictions(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Iterable[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], tuple[str, ...]]:
    """The three as arrays and a tuple, or an error that says which of them does not fit the others, and where.

    Args:
        labels: integers of shape (n,).
        probabilities: shape (n, classes).
        classes: the class names.

    Returns:
        labels as int64, probabilities as float64, class names as a tuple.

    Raises:
        ValueError: as `report` does.

    Example:

    >>> labels, probabilities, classes = check_predictions([1], [[0.25, 0.75]], ["ants", "bees"])
    >>> labels.shape, probabilities.shape, classes
    ((1,), (1, 2), ('ants', 'bees'))
    """
    if isinstance(classes, str):
        raise ValueError(errors.explain("`classes` is one string.", given=classes, expected="a list of class names"))
    classes = tuple(classes)
    _check_classes(classes)
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities)
    if labels.ndim != 1 or len(labels) == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            errors.explain(
                "`labels` must be a row of class numbers.",
                given=f"shape {labels.shape}, {labels.dtype}",
                expected="shape (n,) with n of at least 1, integers",
                to_mend="from one-hot rows: labels.argmax(axis=1)" if labels.ndim == 2 else None,
            )
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if outside.size:
        raise ValueError(
            errors.explain(
                "`labels` holds numbers that no class has.",
                given=f"{labels[outside[0]]} at position {outside[0]}; {outside.size:,} of {len(labels):,} are outside",
                expected=f"0 to {len(classes) - 1}, for {len(classes)} classes",
            )
        )
    if probabilities.shape != (len(labels), len(classes)):
        raise ValueError(
            errors.explain(
                "`probabilities` does not fit the labels and classes.",
                given=f"shape {probabilities.shape}",
                expected=f"shape {(len(labels), len(classes))}: {len(labels):,} labels, {len(classes)} classes",
            )
        )
    probabilities = probabilities.astype(np.float64)
    _check_rows(probabilities)
    return labels.astype(np.int64), probabilities, classes


def percent(share: float, digits: int = 1) -> str:
    """A share for people to read. What is not quite all or nothing is never rounded to it.

    Args:
        share: 0..1.
        digits: digits after the point.

    Example:

    >>> percent(0.895), percent(1), percent(0.9999), percent(0.9999, digits=0)
    ('89.5 %', '100.0 %', '> 99.9 %', '> 99 %')
    """
    step = 10.0**-digits
    if 100 - step / 2 <= 100 * share < 100:
        return f"> {100 - step:.{digits}f} %"
    if 0 < 100 * share <= step / 2:
        return f"< {step:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """A time for people to read.

    Args:
        seconds: how long.

    Example:

    >>> duration(8.04), duration(125), duration(7380)
    ('8.0 s', '2 min 5 s', '2 h 3 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, whole_seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {whole_seconds} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min"


def _check_rows(probabilities: npt.NDArray[np.float64]) -> None:
    unfinished = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if unfinished.size:
        raise ValueError(
            errors.explain(
                "`probabilities` holds values that are not finite, so nothing can be said about those examples.",
                given=f"{unfinished.size:,} of {len(probabilities):,} rows with NaN or infinity, the first at position "
                f"{unfinished[0]}",
                expected="finite values between 0 and 1",
                to_mend="look for a loss that became NaN, or for pictures that hold NaN themselves",
            )
        )
    off = (probabilities < -ROW_SUM_TOLERANCE).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > ROW_SUM_TOLERANCE)
    if off.any():
        first = int(np.flatnonzero(off)[0])
        shown = ", ".join(f"{value:.3g}" for value in probabilities[first, :5])
        raise ValueError(
            errors.explain(
                "`probabilities` holds rows that are no probabilities.",
                given=f"{int(off.sum()):,} of {len(off):,} rows, the first at position {first}: [{shown}"
                f"{', …' if probabilities.shape[1] > 5 else ''}] with the sum {probabilities[first].sum():.3g}",
                expected="rows of values between 0 and 1 that sum to 1",
                to_mend="models give logits: `kt.predict` or `keras.ops.softmax(logits)` makes them probabilities",
            )
        )


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(
            errors.explain(
                "`split` is not the name of a split.",
                given=repr(split),
                expected=", ".join(map(repr, SPLITS)),
                nearest=errors.nearest(split, SPLITS),
            )
        )


def _check_classes(classes: Sequence[str]) -> None:
    strange = [name for name in classes if not isinstance(name, str) or not name]
    twice = [] if strange else [name for name, count in collections.Counter(classes).items() if count > 1]
    if len(classes) < 2 or strange or twice:
        raise ValueError(
            errors.explain(
                "`classes` must be the names of at least two classes, each of them once.",
                given=_shortened(list(classes)),
                expected="different, non-empty strings",
                not_a_name=_shortened(strange) if strange else None,
                more_than_once=_shortened(twice) if twice else None,
            )
        )


def _measure(cost: Any, *names: str, kind: type) -> None:
    """Turns the named fields into plain numbers (NumPy's do not go into JSON) and refuses what cannot be measured."""
    for name in names:
        value = getattr(cost, name)
        if not math.isfinite(value) or value < 0:
            raise ValueError(
                errors.explain(
                    f"`{name}` of a {type(cost).__name__} cannot be that.", given=value, expected="finite, 0 or more"
                )
            )
        object.__setattr__(cost, name, kind(value))


def _shortened(value: object, length: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def _score(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes: Chinese letters take two, combining accents none."""
    return sum(
        0 if unicodedata.category(letter) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def _table(rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> list[str]:
    """The rows as aligned lines: words to the left, figures to the right, the first column cut where it must be."""
    widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], LINE_WIDTH - sum(widths[1:]) - 2 * len(widths[1:]))
    return [
        "  ".join(
            _fit(cell, width) if number in words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _fit(text: str, width: int) -> str:
    """The text on exactly `width` columns: filled with blanks, or cut and ended with an ellipsis."""
    text = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) == "Cc" else letter for letter in text)
    if _columns(text) > width:
        while _columns(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _columns(text))

"""What `compare` hands back: every run's figures, and what follows from them."""

import csv
import dataclasses
import functools
import io
import json
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from keras_transfer.errors import explain, nearest
from keras_transfer.evaluation.report import Report, report
from keras_transfer.study import intervals
from keras_transfer.study.domain_shift import Shift
from keras_transfer.study.intervals import Estimate
from keras_transfer.study.trial import FAILED, LEFT_OUT, Method, Trial
from keras_transfer.training.files import write_whole

if TYPE_CHECKING:
    from keras_transfer.study.conclusions import NegativeTransfer

_FORMAT, _VERSION = "keras_transfer.comparison", 1


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """What the methods were compared on.

    Attributes:
        split: `"test"`, or `"validation"` where there was no test split.
        classes: the class names.
        labels: the true class numbers of that split.
        counts: examples of each split.
        fingerprint: of all splits.
        notes: what a reader should know about them.
    """

    split: str
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    counts: Mapping[str, int]
    fingerprint: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain data."""
        return dataclasses.asdict(self) | {"labels": self.labels.tolist()}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Self:
        """The facts that `to_dict` wrote."""
        lists = {"classes": tuple(parts["classes"]), "notes": tuple(parts["notes"])}
        return cls(**{**parts, **lists, "labels": np.array(parts["labels"], np.int64)})


@dataclasses.dataclass(frozen=True)
class SourceTask:
    """How the source task was measured.

    Attributes:
        accuracy: with the weights as they were before any method was tried.
        chance: what guessing among the outputs of its head would give.
        split: of the source data.
        examples: how many.
        judged_by: `"its own head"`, or `"a linear probe"`.
    """

    accuracy: float
    chance: float
    split: str
    examples: int
    judged_by: str


@dataclasses.dataclass(frozen=True)
class Row:
    """One method's line of the table, over the seeds that came to an end.

    Attributes:
        method: which.
        accuracy, macro_f1: with 95 % intervals over seeds and examples.
        by_seed: the accuracy of each seed.
        epochs: that were carried out, mean.
        trainable_parameters: how many numbers it could change.
        stored_bytes: what has to be kept for the task beside the pretrained body.
        seconds: of training, mean.
        memory_bytes: the least over the seeds (whatever runs first loads what later ones find loaded), or `None`.
        lost: how many points of the source task's accuracy are gone, 0..1, mean; `None` where it was not measured.
    """

    method: Method
    accuracy: Estimate
    macro_f1: Estimate
    by_seed: Mapping[int, float]
    epochs: float
    trainable_parameters: int
    stored_bytes: int
    seconds: float
    memory_bytes: int | None
    lost: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Methods on the same data with the same seeds. `print` it for a table and what follows from it.

    Attributes:
        methods: in the order in which they were given.
        trials: one for each method and seed, those that failed or were left out among them.
        data: what they were compared on.
        source: how the source task was measured, or `None`.
        budget: what every method was given, in words.
        shifts: how far the splits lie from one another, and from the source's examples where these were given, in the
            features of the (first) body as it was pretrained.

    Example:

    >>> data = Data("test", ("ant", "bee"), np.array([0, 1] * 50), {"train": 20, "test": 100}, "")
    >>> from keras_transfer.plans.plan import Plan, Stage
    >>> methods = [Method("head", Plan([Stage("head", 1)])), Method("all", Plan([Stage("all", 1)]))]
    >>> right, half = data.labels, np.zeros(100, np.int64)
    >>> found = Comparison(methods, [Trial("head", 0, half), Trial("all", 0, right)], data)
    >>> found.difference("all", "head").value, found.difference("all", "head").is_clear
    (0.5, True)
    """

    methods: Sequence[Method]
    trials: Sequence[Trial]
    data: Data
    source: SourceTask | None = None
    budget: str = ""
    shifts: Sequence[Shift] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))
        object.__setattr__(self, "trials", tuple(self.trials))
        object.__setattr__(self, "shifts", tuple(self.shifts))

    def of(self, method: str) -> tuple[Trial, ...]:
        """The trials of one method that came to an end, by seed.

        Raises:
            ValueError: if there is no such method.
        """
        names = [each.name for each in self.methods]
        if method not in names:
            raise ValueError(
                explain(
                    "No method of that name was compared.",
                    given=repr(method),
                    nearest=nearest(str(method), names),
                    expected=" or ".join(map(repr, names)),
                )
            )
        done = [trial for trial in self.trials if trial.method == method and trial.is_done]
        return tuple(sorted(done, key=lambda trial: trial.seed))

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, whether every method came to an end with them or not."""
        return tuple(dict.fromkeys(trial.seed for trial in self.trials))

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials that broke off."""
        return tuple(trial for trial in self.trials if trial.problem.startswith(FAILED))

    @property
    def left_out(self) -> tuple[Trial, ...]:
        """The trials that were not begun in time."""
        return tuple(trial for trial in self.trials if trial.problem.startswith(LEFT_OUT))

    @functools.cached_property
    def rows(self) -> tuple[Row, ...]:
        """One for each method that came to an end with at least one seed, in the order of the methods."""
        return tuple(self._row(method) for method in self.methods if self.of(method.name))

    def _row(self, method: Method) -> Row:
        trials = self.of(method.name)
        predicted = np.array([trial.predicted for trial in trials])
        accuracy = intervals.accuracy(self.data.labels, predicted)
        macro_f1 = intervals.macro_f1(self.data.labels, predicted, len(self.data.classes))
        memory = [trial.memory_bytes for trial in trials if trial.memory_bytes is not None]
        return Row(
            method,
            accuracy.estimate().within(0, 1),
            macro_f1.estimate().within(0, 1),
            {trial.seed: float(value) for trial, value in zip(trials, accuracy.values, strict=True)},
            statistics.mean(len(trial.history) for trial in trials),
            max(trial.trainable_parameters for trial in trials),
            max(trial.stored_bytes for trial in trials),
            statistics.mean(trial.seconds for trial in trials),
            min(memory, default=None),
            self._lost(trials),
        )

    def _lost(self, trials: Sequence[Trial]) -> float | None:
        known = [trial.source_accuracy for trial in trials if trial.source_accuracy is not None]
        return self.source.accuracy - statistics.mean(known) if self.source and known else None

    def difference(self, first: str, second: str, *, level: float = 0.95) -> Estimate | None:
        """How much more accurate one method is than another, over the seeds with which both came to an end.

        The interval is of the differences example by example and seed by seed (see `intervals`); where it
        `is_clear`, the difference is beyond the noise.

        Args:
            first, second: names of methods.
            level: of the interval.

        Returns:
            The difference of accuracies, -1..1; `None` where the two have no seed in common.
        """
        one = {trial.seed: trial.predicted for trial in self.of(first)}
        other = {trial.seed: trial.predicted for trial in self.of(second)}
        shared = [seed for seed in one if seed in other]
        if not shared:
            return None
        scores = [intervals.accuracy(self.data.labels, np.array([of[seed] for seed in shared])) for of in (one, other)]
        return scores[0].minus(scores[1]).estimate(level).within(-1, 1)

    def report(self, method: str, seed: int | None = None) -> Report:
        """How one run of a method classified: by default, that whose accuracy is in the middle.

        Raises:
            ValueError: if there is no such method, or it did not come to an end with this seed.
        """
        trials = {trial.seed: trial for trial in self.of(method)}
        if not trials or (seed is not None and seed not in trials):
            raise ValueError(
                explain(
                    f"{method!r} did not come to an end with {'any seed' if seed is None else f'the seed {seed}'}.",
                    given=seed,
                    expected=f"one of {sorted(trials)}" if trials else None,
                )
            )
        chosen = trials[self.middle_seed(method) if seed is None else seed]
        certain = np.eye(len(self.data.classes))[chosen.predicted]
        return report(self.data.labels, certain, self.data.classes, split=self.data.split)

    def middle_seed(self, method: str) -> int:
        """The seed whose accuracy is in the middle, of an even number the lower."""
        ranked = sorted(self.of(method), key=lambda trial: (np.mean(trial.predicted == self.data.labels), trial.seed))
        return ranked[(len(ranked) - 1) // 2].seed

    @property
    def conclusions(self) -> tuple[str, ...]:
        """What follows from the figures, in plain sentences, the most important first."""
        from keras_transfer.study import conclusions

        return conclusions.sentences(self)

    @property
    def negative_transfer(self) -> "tuple[NegativeTransfer, ...]":
        """The bodies with which even the best method is worse, beyond the noise, than without any, or than with
        another; empty where there is none."""
        from keras_transfer.study import conclusions

        return conclusions.negative_transfer(self)

    def __str__(self) -> str:
        from keras_transfer.study import table

        return table.text(self)

    def to_csv(self, path: str | os.PathLike) -> None:
        """Writes one line for each method and seed, those that failed or were left out among them.

        Args:
            path: the file; what was there is replaced, whole or not at all.
        """
        from keras_transfer.study import table

        content = io.StringIO()
        csv.writer(content, lineterminator="\n").writerows(table.lines_of_csv(self))
        _write(path, content.getvalue())

    def to_html(
        self, path: str | os.PathLike, *, title: str = "Methods compared", remarks: str | Sequence[str] = ()
    ) -> None:
        """Writes a page with the table, pictures and conclusions: one file that needs no other and no network.

        Args:
            path: the file; what was there is replaced, whole or not at all.
            title: its heading.
            remarks: what else is to be said about the data, one paragraph each: pitfalls that were found, say.
        """
        from keras_transfer.study import page

        remarks = [remarks] if isinstance(remarks, str) else remarks
        _write(path, page.html_of(self, title=title, remarks=remarks))

    def to_json(self) -> str:
        """Everything as JSON text; `from_json` reads it back."""
        parts = {
            "format": _FORMAT,
            "version": _VERSION,
            "methods": [method.to_dict() for method in self.methods],
            "data": self.data.to_dict(),
            "source": None if self.source is None else dataclasses.asdict(self.source),
            "budget": self.budget,
            "shifts": [dataclasses.asdict(shift) for shift in self.shifts],
            "trials": [trial.to_dict() for trial in self.trials],
        }
        return json.dumps(parts, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Args:
            text: the JSON text itself, not the path of a file.

        Raises:
            ValueError: if it is no comparison, or one of another version.
        """
        try:
            parts = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(explain("This is not JSON.", given=f"{text[:60]!r} ({error})")) from error
        kind = (parts.get("format"), parts.get("version")) if isinstance(parts, dict) else None
        if kind != (_FORMAT, _VERSION):
            raise ValueError(
                explain(
                    "This JSON is not a comparison that this version reads.",
                    given=kind or f"{text[:60]!r}",
                    expected=f"format {_FORMAT!r}, version {_VERSION}",
                )
            )
        return cls(
            [Method.from_dict(method) for method in parts["methods"]],
            [Trial.from_dict(trial) for trial in parts["trials"]],
            Data.from_dict(parts["data"]),
            None if parts["source"] is None else SourceTask(**parts["source"]),
            parts["budget"],
            [Shift(**{**shift, "interval": tuple(shift["interval"])}) for shift in parts["shifts"]],
        )


def _write(path: str | os.PathLike, content: str) -> None:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)

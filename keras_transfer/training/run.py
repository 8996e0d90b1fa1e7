"""What `fit` hands back."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.data.splits import Split, Splits
from keras_transfer.evaluation.language_report import LanguageReport
from keras_transfer.evaluation.report import Report
from keras_transfer.evaluation.wrong_texts import most_wrong_texts
from keras_transfer.plans.plan import Plan
from keras_transfer.training.audit import Audit
from keras_transfer.training.files import write_whole


@dataclasses.dataclass(frozen=True)
class Run:
    """A plan that was carried out: what happened, what moved, how good it is, where the files are.

    Args:
        plan: the plan.
        history: one row per epoch: stage, epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.
        audits: per stage, how far every block moved.
        report: accuracy, F1, confusion and cost on the test split, or on validation where there is none; of a language
            model perplexity and cost.
        probabilities: of the reported split, shape (examples, classes); `None` of a language model.
        workdir: the folder of the run's files, or `None`.
    """

    plan: Plan
    history: Sequence[dict[str, Any]]
    audits: Sequence[Audit]
    report: Report | LanguageReport
    probabilities: np.ndarray | None
    workdir: pathlib.Path | None
    _splits: Splits = dataclasses.field(repr=False)
    _split: Split = dataclasses.field(repr=False)
    _model: keras.Model = dataclasses.field(repr=False)

    def __str__(self):
        return "\n\n".join([str(self.plan), *map(str, self.audits), str(self.report)])

    def plot(self, folder: str | os.PathLike | None = None) -> list[pathlib.Path]:
        """Draws learning curves and, of a classifier, the confusion matrix and what it was most confidently wrong on.

        Args:
            folder: where the files go; `None` takes `plots` in the workdir, or in the current folder without one.

        Returns:
            The paths of the files: PNGs, and for texts those that were taken for another class as a text file.
        """
        from keras_transfer.evaluation import plots

        folder = pathlib.Path(folder) if folder else (self.workdir or pathlib.Path()) / "plots"
        folder.mkdir(parents=True, exist_ok=True)
        curves = folder / "learning_curves.png"
        plots.learning_curves(self.history, curves)
        if self.probabilities is None:
            return [curves]
        confusion = folder / "confusion.png"
        plots.confusion(self.report, confusion)
        return [curves, confusion, self._most_wrong(folder)]

    def _most_wrong(self, folder: pathlib.Path) -> pathlib.Path:
        from keras_transfer.evaluation import plots

        examples = _OnDemand(self._splits, self._split, self._model)
        labels, classes = self._split.labels, self.report.classes
        if isinstance(examples[0], str):
            path = folder / "most_wrong.txt"
            write_whole(path, most_wrong_texts(examples, labels, self.probabilities, classes))
        else:
            path = folder / "most_wrong.png"
            plots.most_wrong(examples, labels, self.probabilities, classes, path)
        return path


class _OnDemand(Sequence):
    """A split's examples, each read when it is asked for: the worst sixteen of a hundred thousand."""

    def __init__(self, splits: Splits, split: Split, model: keras.Model):
        self._splits, self._split, self._model = splits, split, model

    def __len__(self):
        return len(self._split)

    def __getitem__(self, number):
        return self._splits.peek(self._split, [number], self._model)[0]

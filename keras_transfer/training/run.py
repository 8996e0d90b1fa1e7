"""What `fit` hands back."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.data.splits import Split, Splits
from keras_transfer.evaluation.report import Report
from keras_transfer.plans.plan import Plan
from keras_transfer.training.audit import Audit


@dataclasses.dataclass(frozen=True)
class Run:
    """A plan that was carried out: what happened, what moved, how good it is, where the files are.

    Args:
        plan: the plan.
        history: one row per epoch: stage, epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.
        audits: per stage, how far every block moved.
        report: accuracy, F1, confusion and cost on the test split, or on validation where there is none.
        probabilities: of the reported split, shape (examples, classes).
        workdir: the folder of the run's files, or `None`.
    """

    plan: Plan
    history: Sequence[dict[str, Any]]
    audits: Sequence[Audit]
    report: Report
    probabilities: np.ndarray
    workdir: pathlib.Path | None
    _splits: Splits = dataclasses.field(repr=False)
    _split: Split = dataclasses.field(repr=False)
    _model: keras.Model = dataclasses.field(repr=False)

    def __str__(self):
        return "\n\n".join([str(self.plan), *map(str, self.audits), str(self.report)])

    def plot(self, folder: str | os.PathLike | None = None) -> list[pathlib.Path]:
        """Draws learning curves, the confusion matrix and the most confidently wrong pictures.

        Args:
            folder: where the PNGs go; `None` takes `plots` in the workdir, or in the current folder without one.

        Returns:
            The paths of the three files.
        """
        from keras_transfer.evaluation import plots

        folder = pathlib.Path(folder) if folder else (self.workdir or pathlib.Path()) / "plots"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in ("learning_curves.png", "confusion.png", "most_wrong.png")]
        plots.learning_curves(self.history, paths[0])
        plots.confusion(self.report, paths[1])
        plots.most_wrong(
            _PicturesOnDemand(self._splits, self._split, self._model),
            self._split.labels,
            self.probabilities,
            self.report.classes,
            paths[2],
        )
        return paths


class _PicturesOnDemand(Sequence):
    """A split's pictures, each decoded when it is asked for: the worst sixteen of a hundred thousand."""

    def __init__(self, splits: Splits, split: Split, model: keras.Model):
        self._splits, self._split, self._model = splits, split, model

    def __len__(self):
        return len(self._split)

    def __getitem__(self, number):
        return self._splits.peek(self._split, [number], self._model)[0]

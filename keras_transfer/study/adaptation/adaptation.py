"""What an adaptation did, and what can be said of it without labels of the target."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.evaluation.prediction import predict_split
from keras_transfer.formatting import percent, table
from keras_transfer.study.adaptation.measures import Gap, some
from keras_transfer.study.plane import on_a_plane

# Shares that differ by more than this in all (total variation) are named.
UNLIKE = 0.25
# A fall of the source's accuracy by more than this is said.
FALL = 0.02
# Statistics of fewer examples than this are mostly chance.
FEW = 32
SOURCES = {
    "statistics": "AdaBN, Li et al. 2016, arXiv:1603.04779",
    "coral": "Deep CORAL, Sun and Saenko 2016, arXiv:1607.01719",
    "adversarial": "DANN, Ganin et al. 2016, arXiv:1505.07818",
}


@dataclasses.dataclass(frozen=True)
class Look:
    """What was measured of a model at one moment, each domain under its own statistics.

    Attributes:
        gap: what lies between the domains in the features that the head reads, the mean of two halves of the examples.
            Where the domains' statistics are taken, those of each half are of the others: on the examples that they
            are of, domains are alike by construction.
        source_accuracy: on the source's validation split; `None` where it has none.
        shares: of the target's examples, how many were given each class, in the order of the classes.
        said: the class that each of the target's examples was given, int64 of shape (examples,).
        features: of source and target as the head reads them, at most 2,000 of each.
    """

    gap: Gap
    source_accuracy: float | None
    shares: tuple[float, ...]
    said: np.ndarray = dataclasses.field(repr=False, compare=False)
    features: tuple[np.ndarray, np.ndarray] = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Adaptation:
    """A model carried from a domain with labels to one without. `print` it for what is known of it.

    How good it is on the target nobody can say without labels of the target: a smaller gap is no proof.

    Attributes:
        method: `"statistics"`, `"coral"` or `"adversarial"`.
        model: the model that was given, now for the target: a plain `keras.Model`, which saves and predicts by itself.
        steps: what was done, in order.
        before: with the head fitted to the source, and nothing adapted.
        after: as the model is now.
        source_labels: the class of each of the source's training examples, int64 of shape (examples,).
        classes: their names.
        seed: of everything random.
        history: a row for each epoch, of the methods that train.
        notes: what a reader of results should know.
    """

    method: str
    model: keras.Model
    steps: tuple[str, ...]
    before: Look
    after: Look
    source_labels: np.ndarray
    classes: tuple[str, ...]
    seed: int
    history: Sequence[Mapping[str, Any]] = ()
    notes: tuple[str, ...] = ()

    @property
    def source_shares(self) -> tuple[float, ...]:
        """How much of the source's training examples each class has."""
        return shares(self.source_labels, len(self.classes))

    def plot(self, path: str | os.PathLike, *, target_labels: Iterable[int] | None = None) -> pathlib.Path:
        """Draws both domains on one map, before and after: where they lie apart, and which classes meet.

        Args:
            path: the file to write. Its ending says the format.
            target_labels: the class number of each of the target's examples, in their order, where they are known after
                all: rings then have the true colour, and the accuracy is said. If not given, they have the colour of
                what the model says.

        Returns:
            The path.

        Raises:
            ValueError: where there are not as many labels as the target has examples.
        """
        from keras_transfer.evaluation.plots.map import Cloud, draw_map

        true = None if target_labels is None else self._checked(target_labels)
        clouds = []
        for when in ("before", "after"):
            seen: Look = getattr(self, when)
            source, target = seen.features
            rows = [some(count, self.seed) for count in (len(self.source_labels), len(seen.said))]
            groups = np.concatenate([self.source_labels[rows[0]], (seen.said if true is None else true)[rows[1]]])
            right = "" if true is None else f", accuracy {percent(np.mean(seen.said == true))}"
            clouds.append(
                Cloud(
                    f"{when}: proxy A-distance {seen.gap.proxy_a:.2f}{right}",
                    on_a_plane(np.concatenate([source, target]), seed=self.seed),
                    groups,
                    self.classes,
                    hollow=np.repeat([False, True], [len(source), len(target)]),
                )
            )
        facts = "dots: the source, by its labels · rings: the target, by " + (
            "what the model says" if true is None else "labels that the adaptation has not seen"
        )
        return draw_map(clouds, path, title=f"Two domains, before and after {self.method!r}", facts=facts)

    def _checked(self, labels: Iterable[int]) -> np.ndarray:
        labels = np.asarray(list(labels))
        if labels.shape != self.after.said.shape or not np.isin(labels, np.arange(len(self.classes))).all():
            raise ValueError(
                explain(
                    "`target_labels` are not those of the target's examples.",
                    given=f"{len(labels)} labels",
                    expected=f"{len(self.after.said)} numbers from 0 to {len(self.classes) - 1}",
                )
            )
        return labels

    def __str__(self) -> str:
        rows = [["", "before", "after"]]
        rows += [
            [words, _shown(getattr(self.before.gap, name)), _shown(getattr(self.after.gap, name))]
            for name, words in (
                ("means", "distance of the means, in spreads"),
                ("covariances", "difference of the covariances"),
                ("proxy_a", "proxy A-distance, 0 to 2"),
            )
        ]
        if self.before.source_accuracy is not None:
            looks = (self.before, self.after)
            rows.append(["source validation accuracy", *(percent(look.source_accuracy) for look in looks)])
        lines = [f"{self.method} ({SOURCES[self.method]})", *(f"  {step}" for step in self.steps), "", *table(rows), ""]
        shares = zip(self.classes, self.source_shares, self.before.shares, self.after.shares, strict=True)
        lines += table([
            ["class", "of the source", "said of the target, before", "after"],
            *([name, *(percent(share, 0) for share in each)] for name, *each in shares),
        ])  # fmt: skip
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _shown(figure: float) -> str:
    return f"{figure:.3g}"


def look(
    model: keras.Model,
    target: Splits,
    features: tuple[np.ndarray, np.ndarray],
    between: Gap,
    accuracy: float | None,
    *,
    seed: int,
) -> Look:
    """Measures a model that is as it is for the target.

    Args:
        model: a classifier.
        target: the unlabelled domain.
        features: of source and target, as the head reads them.
        between: the gap of the domains.
        accuracy: on the source's validation split.
        seed: of which features are kept.
    """
    said = predict_split(model, target, target.train).argmax(axis=-1)
    kept = tuple(each[some(len(each), seed)] for each in features)
    return Look(between, accuracy, shares(said, model.output_shape[-1]), said, kept)


def accuracy(model: keras.Model, source: Splits) -> float | None:
    """On the source's validation split, where it has one."""
    split = source.validation
    return None if split is None else float(np.mean(predict_split(model, source, split).argmax(-1) == split.labels))


def shares(numbers: np.ndarray, classes: int) -> tuple[float, ...]:
    """How much of some examples each class has.

    Example:

    >>> shares(np.array([0, 0, 2, 0]), 3)
    (0.75, 0.0, 0.25)
    """
    counts = np.bincount(numbers, minlength=classes)
    return tuple((counts / counts.sum()).tolist())


def notes(
    source_shares: Sequence[float], target_shares: Sequence[float], classes: Sequence[str], target_examples: int
) -> tuple[str, ...]:
    """What a reader of results should know.

    Example:

    >>> found = notes((0.5, 0.5), (0.95, 0.05), ("ant", "bee"), 100)
    >>> print(found[1])
    of the target 95 % are taken for 'ant', of the source 50 % are: either the shares differ, or the adaptation failed
    """
    said = [
        "the domains are brought to one distribution, which is right where the classes have the same shares in both; "
        "where they have not, it mixes classes (Zhao et al. 2019, arXiv:1901.09453)"
    ]
    differences = np.subtract(target_shares, source_shares)
    if np.abs(differences).sum() / 2 > UNLIKE:
        worst = int(np.argmax(differences))
        said.append(
            f"of the target {percent(target_shares[worst], 0)} are taken for {classes[worst]!r}, of the source "
            f"{percent(source_shares[worst], 0)} are: either the shares differ, or the adaptation failed"
        )
    if target_examples < FEW:
        said.append(f"{target_examples} examples of the target say little about its statistics")
    return tuple(said)


def still_apart(before: Gap, after: Gap) -> tuple[str, ...]:
    """What is to be said where the domains can be told apart as well as before.

    Example:

    >>> apart, nearer = Gap(1.0, 0.5, 1.8), Gap(0.2, 0.1, 0.6)
    >>> still_apart(apart, nearer)
    ()
    >>> print(*still_apart(nearer, apart))
    the domains are told apart no worse than before (proxy A-distance 0.60, then 1.80): nothing was brought together, \
and the model may be worse on the target than it was
    """
    if not 0 < before.proxy_a <= after.proxy_a:
        return ()
    return (
        f"the domains are told apart no worse than before (proxy A-distance {before.proxy_a:.2f}, then "
        f"{after.proxy_a:.2f}): nothing was brought together, and the model may be worse on the target than it was",
    )


def fall(before: float | None, after: float | None, method: str) -> tuple[str, ...]:
    """What is to be said where the source's validation accuracy fell.

    Example:

    >>> fall(0.79, 0.78, "coral"), fall(None, None, "coral")
    ((), ())
    >>> print(*fall(0.79, 0.70, "coral"))
    on the source's validation split the accuracy fell from 79.0 % to 70.0 %: a lower `weight` would keep more of it
    >>> print(*fall(0.79, 0.70, "statistics"))
    on the source's validation split the accuracy fell from 79.0 % to 70.0 %: batch norms that normalise by the \
source's own training examples lose that much; align="features" leaves them as they were
    """
    if before is None or after is None or before - after <= FALL:
        return ()
    why = "a lower `weight` would keep more of it"
    if method == "statistics":  # which has no weight, and where features alone are aligned nothing falls
        why = (
            "batch norms that normalise by the source's own training examples lose that much; "
            'align="features" leaves them as they were'
        )
    return (f"on the source's validation split the accuracy fell from {percent(before)} to {percent(after)}: {why}",)

"""`clusters` and `neighbours`: what examples without labels have in common."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_transfer.arguments import is_whole
from keras_transfer.errors import explain
from keras_transfer.formatting import percent, table
from keras_transfer.study.plane import on_a_plane, unit

# Beginnings that k-means is tried from; the best is kept.
BEGINNINGS = 10
# Neighbours that are asked for their class.
ASKED = 5
# Pictures of a cluster that are drawn.
SHOWN = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """The examples that are most alike, the nearest first.

    Attributes:
        numbers: of the neighbours, int64 of shape (examples asked for, count).
        similarities: their cosines, -1..1, of the same shape.
    """

    numbers: np.ndarray
    similarities: np.ndarray


def neighbours(features: np.ndarray, queries: np.ndarray | None = None, *, count: int = 5) -> Neighbours:
    """For each example the others that are most like it, by the cosine of their features.

    Args:
        features: what is searched, shape (examples, numbers), for instance of `kt.embed`.
        queries: what is searched for, shape (queries, numbers); if not given, each of `features` among the others.
        count: how many neighbours.

    Raises:
        ValueError: where there are not so many, or the features are none.

    Example:

    >>> found = neighbours(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), count=1)
    >>> found.numbers.tolist(), found.similarities.round(2).tolist()
    ([[1], [0], [1]], [[0.99], [0.99], [0.11]])
    """
    searched = unit(_checked("features", features))
    asked = searched if queries is None else unit(_checked("queries", queries, width=searched.shape[1]))
    _check_count("count", count, 1, len(searched) - (queries is None))
    numbers, similarities = [], []
    for begin in range(0, len(asked), 1024):  # never all pairs at once
        cosines = asked[begin : begin + 1024] @ searched.T
        if queries is None:
            cosines[np.arange(len(cosines)), begin + np.arange(len(cosines))] = -np.inf
        numbers.append(np.argsort(-cosines, axis=1, kind="stable")[:, :count])
        similarities.append(np.take_along_axis(cosines, numbers[-1], axis=1))
    return Neighbours(np.concatenate(numbers), np.concatenate(similarities))


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How well clusters agree with labels that they were made without.

    Attributes:
        purity: share of the examples that are of their cluster's most frequent class. More clusters raise it.
        mutual_information: normalised, 0 (nothing) to 1 (the same division).
        adjusted_rand: of pairs of examples, corrected for chance: 0 is what chance gives, 1 the same division.
        neighbours: of the five nearest of each example, the share that is of its class.
        by_chance: that share where neighbours have nothing to do with classes.
        names: the most frequent class of each cluster, and its share there.
    """

    purity: float
    mutual_information: float
    adjusted_rand: float
    neighbours: float
    by_chance: float
    names: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return (
            f"purity {percent(self.purity)}, normalised mutual information {self.mutual_information:.2f}, "
            f"adjusted Rand index {self.adjusted_rand:.2f}; of five neighbours {percent(self.neighbours)} are of the "
            f"same class (by chance {percent(self.by_chance)})"
        )

    @property
    def in_short(self) -> str:
        """On a line."""
        return (
            f"purity {percent(self.purity, 0)}, mutual information {self.mutual_information:.2f}, adjusted Rand index "
            f"{self.adjusted_rand:.2f} · neighbours of the same class: {percent(self.neighbours, 0)}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
    """Examples in groups that were found without labels; the largest group is number 0.

    Attributes:
        of: the cluster of each example, int64 of shape (examples,).
        features: of each example, at length 1, float64.
        centres: the mean of each cluster, of shape (clusters, numbers).
        silhouette: how much nearer an example is to its own cluster than to the next, -1..1, on average. To be compared
            between counts; what value is good depends on the features.
    """

    of: np.ndarray
    features: np.ndarray
    centres: np.ndarray
    silhouette: float

    def __len__(self) -> int:
        return len(self.centres)

    def __str__(self) -> str:
        rows = [["cluster", "examples", "most typical"]]
        for cluster, size in enumerate(self.sizes):
            rows.append([str(cluster), f"{size:,}", " ".join(f"#{number}" for number in self.typical(cluster))])
        return "\n".join([*table(rows), f"silhouette {self.silhouette:.2f}"])

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many examples each cluster has."""
        return tuple(np.bincount(self.of, minlength=len(self)).tolist())

    def typical(self, cluster: int, count: int = 5) -> list[int]:
        """The numbers of the examples nearest to a cluster's centre."""
        members = np.flatnonzero(self.of == cluster)
        distances = np.linalg.norm(self.features[members] - self.centres[cluster], axis=1)
        return members[np.argsort(distances, kind="stable")[:count]].tolist()

    def agreement(self, labels: Iterable[Any], classes: Sequence[str] | None = None) -> Agreement:
        """How well the clusters agree with labels, where there are some.

        Args:
            labels: one for each example, in their order: names, or numbers.
            classes: the names of the classes, where the labels are numbers.

        Raises:
            ValueError: where there are not as many labels as examples, all are the same, or one is no class.
        """
        from sklearn import metrics

        names, labels = self._names(labels, classes)
        counts = np.zeros((len(self), len(names)))
        np.add.at(counts, (self.of, labels), 1)
        found = neighbours(self.features, count=min(ASKED, len(labels) - 1)).numbers
        shares = counts.max(axis=1) / counts.sum(axis=1)
        return Agreement(
            purity=float(counts.max(axis=1).sum() / len(labels)),
            mutual_information=float(metrics.normalized_mutual_info_score(labels, self.of)),
            adjusted_rand=float(metrics.adjusted_rand_score(labels, self.of)),
            neighbours=float(np.mean(labels[found] == labels[:, None])),
            by_chance=_alike_by_chance(np.bincount(labels)),
            names=tuple(zip([names[most] for most in counts.argmax(axis=1)], shares.tolist(), strict=True)),
        )

    def plot(
        self,
        path: str | os.PathLike,
        *,
        pictures: Sequence[Any] | None = None,
        labels: Iterable[Any] | None = None,
        classes: Sequence[str] | None = None,
        seed: int = 0,
    ) -> pathlib.Path:
        """Draws the map of the examples, by cluster; and beside each cluster its most typical pictures.

        Args:
            path: the file to write. Its ending says the format.
            pictures: of each example, values 0..255, in their order: anything with a length whose items are pictures.
            labels: of each example, where there are some: a second map shows them.
            classes: the names of the classes, where the labels are numbers.
            seed: of the map.

        Returns:
            The path.

        Raises:
            ValueError: where there are not as many pictures or labels as examples.
        """
        from keras_transfer.evaluation.plots.map import Cloud, draw_map

        if pictures is not None and len(pictures) != len(self.of):
            raise ValueError(
                explain(
                    "The pictures are not those of the clustered examples.",
                    given=f"{len(pictures)} pictures",
                    expected=f"{len(self.of)}, in the order of the examples",
                )
            )

        places = on_a_plane(self.features, seed=seed)
        names = [f"cluster {number}" for number in range(len(self))]
        clouds = [Cloud("by cluster, found without labels", places, self.of, names)]
        facts = f"k-means on features of length 1, silhouette {self.silhouette:.2f}"
        if labels is not None:
            of, numbers = self._names(labels, classes)
            clouds = [
                dataclasses.replace(clouds[0], looks=_like_classes(self.of, numbers)),
                Cloud("the same places, by label", places, numbers, of),
            ]
            found = self.agreement(numbers, of)
            names = [f"{number}: {percent(share, 0)} {name}" for number, (name, share) in enumerate(found.names)]
            facts = found.in_short
        strips = []
        if pictures is not None:
            names = [f"{name} ({size:,})" for name, size in zip(names, self.sizes, strict=True)]
            typical = [self.typical(cluster, SHOWN) for cluster in range(len(self))]
            strips = [(name, [pictures[n] for n in some]) for name, some in zip(names, typical, strict=True)]
        title = f"{len(self.of):,} examples in {len(self)} clusters"
        return draw_map(clouds, path, title=title, facts=facts, strips=strips)

    def _names(self, labels: Iterable[Any], classes: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
        """The names of the classes, and each example's number among them."""
        found, numbers = np.unique(np.asarray(list(labels)), return_inverse=True)
        if len(numbers) != len(self.of) or len(found) < 2:
            raise ValueError(
                explain(
                    "The labels are not those of the clustered examples.",
                    given=f"{len(numbers)} labels of {len(found)} classes",
                    expected=f"{len(self.of)} labels of two classes or more",
                )
            )
        if classes is None:
            return [str(name) for name in found], numbers
        outside = [name for name in found.tolist() if not is_whole(name) or not 0 <= name < len(classes)]
        if outside:
            raise ValueError(
                explain(
                    "With `classes`, labels are the numbers of classes.",
                    given=f"{outside[0]!r}, and {len(classes)} classes",
                    expected=f"whole numbers from 0 to {len(classes) - 1}",
                    to_mend="leave `classes` out, where the labels are names",
                )
            )
        return [str(classes[name]) for name in found], numbers


def _like_classes(clusters_of: np.ndarray, classes_of: np.ndarray) -> list[int]:
    """For each cluster the class that it mostly holds, each class once, the fullest first; others get numbers beyond.

    >>> _like_classes(np.array([0, 0, 1, 1, 2]), np.array([1, 1, 0, 1, 0]))
    [1, 0, 2]
    """
    both = np.zeros((clusters_of.max() + 1, classes_of.max() + 1), int)
    np.add.at(both, (clusters_of, classes_of), 1)
    matched: dict[int, int] = {}
    for place in np.argsort(-both, axis=None, kind="stable"):
        cluster, name = divmod(int(place), both.shape[1])
        if cluster not in matched and name not in matched.values():
            matched[cluster] = name
    beyond = itertools.count(both.shape[1])
    return [matched[cluster] if cluster in matched else next(beyond) for cluster in range(len(both))]


def clusters(features: np.ndarray, count: int, *, seed: int = 0) -> Clusters:
    """Divides examples into groups by their features alone: k-means on features of length 1.

    Pictures of one class lie near each other in the features of a good body, so that a few looks name whole groups. No
    label is used, and none is needed; where there are some, `agreement` says how well the groups fit them.

    Not for: finding how many groups there are. k-means divides whatever it is given. `silhouette` is a hint, no more.

    Args:
        features: shape (examples, numbers), for instance of `kt.embed`.
        count: how many groups.
        seed: where k-means begins, ten times over.

    Raises:
        ValueError: where there are fewer examples than groups, or the features are none.

    Example:

    >>> draw = np.random.default_rng(0)
    >>> features = np.repeat([[9.0, 0.0], [0.0, 9.0]], [30, 10], axis=0) + draw.normal(size=(40, 2))
    >>> found = clusters(features, 2)
    >>> found.sizes, found.agreement(["ant"] * 30 + ["bee"] * 10).purity
    ((30, 10), 1.0)
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    features = unit(_checked("features", features))
    _check_count("count", count, 2, len(features) - 1)
    of = KMeans(count, n_init=BEGINNINGS, random_state=seed).fit_predict(features)
    sizes = np.bincount(of, minlength=count)
    if not sizes.all():
        raise ValueError(
            explain(
                "There are fewer different examples than clusters.",
                given=f"{np.count_nonzero(sizes)} different ones",
                expected=f"{count} or more",
            )
        )
    largest_first = np.argsort(-sizes, kind="stable")
    of = np.argsort(largest_first)[of]
    centres = np.stack([features[of == cluster].mean(axis=0) for cluster in range(count)])
    return Clusters(of, features, centres, float(silhouette_score(features, of)))


def _alike_by_chance(counts: np.ndarray) -> float:
    """The share of all pairs of examples that are of one class.

    Example:

    >>> _alike_by_chance(np.array([2, 2]))
    0.3333333333333333
    """
    total = counts.sum()
    return float((counts * (counts - 1)).sum() / (total * (total - 1)))


def _checked(name: str, features: np.ndarray, width: int | None = None) -> np.ndarray:
    features = np.asarray(features)
    fits = features.ndim == 2 and features.size > 0 and np.issubdtype(features.dtype, np.number)
    if not fits or not np.isfinite(features).all() or width not in (None, features.shape[1]):
        infinite = ", not all of them finite" if fits and not np.isfinite(features).all() else ""
        raise ValueError(
            explain(
                f"`{name}` are no features.",
                given=f"shape {features.shape}, {features.dtype}{infinite}",
                expected=f"finite numbers of shape (examples, {'numbers' if width is None else width})",
                to_mend="kt.embed(model, data)",
            )
        )
    return features


def _check_count(name: str, count: int, least: int, most: int) -> None:
    if not isinstance(count, int | np.integer) or not least <= count <= most:
        raise ValueError(
            explain(f"`{name}` is out of range.", given=repr(count), expected=f"a whole number from {least} to {most}")
        )

"""Examples that are there twice, re-encoded or mirrored: found by their features, and believed after a second look."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_transfer.data.decoding import resize
from keras_transfer.data.examples import PictureExamples
from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Divided, Split, Splits
from keras_transfer.study.embedding import features_of
from keras_transfer.study.folds import rebuilt
from keras_transfer.study.transferability import units

# How many of its most similar others an example is compared with.
_NEIGHBOURS = 14
# So alike two examples must look in any case.
_LEAST_LOOK = 0.9
# The side of the small grey pictures of the second look, in pixels.
_SIDE = 32
# So many similarities at a time, and so many pairs to learn from what unrelated ones are like.
_BLOCK, _UNRELATED = 2**24, 2_000


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two examples that are one.

    Attributes:
        one: (split, number) of the first.
        other: (split, number) of the second.
        features: the cosine of their features, from which the mean over all examples has been taken.
        look: how alike the examples themselves are, 1 for the same: correlation of small grey pictures, or the share of
            the three-letter pieces that two texts have in common.
        is_mirrored: whether one is the other's mirror image.
        same_label: whether their labels agree.
    """

    one: tuple[str, int]
    other: tuple[str, int]
    features: float
    look: float
    is_mirrored: bool
    same_label: bool

    @property
    def is_between_splits(self) -> bool:
        """Whether one of them is to judge what has learnt from the other."""
        return self.one[0] != self.other[0]


class Mirrored(PictureExamples):
    """Pictures as a mirror shows them."""

    def __init__(self, examples: PictureExamples) -> None:
        self._examples = examples
        self.class_names = examples.class_names

    def picture(self, number: int, at_least: tuple[int, int] | None = None) -> np.ndarray:
        return self._examples.picture(number, at_least)[:, ::-1]

    def describe(self, number: int) -> str:
        return f"{self._examples.describe(number)}, mirrored"

    def inspect(self, number: int) -> tuple[bytes, str | None]:
        digest, problem = self._examples.inspect(number)
        return mirrored_digest(digest), problem

    def select(self, numbers: Sequence[int]) -> "Mirrored":
        return type(self)(self._examples.select(numbers))


@dataclasses.dataclass(frozen=True)
class _Yardstick:
    """Which neighbours tell what unrelated examples are like, and how far twins must stand out from them.

    Attributes:
        ranks: of those neighbours, the nearest is 0.
        features, looks: so many deviations.
    """

    ranks: slice
    features: float
    looks: float


# The nearest neighbours are twins themselves where each picture is there several times, as in an export that was
# augmented; those from the tenth on are less alike, so that more deviations come to the same. A handful has no tenth.
_FAR, _NEAR = _Yardstick(slice(9, 14), 5.0, 6.0), _Yardstick(slice(1, 3), 2.0, 4.0)
_HANDFUL = 40


def mirrored_digest(digest: bytes) -> bytes:
    """What a mirrored picture is known by."""
    return hashlib.sha256(b"mirrored" + digest).digest()


def near_duplicates(splits: Splits, model: keras.Model, *, flips: bool = True) -> list[Pair]:
    """Pairs of examples, of any splits, that are the same picture or text: the most alike first.

    Re-encoding, resizing and mirroring hardly move the features of a body, so that twins are each other's nearest
    neighbours: every example's nearest are looked at, of the pictures as they are and mirrored. How alike unrelated
    examples are differs from task to task (handwritten digits are all alike), so both measures are held against the
    data's own: the neighbours from the tenth on, of which hardly any are twins, also where each picture is there a few
    times (of fewer than forty examples the second and third). Believed are pairs that stand out in their features, and
    in a second look at the pixels or letters even more.

    Args:
        splits: the data; labels have no say.
        model: its body makes the features.
        flips: whether to look for mirror images, which takes another pass over the pictures.

    Returns:
        The pairs, each once.

    Example:

    >>> import keras_transfer as kt
    >>> x = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), "uint8")
    >>> x[11] = x[0][:, ::-1]
    >>> splits = kt.data.images({"train": (x[:8], [0, 1] * 4), "test": (x[8:], [0, 1] * 2)}, batch_size=4, validation=0)
    >>> model = kt.image_classifier("MobileNet", 2, weights=None, image_size=32, alpha=0.25)
    >>> [(pair.one, pair.other, pair.is_mirrored) for pair in near_duplicates(splits, model)]
    [(('train', 0), ('test', 3), True)]
    """
    places = [(split, number) for split in splits.all for number in range(len(split))]
    plain = np.concatenate([features_of(model, splits, split) for split in splits.all]).astype("float64")
    middle = plain.mean(axis=0)
    look = _Pictures(places) if isinstance(splits, ImageSplits) else _Texts(places)
    own = units(plain - middle)
    compared = [(_neighbours(own, own), False)]
    if flips and isinstance(splits, ImageSplits):
        compared.append((_neighbours(own, units(_mirrored_features(splits, model) - middle)), True))
    unlike = _unlike(compared[0][0], look)
    found: dict[tuple[int, int], Pair] = {}
    for (nearest, similar), is_mirrored in compared:
        for one, column in zip(*np.nonzero(similar >= unlike.features), strict=True):
            other = int(nearest[one, column])
            key = (min(one, other), max(one, other))
            alike = look(*key, is_mirrored)
            if alike >= unlike.look and (key not in found or found[key].look < alike):
                found[key] = _pair(places, key, float(similar[one, column]), alike, is_mirrored)
    return sorted(found.values(), key=lambda pair: -pair.look)


def copies(splits: Splits) -> list[Pair]:
    """Examples that are there twice to the byte, each with the first of its kind: known without a feature.

    Example:

    >>> import keras_transfer as kt
    >>> x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), "uint8")
    >>> splits = kt.data.images({"train": (x, [0, 1] * 3), "test": (x[4:], [0, 1])}, batch_size=4, validation=0)
    >>> [(pair.one, pair.other, pair.same_label) for pair in copies(splits)]
    [(('train', 4), ('test', 0), True), (('train', 5), ('test', 1), True)]
    """
    places = [(split, number) for split in splits.all for number in range(len(split))]
    first: dict[bytes, int] = {}
    found = [(first.setdefault(split.digests[number], at), at) for at, (split, number) in enumerate(places)]
    return [_pair(places, key, 1.0, 1.0, False) for key in found if key[0] < key[1]]


def _mirrored_features(splits: Splits, model: keras.Model) -> np.ndarray:
    def mirrored(split: Split | None) -> Split | None:
        if split is None:
            return None
        return Split(split.name, Mirrored(split.examples), split.classes, list(map(mirrored_digest, split.digests)))

    turned = rebuilt(splits, Divided(*map(mirrored, (splits.train, splits.validation, splits.test))))
    return np.concatenate([features_of(model, turned, split) for split in turned.all]).astype("float64")


def _pair(
    places: Sequence[tuple[Split, int]], key: tuple[int, int], similar: float, alike: float, is_mirrored: bool
) -> Pair:
    (one, first), (other, second) = places[key[0]], places[key[1]]
    same = bool(one.labels[first] == other.labels[second])
    return Pair((one.name, first), (other.name, second), similar, alike, is_mirrored, same)


def _neighbours(own: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of each example's nearest others and how similar they are, the nearest first."""
    count = min(_NEIGHBOURS, len(own) - 1)
    nearest, similar = np.zeros((len(own), count), np.int64), np.zeros((len(own), count))
    step = max(1, _BLOCK // len(own))
    for start in range(0, len(own), step):
        rows = np.arange(start, min(start + step, len(own)))
        block = own[rows] @ others.T
        block[np.arange(len(rows)), rows] = -np.inf
        chosen = np.argpartition(-block, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(block, chosen, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        nearest[rows] = np.take_along_axis(chosen, order, axis=1)
        similar[rows] = np.take_along_axis(values, order, axis=1)
    return nearest, similar


@dataclasses.dataclass(frozen=True)
class _Unlike:
    """What features and look of a pair must reach, not to be those of unrelated examples."""

    features: float
    look: float


def _unlike(neighbours: tuple[np.ndarray, np.ndarray], look: Callable[[int, int, bool], float]) -> _Unlike:
    """From the neighbours of all examples of which hardly any are twins."""
    yardstick = _FAR if len(neighbours[0]) >= _HANDFUL else _NEAR
    first = min(yardstick.ranks.start, neighbours[0].shape[1] - 1)  # of two examples each has one neighbour
    nearest, similar = (found[:, first : yardstick.ranks.stop] for found in neighbours)
    ones = np.repeat(np.arange(len(nearest)), nearest.shape[1])
    some = slice(None, None, max(1, len(ones) // _UNRELATED))
    pairs = zip(ones[some], nearest.ravel()[some], strict=True)
    looks = np.array([look(int(one), int(other), False) for one, other in pairs])
    return _Unlike(
        _standing_out(similar.ravel(), yardstick.features),
        max(_LEAST_LOOK, _standing_out(looks, yardstick.looks)),
    )


def _standing_out(values: np.ndarray, deviations: float) -> float:
    """So many deviations above the middle, both robust, on Fisher's scale, which spreads correlations evenly."""
    scale = np.arctanh(np.clip(values, -0.999999, 0.999999))
    middle = np.median(scale)
    return float(np.tanh(middle + deviations * 1.4826 * np.median(np.abs(scale - middle))))


class _Pictures:
    """How alike two pictures look: the correlation of small grey versions."""

    def __init__(self, places: Sequence[tuple[Split, int]]) -> None:
        self._places, self._small = places, {}

    def __call__(self, one: int, other: int, mirrored: bool) -> float:
        second = self._grey(other)[:, ::-1] if mirrored else self._grey(other)
        return float(np.mean(self._grey(one) * second))

    def _grey(self, place: int) -> np.ndarray:
        """A small grey picture of mean 0 and deviation 1."""
        if place not in self._small:
            split, number = self._places[place]
            grey = resize(split.examples.picture(number, (_SIDE, _SIDE)), (_SIDE, _SIDE)).mean(axis=-1)
            self._small[place] = (grey - grey.mean()) / max(float(grey.std()), 1e-6)
        return self._small[place]


class _Texts:
    """How alike two texts look: the share of their three-letter pieces that they have in common."""

    def __init__(self, places: Sequence[tuple[Split, int]]) -> None:
        self._places, self._pieces = places, {}

    def __call__(self, one: int, other: int, mirrored: bool) -> float:
        del mirrored
        first, second = self._of(one), self._of(other)
        return len(first & second) / max(1, len(first | second))

    def _of(self, place: int) -> frozenset[str]:
        if place not in self._pieces:
            split, number = self._places[place]
            words = " ".join(
                "".join(c if c.isalnum() else " " for c in split.examples.readable(number).lower()).split()
            )
            self._pieces[place] = (
                frozenset(map("".join, itertools.pairwise(words)))
                if len(words) < 3
                else frozenset(words[start : start + 3] for start in range(len(words) - 2))
            )
        return self._pieces[place]

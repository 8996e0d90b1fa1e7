"""What is the matter with the data, by name and with its figure, before anybody trains on them."""

import collections
import dataclasses
import os
import pathlib
import textwrap

import keras
import numpy as np

from keras_transfer.arguments import check_seed
from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Splits
from keras_transfer.errors import explain
from keras_transfer.evaluation.report import interval_of_share
from keras_transfer.formatting import LINE_WIDTH, counted, percent
from keras_transfer.study.arguments import check_labelled
from keras_transfer.study.domain_shift import Shift, shifts_among
from keras_transfer.study.embedding import features_of
from keras_transfer.study.folds import Sample
from keras_transfer.study.near_duplicates import Pair, copies, near_duplicates
from keras_transfer.study.wrong_labels import Suspect, wrong_labels

# Training examples of a class below which nothing that is measured of it can be trusted.
FEW = 10
# The largest class beside the smallest from which accuracy says little of the small ones.
UNEVEN = 3.0


@dataclasses.dataclass(frozen=True)
class Pitfall:
    """Something that was looked for.

    Attributes:
        name: what it is called.
        is_there: whether it was found.
        figure: what was measured.
        to_mend: what to do about it.
    """

    name: str
    is_there: bool
    figure: str
    to_mend: str

    def __str__(self) -> str:
        return f"{self.name}: {self.figure}" + (f". {self.to_mend}" if self.is_there else "")


@dataclasses.dataclass(frozen=True, eq=False)
class Pitfalls:
    """What is the matter with some data. `print` it, and `plot` it to see the examples in question.

    Attributes:
        checks: everything that was looked for.
        pairs: examples that are there twice, the most alike first.
        suspects: examples of train and validation whose labels look wrong, the most confident first.
        shifts: how far splits lie apart.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=10, batch_size=8)
    >>> model = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> found = kt.pitfalls(digits, model, flips=False)
    >>> [check.name for check in found.checks][:2], [shift.other for shift in found.shifts]
    (['too little data per class', 'imbalance'], ['validation', 'test'])
    """

    checks: tuple[Pitfall, ...]
    pairs: tuple[Pair, ...]
    suspects: tuple[Suspect, ...]
    shifts: tuple[Shift, ...]
    _splits: Splits = dataclasses.field(repr=False)

    @property
    def found(self) -> tuple[Pitfall, ...]:
        """What is the matter."""
        return tuple(check for check in self.checks if check.is_there)

    def __str__(self) -> str:
        fine = [check for check in self.checks if not check.is_there]
        lines = ["pitfalls in the data:" if self.found else "pitfalls in the data: none found"]
        lines += [_filled(f"! {check}", "  ") for check in self.found]
        lines += [_filled(f"- no {check}", "  ") for check in fine]
        return "\n".join(lines)

    def where(self, place: tuple[str, int]) -> str:
        """What an example is found by: its file, the line of a table, or its place in an array.

        Args:
            place: split and number, as pairs and suspects have them: `found.where(found.suspects[0].place)`.
        """
        return self._split(place[0]).describe(place[1])

    def plot(self, folder: str | os.PathLike) -> list[pathlib.Path]:
        """Draws the near-duplicates side by side, and the examples whose labels look wrong.

        Args:
            folder: where the files go; it is made where it is missing.

        Returns:
            The paths of the files: PNGs of pictures, text files of texts; none for what was not found.
        """
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not isinstance(self._splits, ImageSplits):
            return self._written(folder)
        from keras_transfer.evaluation.plots.examples import Tile, contact_sheet

        drawn = []
        if self.pairs:
            tiles = [
                [Tile(self._picture(place), place[0], self._label(place), f"#{place[1]}") for place in (p.one, p.other)]
                for p in self.pairs
            ]
            title = f"{len(self.pairs)} {'pair' if len(self.pairs) == 1 else 'pairs'} of near-duplicates"
            drawn.append(contact_sheet(tiles, title, "the most alike first, side by side", folder / "pairs.png"))
        if self.suspects:
            tiles = [
                [Tile(self._picture(s.place), f"like {s.looks_like}", f"is {s.label}", f"{s.place[0]} #{s.place[1]}")]
                for s in self.suspects
            ]
            title = f"{len(self.suspects)} {'label' if len(self.suspects) == 1 else 'labels'} that look wrong"
            drawn.append(contact_sheet(tiles, title, "the most confident first", folder / "labels.png"))
        return drawn

    def _split(self, name: str):
        return next(split for split in self._splits.all if split.name == name)

    def _picture(self, place: tuple[str, int]) -> np.ndarray:
        return self._split(place[0]).examples.picture(place[1])

    def _label(self, place: tuple[str, int]) -> str:
        split = self._split(place[0])
        return split.classes[split.labels[place[1]]]

    def _written(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """The same of texts, as text files."""
        from keras_transfer.training.files import write_whole

        def shown(place: tuple[str, int]) -> str:
            split = self._split(place[0])
            return f"  {self._label(place)}  {self.where(place)}: {split.examples.readable(place[1])}"

        content = {
            "pairs.txt": [f"{p.look:.2f}\n{shown(p.one)}\n{shown(p.other)}" for p in self.pairs],
            "labels.txt": [f"looks like {s.looks_like}\n{shown(s.place)}" for s in self.suspects],
        }
        written = [folder / name for name, parts in content.items() if parts]
        for path in written:
            write_whole(path, "\n\n".join(content[path.name]) + "\n")
        return written


def pitfalls(
    splits: Splits,
    model: keras.Model,
    *,
    source: Splits | None = None,
    flips: bool = True,
    seed: int = 0,
) -> Pitfalls:
    """Looks for what spoils results, in data and labels, with the features of a model's body.

    Too few examples in a class; classes of very different size; near-duplicates between splits and within each, also
    re-encoded or mirrored; labels that look wrong (confident learning, Northcutt et al. 2021); splits unlike each
    other, and, where `source` is given, the target unlike the source (proxy A-distance, Ben-David et al. 2007). Labels
    of the test split have no say.

    Args:
        splits: labelled pictures or texts.
        model: a classifier; its body makes the features, which are kept as those of `kt.fit` are. A better body sees
            more.
        source: what the body learnt on before, or the like of it.
        flips: whether to look for mirror images as well, which takes another pass over the pictures.
        seed: of the folds of cross-validation.

    Returns:
        The `kt.Pitfalls`: print it, and `plot` it.

    Raises:
        ValueError: for data without labels.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=10, batch_size=8)
    >>> model = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> kt.pitfalls(digits, model, flips=False).found[0].name
    'too little data per class'
    """
    check_labelled(splits)
    check_seed(seed)
    if source is not None and not isinstance(source, Splits):
        raise ValueError(
            explain(
                "`source` is no data.", given=type(source).__name__, expected="None, or what kt.data.images returns"
            )
        )
    features = {split.name: features_of(model, splits, split) for split in splits.all}
    pairs = near_duplicates(splits, model, flips=flips)
    suspects = _suspects(splits, features, seed)
    of_source = None if source is None else features_of(model, source, source.train)
    shifts = shifts_among(features, of_source, seed=seed)
    checks = [*_of_class_sizes(splits), *_doubles(pairs), _labels(splits, suspects), *map(_shift, shifts)]
    return Pitfalls(tuple(checks), tuple(pairs), tuple(suspects), tuple(shifts), splits)


def of_the_whole(found: Pitfalls, sample: Sample) -> Pitfalls:
    """What was found in some of the data, said of the whole of them.

    Examples have their numbers in the whole; what labels alone say, and which examples are there twice to the byte, is
    counted on all; of the rest it is said among how many it was looked for.
    """
    if not sample.parts:
        return found
    moved = [dataclasses.replace(p, one=sample.place(p.one), other=sample.place(p.other)) for p in found.pairs]
    known = {(pair.one, pair.other) for pair in moved}
    moved += [pair for pair in copies(sample.whole) if (pair.one, pair.other) not in known]
    pairs = sorted(moved, key=lambda pair: -pair.look)
    suspects = [dataclasses.replace(suspect, place=sample.place(suspect.place)) for suspect in found.suspects]
    among = "; looked for among " + ", ".join(f"{part} of {name}" for name, part in sample.parts.items())
    checks = [
        *_of_class_sizes(sample.whole),
        *_doubles(pairs, among + ", copies to the byte among all"),
        _labels(sample.splits, suspects, among),
        *map(_shift, found.shifts),
    ]
    return Pitfalls(tuple(checks), tuple(pairs), tuple(suspects), found.shifts, sample.whole)


def _of_class_sizes(splits: Splits) -> list[Pitfall]:
    return [_few(splits), _imbalance(splits)]


def _suspects(splits: Splits, features: dict[str, np.ndarray], seed: int) -> list[Suspect]:
    parts = [split for split in (splits.train, splits.validation) if split is not None]
    labels = np.concatenate([split.labels for split in parts])
    places = [(split.name, number) for split in parts for number in range(len(split))]
    together = np.concatenate([features[split.name] for split in parts])
    return wrong_labels(together, labels, places, splits.classes, seed=seed)


def _few(splits: Splits) -> Pitfall:
    counts = splits.train.counts
    name = min(counts, key=lambda one: counts[one])
    figure = f"{counts[name]} training examples of {name!r}, the smallest class"
    judged = splits.validation
    if judged is not None:
        low, high = interval_of_share(round(0.8 * len(judged)), len(judged))
        figure += f"; on {len(judged)} validation examples an accuracy of 80 % may be {percent(low)} to {percent(high)}"
    return Pitfall("too little data per class", counts[name] < FEW, figure, "Collect more of it, or freeze the body")


def _imbalance(splits: Splits) -> Pitfall:
    counts = splits.train.counts
    largest, smallest = max(counts, key=lambda one: counts[one]), min(counts, key=lambda one: counts[one])
    ratio = counts[largest] / max(1, counts[smallest])
    figure = f"{ratio:.1f} times as many of {largest!r} as of {smallest!r}"
    figure = f"{counts[largest]} training examples of each class" if counts[largest] == counts[smallest] else figure
    figure += f"; always saying {largest!r} is right in {percent(counts[largest] / len(splits.train))} of train"
    mend = 'kt.fit(…, class_weight="balanced"), and go by macro-F1'
    return Pitfall("imbalance", ratio > UNEVEN, figure, mend)


def _doubles(pairs: list[Pair], among: str = "") -> list[Pitfall]:
    between = [pair for pair in pairs if pair.is_between_splits]
    within = [pair for pair in pairs if pair.one[0] == pair.other[0] == "train"]
    judging = [pair for pair in pairs if pair.one[0] == pair.other[0] != "train"]
    where = ", ".join(sorted({f"{pair.one[0]} and {pair.other[0]}" for pair in between}))
    # Of two splits the later one is there to judge, and flatters.
    spoilt = collections.Counter(name for name, _ in {pair.other for pair in between})
    judged = " and ".join(f"{spoilt[name]} of {name}" for name in sorted(spoilt))
    figure = counted(len(between), "pair") + (f", of {where}: they spoil {judged}" if between else "")
    disagree = sum(not pair.same_label for pair in within)
    return [
        Pitfall(
            "near-duplicates between splits",
            bool(between),
            figure + among,
            "What is measured there flatters the model: take them out of one of the two",
        ),
        Pitfall(
            "near-duplicates within train",
            bool(within),
            counted(len(within), "pair") + (f", {disagree} of them with two labels" if disagree else "") + among,
            "They count twice, and cross-validation flatters: keep one of each",
        ),
        Pitfall(
            "near-duplicates within validation or test",
            bool(judging),
            counted(len(judging), "pair")
            + (f", of {' and '.join(sorted({pair.one[0] for pair in judging}))}" if judging else "")
            + among,
            "They count twice in every figure, whose interval is too narrow: keep one of each",
        ),
    ]


def _labels(splits: Splits, suspects: list[Suspect], among: str = "") -> Pitfall:
    total = sum(len(split) for split in (splits.train, splits.validation) if split is not None)
    figure = f"{len(suspects)} of {total} ({percent(len(suspects) / total)})"
    if suspects:
        first = suspects[0]
        figure += f"; the surest is {first.place[0]} #{first.place[1]}, {first.label!r}, like {first.looks_like!r}"
    return Pitfall(
        "labels that look wrong",
        bool(suspects),
        figure + among,
        "Look at them: `plot` draws them, `where` names their files",
    )


def _shift(shift: Shift) -> Pitfall:
    mend = {
        ("source", "target"): "Features of the source miss what matters here: fine-tune, or adapt",
        ("train", "validation"): "Choices made on validation will not suit what was trained on: divide the data anew",
        ("validation", "test"): "Choices made on validation will not suit the test: hold out what is like it",
        ("train", "test"): "What is learnt from train may not hold on the test: train on what is like it, or adapt",
    }[shift.one, shift.other]
    return Pitfall(f"{shift.other} unlike {shift.one}", shift.is_notable, str(shift), mend)


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(text, LINE_WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")

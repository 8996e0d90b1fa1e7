"""From what a source holds to train, validation and test: all of it looked at, what is missing held out."""

import dataclasses
import hashlib
import numbers
import warnings
from collections.abc import Sequence

from keras_transfer.data.examples import Examples
from keras_transfer.data.scanning import Problem, refuse, scan
from keras_transfer.data.sources import SPLITS, WHOLE, Found, in_order
from keras_transfer.data.splits import Divided, Split
from keras_transfer.errors import explain


def check_settings(validation: float, test: float, seed: int, on_bad: str, name_of_on_bad: str = "on_bad_file") -> None:
    """Refuses settings that mean nothing, before any file is read.

    Raises:
        ValueError: a part is not from 0 to below 1, the seed no whole number from 0, or `on_bad` not known.

    Example:

    >>> check_settings(0.2, 0.0, seed=0, on_bad="error")
    """
    for name, fraction in (("validation", validation), ("test", test)):
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction < 1:
            expected = "a number from 0 to below 1"
            raise ValueError(explain(f"`{name}` is no part of the data.", given=repr(fraction), expected=expected))
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(explain("`seed` is no seed.", given=repr(seed), expected="a whole number from 0"))
    if on_bad not in ("error", "skip"):
        expected = "'error' or 'skip'"
        raise ValueError(explain(f"`{name_of_on_bad}` is not known.", given=repr(on_bad), expected=expected))


def divided(
    found: Found,
    *,
    validation: float,
    test: float,
    seed: int,
    skip: bool = False,
    to_skip: str = 'on_bad_file="skip"',
    per_class: int | None = None,
) -> Divided:
    """Looks at all that was found, leaves out what is broken or refuses it, and holds out what splits are missing.

    Args:
        found: what a source holds.
        validation: the part of each class to take off train where there is no validation.
        test: the part to take off before, where there is no test.
        seed: decides what is held out.
        skip: whether to leave out what cannot be read.
        to_skip: the setting that says so, for the error.
        per_class: how many examples of each class stay to train and validate on, once the test is taken off.

    Raises:
        ValueError: a problem remains; all of them are listed.
    """
    if test and "test" in found.splits:
        raise ValueError(
            explain(
                "The source has a test split, and `test` asks for another.",
                given=f"test={test}",
                expected="test=0: a test split is used as it is",
            )
        )
    if not {"train", WHOLE} & set(found.splits):
        raise ValueError(
            explain(
                "There is no split to train on.",
                given=", ".join(found.splits) or "nothing",
                expected="train, and validation and test if there are such",
                to_mend="give what is to be trained on as {'train': …, 'test': …}",
            )
        )
    good, skipped = _without_the_broken(found, skip, to_skip)
    present = set(good["train"].class_names) if found.is_labelled else set()
    known = [name for name in found.classes or () if name in present]
    classes = (*known, *in_order(present - set(known)))
    notes = list(found.notes)
    for name, fraction in (("test", test), ("validation", validation)):
        if name == "validation" and per_class is not None:
            good["train"] = _few_of_each(good["train"], per_class, seed)
        if fraction and name not in good:
            leave = 2 if name == "test" and validation and "validation" not in good else 1
            good["train"], good[name] = _held_out(good["train"], fraction, name, seed, leave)
            of_what = "of each class, " if found.is_labelled else ""
            notes.append(f"{name} is {100 * fraction:g} % {of_what}taken off train")
    splits = {name: Split(name, kept.examples, classes, kept.digests) for name, kept in good.items()}
    if all(name.isdecimal() for name in classes) and classes != tuple(map(str, range(len(classes)))):
        notes.append(f"the classes are numbers that do not count from 0: output 0 of a model is class {classes[0]!r}")
    if found.is_labelled:
        notes += _two_labels(splits["train"])
    notes += _shared_with_train(splits)
    return Divided(*(splits.get(name) for name in SPLITS), tuple(notes), tuple(skipped))


@dataclasses.dataclass(frozen=True)
class _Kept:
    """Examples that are sound, with the digest of each."""

    examples: Examples
    digests: Sequence[bytes]

    @property
    def class_names(self) -> Sequence[str]:
        return self.examples.class_names

    @property
    def noun(self) -> str:
        return self.examples.noun

    def select(self, numbers: Sequence[int]) -> "_Kept":
        return _Kept(self.examples.select(numbers), [self.digests[number] for number in numbers])


def _without_the_broken(found: Found, skip: bool, to_skip: str) -> tuple[dict[str, _Kept], list[str]]:
    broken = list(found.problems)
    good = {}
    for name, examples in found.splits.items():
        digests, problems = scan(examples)
        broken += problems.values()
        sound = [number for number in range(len(examples)) if number not in problems]
        good["train" if name == WHOLE else name] = _Kept(examples, digests).select(sound)
    lacking = _classes_lacking(found, good) if found.is_labelled else []
    fatal = _classes_not_to_be_learnt(good) if found.is_labelled else []
    noun = good["train"].noun
    fatal += [Problem(split, f"has no {noun} at all") for split, kept in good.items() if not len(kept.examples)]
    if not skip:
        mend = "put it right" + (f", or leave it out: {to_skip}" if broken or lacking else "")
        refuse([*broken, *lacking, *fatal], noun=noun, to_mend=mend)
    refuse(fatal, noun=noun, to_mend="put it right; this cannot be left out")
    skipped = [str(problem) for problem in [*broken, *lacking]]
    if skipped:
        counted = f"Bad {noun}s left out: {len(broken)}. Classes empty or missing in a split: {len(lacking)}."
        warnings.warn("\n  ".join([counted, *skipped]), stacklevel=4)
    return good, skipped


def _classes_lacking(found: Found, good: dict[str, _Kept]) -> list[Problem]:
    lacking = []
    for split, declared in found.declared.items():
        of, kept = ("", good["train"]) if split == WHOLE else (f" of {split}", good[split])
        empty = declared - set(kept.class_names)
        lacking += [Problem(f"class {name!r}{of}", f"has no {kept.noun} that can be read") for name in sorted(empty)]
        missing = set(good["train"].class_names) - declared
        lacking += [Problem(f"class {name!r}{of}", "is missing, and train has it") for name in sorted(missing)]
    return lacking


def _classes_not_to_be_learnt(good: dict[str, _Kept]) -> list[Problem]:
    learnt = set(good["train"].class_names)
    fatal = [
        Problem(f"class {name!r} of {split}", "is not in train, so no model can learn it")
        for split, kept in good.items()
        for name in sorted(set(kept.class_names) - learnt)
    ]
    if len(learnt) == 1:
        fatal.append(Problem("train", f"has one class only, {next(iter(learnt))!r}; at least two can be told apart"))
    return fatal


def _ranked(kept: _Kept, seed: int) -> dict[str, list[list[int]]]:
    """Per class its examples in an order drawn by (seed, content), whatever their files are called; equals together."""
    by_class: dict[str, dict[bytes, list[int]]] = {}
    for number, (name, digest) in enumerate(zip(kept.class_names, kept.digests, strict=True)):
        by_class.setdefault(name, {}).setdefault(digest, []).append(number)

    def drawn(digest: bytes) -> bytes:
        return hashlib.sha256(b"%d " % seed + digest).digest()

    return {name: [groups[digest] for digest in sorted(groups, key=drawn)] for name, groups in sorted(by_class.items())}


def _held_out(kept: _Kept, fraction: float, name: str, seed: int, leave: int) -> tuple[_Kept, _Kept]:
    """What stays and what is held out of each class: one at least is held out, `leave` stay, equals go together."""
    held: set[int] = set()
    too_few = []
    for class_name, groups in _ranked(kept, seed).items():
        if len(groups) <= leave:
            reason = f"has {len(groups)} different {kept.noun}s, and to hold one out for {name} takes {leave + 1}"
            too_few.append(Problem(f"class {class_name!r}" if class_name else "train", reason))
        wanted, taken = max(1, round(fraction * sum(map(len, groups)))), 0
        for group in groups[:-leave]:
            if taken < wanted:
                held.update(group)
                taken += len(group)
    refuse(
        too_few,
        noun=kept.noun,
        to_mend=f"give it more {kept.noun}s, or a {name} split of your own, or hold none out: {name}=0",
    )
    stays = [number for number in range(len(kept.examples)) if number not in held]
    return kept.select(stays), kept.select(sorted(held))


def _few_of_each(kept: _Kept, per_class: int, seed: int) -> _Kept:
    chosen: list[int] = []
    for class_name, groups in _ranked(kept, seed).items():
        numbers = [number for group in groups for number in group]
        if not isinstance(per_class, int) or not 1 <= per_class <= len(numbers):
            raise ValueError(
                explain(
                    "There are not that many examples of each class.",
                    given=f"per_class={per_class}",
                    expected=f"from 1 to {len(numbers)}, what class {class_name!r} has beside the test split",
                )
            )
        chosen += numbers[:per_class]
    return kept.select(sorted(chosen))


def _two_labels(train: Split) -> list[str]:
    labels: dict[bytes, int] = {}
    clashes = [
        number
        for number, digest in enumerate(train.digests)
        if labels.setdefault(digest, train.labels[number]) != train.labels[number]
    ]
    if not clashes:
        return []
    return [
        f"{len(clashes)} {train.examples.noun}s of train are there a second time, byte for byte, with another label;"
        f" the first is {train.describe(clashes[0])}"
    ]


def _shared_with_train(splits: dict[str, Split]) -> list[str]:
    trained = set(splits["train"].digests)
    notes = []
    for name, split in splits.items():
        shared = [number for number, digest in enumerate(split.digests) if digest in trained]
        if name != "train" and shared:
            notes.append(
                f"{len(shared)} of the {len(split)} {split.examples.noun}s of {name} are in train too, byte for byte,"
                f" so what is measured there flatters the model; the first is {split.describe(shared[0])}"
            )
    return notes

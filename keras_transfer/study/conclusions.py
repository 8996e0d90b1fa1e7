"""What a comparison shows, in plain sentences: what transfer was worth, which methods differ, what they cost."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from keras_transfer.formatting import duration, listed, percent
from keras_transfer.study.intervals import Estimate, level_said

if TYPE_CHECKING:
    from keras_transfer.study.comparison import Comparison, Row

_LEVEL = 0.95
# A method that is cheaper is worth a word where it is so little behind.
_NEAR = 0.02


@dataclasses.dataclass(frozen=True)
class NegativeTransfer:
    """A body that is worse to begin with than none, or than another, beyond the noise.

    Attributes:
        body: its name; empty where one body was compared only.
        method: the best method with it.
        better: the method that does better: from scratch, or with another body.
        difference: how much more accurate that is; `None` where the two have no seed in common.
    """

    body: str
    method: str
    better: str
    difference: Estimate | None


def sentences(comparison: "Comparison") -> tuple[str, ...]:
    """What follows from the figures, the most important first."""
    if not comparison.rows:
        return ("No run came to an end, so nothing can be said.", *_missing(comparison))
    found = [*_transfer(comparison), *_ranking(comparison), *_forgetting(comparison)]
    found += [*_shifts(comparison), *_missing(comparison)]
    once = [quoted(row.method.name) for row in comparison.rows if len(row.by_seed) == 1]
    if once:
        who = "Each method" if len(once) == len(comparison.rows) else listed(once)
        caveat = f"{who} ran with one seed only: what is said holds of these models, and how much another seed would"
        found.insert(1, f"{caveat} change is not known.")
    return tuple(found)


def negative_transfer(comparison: "Comparison") -> tuple[NegativeTransfer, ...]:
    """The bodies with which even the best method is worse, beyond the noise, than without any or than with another."""
    rivals = [*_against_scratch(comparison), *_against_bodies(comparison)]
    return tuple(rival for rival in rivals if rival.difference and rival.difference.low > 0)


def best(rows: Sequence["Row"]) -> "Row":
    """The row with the highest accuracy, of equals the quickest.

    Methods that came to an end with fewer seeds than others come behind these: which seeds break off is no chance, and
    the mean of those that are left flatters.
    """
    return max(rows, key=lambda row: (len(row.by_seed), row.accuracy.value, -row.seconds))


def quoted(name: str) -> str:
    """A method's name within a sentence, of which it may well be a part."""
    return f"“{name}”"


def size(count: int) -> str:
    """A number of bytes for people to read, small ones too.

    Example:

    >>> size(812), size(25_600), size(9_437_184)
    ('812 B', '25 KiB', '9.0 MiB')
    """
    if count < 2**10:
        return f"{count} B"
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"


def points(share: float, *, sign: bool = False) -> str:
    """A difference of shares in points, a hundredth each.

    Example:

    >>> points(0.034), points(0.034, sign=True), points(-0.01)
    ('3.4', '+3.4', '-1.0')
    """
    return f"{100 * share:{'+' if sign else ''}.1f}"


def interval(estimate: Estimate) -> str:
    """The interval of a difference, in points.

    Example:

    >>> interval(Estimate(0.05, 0.01, 0.09, 100))
    '95 % interval 1.0 to 9.0 points'
    """
    return f"{level_said(estimate.level)} interval {points(estimate.low)} to {points(estimate.high)} points"


def level(methods: int) -> float:
    """Of the interval of each difference, so that those of all pairs hold together in 95 of 100 cases (Bonferroni).

    Which method is the best was seen on the examples that it is compared on. The difference between it and another
    could as well have been that of any two, so every pair counts and not the one that is looked at alone. It is the
    same in all that is said of a comparison, so that no two sentences judge one pair differently.

    Args:
        methods: how many are compared.

    Example:

    >>> round(level(2), 4), round(level(5), 4)
    (0.95, 0.995)
    """
    return 1 - (1 - _LEVEL) / max(1, math.comb(methods, 2))


def _difference(comparison: "Comparison", first: str, second: str) -> Estimate | None:
    return comparison.difference(first, second, level=level(len(comparison.rows)))


def _against_scratch(comparison: "Comparison") -> Iterator[NegativeTransfer]:
    """For each body its best method against the best from scratch, and how much better the latter is."""
    scratch = [row for row in comparison.rows if not row.method.transfers]
    if scratch:
        rival = best(scratch).method.name
        for row in _best_of_bodies(comparison):
            difference = _difference(comparison, rival, row.method.name)
            yield NegativeTransfer(row.method.body, row.method.name, rival, difference)


def _against_bodies(comparison: "Comparison") -> Iterator[NegativeTransfer]:
    """For each body but the best its best method against that of the best, and how much better the latter is."""
    rows = _best_of_bodies(comparison)
    if len(rows) > 1:
        first = best(rows)
        for row in rows:
            if row is not first:
                difference = _difference(comparison, first.method.name, row.method.name)
                yield NegativeTransfer(row.method.body, row.method.name, first.method.name, difference)


def _best_of_bodies(comparison: "Comparison") -> "list[Row]":
    """Of each body that something is transferred from the best row."""
    by_body: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.method.transfers:
            by_body.setdefault(row.method.body, []).append(row)
    return [best(rows) for rows in by_body.values()]


def _transfer(comparison: "Comparison") -> list[str]:
    """What beginning with each body was worth, against none and against the best of them."""
    return [*map(_worth, _against_scratch(comparison)), *map(_worth_beside, _against_bodies(comparison))]


def _worth(rival: NegativeTransfer) -> str:
    scratch, other, difference = quoted(rival.better), quoted(rival.method), rival.difference
    if difference is None:
        return f"What transfer was worth is not known: {other} and {scratch} have no seed in common."
    if difference.low > 0:
        return (
            f"Negative transfer: {scratch}, which does without the pretrained weights, is {points(difference.value)} "
            f"points more accurate than {other}, the best method that begins with them ({interval(difference)})."
        )
    turned = -difference
    if turned.low > 0:
        return (
            f"Transfer helped: {other} is {points(turned.value)} points more accurate than {scratch} "
            f"({interval(turned)})."
        )
    return (
        f"What transfer was worth is open: there is no difference beyond the noise between {other} and {scratch} "
        f"({points(turned.value, sign=True)} points, {interval(turned)})."
    )


def _worth_beside(rival: NegativeTransfer) -> str:
    body, better, other = quoted(rival.body), quoted(rival.better), quoted(rival.method)
    difference = rival.difference
    if difference is None:
        return f"Whether {body} is the worse to begin with is not known: {better} and {other} have no seed in common."
    if difference.low > 0:
        return (
            f"Negative transfer beside another body: {better} is {points(difference.value)} points more accurate than "
            f"{other}, the best that begins with {body} ({interval(difference)})."
        )
    if difference.high < 0:
        return _better_where_both_ended(rival.method, rival.better, -difference)
    return (
        f"No difference beyond the noise between {better} and {other}, the best that begins with {body} "
        f"({_points_apart(difference)})."
    )


def _ranking(comparison: "Comparison") -> list[str]:
    """Which method is the best, and which of the others it is above beyond the noise."""
    first = best(comparison.rows)
    name, accuracy = quoted(first.method.name), first.accuracy
    rest = [row for row in comparison.rows if row is not first]
    if not rest:
        sure = f"95 % interval {percent(accuracy.low)} to {percent(accuracy.high)}"
        alone = f"{name} alone came to an end: it" if len(comparison.methods) > 1 else name
        return [f"{alone} is right on {percent(accuracy.value)} ({sure})."]
    known = {row.method.name: _difference(comparison, first.method.name, row.method.name) for row in rest}
    differences = {other: difference for other, difference in known.items() if difference is not None}
    worse = [other for other, difference in differences.items() if difference.low > 0]
    better = [other for other, difference in differences.items() if difference.high < 0]
    alike = [row for row in rest if row.method.name in differences and row.method.name not in (*worse, *better)]
    is_highest = all(row.accuracy.value <= accuracy.value for row in rest)
    where = "The highest accuracy" if is_highest else "The highest accuracy of those that ended with most seeds"
    sentence = f"{where} is that of {name}, {percent(accuracy.value)}"
    sentence += f"; beyond the noise it is above {listed(list(map(quoted, worse)))}." if worse else "."
    found = [sentence]
    found += [_better_where_both_ended(other, first.method.name, -differences[other]) for other in better]
    if alike:
        shown = [f"{quoted(row.method.name)} ({_points_apart(differences[row.method.name])})" for row in alike]
        found.append(f"No difference beyond the noise between {name} and {listed(shown)}.")
        near = [row for row in alike if differences[row.method.name].value <= _NEAR]
        found += _cheaper(comparison, first, near)
    return found


def _better_where_both_ended(one: str, other: str, difference: Estimate) -> str:
    return (
        f"With the seeds that both ended with, {quoted(one)} is {points(difference.value)} points more accurate than "
        f"{quoted(other)} ({interval(difference)})."
    )


def _cheaper(comparison: "Comparison", first: "Row", near: Sequence["Row"]) -> list[str]:
    """Which of the methods that are hardly behind the best costs less, where one costs a good deal less."""
    smallest = min([first, *near], key=lambda row: row.stored_bytes)
    said: dict[str, list[str]] = {}
    seconds = _seconds(comparison, [first, *near])
    if first.method.name in seconds:
        quickest, slow = min(seconds, key=seconds.get), seconds[first.method.name]
        if seconds[quickest] < 0.8 * slow:
            time = f"trains in {duration(seconds[quickest])} instead of {duration(slow)}"
            said.setdefault(quoted(quickest), []).append(time)
    if smallest.stored_bytes < 0.8 * first.stored_bytes:
        space = f"leaves {size(smallest.stored_bytes)} to store per task instead of {size(first.stored_bytes)}"
        said.setdefault(quoted(smallest.method.name), []).append(space)
    cheaper = [f"{name} {' and '.join(facts)}" for name, facts in said.items()]
    return [f"At most {points(_NEAR)} points behind it, {'; '.join(cheaper)}."] if cheaper else []


def _seconds(comparison: "Comparison", rows: Sequence["Row"]) -> dict[str, float]:
    """By the name of a method its mean seconds of training, of the trials that made no features.

    What is made of the data once and shared is paid by whoever runs first, which says nothing of a method. One of which
    no trial was seen to make none is left out.
    """
    found = {}
    for row in rows:
        alone = [trial.seconds for trial in comparison.of(row.method.name) if trial.made_features is False]
        if alone:
            found[row.method.name] = statistics.mean(alone)
    return found


def _points_apart(found: Estimate) -> str:
    """Example:

    >>> _points_apart(Estimate(0.05, -0.01, 0.11, 100))
    '5.0 points apart, 95 % interval -1.0 to 11.0'
    """
    ends = f"{points(found.low)} to {points(found.high)}"
    return f"{points(found.value)} points apart, {level_said(found.level)} interval {ends}"


def _shifts(comparison: "Comparison") -> list[str]:
    """Where splits are unlike, and in any case how far the target lies from the source."""
    return [
        f"Domain shift between {shift.one} and {shift.other}: {shift}."
        for shift in comparison.shifts
        if shift.is_notable or shift.one == "source"
    ]


def _forgetting(comparison: "Comparison") -> list[str]:
    known = [row for row in comparison.rows if row.lost is not None]
    if not known:
        return []
    source = comparison.source
    parts = [f"{quoted(row.method.name)} {points(row.lost)}" for row in sorted(known, key=lambda row: row.lost)]
    return [
        f"On the source task the pretrained body has {percent(source.accuracy)} by {source.judged_by} ({source.split}, "
        f"{source.examples:,} examples; chance is {percent(source.chance)}). Points of it that are lost: "
        f"{', '.join(parts)}."
    ]


def _missing(comparison: "Comparison") -> list[str]:
    found = []
    for trial in comparison.failed:
        found.append(f"{quoted(trial.method)} with seed {trial.seed} {trial.problem}")
    left_out = dict.fromkeys((trial.method, trial.problem) for trial in comparison.left_out)
    return found + [f"{quoted(method)} was {problem}" for method, problem in left_out]

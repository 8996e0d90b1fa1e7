"""What a comparison shows, in plain sentences: what transfer was worth, which methods differ, what they cost."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from keras_transfer.evaluation.formatting import duration, percent
from keras_transfer.study.intervals import Estimate

if TYPE_CHECKING:
    from keras_transfer.study.comparison import Comparison, Row

_LEVEL = 0.95


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
    if all(len(row.by_seed) == 1 for row in comparison.rows):
        found.append("Each method ran with one seed only: how much another seed would change is not known.")
    return tuple(found)


def negative_transfer(comparison: "Comparison") -> tuple[NegativeTransfer, ...]:
    """The bodies with which even the best method is worse, beyond the noise, than without any or than with another."""
    rivals = [*_against_scratch(comparison), *_against_bodies(comparison)]
    return tuple(rival for rival in rivals if rival.difference and rival.difference.low > 0)


def best(rows: Sequence["Row"]) -> "Row":
    """The row with the highest accuracy, of equals the quickest."""
    return max(rows, key=lambda row: (row.accuracy.value, -row.seconds))


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
    return f"{100 * estimate.level:.3g} % interval {points(estimate.low)} to {points(estimate.high)} points"


def _against_scratch(comparison: "Comparison") -> Iterator[NegativeTransfer]:
    """For each body its best method against the best from scratch, and how much better the latter is."""
    scratch = [row for row in comparison.rows if not row.method.transfers]
    if scratch:
        rival = best(scratch).method.name
        for row in _best_of_bodies(comparison):
            difference = comparison.difference(rival, row.method.name)
            yield NegativeTransfer(row.method.body, row.method.name, rival, difference)


def _against_bodies(comparison: "Comparison") -> Iterator[NegativeTransfer]:
    """For each body but the best its best method against that of the best, and how much better the latter is."""
    rows = _best_of_bodies(comparison)
    if len(rows) > 1:
        first = best(rows)
        rival, level = first.method.name, 1 - (1 - _LEVEL) / (len(rows) - 1)
        for row in rows:
            if row is not first:
                difference = comparison.difference(rival, row.method.name, level=level)
                yield NegativeTransfer(row.method.body, row.method.name, rival, difference)


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
    return (
        f"No difference beyond the noise between {better} and {other}, the best that begins with {body} "
        f"({_points_apart(difference)})."
    )


def _ranking(comparison: "Comparison") -> list[str]:
    first = best(comparison.rows)
    rest = [row for row in comparison.rows if row is not first]
    if not rest:
        return []
    # Bonferroni: of many comparisons with the best, one would else seem to differ by chance.
    level = 1 - (1 - _LEVEL) / len(rest)
    differences = {
        row.method.name: comparison.difference(first.method.name, row.method.name, level=level) for row in rest
    }
    worse = [name for name, found in differences.items() if found is not None and found.low > 0]
    alike = [row for row in rest if row.method.name not in worse and differences[row.method.name] is not None]
    sentence = f"The highest accuracy is that of {quoted(first.method.name)}, {percent(first.accuracy.value)}"
    sentence += f"; beyond the noise it is above {_listed(list(map(quoted, worse)))}." if worse else "."
    found = [sentence]
    if alike:
        shown = [f"{quoted(row.method.name)} ({_points_apart(differences[row.method.name])})" for row in alike]
        found.append(f"No difference beyond the noise between {quoted(first.method.name)} and {_listed(shown)}.")
        found += _cheaper(first, alike)
    return found


def _cheaper(first: "Row", alike: Sequence["Row"]) -> list[str]:
    """Which of the methods that are as good as the best costs less, where one costs a good deal less."""
    quickest = min([first, *alike], key=lambda row: row.seconds)
    smallest = min([first, *alike], key=lambda row: row.stored_bytes)
    time = f"trains in {duration(quickest.seconds)} instead of {duration(first.seconds)}"
    space = f"leaves {size(smallest.stored_bytes)} to store per task instead of {size(first.stored_bytes)}"
    said: dict[str, list[str]] = {}
    if quickest.seconds < 0.8 * first.seconds:
        said.setdefault(quoted(quickest.method.name), []).append(time)
    if smallest.stored_bytes < 0.8 * first.stored_bytes:
        said.setdefault(quoted(smallest.method.name), []).append(space)
    cheaper = [f"{name} {' and '.join(facts)}" for name, facts in said.items()]
    return [f"Of these, {'; '.join(cheaper)}."] if cheaper else []


def _points_apart(found: Estimate) -> str:
    """Example:

    >>> _points_apart(Estimate(0.05, -0.01, 0.11, 100))
    '5.0 points apart, interval -1.0 to 11.0'
    """
    return f"{points(found.value)} points apart, interval {points(found.low)} to {points(found.high)}"


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


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    Example:

    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

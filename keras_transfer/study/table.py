"""A comparison as a table: for the terminal, for the page and as CSV."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_transfer.data.splits import table
from keras_transfer.formatting import LINE_WIDTH, counted, cut_apart, percent, score_text
from keras_transfer.study.conclusions import best, level, points, quoted, size
from keras_transfer.study.intervals import level_said

if TYPE_CHECKING:
    from keras_transfer.study.comparison import Comparison, Row

_LONGEST_NAME = 20
# With fewer examples of a class than these one of them moves its F1 far, which intervals of the first order do not see.
_FEW = 10


def text(comparison: "Comparison") -> str:
    """Heading, table, what follows from it, and how it was measured."""
    lines = body(comparison)
    names = cut_apart([cells[0] for cells in lines], _LONGEST_NAME)
    rows = [head(comparison), *([name, *cells[1:]] for name, cells in zip(names, lines, strict=True))]
    parts = [heading(comparison), "\n".join(table(rows))]
    parts.append("\n".join(textwrap.fill(line, LINE_WIDTH, subsequent_indent="  ") for line in comparison.conclusions))
    parts.append("\n".join(textwrap.fill(line, LINE_WIDTH, subsequent_indent="  ") for line in footnotes(comparison)))
    return "\n\n".join(parts)


def heading(comparison: "Comparison") -> str:
    """What was compared on what."""
    data, seeds = comparison.data, len(comparison.seeds)
    return (
        f"{counted(len(comparison.methods), 'method')}, {counted(seeds, 'seed')}, measured on {len(data.labels):,} "
        f"{data.split} examples of {len(data.classes)} classes, {data.counts['train']:,} to train on"
    )


def head(comparison: "Comparison") -> list[str]:
    """The names of the columns."""
    cells = ["method", "accuracy", "95 %", "macro-F1", "95 %", "epochs", "trainable", "to store", "seconds", "memory"]
    return cells + ["lost"] * (comparison.source is not None) + ["seeds"]


def body(comparison: "Comparison") -> list[list[str]]:
    """A line for each method in their order; one without any figure says so."""
    rows = {row.method.name: row for row in comparison.rows}
    width = len(head(comparison))
    lines = []
    for method in comparison.methods:
        if method.name in rows:
            lines.append(_line(comparison, rows[method.name]))
        else:
            why = {trial.problem.split(":")[0] for trial in comparison.trials if trial.method == method.name}
            lines.append([method.name, min(why), *[""] * (width - 3), "0"])
    return lines


def _line(comparison: "Comparison", row: "Row") -> list[str]:
    accuracy, f1 = row.accuracy, row.macro_f1
    cells = [
        row.method.name,
        percent(accuracy.value),
        f"{points(accuracy.low)}–{points(accuracy.high)}",
        score_text(f1.value),
        f"{f1.low:.2f}–{f1.high:.2f}",
        f"{row.epochs:.3g}",
        f"{row.trainable_parameters:,}",
        size(row.stored_bytes),
        f"{row.seconds:,.1f}",
        "–" if row.memory_bytes is None else size(row.memory_bytes),
    ]
    if comparison.source is not None:
        cells.append("–" if row.lost is None else points(row.lost))
    return [*cells, _seeds(comparison, row)]


def _seeds(comparison: "Comparison", row: "Row") -> str:
    done, asked = len(row.by_seed), len(comparison.seeds)
    return f"{done}" if done == asked else f"{done} of {asked}"


def footnotes(comparison: "Comparison") -> Iterator[str]:
    """What a reader must know to read the figures rightly."""
    if comparison.budget:
        yield f"Budget: {comparison.budget}."
    intervals = "Intervals in the table: 95 %, over seeds and examples together (infinitesimal jackknife over examples,"
    intervals += " Student's t over seeds)."
    if len(comparison.rows) > 1:
        each = level_said(level(len(comparison.rows)))
        intervals += f" Differences between methods are paired by seed and example; their intervals are of {each}, so"
        intervals += " that those of all pairs hold together in 95 of 100 cases (Bonferroni)."
    yield intervals
    fewest = int(np.bincount(comparison.data.labels, minlength=len(comparison.data.classes)).min())
    if fewest < _FEW:
        yield (
            f"There is a class of which only {fewest} {comparison.data.split} examples were asked about: its F1 can "
            "jump, and intervals of macro-F1 are rather too narrow."
        )
    if comparison.data.split != "test":
        yield "There was no test split: what is measured on validation flatters methods that choose by it."
    else:
        yield "No run chose anything by the test split; but the best of several methods on it is a little flattered."
    makers = [trial for trial in comparison.trials if trial.made_features]
    computed = ", ".join(f"{quoted(trial.method)} (seed {trial.seed})" for trial in makers)
    others = ("the other runs" if makers else "every run") + " found them there, computed their own, or used none"
    unseen = [trial for trial in comparison.trials if trial.is_done and trial.made_features is None]
    if unseen:
        runs = ", ".join(f"{quoted(trial.method)} (seed {trial.seed})" for trial in unseen)
        others += f", but for {runs}, of which that was not seen: broken off, and gone on with"
    within = f"that time is in {computed}; " if makers else ""
    shared = "Features of frozen layers that are kept on disk are computed once and shared"
    yield f"Seconds of training, mean over seeds. {shared}: {within}{others}."
    yield (
        "Memory: the most of the host's that a run added to what the process held, least over seeds. To store: weights "
        "that differ from the pretrained ones, the head's among them."
    )


def best_name(comparison: "Comparison") -> str | None:
    """The method with the highest accuracy, for whoever marks it; `None` where none came to an end."""
    return best(comparison.rows).method.name if comparison.rows else None


def lines_of_csv(comparison: "Comparison") -> Iterator[Sequence[object]]:
    """A head, then a line for each method and seed."""
    from keras_transfer.study import intervals

    yield (
        "method", "seed", "split", "accuracy", "macro_f1", "trainable_parameters", "stored_bytes", "seconds",
        "memory_bytes", "made_features", "source_accuracy", "problem",
    )  # fmt: skip
    labels, classes = comparison.data.labels, len(comparison.data.classes)
    for trial in comparison.trials:
        if not trial.is_done:
            yield (trial.method, trial.seed, comparison.data.split, *[""] * 8, trial.problem)
            continue
        predicted = trial.predicted[None]
        yield (
            trial.method, trial.seed, comparison.data.split,
            float(intervals.accuracy(labels, predicted).values[0]),
            float(intervals.macro_f1(labels, predicted, classes).values[0]),
            trial.trainable_parameters, trial.stored_bytes, round(trial.seconds, 3), _or_empty(trial.memory_bytes),
            _or_empty(trial.made_features), _or_empty(trial.source_accuracy), "",
        )  # fmt: skip


def _or_empty(value: object) -> object:
    return "" if value is None else value

"""A comparison as one HTML page that needs nothing else: no network, no other file, no script."""

import base64
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_transfer.formatting import percent
from keras_transfer.study import intervals, table
from keras_transfer.study.conclusions import points

if TYPE_CHECKING:
    from keras_transfer.study.comparison import Comparison, Row

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --muted: #5b6773; --rule: #dde3e9; --band: #f5f7fa; --blue: #0b5fa5; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3rem 0 .25rem; letter-spacing: -.01em; }
p { margin: .4rem 0; max-width: 46rem; }
.muted, figcaption { color: var(--muted); font-size: .9rem; }
.finding { border-left: 4px solid var(--blue); background: var(--band); border-radius: 0 6px 6px 0;
  margin: 1.75rem 0 1rem; padding: 1rem 1.4rem; font-size: 1.2rem; line-height: 1.45; max-width: none; }
.findings { margin: 0; padding-left: 1.2rem; max-width: 56rem; }
.findings li { margin: .35rem 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin-top: .75rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .5rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
thead th { color: var(--muted); font-weight: 500; font-size: .84rem; vertical-align: bottom; }
tbody th, thead th:first-child { text-align: left; }
tbody th { font-weight: 500; white-space: normal; min-width: 9rem; max-width: 20rem; overflow-wrap: anywhere; }
tr.best { background: var(--band); } tr.best th, tr.best td.accuracy { font-weight: 700; }
td.words { text-align: left; color: var(--muted); }
td small { display: block; color: var(--muted); font-weight: 400; font-size: .8rem; line-height: 1.2; }
svg.interval { display: block; width: 130px; height: 18px; }
figure { margin: .25rem 0 0; } section > figure { margin-left: -1.4rem; }
figure img { max-width: 100%; height: auto; display: block; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(470px, 100%), 1fr)); gap: 1.75rem 1.5rem; }
.pair figcaption { font-weight: 600; color: var(--ink); overflow-wrap: anywhere; }
details { margin-top: .6rem; } summary { cursor: pointer; color: var(--blue); }
pre { background: var(--band); padding: .9rem 1.1rem; border-radius: 6px; overflow-x: auto; font-size: .82rem; }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
@media print { main { padding: 0; } figure, tr { break-inside: avoid; } }
"""
# Pictures have 150 dots to the inch, a page 96 pixels.
_PIXELS_PER_DOT = 96 / 150


def html_of(comparison: "Comparison", *, title: str, remarks: Sequence[str] = ()) -> str:
    """The page, as text.

    Args:
        comparison: what is shown.
        title: the heading.
        remarks: what else is to be said about the data, a paragraph each.
    """
    parts = [*_findings(comparison), *_table(comparison)]
    if comparison.rows:
        parts += [*_costs(comparison), *_curves(comparison), *_classes(comparison), *_confusions(comparison)]
    parts += [*_data(comparison, remarks), *_measured(comparison)]
    return "\n".join([
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body><main>",
        f"<header><h1>{escape(title)}</h1>",
        f'<p class="muted">{escape(table.heading(comparison))}</p></header>',
        *parts,
        "</main></body>",
        "</html>",
        "",
    ])  # fmt: skip


def _findings(comparison: "Comparison") -> Iterator[str]:
    first, *others = comparison.conclusions
    yield f'<section id="findings"><p class="finding">{escape(first)}</p>'
    if others:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in others)
        yield f'<ul class="findings">{items}</ul>'
    yield "</section>"


def _table(comparison: "Comparison") -> Iterator[str]:
    heads = ["method", "accuracy", "", "macro-F1", "epochs", "trainable numbers", "to store", "seconds", "memory"]
    heads += ["lost of the source"] * (comparison.source is not None) + ["seeds"]
    yield '<section id="table"><h2>Figures</h2><div class="wide"><table>'
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    yield f"<thead><tr>{cells}</tr></thead><tbody>"
    rows = {row.method.name: row for row in comparison.rows}
    best = table.best_name(comparison)
    for cells in table.body(comparison):
        name, row = cells[0], rows.get(cells[0])
        kind = ' class="best"' if name == best else ""
        yield f'<tr{kind}><th scope="row">{escape(name)}</th>'
        if row is None:
            yield f'<td class="words" colspan="{len(heads) - 2}">{escape(cells[1])}</td><td>0</td></tr>'
            continue
        accuracy, its_interval, f1, of_f1, *others = cells[1:]
        yield f'<td class="accuracy">{escape(accuracy)}<small>{escape(its_interval)}</small></td>'
        yield f"<td>{_bar(row, comparison.rows)}</td><td>{escape(f1)}<small>{escape(of_f1)}</small></td>"
        yield "".join(f"<td>{escape(cell)}</td>" for cell in others) + "</tr>"
    words = "Below accuracy and macro-F1: 95 % intervals. Dots in the bars: each seed."
    yield f'</tbody></table></div><p class="muted">{words}</p></section>'


def _bar(row: "Row", every: Sequence["Row"]) -> str:
    """The interval as a line between the ends of all intervals, its middle and each seed as dots."""
    least = min(min(one.accuracy.low, *one.by_seed.values()) for one in every)
    most = max(max(one.accuracy.high, *one.by_seed.values()) for one in every)
    span = most - least or 1.0

    def at(value: float) -> float:
        return round(6 + 118 * (value - least) / span, 1)

    low, high, middle = map(at, (row.accuracy.low, row.accuracy.high, row.accuracy.value))
    seeds = "".join(f'<circle cx="{at(value)}" cy="9" r="2" fill="#8a96a3"/>' for value in row.by_seed.values())
    return (
        f'<svg class="interval" viewBox="0 0 130 18" role="img" aria-label="{escape(points(row.accuracy.low))} to '
        f'{escape(points(row.accuracy.high))}"><line x1="{low}" y1="9" x2="{high}" y2="9" stroke="#9dbfdd" '
        f'stroke-width="5" stroke-linecap="round"/>{seeds}<circle cx="{middle}" cy="9" r="4" fill="#0b5fa5"/></svg>'
    )


def _costs(comparison: "Comparison") -> Iterator[str]:
    from keras_transfer.evaluation import plots
    from keras_transfer.evaluation.plots.methods import Point

    marks = [
        Point(
            row.method.name,
            row.accuracy.value,
            row.accuracy.low,
            row.accuracy.high,
            row.seconds,
            row.stored_bytes,
        )
        for row in comparison.rows
    ]
    picture = _picture(
        lambda path: plots.accuracy_against_cost(marks, path), "Accuracy of each method against its cost"
    )
    yield f'<section id="cost"><h2>Accuracy against cost</h2><figure>{picture}</figure></section>'


def _curves(comparison: "Comparison") -> Iterator[str]:
    from keras_transfer.evaluation import plots

    histories = {
        row.method.name: [trial.history for trial in comparison.of(row.method.name)] for row in comparison.rows
    }
    picture = _picture(lambda path: plots.method_curves(histories, path), "Accuracy over the epochs, method by method")
    yield f'<section id="curves"><h2>Learning curves</h2><figure>{picture}</figure></section>'


def _classes(comparison: "Comparison") -> Iterator[str]:
    """Differences class by class between the two methods with the highest accuracy."""
    from keras_transfer.evaluation import plots

    ranked = sorted(comparison.rows, key=lambda row: -row.accuracy.value)
    if len(ranked) < 2 or comparison.difference(ranked[0].method.name, ranked[1].method.name) is None:
        return
    first, second = (row.method.name for row in ranked[:2])
    differences = class_differences(comparison, first, second)
    picture = _picture(
        lambda path: plots.class_differences(differences, first, second, path),
        f"Recall of each class, {first} against {second}",
    )
    words = f"{first}, the most accurate, against {second}, the next."
    yield (
        f'<section id="classes"><h2>Class by class</h2><p class="muted">{escape(words)} Of many classes, one in twenty '
        f"lies outside its interval by chance.</p><figure>{picture}</figure></section>"
    )


def class_differences(comparison: "Comparison", first: str, second: str) -> list:
    """How much more of each class one method finds than another, over the seeds that both have."""
    from keras_transfer.evaluation.plots.methods import ClassDifference

    one, other = ({trial.seed: trial.predicted for trial in comparison.of(name)} for name in (first, second))
    shared = [seed for seed in one if seed in other]
    found = []
    for number, name in enumerate(comparison.data.classes):
        of_class = np.flatnonzero(comparison.data.labels == number)
        if not len(of_class):
            continue
        labels = comparison.data.labels[of_class]
        scores = [intervals.accuracy(labels, np.array([of[seed][of_class] for seed in shared])) for of in (one, other)]
        estimate = scores[0].minus(scores[1]).estimate().within(-1, 1)
        found.append(ClassDifference(name, estimate.value, estimate.low, estimate.high))
    return found


def _confusions(comparison: "Comparison") -> Iterator[str]:
    from keras_transfer.evaluation import plots

    yield '<section id="confusion"><h2>What is taken for what</h2>'
    yield '<p class="muted">Of each method the run whose accuracy is in the middle.</p><div class="pair">'
    for row in sorted(comparison.rows, key=lambda row: -row.accuracy.value):
        name = row.method.name
        found, seed = comparison.report(name), comparison.middle_seed(name)
        words = f"Confusion matrix of {name}, accuracy {percent(found.accuracy)}"
        picture = _picture(lambda path, found=found: plots.confusion(found, path), words)
        yield f"<figure><figcaption>{escape(name)}, seed {seed}</figcaption>{picture}</figure>"
    yield "</div></section>"


def _data(comparison: "Comparison", remarks: Sequence[str]) -> Iterator[str]:
    data = comparison.data
    counts = ", ".join(f"{count:,} {name}" for name, count in data.counts.items())
    yield f'<section id="data"><h2>The data</h2><p>{escape(counts)}; {len(data.classes)} classes.</p>'
    shifts = [f"{shift.one} and {shift.other}: {shift}" for shift in comparison.shifts]
    yield from (f"<p>{escape(words)}</p>" for words in (*data.notes, *shifts, *remarks))
    yield f'<p class="muted">fingerprint {escape(data.fingerprint[:16])}</p></section>'


def _measured(comparison: "Comparison") -> Iterator[str]:
    yield '<section id="measured"><h2>How it was measured</h2>'
    yield from (f"<p>{escape(words)}</p>" for words in table.footnotes(comparison))
    plans = "\n\n".join(f"[{method.name}]\n{method.plan}" for method in comparison.methods)
    yield f"<details><summary>The plans</summary><pre>{escape(plans)}</pre></details></section>"
    words = f"Written by keras_transfer on Keras {keras.__version__}, {keras.backend.backend()} backend."
    yield f'<footer class="muted">{escape(words)}</footer>'


def _picture(draw: Callable[[pathlib.Path], object], words: str) -> str:
    """An image that holds its own content.

    Args:
        draw: writes a PNG to a path.
        words: what it shows, for whoever cannot see it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "picture.png"
        draw(path)
        content = path.read_bytes()
    # The header of a PNG: https://www.w3.org/TR/png/#11IHDR
    width, height = (round(int.from_bytes(content[place : place + 4]) * _PIXELS_PER_DOT) for place in (16, 20))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f'<img src="{source}" width="{width}" height="{height}" alt="{escape(words)}">'

"""Where a graph can be cut: the stretches between the points at which few tensors are alive."""

import dataclasses
from collections.abc import Sequence

from keras_transfer.backbones.graph import Part

_WIDEST = 4  # T5's decoder carries three: its state, its position bias, the encoder's output
_MANY = 8  # weighted layers, in a stretch worth a second look


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a flattened graph.

    Attributes:
        parts: its steps, bottom to top.
        cut: the numbers of the tensors that are alive above it: all that the parts above need of it and of those below.
    """

    parts: tuple[Part, ...]
    cut: tuple[int, ...]

    def __add__(self, upper: "Segment") -> "Segment":
        return Segment(self.parts + upper.parts, upper.cut)


def segments(parts: Sequence[Part], above: Sequence[Part] = ()) -> list[Segment]:
    """Cuts a graph wherever one tensor alone is alive.

    Inputs, and what is computed from them without weights (a padding mask), are not counted: they can be had anywhere.
    Where that leaves a large part of the graph in one piece, it is cut where two are alive, then three, four: NASNet's
    cells read the last two, T5 carries a position bias. Such a cut lies only above a step that needs all that was alive
    at the cut below it, which keeps it from falling inside a cell.

    Args:
        parts: steps in an order in which they can be computed.
        above: the steps that come after them, which say what is still needed.

    Example:

    >>> import keras
    >>> from keras_transfer.backbones import graph
    >>> x = inputs = keras.Input((4,))
    >>> x = keras.layers.Dense(4, name="low")(x)
    >>> x = keras.layers.Add(name="sum")([x, keras.layers.Dense(4, name="branch")(x)])
    >>> [[part.name for part in segment.parts] for segment in segments(graph.flatten(keras.Model(inputs, x)).parts)]
    [['low'], ['branch', 'sum']]
    """
    if not parts:
        return []
    last_use = {number: place for place, part in enumerate([*parts, *above]) for number in part.inputs}
    counted: set[int] = set()
    for part in parts:
        if part.weighted or counted.intersection(part.inputs):
            counted.update(part.outputs)
    many = max(_MANY, _weight(parts) // 3)
    return _cut(parts, 0, (), 1, last_use, counted, many)


def _cut(parts, start, alive_below, width, last_use, counted, many) -> list[Segment]:
    """Segments of `parts`, the first of which has the place `start` in the whole graph."""
    found, begin = [], 0
    alive = dict.fromkeys(alive_below)
    needs = {number: {number} for number in alive_below}  # what each tensor needs of those alive at the last cut
    below = alive_below
    for place, part in enumerate(parts):
        reached = set().union(*(needs.get(number, ()) for number in part.inputs))
        made = [number for number in part.outputs if number in counted]
        needs.update(dict.fromkeys(made, reached))
        alive.update(dict.fromkeys(made))
        alive = {number: None for number in alive if last_use.get(number, -1) > start + place}
        is_new = any(number in alive for number in made)
        is_last = place == len(parts) - 1
        if is_last or (is_new and len(alive) <= width and reached.issuperset(below)):
            segment = Segment(tuple(parts[begin : place + 1]), tuple(alive) or part.outputs)
            found += _recut(segment, start + begin, below, width, last_use, counted, many)
            begin, below = place + 1, tuple(alive)
            needs = {number: {number} for number in alive}
    return found


def _recut(segment, start, alive_below, width, last_use, counted, many) -> list[Segment]:
    """The segment, or finer ones where it is large and a wider cut divides it into three or more."""
    if _weight(segment.parts) <= many or width == _WIDEST:
        return [segment]
    finer = _cut(segment.parts, start, alive_below, width + 1, last_use, counted, many)
    return finer if len(finer) > 2 else [segment]


def _weight(parts: Sequence[Part]) -> int:
    return sum(len(part.layers) for part in parts if part.weighted)

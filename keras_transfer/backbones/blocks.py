"""Blocks: how a body is spoken of, bottom to top, found from the model's own graph."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal, overload

import keras

from keras_transfer import state
from keras_transfer.backbones import graph, hub, naming
from keras_transfer.backbones.segments import Segment, segments
from keras_transfer.errors import explain, nearest
from keras_transfer.formatting import counted, table_with_total


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A part of a model that is frozen, woken and given a rate as one.

    Attributes:
        name: unique in its model, made of the names of its layers.
        layers: its layers at the bottom, bottom to top: none holds another, unless it has weights of its own as well.
            Those without weights (dropout, activations) are among them.
        variables: its weights, moving statistics included, in the order of `model.variables`.
        output_shape: the shape of what leaves it, batch first.
        cut: the tensors that all blocks above it compute from, next to the model's inputs. They belong to the graph of
            `Blocks.body_model`, so that `keras.Model(body_model.inputs, block.cut)` is the body up to here (to that of
            the whole model in the head, and in what lies below a nested body). Empty where the block ends in a layer.
        ratio: its share of the learning rate in the model's optimizer; lowest and highest where its variables differ;
            `None` where the optimizer has none.
    """

    name: str
    layers: tuple[keras.Layer, ...]
    variables: tuple[keras.Variable, ...]
    output_shape: tuple[int | None, ...]
    cut: tuple[keras.KerasTensor, ...]
    ratio: float | tuple[float, float] | None

    @property
    def output(self) -> keras.KerasTensor | None:
        """The one tensor that leaves the block, a place to cut the model; `None` where there is not exactly one."""
        return self.cut[0] if len(self.cut) == 1 else None

    @property
    def parameters(self) -> int:
        """How many numbers its weights are."""
        return sum(math.prod(variable.shape) for variable in self.variables)

    @property
    def trainable(self) -> bool | Literal["partly"]:
        """Whether its weights train: all that can, none, or some of them."""
        could = {id(variable) for layer in self.layers for variable in state.own_trainable_variables(layer)}
        does = {id(variable) for layer in self.layers for variable in layer.trainable_variables}
        return "partly" if 0 < len(could & does) < len(could) else bool(could & does)

    def __repr__(self) -> str:
        return f"<Block {self.name!r}: {len(self.layers)} layers, {self.parameters:,} parameters>"


class Blocks(Sequence[Block]):
    """The blocks of a model, bottom to top, the head last. Printed, they are a table.

    Attributes:
        model: the model.
        body: the blocks below the head.
        head: all that comes above the body, or `None` where the model is a bare body.
        body_model: the model whose graph the cuts of the body belong to: the nested body, or the model itself.

    Example:

    >>> pixels = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3, name="upper")(keras.layers.Conv2D(4, 3, name="lower")(pixels))
    >>> found = blocks(keras.Model(pixels, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))))
    >>> found.names, found["lower"].parameters
    (('lower', 'upper', 'head'), 112)
    """

    def __init__(
        self, model: keras.Model, body: Sequence[Block], head: Block | None, *, body_model: keras.Model
    ) -> None:
        self.model = model
        self.body = tuple(body)
        self.head = head
        self.body_model = body_model

    @property
    def names(self) -> tuple[str, ...]:
        """The names, bottom to top."""
        return tuple(block.name for block in self)

    @overload
    def __getitem__(self, key: int | str) -> Block: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Block]: ...
    def __getitem__(self, key):
        if isinstance(key, str):
            return self._named(key, "blocks(model)")
        every = self.body if self.head is None else (*self.body, self.head)
        return every[key]

    def __len__(self) -> int:
        return len(self.body) + (self.head is not None)

    def __iter__(self) -> Iterator[Block]:
        yield from self.body
        if self.head is not None:
            yield self.head

    def select(self, wanted: str | Sequence[str], *, argument: str = "select") -> list[Block]:
        """The blocks that are meant, bottom to top, each once.

        Args:
            wanted: `"head"`; `"all"`; `"top:2"`, the upper two blocks of the body; a block's name; or several of these.
            argument: where the words come from, for the error.

        Raises:
            ValueError: where a word names nothing, or more blocks than there are.

        Example:

        >>> x = inputs = keras.Input((8,))
        >>> for name in ("low", "middle", "top", "head"):
        ...     x = keras.layers.Dense(4, name=name)(x)
        >>> [block.name for block in blocks(keras.Model(inputs, x)).select(["top:2", "head"])]
        ['middle', 'top', 'head']
        """
        words = [wanted] if isinstance(wanted, str) else list(wanted)
        if not words:
            raise ValueError(explain(f"`{argument}` names no block.", given=repr(wanted), expected="at least one"))
        chosen = {id(block) for word in words for block in self._meant(word, argument)}
        return [block for block in self if id(block) in chosen]

    def _meant(self, word: str, argument: str) -> Sequence[Block]:
        if word == "all":
            return list(self)
        if isinstance(word, str) and word.startswith("top:"):
            return self._top(word, argument)
        return [self._named(word, argument)]

    def _top(self, word: str, argument: str) -> Sequence[Block]:
        count = word.removeprefix("top:").strip()
        if not count.isdecimal() or not 1 <= int(count) <= len(self.body):
            raise ValueError(
                explain(
                    f"`{argument}` asks for blocks that {self.body_model.name} does not have.",
                    given=repr(word),
                    expected=f"'top:1' to 'top:{len(self.body)}', counted from the top of the body, the head left out",
                )
            )
        return self.body[-int(count) :]

    def _named(self, word: str, argument: str) -> Block:
        for block in self:
            if block.name == word:
                return block
        holder = next((block.name for block in self if any(layer.name == word for layer in block.layers)), None)
        found = holder or nearest(str(word), [*self.names, "all"])
        message = explain(
            f"`{argument}` names a block that {self.body_model.name} does not have.",
            given=repr(word),
            nearest=None if found is None else repr(found) + (", the block that holds this layer" if holder else ""),
        )
        names = [block.name for block in self.body]
        shown = names if len(names) < 8 else [*names[:2], "…", *names[-2:]]
        raise ValueError(
            f"{message}\n  its blocks, bottom to top: {', '.join(shown)}" + ("; and head" if self.head else "; no head")
        )

    def __str__(self) -> str:
        return _table(self)

    __repr__ = __str__


def blocks(model: keras.Model) -> Blocks:
    """The blocks of a model: its body bottom to top, then the head.

    They are found from the graph, so any functional model works: a body, a body with a head on it, flat or nested, a
    `Sequential`. Every layer with weights is in exactly one block. The cuts between blocks are points where one tensor
    alone is alive, so that what lies below a block is a function of the input alone.

    The head is what comes above the body. Where the body is a nested model, that is all outside it; in a flat model it
    is what follows the last pooling or flattening, or the last layer where there is none. A bare body has no head, nor
    has a language model, whose last layer is as pretrained as the others.

    Args:
        model: a built functional or `Sequential` model. It is not changed.

    Raises:
        ValueError: where the model has no graph to be read, or holds weights outside it.

    Example:

    >>> body = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.35)
    >>> len(blocks(body)), blocks(body).names[:4]
    (19, ('Conv1', 'expanded_conv', 'block_1', 'block_2'))
    >>> print(blocks(body).select("top:1")[0])
    <Block 'Conv_1': 3 layers, 148,480 parameters>
    """
    flat = graph.flatten(model)
    body = _body(model)
    below, above = _parts(flat, model, body)
    named = naming.named_blocks(segments(below, above), flat.shapes) if _hold_weights(below) else []
    # A head whose only weights are the body's (the embedding turned round, say) is part of the body; and so is that of
    # a model that writes, which was pretrained with it.
    if named and (hasattr(model, "generate") or not _hold_weights(above, beside=below)):
        name, highest = named[-1]
        named[-1] = name, Segment((*highest.parts, *above), highest.cut)
        above = []
    make = _Maker(model, body, flat)
    found = [make(name, segment.parts, segment.cut) for name, segment in named]
    head = None
    if above:
        loose = () if named else below  # a head that stands on the pixels themselves
        head = make("head", (*loose, *above), above[-1].outputs)
    make.check_complete()
    return Blocks(model, found, head, body_model=body)


def _body(model: keras.Model) -> keras.Model:
    """The innermost nested model that holds at least half of the weighted layers; the model itself where none does.

    A body of KerasHub is one however it is built: what PaliGemma sees with is a model inside of it, and no body alone.
    """
    half = _size(model) / 2
    body = model
    while not hub.is_body(body):
        nested = [step.operation for step in graph.steps(body) if graph.has_graph(step.operation)]
        larger = max(nested, key=_size, default=None)
        if larger is None or _size(larger) < half:
            return body
        body = larger
    return body


def _size(model: keras.Model) -> int:
    return sum(bool(state.own_variables(layer)) for layer in graph.leaves(model))


def _parts(flat: graph.Flat, model: keras.Model, body: keras.Model) -> tuple[list[graph.Part], list[graph.Part]]:
    """The parts of the body, with what lies below it; and the parts of the head."""
    if body is model:
        place = _end_of_flat_body(flat, model)
        return flat.parts[:place], flat.parts[place:]
    inside = [body in part.within for part in flat.parts]
    needed = {number for part, is_inside in zip(flat.parts, inside, strict=True) if is_inside for number in part.inputs}
    below = []
    for part, is_inside in zip(reversed(flat.parts), reversed(inside), strict=True):
        if is_inside or needed.intersection(part.outputs):
            needed.update(part.inputs)
            below.append(part)
    below.reverse()
    kept = set(below)
    return below, [part for part in flat.parts if part not in kept]


def _hold_weights(parts: Sequence[graph.Part], *, beside: Sequence[graph.Part] = ()) -> bool:
    """Whether parts have weights, those of `beside` left out."""
    known = {id(layer) for part in beside for layer in part.layers}
    return any(state.own_variables(layer) for part in parts for layer in part.layers if id(layer) not in known)


def _end_of_flat_body(flat: graph.Flat, model: keras.Model) -> int:
    """The place at which the head of a flat model begins: behind its last part where there is none."""
    parts = flat.parts
    weighted = [place for place, part in enumerate(parts) if part.weighted]
    if not weighted or any(len(tensor.shape) > 2 for tensor in model.outputs):
        return len(parts)
    place = 0
    begins = None
    for segment in segments(parts):
        place += len(segment.parts)
        last = segment.parts[-1]
        if len(segment.cut) == 1 and _pools(last, flat) and weighted[0] < place <= weighted[-1]:
            begins = place if last.weighted else place - 1
    if begins is not None:
        return begins
    pooled = any(_pools(part, flat) for part in parts[weighted[-1] :])
    return len(parts) if pooled else weighted[-1]


def _pools(part: graph.Part, flat: graph.Flat) -> bool:
    """Whether a part takes away places, in pictures or in sequences."""
    if "Global" in type(part.operation).__name__:
        return True
    before = max((len(flat.shapes[number]) for number in part.inputs if number in flat.shapes), default=0)
    return before > 2 and all(len(flat.shapes[number]) <= 2 for number in part.outputs)


class _Maker:
    """Makes blocks of parts, giving each layer and each variable to the first that asks."""

    def __init__(self, model: keras.Model, body: keras.Model, flat: graph.Flat) -> None:
        self.model, self.body, self.flat = model, body, flat
        self.order = {id(variable): identity.position for identity, variable in state.walk(model)}
        self.taken: set[int] = set()

    def __call__(self, name: str, parts: Sequence[graph.Part], cut: Sequence[int]) -> Block:
        layers = self._first(layer for part in parts for layer in part.layers)
        variables = self._first(variable for layer in layers for variable in state.own_variables(layer))
        variables.sort(key=lambda variable: self.order[id(variable)])
        return Block(
            name=name,
            layers=tuple(layers),
            variables=tuple(variables),
            output_shape=self.flat.shapes[_main(parts, cut)],
            cut=self._tensors(cut, self.body) or self._tensors(cut, self.model),
            ratio=_ratio(self.model, variables),
        )

    def check_complete(self) -> None:
        outside = [
            variable.path
            for layer in state.sublayers(self.model)
            for variable in state.own_variables(layer)
            if id(variable) not in self.taken
        ]
        if outside:
            raise ValueError(
                explain(
                    f"{self.model.name} holds weights that its graph does not use, so they belong to no block.",
                    given=", ".join(outside[:5]) + (" …" if len(outside) > 5 else ""),
                    to_mend="build the model from the layers that it calls",
                )
            )

    def _first(self, things) -> list:
        found = []
        for thing in things:
            if id(thing) not in self.taken:
                self.taken.add(id(thing))
                found.append(thing)
        return found

    def _tensors(self, cut: Sequence[int], owner: keras.Model) -> tuple[keras.KerasTensor, ...]:
        """The KerasTensors of a cut in one model's graph; none where one of them lies inside a layer."""
        known = [[tensor for model, tensor in self.flat.tensors.get(number, ()) if model is owner] for number in cut]
        return tuple(tensors[0] for tensors in known) if all(known) else ()


def _ratio(model: keras.Model, variables: Sequence[keras.Variable]) -> float | tuple[float, float] | None:
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # within a LossScaleOptimizer
    if not hasattr(optimizer, "ratio_of"):
        return None
    training = {id(variable) for variable in model.trainable_variables}
    ratios = [optimizer.ratio_of(variable) for variable in variables if id(variable) in training]
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        return None
    return known[0] if min(known) == max(known) else (min(known), max(known))


def _main(parts: Sequence[graph.Part], cut: Sequence[int]) -> int:
    """The number of the tensor that is a block's result; others in the cut are only carried on."""
    made = [number for part in reversed(parts) for number in part.outputs if number in cut]
    return made[0] if made else cut[-1]


def _table(found: Blocks) -> str:
    rows = [
        ("block", "layers", "parameters", "output", "trainable", "ratio"),
        *(_row(block) for block in found),
        _total(found),
    ]
    return "\n".join(table_with_total(rows, words=(0, 3, 4, 5)))


def _row(block: Block) -> tuple[str, ...]:
    shape = ", ".join("-" if side is None else str(side) for side in block.output_shape)
    trains = {True: "yes", False: "no"}.get(block.trainable, block.trainable)
    ratios = block.ratio if isinstance(block.ratio, tuple) else (block.ratio,)
    ratio = "" if block.ratio is None else "–".join(f"{ratio:.3g}" for ratio in ratios)
    return block.name, str(len(block.layers)), f"{block.parameters:,}", f"({shape})", trains, ratio


def _total(found: Blocks) -> tuple[str, ...]:
    layers = sum(len(block.layers) for block in found)
    return counted(len(found), "block"), str(layers), f"{sum(block.parameters for block in found):,}", "", "", ""

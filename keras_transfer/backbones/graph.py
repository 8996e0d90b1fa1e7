"""A functional model's own graph, as plain data: which operation makes which tensor from which."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_transfer import state
from keras_transfer.errors import explain


@dataclasses.dataclass(frozen=True)
class Step:
    """One call of one operation.

    Attributes:
        operation: the layer, nested model or `keras.ops` operation that is called. A shared one has several steps.
        inputs: the tensors that it reads, in the order of its arguments.
        outputs: the tensors that it makes.
        arguments: what it is called with, (args, kwargs), given what stands for each input, by `id` of the input.
    """

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    arguments: Callable[[Mapping[int, Any]], tuple[tuple, dict[str, Any]]]


def has_graph(model: object) -> bool:
    """Whether `steps` can read this model."""
    if isinstance(model, keras.Sequential):
        return model.built and getattr(model, "_functional", None) is not None
    return isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth")


def check_graph(model: object) -> None:
    """Refuses what `steps` cannot read.

    Raises:
        ValueError: where the model has no graph (a subclass with a `call` of its own, an unbuilt `Sequential`).
    """
    if not has_graph(model):
        raise ValueError(
            explain(
                "This model has no graph that could be read.",
                given=f"{type(model).__name__} {getattr(model, 'name', '')!r}",
                expected="a functional keras.Model, or a Sequential that begins with an Input",
                to_mend="build it as keras.Model(inputs, outputs)",
            )
        )


def steps(model: keras.Model) -> list[Step]:
    """Every step of a functional or `Sequential` model, in an order in which it can be computed; inputs are left out.

    The order follows from the graph alone, so that a model which is saved and loaded has the same one, and each step
    stands as near as can be to the one that needs it. (Keras' own order computes the longest path first: it begins a
    NASNet cell before the one below is done.) Nested models are single steps here: `flatten` opens them.

    Args:
        model: a built functional or `Sequential` model.

    Raises:
        ValueError: as `check_graph`.

    Example:

    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.ReLU(name="relu")(keras.layers.Dense(2, name="dense")(inputs)))
    >>> [step.operation.name for step in steps(model)]
    ['dense', 'relu']
    """
    check_graph(model)
    # With `has_graph`, the one place that reads Keras' private graph: the public `layer.input` raises for a layer that
    # is shared. A Sequential hides the functional model that it runs.
    by_depth = getattr(model, "_functional", model)._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]
    found = [
        Step(node.operation, tuple(node.input_tensors), tuple(node.output_tensors), node.arguments.fill_in)
        for node in nodes
    ]
    return _as_needed(found, model.outputs)


def _as_needed(found: list[Step], outputs: list[keras.KerasTensor]) -> list[Step]:
    """The same steps in the order of a walk from the outputs down, along the longest path first."""
    maker = {id(tensor): place for place, step in enumerate(found) for tensor in step.outputs}
    heights: list[int] = []
    for step in found:
        heights.append(1 + max((heights[maker[id(t)]] for t in step.inputs if id(t) in maker), default=0))

    def makers(tensors) -> list[int]:
        places = dict.fromkeys(maker[id(tensor)] for tensor in tensors if id(tensor) in maker)
        return sorted(places, key=lambda place: -heights[place])

    order: dict[int, None] = {}
    # A stack of our own: the walk is as deep as the network.
    pending = [(place, iter(makers(found[place].inputs))) for place in reversed(makers(outputs))]
    while pending:
        place, needed = pending[-1]
        below = None if place in order else next((other for other in needed if other not in order), None)
        if below is None:
            order[place] = None
            pending.pop()
        else:
            pending.append((below, iter(makers(found[below].inputs))))
    return [found[place] for place in order]


def leaves(operation: keras.Operation) -> tuple[keras.Layer, ...]:
    """The layers at the bottom of a layer, those that hold no others; and holders that have weights of their own too.

    Example:

    >>> [leaf.name for leaf in leaves(keras.layers.Bidirectional(keras.layers.LSTM(2), name="both"))]
    ['lstm_cell', 'lstm_cell']
    """
    if not isinstance(operation, keras.Layer):
        return ()
    return tuple(
        layer
        for layer in [operation, *state.sublayers(operation)]
        if not isinstance(layer, keras.layers.InputLayer) and (state.own_variables(layer) or not state.sublayers(layer))
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A step of some model's graph, with the numbers that its tensors have in a flattened one.

    Attributes:
        step: the step.
        inputs: the numbers of the tensors that it reads.
        outputs: the numbers of those that it makes.
    """

    step: Step
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def run(self, values: Mapping[int, Any], training: bool | None) -> dict[int, Any]:
        """What it makes of the values of its inputs, as a functional model would call it; by number, like those."""
        known = {id(tensor): values[number] for tensor, number in zip(self.step.inputs, self.inputs, strict=True)}
        args, kwargs = self.step.arguments(known)
        if training is not None and isinstance(self.step.operation, keras.Layer):
            kwargs["training"] = training  # in place of what the graph was made with, if anything
        made = keras.tree.flatten(self.step.operation(*args, **kwargs))
        return dict(zip(self.outputs, made, strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A step of a flattened graph.

    Attributes:
        operation: the layer or operation.
        layers: its leaves, where it is called for the first time.
        weighted: whether it holds weights.
        inputs: the numbers of the tensors that it reads.
        outputs: the numbers of those that it makes.
        within: the nested models that it lies in, outermost first.
        call: the call that it is, or that it is a part of: the calls of a stack of layers are that of their holder.
    """

    operation: keras.Operation
    layers: tuple[keras.Layer, ...]
    weighted: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    within: tuple[keras.Model, ...]
    call: "Call"

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.operation.name


@dataclasses.dataclass(frozen=True)
class Flat:
    """A graph whose nested models are opened.

    Attributes:
        parts: its steps, in an order in which they can be computed.
        inputs: the numbers of the model's inputs.
        outputs: the numbers of its outputs.
        shapes: the shape of every tensor, by number.
        tensors: by number, the KerasTensors that stand for it: those of a nested model and of the model around it both
            do where one hands it to the other. Each with the model to whose graph it belongs. None stand for tensors
            inside a layer.
    """

    parts: list[Part]
    inputs: list[int]
    outputs: list[int]
    shapes: dict[int, tuple]
    tensors: dict[int, list[tuple[keras.Model, keras.KerasTensor]]]


def flatten(model: keras.Model) -> Flat:
    """The graph of a model with everything nested in it.

    Nested models are opened. So are layers that hide a stack in them, several layers of one class that hold layers
    themselves, such as KerasHub's `vit_encoder`: each of the stack is a part.

    Raises:
        ValueError: as `check_graph`.

    Example:

    >>> body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="low"), keras.layers.ReLU(name="relu")])
    >>> inputs = keras.Input((4,))
    >>> [part.name for part in flatten(keras.Model(inputs, keras.layers.Dense(2, name="head")(body(inputs)))).parts]
    ['low', 'relu', 'head']
    """
    return _Opener().open(model)


class _Opener:
    """Writes down a graph and the graphs nested in it, numbering the tensors."""

    def __init__(self) -> None:
        self.flat = Flat([], [], [], {}, collections.defaultdict(list))
        self.numbers = itertools.count()
        self.called: set[int] = set()

    def open(self, model: keras.Model) -> Flat:
        check_graph(model)
        known = {id(tensor): next(self.numbers) for tensor in model.inputs}
        self.flat.inputs.extend(known[id(tensor)] for tensor in model.inputs)
        self._open(model, known, ())
        self.flat.outputs.extend(known[id(tensor)] for tensor in model.outputs)
        return self.flat

    def _open(self, model: keras.Model, known: dict[int, int], within: tuple[keras.Model, ...]) -> None:
        """Adds the parts of a model; `known` has the numbers of its inputs, and gets those of all its tensors."""
        every = steps(model)
        kinds = collections.Counter(type(step.operation) for step in every)
        for step in every:
            inputs = tuple(known[id(tensor)] for tensor in step.inputs)
            nested = step.operation
            if has_graph(nested):
                inner = {id(tensor): number for tensor, number in zip(nested.inputs, inputs, strict=False)}
                for tensor in nested.inputs:  # an optional input that was left out
                    inner.setdefault(id(tensor), next(self.numbers))
                self._open(nested, inner, (*within, nested))
                outputs = tuple(inner[id(tensor)] for tensor in nested.outputs)
            else:
                outputs = tuple(next(self.numbers) for _ in step.outputs)
                # One of several layers of a class is one of a stack itself.
                stack = _stack(step.operation) if kinds[type(step.operation)] == 1 else []
                self._add(step, stack, inputs, outputs, within)
            for tensor, number in zip(step.outputs, outputs, strict=True):
                known[id(tensor)] = number
                self.flat.shapes[number] = tuple(tensor.shape)
                self.flat.tensors[number].append((model, tensor))

    def _add(self, step, stack, inputs, outputs, within) -> None:
        every = leaves(step.operation)
        first_time = () if id(step.operation) in self.called else every
        self.called.add(id(step.operation))
        call = Call(step, inputs, outputs)
        if not stack or not first_time:
            self.flat.parts.append(Part(step.operation, first_time, _weighted(every), inputs, outputs, within, call))
            return
        for layer, layers in zip(stack, _dealt(step.operation, stack), strict=True):
            made = outputs if layer is stack[-1] else (next(self.numbers),)
            self.flat.shapes[made[0]] = tuple(step.outputs[0].shape)
            self.flat.parts.append(Part(layer, layers, True, inputs, made, within, call))
            inputs = made


def _dealt(holder: keras.Layer, stack: list[keras.Layer]) -> list[tuple[keras.Layer, ...]]:
    """The leaves of each layer of a stack, and to the lowest and the highest what else their holder holds.

    In which order it calls them cannot be seen. Weights follow the order of creation; what has none, and may be used
    anywhere, goes to the lowest, which is frozen as long as any is.
    """
    layers = [leaves(layer) for layer in stack]
    inside = {id(leaf) for each in layers for leaf in each}
    order = {id(layer): place for place, layer in enumerate([holder, *state.sublayers(holder)])}
    loose = [leaf for leaf in leaves(holder) if id(leaf) not in inside]
    above = [leaf for leaf in loose if _weighted([leaf]) and order[id(leaf)] > order[id(stack[0])]]
    below = [leaf for leaf in loose if leaf not in above]
    layers[0] = (*below, *layers[0])
    layers[-1] = (*layers[-1], *above)
    return layers


def _stack(layer: keras.Operation) -> list[keras.Layer]:
    """The stack that a layer is made of: layers of one class that hold weighted layers. Empty where it is none.

    Two attentions in a decoder layer are no stack, since dense layers stand beside them, and neither are the two
    directions of a Bidirectional.
    """
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.Bidirectional):
        return []
    below = state.sublayers(layer)
    nested = {id(inner) for held in below for inner in state.sublayers(held)}
    by_class = collections.defaultdict(list)
    for held in below:
        if id(held) not in nested:
            by_class[type(held)].append(held)
    stack = max(by_class.values(), key=len, default=[])
    if len(stack) < 2 or not all(_weighted(state.sublayers(held)) for held in stack):
        return []
    inside = {id(leaf) for held in stack for leaf in leaves(held)}
    beside = [leaf for leaf in leaves(layer) if id(leaf) not in inside and leaf is not layer]
    only_norms = all(is_normalisation(leaf) for leaf in beside if _weighted([leaf]))
    return stack if len(stack) > 2 or only_norms else []


def is_normalisation(layer: keras.Layer) -> bool:
    """Whether a layer normalises: batch, layer, group, RMS, or the pixels."""
    return "Norm" in type(layer).__name__


def _weighted(layers) -> bool:
    return any(state.own_variables(layer) for layer in layers)

"""A functional model's own graph, as plain data: which operation makes which tensor from which."""

import collections
import dataclasses
import itertools

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
    """

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]


def has_graph(model: object) -> bool:
    """Whether `steps` can read this model."""
    if isinstance(model, keras.Sequential):
        return model.built and getattr(model, "_functional", None) is not None
    return isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth")


def steps(model: keras.Model) -> list[Step]:
    """Every step of a functional or `Sequential` model, in an order in which it can be computed; inputs are left out.

    The order follows from the graph alone, so that a model which is saved and loaded has the same one, and each step stands
    as near as can be to the one that needs it. (Keras' own order computes the longest path first: it begins a NASNet cell
    before the one below is done.) Nested models are single steps here: ask for their steps in turn, or `flatten`.

    Args:
        model: a built functional or `Sequential` model.

    Raises:
        ValueError: where the model has no graph (a subclass with a `call` of its own, an unbuilt `Sequential`).

    Example:

    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.ReLU(name="relu")(keras.layers.Dense(2, name="dense")(inputs)))
    >>> [step.operation.name for step in steps(model)]
    ['dense', 'relu']
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
    # With `has_graph`, the one place that reads Keras' private graph: the public `layer.input` raises for a shared layer.
    # A Sequential hides the functional model that it runs.
    by_depth = getattr(model, "_functional", model)._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]
    found = [Step(node.operation, tuple(node.input_tensors), tuple(node.output_tensors)) for node in nodes]
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
    found = [layer for layer in [operation, *state.sublayers(operation)] if not isinstance(layer, keras.layers.InputLayer)]
    return tuple(layer for layer in found if state.own_variables(layer) or not state.sublayers(layer))


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A step of a flattened graph.

    Attributes:
        operation: the layer or operation.
        layers: its leaves.
        weighted: whether it holds weights.
        inputs: the numbers of the tensors that it reads.
        outputs: the numbers of those that it makes.
        within: the nested models that it lies in, outermost first.
    """

    operation: keras.Operation
    layers: tuple[keras.Layer, ...]
    weighted: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    within: tuple[keras.Model, ...]

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.operation.name


@dataclasses.dataclass(frozen=True)
class Flat:
    """A graph whose nested models are opened.

    Attributes:
        parts: its steps, in an order in which they can be computed.
        shapes: the shape of every tensor, by number.
        tensors: by number, the KerasTensors that stand for it: those of a nested model and of the model around it both
            do where one hands it to the other. Each with the model to whose graph it belongs. None stand for tensors
            inside a layer.
    """

    parts: list[Part]
    shapes: dict[int, tuple]
    tensors: dict[int, list[tuple[keras.Model, keras.KerasTensor]]]


def flatten(model: keras.Model) -> Flat:
    """The graph of a model with everything nested in it.

    Nested models are opened. So are layers that hide a stack in them, several layers of one class that hold layers
    themselves, such as KerasHub's `vit_encoder`: each of the stack is a part.

    Raises:
        ValueError: as `steps`.

    Example:

    >>> body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="low"), keras.layers.ReLU(name="relu")])
    >>> inputs = keras.Input((4,))
    >>> [part.name for part in flatten(keras.Model(inputs, keras.layers.Dense(2, name="head")(body(inputs)))).parts]
    ['low', 'relu', 'head']
    """
    flat = Flat([], {}, collections.defaultdict(list))
    numbers = itertools.count()
    known = {id(tensor): next(numbers) for tensor in model.inputs}
    _open(model, known, (), flat, numbers)
    return flat


def _open(model, known, within, flat, numbers) -> None:
    for step in steps(model):
        inputs = tuple(known[id(tensor)] for tensor in step.inputs)
        if has_graph(step.operation):
            inner = {id(tensor): number for tensor, number in zip(step.operation.inputs, inputs, strict=False)}
            for tensor in step.operation.inputs:  # an optional input that was left out
                inner.setdefault(id(tensor), next(numbers))
            _open(step.operation, inner, (*within, step.operation), flat, numbers)
            outputs = [inner[id(tensor)] for tensor in step.operation.outputs]
        else:
            outputs = [next(numbers) for _ in step.outputs]
            _append(step, inputs, tuple(outputs), within, flat, numbers)
        for tensor, number in zip(step.outputs, outputs, strict=True):
            known[id(tensor)] = number
            flat.shapes[number] = tuple(tensor.shape)
            flat.tensors[number].append((model, tensor))


def _append(step, inputs, outputs, within, flat, numbers) -> None:
    stack = _stack(step.operation)
    if not stack:
        every = leaves(step.operation)
        flat.parts.append(Part(step.operation, every, _weighted(every), inputs, outputs, within))
        return
    # In which order a layer calls what it holds cannot be seen. Weights follow the order of creation; what has none, and
    # may be used anywhere, goes to the bottom, where it is frozen as long as anything is.
    inside = {id(leaf) for layer in stack for leaf in leaves(layer)}
    loose = [leaf for leaf in leaves(step.operation) if id(leaf) not in inside]
    order = {id(layer): place for place, layer in enumerate([step.operation, *state.sublayers(step.operation)])}
    first = order[id(stack[0])]
    below = [leaf for leaf in loose if not _weighted([leaf]) or order[id(leaf)] < first]
    above = [leaf for leaf in loose if _weighted([leaf]) and order[id(leaf)] > first]
    for place, layer in enumerate(stack):
        every = leaves(layer)
        if place == 0:
            every = (*below, *every)
        if place == len(stack) - 1:
            every = (*every, *above)
        made = outputs if place == len(stack) - 1 else (next(numbers),)
        flat.shapes[made[0]] = tuple(step.outputs[0].shape)
        flat.parts.append(Part(layer, every, True, inputs, made, within))
        inputs = made


def _stack(layer: keras.Operation) -> list[keras.Layer]:
    """The layers that make a stack inside a layer: those of one class which hold weighted layers; none where one is alone."""
    if not isinstance(layer, keras.Layer):
        return []
    below = state.sublayers(layer)
    nested = {id(inner) for held in below for inner in state.sublayers(held)}
    by_class = collections.defaultdict(list)
    for held in below:
        if id(held) not in nested and state.sublayers(held) and _weighted(state.sublayers(held)):
            by_class[type(held)].append(held)
    largest = max(by_class.values(), key=len, default=[])
    return largest if len(largest) > 1 else []


def _weighted(layers) -> bool:
    return any(state.own_variables(layer) for layer in layers)

"""A model cut in two where what is frozen ends: what lies below is a pure function of the input."""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_transfer import digests, state
from keras_transfer.backbones import freezing, graph, signature
from keras_transfer.backbones.graph import Call, Flat, Part

# How the values that are kept, and the inputs that are needed beside them, are called where they stand for a model's x.
KEPT, INPUTS = "kept below the cut", "inputs beside it"


@dataclasses.dataclass
class _Split:
    """A layer that holds a stack of layers, the lower of which are frozen: it is cut inside.

    Attributes:
        below: the layers of the stack that lie below the cut, bottom to top.
        made: the number of what the last of them makes.
        stands_in: the number of the holder's own input, in whose place `made` can be put.
        handed_on: what each layer of the stack hands on, with `True` for the tensor and `False` for what is none.
    """

    below: tuple[keras.Layer, ...]
    made: int
    stands_in: int
    handed_on: Any = True

    def capture(self, call: Call, values: Mapping[int, Any], training: bool | None) -> Any:
        """What the last layer below the cut makes."""
        last = self.below[-1]
        with catching(last, "outputs") as caught:
            call.run(values, training)
        self.handed_on = keras.tree.map_structure(lambda tensor: tensor is not None, caught[-1])
        tensors = [tensor for tensor in keras.tree.flatten(caught[-1]) if tensor is not None]
        if len(tensors) != 1:
            raise NotCutError(f"{last.name} hands on {len(tensors)} tensors, and {call.step.operation.name} hides how")
        return tensors[0]

    def resume(self, call: Call, values: Mapping[int, Any], training: bool | None) -> dict[int, Any]:
        """What the holder makes where the layers below the cut are left out."""
        made = values[self.made]

        def standing_in(*args, **kwargs):
            return keras.tree.map_structure(lambda is_tensor: made if is_tensor else None, self.handed_on)

        with contextlib.ExitStack() as replaced:
            for layer in self.below:
                replaced.enter_context(calling(layer, standing_in))
            return call.run({**values, self.stands_in: made}, training)


@contextlib.contextmanager
def calling(layer: keras.Layer, function: Any) -> Iterator[None]:
    """Lets a layer do something else when it is called."""
    before = vars(layer).get("call")
    layer.call = function
    try:
        yield
    finally:
        if before is None:
            del layer.call
        else:
            layer.call = before


@contextlib.contextmanager
def catching(layer: keras.Layer, what: Literal["inputs", "outputs"]) -> Iterator[list[Any]]:
    """Notes what a layer is called on, or what it makes."""
    caught: list[Any] = []
    own_call = layer.call

    def call(*args, **kwargs):
        made = own_call(*args, **kwargs)
        caught.append(made if what == "outputs" else args[0] if args else next(iter(kwargs.values())))
        return made

    with calling(layer, call):
        yield caught


class NotCutError(ValueError):
    """A layer cannot be cut where its lower part is frozen and its upper is not."""


class Cut:
    """Where a model falls in two: below, all that follows from the inputs and frozen layers alone; above, the rest.

    What lies below gives the same for an example whenever it is computed, since what is frozen neither moves nor drops:
    it can be computed once and kept.

    Attributes:
        model: the model.
        shapes: of the tensors that are kept, batch first, with None where it depends on the example.
        reads: the names of the inputs that what lies above needs beside them: what is computed from an input without
            weights, such as an attention mask, is computed there anew.
        layers: those below, each once.

    Example:

    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.Dense(3, name="low")(inputs)))
    >>> freezing.wake(model, [model.get_layer("head")])
    >>> found = deepest_cut(model)
    >>> [layer.name for layer in found.layers], found.shapes
    (['low'], ((None, 3),))
    """

    def __init__(self, model: keras.Model, flat: Flat, pure: Sequence[Part], splits: Mapping[int, _Split]) -> None:
        self.model = model
        self._flat, self._pure = flat, tuple(pure)
        self._splits = dict(splits)
        self._calls = _calls(flat)
        heavy = _heavy(pure)
        available = {number for part in pure for number in part.outputs} | set(flat.inputs)
        needed = self._needed_above(pure, available)
        self._kept = tuple(sorted(number for number in needed if number in heavy))
        needed_inputs = self._traced(flat.outputs, self._kept)[1]
        self.shapes = tuple(flat.shapes[number] for number in self._kept)
        self.reads = tuple(
            tensor.name for tensor, number in zip(model.inputs, flat.inputs, strict=True) if number in needed_inputs
        )
        self._below = self._traced(self._kept, ())[0]
        self.layers = tuple(_layers_of(pure, self._below, heavy))

    def _needed_above(self, pure: Sequence[Part], available: Collection[int]) -> set[int]:
        """The numbers of what the calls above read of what lies below."""
        below = {id(part) for part in pure}
        needed = {number for number in self._flat.outputs if number in available}
        for part in self._flat.parts:
            if id(part) not in below:
                needed |= available & set(part.inputs)
        for key, split in self._splits.items():
            call = next(call for call in self._calls if id(call) == key)
            needed |= {split.made} | (set(call.inputs) - {split.stands_in})
        return needed

    def _traced(self, wanted: Collection[int], known: Collection[int]) -> tuple[list[Call], set[int]]:
        """The calls that make what is wanted of what is known and the inputs, in order, and the inputs that they read.

        A split call is among them with one of its halves.
        """
        missing, chosen = set(wanted) - set(known), []
        for call in reversed(self._calls):
            split = self._splits.get(id(call))
            upper = split is not None and split.made in known
            if missing & (set(call.outputs) | ({split.made} if split and not upper else set())):
                chosen.append(call)
                missing -= set(call.outputs)
                inputs = set(call.inputs) - ({split.stands_in} if upper else set())
                missing |= inputs - set(known)
        return chosen[::-1], missing & set(self._flat.inputs)

    def below(self, inputs: Any) -> list[Any]:
        """What is kept of a batch.

        Args:
            inputs: a batch as the model takes it.
        """
        values = self._numbered(inputs)
        self._run(self._below, values, training=False)
        return [values[number] for number in self._kept]

    def above(self, kept: Sequence[Any], inputs: Mapping[str, Any], training: bool | None) -> Any:
        """The model's outputs, from what was kept of a batch and the inputs that it `reads`."""
        values = self._numbered(inputs)
        values |= dict(zip(self._kept, kept, strict=True))
        calls, _ = self._traced(self._flat.outputs, self._kept)
        self._run(calls, values, training=training)
        outputs = [values[number] for number in self._flat.outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, calls: Sequence[Call], values: dict[int, Any], *, training: bool | None) -> None:
        for call in calls:
            split = self._splits.get(id(call))
            if split is None:
                values |= call.run(values, training)
            elif split.made in values:
                values |= split.resume(call, values, training)
            else:
                values[split.made] = split.capture(call, values, training)

    def _numbered(self, inputs: Any) -> dict[int, Any]:
        """The values of inputs, by number, as a functional model takes them."""
        pairs = list(zip(self.model.inputs, self._flat.inputs, strict=True))
        if isinstance(inputs, Mapping):
            given = [(tensor, number, inputs[tensor.name]) for tensor, number in pairs if tensor.name in inputs]
        else:
            flat = keras.tree.flatten(inputs)
            given = [(tensor, number, value) for (tensor, number), value in zip(pairs, flat, strict=True)]
        return {number: keras.ops.convert_to_tensor(value, dtype=tensor.dtype) for tensor, number, value in given}

    @property
    def is_inside_a_layer(self) -> bool:
        """Whether a layer that holds a stack of layers is cut between those."""
        return bool(self._splits)

    def __str__(self) -> str:
        kept = ", ".join(" x ".join("…" if side is None else str(side) for side in shape[1:]) for shape in self.shapes)
        return f"{kept} numbers an example, from {len(self.layers)} frozen layers of {self.model.name}"

    @property
    def works(self) -> bool:
        """Whether anything below is worth computing once: more than the lookup of embeddings and the scaling of
        pixels."""
        return any(
            "Embedding" not in type(layer).__name__ and any(len(w.shape) > 1 for w in state.own_variables(layer))
            for layer in self.layers
        )

    @property
    def is_identified(self) -> bool:
        """Whether `signature` says all: not where functions or classes of the user's own lie below, which it knows by
        name only."""
        return all(signature.says_all(call.step.operation) for call in self._below)

    @functools.cached_property
    def signature(self) -> str:
        """SHA-256, in hexadecimal, of all that lies below: operations, their settings, their wiring, their weights."""
        numbers: dict[int, str] = collections.defaultdict(lambda: f"#{len(numbers)}")
        given = [[numbers[n], str(t.dtype)] for t, n in zip(self.model.inputs, self._flat.inputs, strict=True)]
        calls = []
        for call in self._below:
            stands = {id(t): numbers[n] for t, n in zip(call.step.inputs, call.inputs, strict=True)}
            calls.append({
                **signature.facts(call.step.operation),
                "arguments": signature.plain(call.step.arguments(stands)),
                "outputs": [numbers[number] for number in call.outputs],
                "cut after": len(self._splits[id(call)].below) if id(call) in self._splits else None,
            })  # fmt: skip
        kept = [numbers[number] for number in self._kept if number in numbers]
        return digests.of_json({"inputs": given, "calls": calls, "kept": kept})

    def comes_to_the_same(self, inputs: Any, kept: Sequence[Any]) -> bool:
        """Whether every layer above is called on the same in two parts as in one.

        Not the outputs are compared: a head that starts at zero makes the same of everything.

        Args:
            inputs: a batch as the model takes it.
            kept: what `below` makes of it.
        """
        above = self._layers_above()
        with contextlib.ExitStack() as watching:
            seen = [watching.enter_context(catching(layer, "inputs")) for layer in above]
            self.model(inputs, training=False)
            whole = [calls[:] for calls in seen]
            for calls in seen:
                calls.clear()
            self.above(kept, {name: inputs[name] for name in self.reads}, training=False)
            return all(map(_alike, whole, seen))

    def _layers_above(self) -> list[keras.Layer]:
        """The layers that are called above the cut alone."""
        pure = {id(part) for part in self._pure}
        called: dict[bool, dict[int, keras.Layer]] = {True: {}, False: {}}
        for part in self._flat.parts:
            called[id(part) in pure].update((id(layer), layer) for layer in graph.leaves(part.operation))
        return [layer for key, layer in called[False].items() if key not in called[True]]

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Within it the model takes what was kept in place of its inputs, and its inputs still.

        As x it then takes `{KEPT: {"0": …}, INPUTS: {…}}` as well.
        """
        model, own_call, own_spec = self.model, self.model.call, self.model.input_spec

        def call(inputs, training=None, mask=None, **kwargs):
            if isinstance(inputs, Mapping) and KEPT in inputs:
                kept = inputs[KEPT]
                return self.above([kept[str(n)] for n in range(len(kept))], inputs.get(INPUTS, {}), training)
            return own_call(inputs, training=training, mask=mask, **kwargs)

        with calling(model, call):
            model.input_spec = []
            try:
                yield
            finally:
                model.input_spec = own_spec


class Below(keras.Model):
    """What lies below a cut, as a model that makes the tensors to be kept of the model's inputs."""

    def __init__(self, cut: Cut) -> None:
        super().__init__(name=f"{cut.model.name}_below_the_cut")
        self.whole = cut.model
        self.cut = cut

    def call(self, inputs):
        return self.cut.below(inputs)


class InputsOf(keras.Model):
    """What one layer of a model is called on, at inference, for a batch as the model takes it just now."""

    def __init__(self, model: keras.Model, layer: keras.Layer) -> None:
        super().__init__(name=f"{model.name}_up_to_{layer.name}")
        self.whole = model
        self._read = layer
        self.built = True  # or the first batch on JAX goes through it step by step, to find out what is to be built

    def call(self, inputs):
        with catching(self._read, "inputs") as caught:
            self.whole(inputs, training=False)
        return caught[-1]


def deepest_cut(model: keras.Model, *, inside_layers: bool = True) -> Cut | None:
    """The highest place below which nothing of the model trains, moves or drops.

    Args:
        model: a model as `freezing.wake` left it.
        inside_layers: whether a layer that holds a stack of layers, such as KerasHub's ViT encoder, may be cut between
            those. How it calls them cannot be read off its graph, so what comes of it is to be checked.

    Returns:
        The cut, or `None` where the model has no graph, or nothing with weights lies below.
    """
    return _cut(model, _is_pure, inside_layers=inside_layers)


def cut_below(model: keras.Model, layers: Collection[keras.Layer]) -> Cut | None:
    """The place right below some layers, whatever of the model trains: what lies there is what it makes at inference.

    Args:
        model: a model.
        layers: what is to stay above; none of them for the model's outputs.

    Returns:
        The cut, or `None` where the model has no graph, or nothing with weights lies below.

    Example:

    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.Dense(3, name="low")(inputs)))
    >>> cut_below(model, [model.get_layer("head")]).shapes
    ((None, 3),)
    """
    above = {id(layer) for layer in layers}

    def lies_below(part: Part) -> bool:
        return not isinstance(part.operation, keras.Layer) or above.isdisjoint(map(id, _every_layer(part)))

    return _cut(model, lies_below, inside_layers=False)


def _cut(model: keras.Model, lies_below: Callable[[Part], bool], *, inside_layers: bool) -> Cut | None:
    if not graph.has_graph(model):
        return None
    flat = graph.flatten(model)
    available = set(flat.inputs)
    pure: list[Part] = []
    splits: dict[int, _Split] = {}
    for call in _calls(flat):
        parts = [part for part in flat.parts if part.call is call]
        frozen = []
        for part in parts:
            if not available.issuperset(part.inputs) or not lies_below(part):
                break
            frozen.append(part)
            available.update(part.outputs)
        if len(frozen) < len(parts):
            split = _split(flat, call, frozen) if inside_layers and frozen else None
            if split is None:
                available.difference_update(number for part in frozen for number in part.outputs)
                continue
            splits[id(call)] = split
        pure += frozen
    found = Cut(model, flat, pure, splits)
    return found if found.shapes else None


def _calls(flat: Flat) -> list[Call]:
    """The calls of a flattened graph, in order, each once."""
    return list({id(part.call): part.call for part in flat.parts}.values())


def _split(flat: Flat, call: Call, frozen: Sequence[Part]) -> _Split | None:
    made = frozen[-1].outputs[0]
    reads = zip(call.inputs, call.step.inputs, strict=True)
    stands_in = next((number for number, tensor in reads if tuple(tensor.shape) == flat.shapes[made]), None)
    return None if stands_in is None else _Split(tuple(part.operation for part in frozen), made, stands_in)


def _is_pure(part: Part) -> bool:
    """Whether a part of a graph does the same to the same, today and tomorrow, in training and at inference."""
    if not isinstance(part.operation, keras.Layer):
        return True
    return all(freezing.does_not_change(layer) for layer in _every_layer(part))


def _every_layer(part: Part) -> list[keras.Layer]:
    return [part.operation, *state.sublayers(part.operation), *part.layers]


def _heavy(pure: Sequence[Part]) -> set[int]:
    """The numbers of what takes weights to make."""
    heavy: set[int] = set()
    for part in pure:
        if part.weighted or heavy.intersection(part.inputs):
            heavy.update(part.outputs)
    return heavy


def _layers_of(pure: Sequence[Part], calls: Sequence[Call], heavy: Collection[int]) -> list[keras.Layer]:
    run = {id(call) for call in calls}
    found = {}
    for part in pure:
        if id(part.call) in run and heavy.intersection(part.outputs) and isinstance(part.operation, keras.Layer):
            for layer in graph.leaves(part.operation):
                found[id(layer)] = layer
    return list(found.values())


def _alike(one: Any, other: Any) -> bool:
    """Whether two structures of tensors are the same to rounding."""
    one, other = keras.tree.flatten(one), keras.tree.flatten(other)
    if len(one) != len(other):
        return False
    for first, second in zip(one, other, strict=True):
        if first is None or second is None:
            continue
        a, b = (keras.ops.convert_to_numpy(tensor).astype("float64") for tensor in (first, second))
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-2, atol=1e-3 * np.abs(a).max(initial=1e-6)):
            return False
    return True

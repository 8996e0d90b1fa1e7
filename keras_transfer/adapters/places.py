"""Where a layer is in a model: a path that people can read, and that another process finds again.

Keras' own `layer.path` repeats itself in some models and changes from one instance to the next in others, wherever a
layer got no name and Keras counted one up. Here a layer without a name of its own is called by the attribute that
holds it. What still repeats is told apart by a number behind `#`.
"""

import dataclasses
import re
from collections.abc import Iterator

import keras

from keras_transfer.adapters import keras_internals


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """One layer of a model.

    Attributes:
        path: names from below the model down to the layer, joined by `/`.
        layer: the layer.
        owner: the layer right above it.
        place_in_owner: the name by which the owner holds it: its name, or an attribute of the owner.
        above: the place of the owner; `None` right below the model.
    """

    path: str
    layer: keras.Layer
    owner: keras.Layer
    above: "Place | None"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1].split("#")[0]


def places(model: keras.Layer) -> list[Place]:
    """Every layer below a model, once, where it is first met: from the top down, each layer's own before the next.

    Example:

    >>> inside = keras.Sequential([keras.layers.Dense(2, name="query"), keras.layers.Dense(2, name="key")], name="body")
    >>> model = keras.Sequential([keras.Input((2,)), inside, keras.layers.Dense(1, name="head")])
    >>> [place.path for place in places(model)]
    ['body', 'body/query', 'body/key', 'head']
    """
    seen: set[int] = {id(model)}
    found = list(_below(model, None, seen))
    counts: dict[str, int] = {}
    numbered: dict[int, Place] = {}
    for place in found:
        count = counts[place.path] = counts.get(place.path, -1) + 1
        path = f"{place.path}#{count}" if count else place.path
        above = numbered[id(place.above)] if place.above else None
        numbered[id(place)] = Place(path, place.layer, place.owner, above)
    return list(numbered.values())


def _below(owner: keras.Layer, above: Place | None, seen: set[int]) -> Iterator[Place]:
    attributes = None
    for layer in keras_internals.children(owner):
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            continue
        seen.add(id(layer))
        name = layer.name
        if is_made_up(layer):
            attributes = _attributes(owner) if attributes is None else attributes
            name = attributes.get(id(layer), name)
        place = Place(f"{above.path}/{name}" if above else name, layer, owner, above)
        yield place
        yield from _below(layer, place, seen)


def is_made_up(layer: keras.Layer) -> bool:
    """Whether Keras made the name of the layer from that of its class, and a number counted up in the process."""
    kind = re.sub(r"\W+", "", type(layer).__name__)
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    kind = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
    return re.fullmatch(rf"{re.escape(kind)}(_\d+)?", layer.name) is not None


def _attributes(owner: keras.Layer) -> dict[int, str]:
    """The names by which a layer holds those below it: attributes, and places in lists and dicts."""
    found: dict[int, str] = {}
    for name, value in sorted(vars(owner).items(), key=lambda item: item[0].startswith("_")):  # public ones first
        if name.startswith("_self_") or name in ("_layers", "_nested_layers", "_operations", "_tracked"):
            continue  # bookkeeping of Keras and TensorFlow
        entries = {name: value}
        if isinstance(value, list | tuple):
            entries = {f"{name}.{number}": entry for number, entry in enumerate(value)}
        elif isinstance(value, dict):
            entries = {f"{name}.{key}": entry for key, entry in value.items()}
        for key, entry in entries.items():
            if isinstance(entry, keras.Layer):
                found.setdefault(id(entry), key.lstrip("_"))
    return found

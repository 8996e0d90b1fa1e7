"""What an operation computes, as plain data: its class, its settings and its weights."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_transfer import digests, state

# Whose classes are known by their names: the versions of these are part of what features follow from.
_KNOWN = ("keras", "keras_hub", "keras_transfer")


def facts(operation: keras.Operation) -> dict[str, Any]:
    """All that an operation's result follows from besides its arguments, as JSON holds it.

    Example:

    >>> rescaling = facts(keras.layers.Rescaling(0.5))
    >>> rescaling["class"].split(".")[-1], rescaling["settings"][0]["scale"]
    ('Rescaling', 0.5)
    """
    layers = [part for part in _parts(operation) if isinstance(part, keras.Layer)]
    return {
        "class": f"{type(operation).__module__}.{type(operation).__qualname__}",
        "settings": [plain(_settings(part)) for part in _parts(operation)],
        "dtypes": [layer.dtype_policy.name for layer in layers],
        "weights": [plain(variable) for layer in layers for variable in state.own_variables(layer)],
    }


def says_all(operation: keras.Operation) -> bool:
    """Whether `facts` are all: not where it is a class, or holds a function, of the user's own, known by name only."""
    return all(
        type(part).__module__.split(".")[0] in _KNOWN and not _holds_function(_settings(part))
        for part in _parts(operation)
    )


def plain(value: Any) -> Any:
    """A value as JSON can hold it: arrays by their digests, without what makes no difference to what is computed."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items() if key not in ("name", "trainable")}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return digests.of_arrays([keras.ops.convert_to_numpy(value)])
    if hasattr(value, "get_config"):
        return [type(value).__qualname__, plain(value.get_config())]
    return repr(value)


def _parts(operation: keras.Operation) -> list[keras.Operation]:
    return [operation, *state.sublayers(operation)] if isinstance(operation, keras.Layer) else [operation]


def _settings(operation: keras.Operation) -> Mapping[str, Any]:
    """Its configuration, or its plain attributes where it has none that can be written down.

    Several layers of KerasHub have none, since the model around them makes them anew.
    """
    try:
        return operation.get_config()
    except (AttributeError, NotImplementedError, OSError, TypeError, ValueError):  # as the layer at hand fails
        own = vars(operation).items()
        return {key: value for key, value in own if isinstance(value, str | int | float | bool | tuple)}


def _holds_function(settings: Any) -> bool:
    """Whether settings name a function of the user's own, or hold its code: an activation, a `Lambda`."""
    if isinstance(settings, Mapping):
        if settings.get("class_name") == "function":
            return str(settings["config"]).split(">")[0] not in _KNOWN
        if settings.get("class_name") == "__lambda__" or list(settings) == ["value"]:
            return True
        return any(map(_holds_function, settings.values()))
    return isinstance(settings, list | tuple) and any(map(_holds_function, settings))

"""Which base an adapter belongs to: its class, its configuration, its weights, and what it answers to a probe."""

import itertools
import json
import os
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer import card, digests, state
from keras_transfer.adapters import beside, layers
from keras_transfer.adapters.places import places
from keras_transfer.adapters.restoring import stock_config
from keras_transfer.errors import explain

_PROBE_BATCH, _PROBE_LENGTHS, _PROBE_SIDE = 2, (8, 4, 1024), 32
_KEPT_OUTPUTS = 4096  # numbers of each output that a probe remembers

# What differs between two models that are the same: names that Keras counts up, and flags.
_LEFT_OUT = {"shared_object_id", "trainable", "build_config", "registered_name"}
_NAMING = {"name", "keras_history", "input_layers", "output_layers"}


def architecture(model: keras.Model) -> Any:
    """The configuration of a model without any adapter and without its card, such that two processes agree on it."""
    return comparable(stock_config(model))


def comparable(config: Any) -> Any:
    """A Keras configuration such that two processes agree on it, as JSON gives it back."""
    known: dict[str, str] = {}

    def plain(value: Any, naming: bool = False) -> Any:
        if isinstance(value, dict):
            return {
                key: plain(entry, key in _NAMING)
                for key, entry in value.items()
                if key not in _LEFT_OUT and not card.is_card(key)
            }
        if isinstance(value, list | tuple):
            return [plain(entry, naming) for entry in value]
        if naming and isinstance(value, str):
            return known.setdefault(value, f"#{len(known)}")
        return value

    return plain(json.loads(json.dumps(config)))


def first_difference(there: Any, here: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Where two configurations differ first: the path to it and both values; `None` where they do not."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        pairs = [(f"{path}.{key}".strip("."), there.get(key), here.get(key)) for key in keys]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(f"{path}.{place}", *both) for place, both in enumerate(zip(there, here, strict=True))]
    else:
        return None if there == here else (path, there, here)
    return next(filter(None, (first_difference(one, other, to) for to, one, other in pairs)), None)


def weights_digest(model: keras.Model, brought: Sequence[keras.Variable] = ()) -> str:
    """The SHA-256 of a base's weights, in the order of the canonical walk: without adapters, seeds, and what is in
    `brought`.

    Args:
        model: the model, whichever adapter counts in it.
        brought: weights that come with the adapter.
    """
    left_out = {id(variable) for variable in brought}
    base_values = {
        id(variable): value
        for kept in beside.everywhere(model)
        for variable, value in zip(kept.variables, kept.base, strict=True)
    }
    return digests.of_arrays(
        ops.convert_to_numpy(variable.value) if id(variable) not in base_values else base_values[id(variable)]
        for variable in layers.base_variables(model)
        if id(variable) not in left_out and not state.is_seed(variable)
    )


def named_variables(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """The variables of a base, with a path that another process finds again; seeds and adapters are left out."""
    of_base = {id(variable) for variable in layers.base_variables(model) if not state.is_seed(variable)}
    seen: set[int] = set()
    for path, layer in [("", model), *((place.path, place.layer) for place in places(model))]:
        for variable in state.own_variables(layer):
            if id(variable) in of_base and id(variable) not in seen:
                seen.add(id(variable))
                yield f"{path}/{variable.name}".strip("/"), variable


def probe_inputs(model: keras.Model) -> list[np.ndarray]:
    """A batch that a model can be asked with, made from its inputs alone: flat, in the order of `model.input`.

    Raises:
        ValueError: where the model does not say what it takes, or answers with anything that is not finite.
    """
    expected = _expected_inputs(model)
    words = [layer.input_dim for layer in state.sublayers(model) if isinstance(layer, keras.layers.Embedding)]
    tensors = keras.tree.flatten(expected)
    # A table may be smaller than the largest; a body may take shorter texts only, or longer sounds.
    for highest, length in itertools.product((max(words, default=2), 2), _PROBE_LENGTHS):
        probe = [_filled(tensor, highest, length, place) for place, tensor in enumerate(tensors)]
        try:
            outputs = answers(model, probe)
        except Exception:  # any backend's error for a number outside a table
            continue
        if all(np.isfinite(output).all() for output in outputs):
            return probe
    raise ValueError(
        explain(
            f"{model.name} could not be asked for a probe with inputs made up from its shapes.",
            given=", ".join(f"{tensor.name} {tuple(tensor.shape)}" for tensor in tensors),
            to_mend="give a batch that it takes: save_adapter(model, folder, probe=batch)",
        )
    )


def answers(model: keras.Model, probe: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs for a probe, at inference, flat and float32: the first 4096 numbers of each."""
    inputs = keras.tree.pack_sequence_as(_expected_inputs(model), list(probe))
    outputs = keras.tree.flatten(model(inputs, training=False))
    return [
        np.asarray(ops.convert_to_numpy(ops.cast(output, "float32"))).reshape(-1)[:_KEPT_OUTPUTS].copy()
        for output in outputs
    ]


def flat_probe(model: keras.Model, batch: Any) -> list[np.ndarray]:
    """A batch that a user gives, in the order of `model.input`."""
    keras.tree.assert_same_structure(_expected_inputs(model), batch)
    return [np.array(array) for array in keras.tree.flatten(batch)]


def tolerance(model: keras.Model) -> float:
    """How far, of the largest output, a probe may be off on another machine: 1e-5, more where 16 bits compute."""
    dtypes = {layer.compute_dtype for layer in [model, *state.sublayers(model)] if state.own_variables(layer)}
    return 5e-2 if "bfloat16" in dtypes else 5e-3 if "float16" in dtypes else 1e-5


def machine() -> dict[str, Any]:
    """What has to be the same for outputs to be the same to the last bit. The machine's name is only in a digest."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": digests.of_bytes(f"{platform.node()}|{platform.processor()}".encode())[:16],
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": affinity,
        "devices": len(keras.distribution.list_devices()),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "backend_version": _backend_version(),
        "numpy": np.__version__,
    }


def _backend_version() -> str:
    import importlib.metadata

    return importlib.metadata.version(keras.backend.backend())


def _expected_inputs(model: keras.Model) -> Any:
    if getattr(model, "inputs", None) is None:
        raise ValueError(
            explain(
                f"{model.name} does not say which inputs it takes.",
                given=f"{type(model).__name__}, which has no `inputs`",
                expected="a functional model, a built Sequential, or a KerasHub model",
                to_mend="call it within one: keras.Model(inputs, model(inputs))",
            )
        )
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _filled(tensor: keras.KerasTensor, highest: int, length: int, place: int) -> np.ndarray:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    whole = "float" not in dtype
    free = length if whole or len(tensor.shape) < 4 else _PROBE_SIDE
    shape = (_PROBE_BATCH, *(free if side is None else side for side in tensor.shape[1:]))
    generator = np.random.default_rng(place)
    if not whole:
        return generator.uniform(0, 1, shape).astype("float32").astype(dtype if dtype == "float16" else "float32")
    if "mask" in tensor.name:
        return np.ones(shape, dtype)
    if "segment" in tensor.name or "type" in tensor.name:
        return np.zeros(shape, dtype)
    return generator.integers(0, highest, shape).astype(dtype)

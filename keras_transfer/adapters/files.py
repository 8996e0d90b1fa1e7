"""Adapters as folders: `adapter.safetensors` with the numbers, `adapter.json` with what they are and what they belong
to.

A folder holds the factors and every other weight that was trained, so that base and folder together are the model; and
it knows its base, so that it cannot be put on another one unnoticed. No pickle.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import safetensors.numpy
from keras import ops

from keras_transfer import card as cards
from keras_transfer import digests
from keras_transfer.adapters import attach, base_identity, beside, layers, switch
from keras_transfer.adapters.matrices import kind_of, matrix, unsuitable
from keras_transfer.adapters.places import Place, places
from keras_transfer.adapters.table import AdapterTable
from keras_transfer.errors import explain, nearest

_FORMAT, _VERSION = "keras_transfer.adapter", 1
_TENSORS, _DESCRIPTION = "adapter.safetensors", "adapter.json"


def save_adapter(
    model: keras.Model,
    folder: str | os.PathLike,
    *,
    name: str | None = None,
    card: Mapping[str, Any] | None = None,
    probe: Any = None,
    format: Literal["keras_transfer", "peft"] = "keras_transfer",
) -> None:
    """Writes one adapter to a folder: its factors, every other weight that it trained, and what base it belongs to.

    Args:
        model: a model with adapters.
        folder: made where it is not there; an adapter in it is replaced, each file whole.
        name: of the adapter; `None` is the one that counts.
        card: what else belongs to it, as JSON can hold it. What the model says of itself is written anyhow: the class
            names, and how it reads text (the preprocessor's settings, and the SHA-256 of its tokenizer's files).
            `read_adapter` gives it back.
        probe: a batch of inputs, in the structure of `model.input`, whose outputs are kept and compared when the
            adapter is loaded. `None` makes one up from the shapes of the inputs.
        format: `"peft"` writes what the `peft` package loads on the Hugging Face model of the same name (BERT, GPT-2,
            Llama), factors only.

    Raises:
        ValueError: where the model has no such adapter, or no adapter counts; where PEFT has no place for what it
            trains.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="query")])
    >>> _ = attach.add_lora(model, rank=2, targets="query")
    >>> folder = tempfile.mkdtemp()
    >>> save_adapter(model, folder)
    >>> sorted(path.name for path in pathlib.Path(folder).iterdir())
    ['adapter.json', 'adapter.safetensors']
    """
    name = _name_to_save(model, name)
    if format == "peft":
        from keras_transfer.adapters import peft

        peft.save(model, folder, name)
        return
    if format != "keras_transfer":
        raise ValueError(
            explain("`format` names no format of adapters.", given=repr(format), expected="'keras_transfer' or 'peft'")
        )
    counting = attach.active(model)
    if counting != name:
        attach.activate(model, name, counting)
    try:
        description, tensors = _described(model, name, probe)
    finally:
        if counting != name:
            attach.activate(model, counting, name)
    description["card"] = {**_card_of(model), **(card or {})}
    content = safetensors.numpy.save(tensors)
    description["sha256"] = digests.of_bytes(content)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / _TENSORS, content)
    _write_whole(folder / _DESCRIPTION, json.dumps(description, indent=1).encode())


def load_adapter(
    model: keras.Model,
    folder: str | os.PathLike,
    *,
    name: str | None = None,
    check: Literal["exact", "shapes"] = "exact",
) -> AdapterTable:
    """Puts a saved adapter on a model, in place, and makes it the one that counts.

    The base has to be the one that it was trained on: the same classes, the same reading of text, the same
    configuration, the same weights, and the same answers to the probe that was saved (to the last bit on the machine
    that saved it, to 1e-5 of the largest output on another; 5e-3 and 5e-2 where float16 and bfloat16 compute). Where
    anything is wrong the model is left as it was.

    Args:
        model: the base, with other adapters on it or none. Layers that came with the adapter, a head say, have to be
            there in the right shapes; their weights are read.
        folder: written by `save_adapter`, or by `peft` for BERT, GPT-2 or Llama.
        name: what to call it; `None` is the name under which it was saved.
        check: `"shapes"` asks only that the classes and the shapes fit: for a base in another precision, or another
            base at one's own risk.

    Raises:
        ValueError: naming the cause: files that do not belong together, other classes, another tokenizer, another
            adapter shape, another base configuration, other base weights, other answers.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="query")])
    >>> _ = attach.add_lora(model, rank=2, targets="query", name="first")
    >>> folder = tempfile.mkdtemp()
    >>> save_adapter(model, folder)
    >>> switch.remove_adapter(model, "first")
    >>> load_adapter(model, folder, name="second").parameters
    20
    """
    if check not in ("exact", "shapes"):
        raise ValueError(explain("`check` names no check.", given=repr(check), expected="'exact' or 'shapes'"))
    folder = pathlib.Path(folder)
    if (folder / "adapter_config.json").is_file() and not (folder / _DESCRIPTION).is_file():
        from keras_transfer.adapters import peft

        return peft.load(model, folder, name or attach.DEFAULT)
    description = read_adapter(folder)
    tensors = safetensors.numpy.load((folder / _TENSORS).read_bytes())
    name = description["name"] if name is None else name
    attach.check_name(model, name)
    said = _card_of(model)
    _check_classes(model, said.get("classes"), description["card"].get("classes"))
    carriers = _find_layers(model, description["factors"])
    brought = _find_variables(model, description["beside"])
    if check == "exact":
        _check_base(model, description["base"], brought)
        _check_reads_the_same(model, said.get("preprocessor"), description["card"].get("preprocessor"))
    counting = attach.active(model)
    for layer, entry in zip(carriers, description["factors"], strict=True):
        spec = layers.FactorsSpec(**entry["spec"])
        values = {kind: tensors[f"factors/{entry['path']}/{kind}"] for kind in _kinds(spec)}
        layers.attach(layer, name, spec, values)
    attach.finish(model, name, brought)
    for variable, entry in zip(brought, description["beside"], strict=True):
        variable.assign(tensors[f"beside/{entry['path']}"])
    if check == "exact":
        wrong = _wrong_answers(model, description, tensors)
        if wrong:
            switch.remove_adapter(model, name)
            attach.activate(model, counting, None)
            raise ValueError(wrong)
    return attach.table(model, name)


def read_adapter(folder: str | os.PathLike) -> dict[str, Any]:
    """What a saved adapter says of itself: its name, card, factors, base and machine, without its numbers.

    Raises:
        ValueError: where there is no adapter in the folder, or its two files do not belong together.
    """
    folder = pathlib.Path(folder)
    missing = [name for name in (_DESCRIPTION, _TENSORS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            explain(
                "There is no adapter in this folder.",
                given=f"{folder}, without {' and '.join(missing)}",
                expected="a folder that `save_adapter` wrote, or `peft`",
                nearest=_nearest_folder(folder),
            )
        )
    description = json.loads((folder / _DESCRIPTION).read_text())
    if description.get("format") != _FORMAT or description.get("version", 0) > _VERSION:
        raise ValueError(
            explain(
                "This adapter was written in a format that is not known here.",
                given=f"{description.get('format')!r}, version {description.get('version')}",
                expected=f"{_FORMAT!r}, version {_VERSION} at most",
                to_mend="install a newer keras_transfer",
            )
        )
    if digests.of_bytes((folder / _TENSORS).read_bytes()) != description["sha256"]:
        raise ValueError(
            explain(
                f"{_TENSORS} is not the file that {_DESCRIPTION} was written with.",
                given=str(folder),
                to_mend="copy the folder anew: one of the two was cut off, changed, or is of another adapter",
            )
        )
    return description


def _name_to_save(model: keras.Model, name: str | None) -> str:
    if name is None and attach.names(model):
        name = attach.active(model)
        if name is None:
            raise ValueError(
                explain(
                    f"No adapter counts in {model.name}.",
                    given=f"adapters: {', '.join(attach.names(model))}",
                    to_mend="say which one: save_adapter(model, folder, name=...)",
                )
            )
    attach.check_known(model, name)
    return name


def _card_of(model: keras.Model) -> dict[str, Any]:
    """What a model says of itself, with the settings of its preprocessor alone: a vocabulary belongs to the base."""
    said = cards.read(model)
    written = said.pop("preprocessor", None)
    if written is None and getattr(model, "preprocessor", None) is not None:  # a task of KerasHub
        written = cards.write_preprocessor(model.preprocessor)
    return said if written is None else {**said, "preprocessor": cards.preprocessor_settings(written)}


def _described(model: keras.Model, name: str, batch: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    tensors: dict[str, np.ndarray] = {}
    factors = []
    for position, place in enumerate(_able(model)):
        found = layers.adapters_of(place.layer).get(name)
        if found is None:
            continue
        factors.append(
            {
                "path": place.path,
                "position": position,
                "kind": layers.stock_class(place.layer).__name__,
                "kernel_shape": list(found.matrix.kernel_shape),
                "spec": {field: getattr(found.spec, field) for field in vars(found.spec)},
            }
        )
        for kind, variable in found.trained.items():
            tensors[f"factors/{place.path}/{kind}"] = _array(variable)
    trained = {id(variable) for kept in beside.everywhere(model) for variable in kept.trains(name)}
    brought, others = [], []
    for position, (path, variable) in enumerate(base_identity.named_variables(model)):
        if id(variable) in trained:
            brought.append(variable)
            others.append({"path": path, "position": position, "shape": list(variable.shape)})
            tensors[f"beside/{path}"] = _array(variable)
    probe = base_identity.probe_inputs(model) if batch is None else base_identity.flat_probe(model, batch)
    outputs = base_identity.answers(model, probe)
    tensors |= {f"probe/input/{place}": array for place, array in enumerate(probe)}
    tensors |= {f"probe/output/{place}": array for place, array in enumerate(outputs)}
    architecture = base_identity.architecture(model)
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        "name": name,
        "factors": factors,
        "beside": others,
        "base": {
            "class": layers.stock_class(model).__name__,
            "config": architecture,
            "config_sha256": digests.of_json(architecture),
            "weights_sha256": base_identity.weights_digest(model, brought),
        },
        "probe": {"inputs": len(probe), "outputs": len(outputs), "tolerance": base_identity.tolerance(model)},
        "machine": base_identity.machine(),
    }
    return description, tensors


def _able(model: keras.Model) -> list[Place]:
    return [place for place in places(model) if kind_of(place.layer)]


def _kinds(spec: layers.FactorsSpec) -> tuple[str, ...]:
    return ("a", "b", "magnitude") if spec.dora else ("a", "b")


def _find_layers(model: keras.Model, entries: Sequence[Mapping[str, Any]]) -> list[keras.Layer]:
    """The layers that saved factors belong to: by path, and where paths have changed by position, all of them."""
    able = _able(model)
    by_path = {place.path: place for place in able}
    chosen = [by_path.get(entry["path"]) for entry in entries]
    if any(each is None for each in chosen):
        by_position = [able[entry["position"]] if entry["position"] < len(able) else None for entry in entries]
        chosen = by_position if all(_fits(place, entry) for place, entry in zip(by_position, entries)) else chosen  # noqa: B905
    for place, entry in zip(chosen, entries, strict=True):
        if place is None:
            found = nearest(entry["path"], by_path)
            raise ValueError(
                explain(
                    f"The adapter has factors for a layer that {model.name} does not have.",
                    given=f"{entry['path']}, a {entry['kind']} with a kernel {tuple(entry['kernel_shape'])}",
                    nearest=found,
                    to_mend="load it onto the model that it was trained on",
                )
            )
        reason = unsuitable(place.layer)
        if reason:
            raise ValueError(explain(f"{place.path} can carry no adapter.", because=reason))
        if not _fits(place, entry):
            raise ValueError(
                explain(
                    f"The adapter's factors for {place.path} have another shape than the layer.",
                    given=f"factors for a {entry['kind']} kernel {tuple(entry['kernel_shape'])}",
                    expected=f"{layers.stock_class(place.layer).__name__} {matrix(place.layer).kernel_shape}",
                    to_mend="load it onto the model that it was trained on",
                )
            )
    return [place.layer for place in chosen]


def _fits(place: Place | None, entry: Mapping[str, Any]) -> bool:
    return (
        place is not None
        and unsuitable(place.layer) is None
        and list(matrix(place.layer).kernel_shape) == list(entry["kernel_shape"])
    )


def _find_variables(model: keras.Model, entries: Sequence[Mapping[str, Any]]) -> list[keras.Variable]:
    """The variables that come with an adapter beside its factors, found as the layers are."""
    named = list(base_identity.named_variables(model))
    by_path = dict(named)
    chosen = [by_path.get(entry["path"]) for entry in entries]
    if any(each is None for each in chosen):
        positions = [entry["position"] for entry in entries]
        found = [named[position][1] if position < len(named) else None for position in positions]
        fits = [v is not None and list(v.shape) == e["shape"] for v, e in zip(found, entries, strict=True)]
        chosen = found if all(fits) else chosen
    for variable, entry in zip(chosen, entries, strict=True):
        if variable is None or list(variable.shape) != entry["shape"]:
            there = None if variable is None else tuple(variable.shape)
            raise ValueError(
                explain(
                    f"The adapter brings a weight that {model.name} has "
                    + ("no place for." if variable is None else "in another shape."),
                    given=f"{entry['path']} {tuple(entry['shape'])}",
                    expected=there,
                    nearest=nearest(entry["path"], by_path) if variable is None else None,
                    to_mend="build the model as it was built for training: the same head, for as many classes",
                )
            )
    return chosen


def _check_classes(model: keras.Model, here: Sequence[str] | None, there: Sequence[str] | None) -> None:
    """Refuses an adapter for other classes, where both sides name them.

    Names that only count, as builders give them where they are told a number, name nothing.
    """
    if any(names is None or list(names) == list(map(str, range(len(names)))) for names in (here, there)):
        return
    if list(here) != list(there):
        raise ValueError(
            explain(
                "The adapter was trained on other classes, or on these in another order.",
                given=f"{model.name}, which tells apart {', '.join(here)}",
                expected=", ".join(there),
                to_mend="build the model with the classes of the adapter: read_adapter(folder)['card']['classes']",
            )
        )


def _check_reads_the_same(model: keras.Model, here: Any, there: Any) -> None:
    """Refuses an adapter that was trained on texts read otherwise, where both sides say how they read."""
    if here is None or there is None:
        return
    found = base_identity.first_difference(*map(base_identity.comparable, (there, here)))
    if found:
        path, expected, given = found
        raise ValueError(
            explain(
                f"The adapter was trained on texts that were read otherwise than {model.name} reads them.",
                given=f"{_short(given)} at {path}",
                expected=_short(expected),
                to_mend='build the model with the preprocessor of the adapter; or check="shapes"',
            )
        )


def _check_base(model: keras.Model, base: Mapping[str, Any], brought: Sequence[keras.Variable]) -> None:
    here = base_identity.architecture(model)
    if digests.of_json(here) != base["config_sha256"]:
        difference = base_identity.first_difference(base["config"], here) or ("", base["class"], type(model).__name__)
        path, there, now = difference
        raise ValueError(
            explain(
                "The adapter was trained on a base of another configuration.",
                given=f"{_short(now)} at {path}",
                expected=_short(there),
                to_mend='build the base as it was; or check="shapes", where only the shapes have to fit',
            )
        )
    if base_identity.weights_digest(model, brought) != base["weights_sha256"]:
        raise ValueError(
            explain(
                "The adapter was trained on other base weights.",
                given=f"{model.name}, whose weights are others than those of the {base['class']} it was saved from",
                expected=f"weights with the SHA-256 {base['weights_sha256'][:16]}…",
                to_mend="load the same pretrained weights first; none of them may have been trained since",
            )
        )


def _wrong_answers(model: keras.Model, description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str | None:
    """What is wrong with the answers to the probe; `None` where nothing is."""
    probe, machine = description["probe"], description["machine"]
    inputs = [tensors[f"probe/input/{place}"] for place in range(probe["inputs"])]
    outputs = base_identity.answers(model, inputs)
    expected = [tensors[f"probe/output/{place}"] for place in range(probe["outputs"])]
    if len(outputs) != len(expected) or any(a.shape != b.shape for a, b in zip(outputs, expected, strict=True)):
        return explain(
            "The model with the adapter answers the probe in another shape than it did.",
            given=[array.shape for array in outputs],
            expected=[array.shape for array in expected],
        )
    off = max((_relative(a, b) for a, b in zip(outputs, expected, strict=True)), default=0.0)
    same_machine = machine == base_identity.machine()
    allowed = 0.0 if same_machine else probe["tolerance"]
    if off <= allowed:
        return None
    return explain(
        "The model with the adapter does not answer the probe as it did when the adapter was saved.",
        given=f"outputs that are off by {off:.1e} of the largest",
        expected="the same to the last bit, on the machine that saved it" if same_machine else f"at most {allowed:g}",
        because="configuration and weights are the same, so a layer computes otherwise: another version of Keras or "
        "of its backend, or a layer that draws at random at inference",
        to_mend='check="shapes" loads it all the same',
    )


def _relative(here: np.ndarray, there: np.ndarray) -> float:
    if not here.size:
        return 0.0
    difference = float(np.max(np.abs(here.astype("float64") - there)))
    return difference / max(float(np.max(np.abs(there))), 1e-12) if difference == difference else float("inf")


def _array(variable: keras.Variable) -> np.ndarray:
    """A variable's value; 16-bit floats as float32, which holds each of them exactly."""
    value = variable.value if "16" not in str(variable.dtype) else ops.cast(variable.value, "float32")
    return np.ascontiguousarray(ops.convert_to_numpy(value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"


def _nearest_folder(folder: pathlib.Path) -> str | None:
    if not folder.parent.is_dir():
        return None
    holding = [entry.name for entry in folder.parent.iterdir() if (entry / _DESCRIPTION).is_file()]
    return nearest(folder.name, holding)


def _write_whole(path: pathlib.Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    with open(unfinished, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)

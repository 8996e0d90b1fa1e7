"""Adapters in the files of the `peft` package, for bodies that Hugging Face and KerasHub both have.

PEFT keeps what torch's linear layers do: `lora_A` is (r, in) and `lora_B` (out, r), our A and B transposed. Names lead
through Hugging Face's modules. GPT-2 has one of them, `c_attn`, where KerasHub has three layers: read, A goes to all
three and B is cut in three; written, the three A are stacked and the B stand on a diagonal, at as many times the rank,
alpha likewise.
"""

import dataclasses
import json
import os
import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import safetensors.numpy
from keras import ops

from keras_transfer import card, state
from keras_transfer.adapters import attach, beside, keras_internals, layers
from keras_transfer.adapters.matrices import matrix
from keras_transfer.adapters.places import Place, places
from keras_transfer.adapters.table import AdapterTable
from keras_transfer.errors import explain, nearest

_TENSORS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
# Ways to begin that change the base as well: what PEFT writes then belongs to a base that nobody has.
_FINE_BEGINNINGS = (True, False, "gaussian", "orthogonal")


@dataclasses.dataclass(frozen=True)
class _Family:
    """How one family's modules are called.

    Attributes:
        modules: Hugging Face's name, within the bare model, for each path in KerasHub's body; `{i}` counts layers.
        fused: which of those modules is several layers of KerasHub's, one behind the other.
        causal: what stands before it all in the model with a language modelling head.
        fan_in_fan_out: whether its linear layers keep their matrix as (in, out).
    """

    modules: Mapping[str, str]
    fused: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    causal: str = ""
    fan_in_fan_out: bool = False


_BERT = _Family(
    {
        "token_embedding": "embeddings.word_embeddings",
        "segment_embedding": "embeddings.token_type_embeddings",
        "transformer_layer_{i}/self_attention_layer/query": "encoder.layer.{i}.attention.self.query",
        "transformer_layer_{i}/self_attention_layer/key": "encoder.layer.{i}.attention.self.key",
        "transformer_layer_{i}/self_attention_layer/value": "encoder.layer.{i}.attention.self.value",
        "transformer_layer_{i}/self_attention_layer/attention_output": "encoder.layer.{i}.attention.output.dense",
        "transformer_layer_{i}/feedforward_intermediate_dense": "encoder.layer.{i}.intermediate.dense",
        "transformer_layer_{i}/feedforward_output_dense": "encoder.layer.{i}.output.dense",
        "pooled_dense": "pooler.dense",
    }
)
_GPT2 = _Family(
    {
        "token_embedding": "wte",
        "transformer_layer_{i}/self_attention/attention_output": "h.{i}.attn.c_proj",
        "transformer_layer_{i}/feedforward_intermediate_dense": "h.{i}.mlp.c_fc",
        "transformer_layer_{i}/feedforward_output_dense": "h.{i}.mlp.c_proj",
    },
    fused={
        "h.{i}.attn.c_attn": [f"transformer_layer_{{i}}/self_attention/{kind}" for kind in ("query", "key", "value")]
    },
    causal="transformer.",
    fan_in_fan_out=True,
)
_LLAMA = _Family(
    {
        "token_embedding": "embed_tokens",
        "transformer_layer_{i}/self_attention/query": "layers.{i}.self_attn.q_proj",
        "transformer_layer_{i}/self_attention/key": "layers.{i}.self_attn.k_proj",
        "transformer_layer_{i}/self_attention/value": "layers.{i}.self_attn.v_proj",
        "transformer_layer_{i}/self_attention/attention_output": "layers.{i}.self_attn.o_proj",
        "transformer_layer_{i}/feedforward_gate_dense": "layers.{i}.mlp.gate_proj",
        "transformer_layer_{i}/feedforward_intermediate_dense": "layers.{i}.mlp.up_proj",
        "transformer_layer_{i}/feedforward_output_dense": "layers.{i}.mlp.down_proj",
    },
    causal="model.",
)
_FAMILIES = {"BertBackbone": _BERT, "GPT2Backbone": _GPT2, "LlamaBackbone": _LLAMA, "Llama3Backbone": _LLAMA}


@dataclasses.dataclass(frozen=True, eq=False)
class _Module:
    """One module of Hugging Face's, and the layers that it is in KerasHub."""

    name: str
    places: tuple[Place, ...]

    @property
    def is_embedding(self) -> bool:
        return isinstance(self.places[0].layer, keras.layers.Embedding)


@dataclasses.dataclass(frozen=True, eq=False)
class _Pair:
    """PEFT's factors of one module: `a` (r, in), `b` (out, r), and with DoRA the length of each column."""

    a: np.ndarray
    b: np.ndarray
    magnitude: np.ndarray | None
    alpha: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def save(model: keras.Model, folder: str | os.PathLike, name: str) -> None:
    """Writes what `peft.PeftModel.from_pretrained` loads: on the bare Hugging Face model, or under a language modelling
    head where `model` is a KerasHub CausalLM.

    A head that is not part of the body has no place there; it is left out, with a warning.

    Raises:
        ValueError: where the body is of no family that both have; where PEFT has no place for something that was
            trained.
    """
    body, family = _family(model)
    _check_nothing_beside(model, body, name)
    causal = type(model).__name__.endswith("CausalLM")
    tensors: dict[str, np.ndarray] = {}
    pairs: dict[str, _Pair] = {}
    specs = []
    covered: set[int] = set()
    for module in _modules(body, family):
        found = [layers.adapters_of(place.layer).get(name) for place in module.places]
        if not any(found):
            continue
        covered |= {id(place.layer) for place in module.places}
        specs += [factors.spec for factors in found if factors]
        pair = pairs[module.name] = _written(module, found)
        key = _PREFIX + (family.causal if causal else "") + module.name
        if module.is_embedding:
            tensors |= {f"{key}.lora_embedding_A": pair.a, f"{key}.lora_embedding_B": pair.b}
        else:
            tensors |= {f"{key}.lora_A.weight": pair.a, f"{key}.lora_B.weight": pair.b}
        if pair.magnitude is not None:
            tensors[f"{key}.lora_magnitude_vector"] = pair.magnitude
    _check_all_covered(model, name, covered)
    spec = _common(specs)
    ranks = [pair.rank for pair in pairs.values()]
    alphas = [pair.alpha for pair in pairs.values()]
    rank, alpha = max(set(ranks), key=ranks.count), max(set(alphas), key=alphas.count)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if causal else None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": list(pairs),
        "r": rank,
        "rank_pattern": {module: pair.rank for module, pair in pairs.items() if pair.rank != rank},
        "lora_alpha": _plain(alpha),
        "alpha_pattern": {module: _plain(pair.alpha) for module, pair in pairs.items() if pair.alpha != alpha},
        "lora_dropout": spec.dropout,
        "use_rslora": spec.scaling == "rslora",
        "use_dora": spec.dora,
        "fan_in_fan_out": family.fan_in_fan_out,
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
    }
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = safetensors.numpy.save(
        {key: np.ascontiguousarray(value, "float32") for key, value in tensors.items()}, {"format": "pt"}
    )
    for file, data in ((_TENSORS, content), (_CONFIG, json.dumps(config, indent=2).encode())):
        unfinished = folder / f".{file}.{os.getpid()}.unfinished"
        unfinished.write_bytes(data)
        os.replace(unfinished, folder / file)


def load(model: keras.Model, folder: str | os.PathLike, name: str) -> AdapterTable:
    """Puts an adapter that PEFT wrote on a model; PEFT says nothing of the base, so only shapes can be checked.

    Raises:
        ValueError: where the body is of no family that both have; for what PEFT can do and this cannot; where a tensor
            belongs to no layer, or has another shape.
    """
    folder = pathlib.Path(folder)
    config = json.loads((folder / _CONFIG).read_text())
    _check_readable(folder, config)
    attach.check_name(model, name)
    body, family = _family(model)
    tensors = safetensors.numpy.load((folder / _TENSORS).read_bytes())
    found, left = _gathered(tensors, {module.name: module for module in _modules(body, family)})
    if left:
        _say_what_is_left(left, body, family)
    put = []
    for module, parts in found:
        module_rank = parts["a"].shape[0]
        alpha = _by_pattern(config.get("alpha_pattern"), module.name, config["lora_alpha"])
        spec = layers.FactorsSpec(
            rank=module_rank,
            alpha=float(alpha),
            scaling="rslora" if config.get("use_rslora") else "lora",
            dora="magnitude" in parts,
            dropout=0.0 if module.is_embedding else float(config.get("lora_dropout") or 0.0),
        )
        for place, values in zip(module.places, _read(module, parts), strict=True):
            attach.check_carries(place.path, place.layer, spec)
            put.append((place.layer, spec, values))
    for layer, spec, values in put:
        layers.attach(layer, name, spec, values)
    attach.finish(model, name, [])
    return attach.table(model, name)


def _family(model: keras.Model) -> tuple[keras.Model, _Family]:
    for layer in [model, *state.sublayers(model)]:
        known = layers.stock_class(layer).__name__
        if known in _FAMILIES:
            return layer, _FAMILIES[known]
    # What `text_classifier` cuts out of a backbone is a plain functional model, with the layers of the backbone.
    known = card.read(model).get("backbone")
    if known in _FAMILIES:
        return next(layer for layer in model.layers if isinstance(layer, keras.Model)), _FAMILIES[known]
    raise ValueError(
        explain(
            f"PEFT's names are not known for the body of {model.name}.",
            given=known or layers.stock_class(getattr(model, "backbone", model)).__name__,
            expected="a model with one of " + ", ".join(_FAMILIES),
            to_mend='save_adapter without format="peft"',
        )
    )


def _modules(body: keras.Model, family: _Family) -> list[_Module]:
    """The modules of a body, bottom to top."""
    by_path = {place.path: place for place in places(body)}
    found = []
    for path, place in by_path.items():
        number = re.search(r"transformer_layer_(\d+)", path)
        general = path.replace(number[0], "transformer_layer_{i}") if number else path
        i = number[1] if number else ""
        if general in family.modules:
            found.append(_Module(family.modules[general].replace("{i}", i), (place,)))
        for module, paths in family.fused.items():
            if general == paths[0]:
                parts = tuple(by_path[part.replace("{i}", i)] for part in paths)
                found.append(_Module(module.replace("{i}", i), parts))
    return found


def _written(module: _Module, found: Sequence[layers.Factors | None]) -> _Pair:
    """PEFT's factors of a module; where it is several layers, their factors stacked and on a diagonal."""
    present = [factors for factors in found if factors]
    for place, factors in zip(module.places, found, strict=True):
        if factors and factors.spec.layout != "paper" and len(matrix(place.layer).kernel_shape) > 2:
            raise ValueError(
                explain(
                    "PEFT has no place for factors in Keras' shapes.",
                    given=f"{place.path}, adapted by Keras' `enable_lora` or factors='keras'",
                    to_mend='factors="paper"',
                )
            )
    downs = [_numpy(factors.matrix.flat_factors(factors.a, factors.b)[0]).T for factors in present]
    rank = sum(down.shape[0] for down in downs)
    ups, at = [], 0
    for place, factors in zip(module.places, found, strict=True):
        up = np.zeros((matrix(place.layer).d_out, rank), "float32")
        if factors:
            up[:, at : at + factors.spec.rank] = _numpy(factors.b).T
            at += factors.spec.rank
        ups.append(up)
    magnitude = None
    if present[0].spec.dora:
        magnitude = np.concatenate(
            [
                _lengths(place) + (_numpy(factors.magnitude) if factors else 0.0)
                for place, factors in zip(module.places, found, strict=True)
            ]
        )
    scales = {factors.spec.scale for factors in present}
    if len(scales) > 1:
        raise ValueError(
            explain(
                f"PEFT has one scale for {module.name}, which is several layers here, with several.",
                given=", ".join(f"{scale:g}" for scale in sorted(scales)),
                to_mend="the same rank for query, key and value",
            )
        )
    scale, rslora = scales.pop(), present[0].spec.scaling == "rslora"
    return _Pair(np.concatenate(downs), np.concatenate(ups), magnitude, scale * (rank**0.5 if rslora else rank))


def _read(module: _Module, parts: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The values of our factors for each layer of a module."""
    a, b = parts["a"].astype("float32").T, parts["b"].astype("float32")
    sizes = [matrix(place.layer) for place in module.places]
    rank, d_out = a.shape[1], sum(size.d_out for size in sizes)
    if a.shape[0] != sizes[0].d_in or b.shape != (d_out, rank):
        raise ValueError(
            explain(
                f"The factors for {module.name} have other shapes than the model.",
                given=f"lora_A {parts['a'].shape}, lora_B {parts['b'].shape}",
                expected=f"lora_A ({rank}, {sizes[0].d_in}), lora_B ({d_out}, {rank})",
                to_mend="load it onto the KerasHub model of the same size",
            )
        )
    found, at = [], 0
    for place, size in zip(module.places, sizes, strict=True):
        values = {"a": a.reshape(size.shapes(rank)[0]), "b": b[at : at + size.d_out].T}
        if "magnitude" in parts:
            values["magnitude"] = parts["magnitude"].reshape(-1)[at : at + size.d_out] - _lengths(place)
        found.append(values)
        at += size.d_out
    return found


def _lengths(place: Place) -> np.ndarray:
    """The length of each column of the frozen kernel."""
    flat = matrix(place.layer).flat(ops.cast(keras_internals.kernel(place.layer).value, "float32"))
    return _numpy(ops.sqrt(ops.sum(ops.square(flat), axis=0)))


def _gathered(
    tensors: Mapping[str, np.ndarray], modules: Mapping[str, _Module]
) -> tuple[list[tuple[_Module, dict[str, np.ndarray]]], list[str]]:
    """The tensors by module, and the keys that belong to none."""
    kinds = {
        "lora_A.weight": "a", "lora_embedding_A": "a", "lora_B.weight": "b", "lora_embedding_B": "b",
        "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude",
    }  # fmt: skip
    gathered: dict[str, dict[str, np.ndarray]] = {}
    left = []
    for key, value in tensors.items():
        path = key.removeprefix(_PREFIX)
        ending = next((ending for ending in kinds if path.endswith("." + ending)), None)
        owner = path.removesuffix(f".{ending}") if ending else ""
        name = next((name for name in modules if owner == name or owner.endswith("." + name)), None)
        if name is None:
            left.append(key)
        else:
            gathered.setdefault(name, {})[kinds[ending]] = value
    for name, parts in gathered.items():
        if not {"a", "b"} <= parts.keys():
            raise ValueError(explain(f"One of the two factors for {name} is missing.", given=", ".join(sorted(parts))))
    return [(modules[name], gathered[name]) for name in modules if name in gathered], left


def _say_what_is_left(left: Sequence[str], body: keras.Model, family: _Family) -> None:
    """An error for factors that no layer takes; a warning for a head that the body does not have, or a pooler."""
    # A body without it was cut off below it, and nothing of what the adapter does there would reach the output.
    above = [module for module in family.modules.values() if module.startswith("pooler")]
    of_body = [
        key
        for key in left
        if ("lora_" in key or ".layer." in key or ".layers." in key or ".h." in key)
        and not any(f".{module}." in key for module in above)
    ]
    if of_body:
        raise ValueError(
            explain(
                f"The adapter holds something that {body.name} has no place for.",
                given=", ".join(of_body[:4]) + (f" … ({len(of_body)} tensors)" if len(of_body) > 4 else ""),
                expected="LoRA factors of its linear layers and embeddings",
            )
        )
    warnings.warn(
        explain(
            "The adapter holds weights that are no part of the body; they were not read.",
            given=", ".join(left),
            to_mend="train the head here, or set its weights yourself; for those of a pooler, "
            "kt.text_classifier(…, pooling='pooled')",
        ),
        stacklevel=4,
    )


def _check_readable(folder: pathlib.Path, config: Mapping[str, Any]) -> None:
    if not (folder / _TENSORS).is_file():
        raise ValueError(
            explain(
                f"The folder has {_CONFIG}, but not {_TENSORS}.",
                given=str(folder),
                to_mend="save it with safe_serialization=True: pickled weights (.bin) are not read",
            )
        )
    beginning = config.get("init_lora_weights", True)
    cannot = {
        f"peft_type {config.get('peft_type')!r}": config.get("peft_type") != "LORA",
        f"bias {config.get('bias')!r}": config.get("bias", "none") != "none",
        f"init_lora_weights {beginning!r}, which changes the base too": beginning not in _FINE_BEGINNINGS,
        **{
            key: bool(config.get(key))
            for key in ("lora_bias", "layer_replication", "use_qalora", "trainable_token_indices", "target_parameters")
        },
    }
    found = [what for what, is_so in cannot.items() if is_so]
    if found:
        raise ValueError(
            explain(
                "This adapter uses something of PEFT that is not known here.", given=", ".join(found), expected="LoRA"
            )
        )


def _check_nothing_beside(model: keras.Model, body: keras.Model, name: str) -> None:
    trained = [variable for kept in beside.everywhere(model) for variable in kept.trains(name)]
    inside = {id(variable) for variable in body.variables}
    of_body = [variable.path for variable in trained if id(variable) in inside]
    if of_body:
        raise ValueError(
            explain(
                "PEFT's file is written with factors alone, and this adapter trained weights of the body as well.",
                given=", ".join(of_body[:4]) + (f" … ({len(of_body)} variables)" if len(of_body) > 4 else ""),
                to_mend="save_adapter without format=\"peft\", or train with biases='none'",
            )
        )
    if trained:
        warnings.warn(
            explain(
                "PEFT's file has no place for the head; it is left out.",
                given=", ".join(variable.path for variable in trained),
                to_mend='save_adapter without format="peft" keeps it',
            ),
            stacklevel=4,
        )


def _check_all_covered(model: keras.Model, name: str, covered: set[int]) -> None:
    known = [place.path for place in places(model) if id(place.layer) in covered]
    for place in attach.adapted_places(model):
        if name in layers.adapters_of(place.layer) and id(place.layer) not in covered:
            raise ValueError(
                explain(
                    "Hugging Face's model has no such layer, so PEFT has no name for it.",
                    given=place.path,
                    nearest=nearest(place.path, known),
                    to_mend='save_adapter without format="peft"',
                )
            )


def _common(specs: Sequence[layers.FactorsSpec]) -> layers.FactorsSpec:
    kinds = {(spec.scaling, spec.dora, spec.dropout) for spec in specs}
    if len(kinds) > 1:
        raise ValueError(explain("PEFT has one scaling, DoRA or not, and one dropout for all layers.", given=kinds))
    return specs[0]


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, otherwise: Any) -> Any:
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def _plain(number: float) -> float | int:
    return int(number) if float(number).is_integer() else float(number)


def _numpy(value: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(value))

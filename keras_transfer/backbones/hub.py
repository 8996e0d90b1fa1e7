"""The only door to KerasHub's bodies: presets by name, folders, backbone objects, and what belongs to them.

KerasHub is large, and is imported when one of its bodies is first asked for.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import pathlib
from collections.abc import Iterator

import keras
import numpy as np

from keras_transfer.backbones import graph
from keras_transfer.errors import explain, nearest

Source = str | os.PathLike | keras.Model


def knows(source: str | os.PathLike) -> bool:
    """Whether this is something that KerasHub might load: a folder, a handle such as `hf://…`, or a preset's name.

    Example:

    >>> knows("bert_small_en_uncased"), knows("MobileNetV2")
    (True, False)
    """
    return os.path.isdir(source) or "://" in str(source) or str(source) in _presets()


def presets() -> tuple[str, ...]:
    """The names of all presets.

    Example:

    >>> "vit_base_patch16_224_imagenet" in presets()
    True
    """
    return tuple(_presets())


def load(source: Source, *, weights: str | None = "pretrained", **options: object) -> keras.Model:
    """A body of KerasHub.

    Args:
        source: the name of a preset (`"bert_small_en_uncased"`), a handle (`"hf://…"`, `"kaggle://…"`), a local folder,
            a KerasHub preset or a Hugging Face model (config.json and safetensors), or a backbone object, which is
            given back.
        weights: `"pretrained"`, or `None` for random ones. A backbone object has its weights.
        **options: for the constructor of the backbone, such as `dtype="bfloat16"` or `image_shape=(384, 384, 3)`.

    Raises:
        ValueError: for a name that KerasHub does not know (with the nearest one), a folder that it cannot read, or a
            model that is no body.
        FileNotFoundError: for a preset that is neither on this machine nor to be had over the network.

    Example:

    >>> load("bert_tiny_en_uncase")
    Traceback (most recent call last):
    ValueError: KerasHub knows no preset of this name, and there is no such folder.
      given:     'bert_tiny_en_uncase'
      nearest:   'bert_tiny_en_uncased'
      expected:  a preset's name, a local folder, or a handle (hf://…, kaggle://…)
    """
    if not isinstance(source, str | os.PathLike):
        _check_body(source, weights, options)
        return source
    if weights not in ("pretrained", None):
        raise ValueError(
            explain(
                "A preset has its own weights.",
                given=f"weights={weights!r}",
                expected="'pretrained', or None for random ones",
                to_mend="load other weights into the backbone (backbone.load_weights(path)) and pass that",
            )
        )
    check_known(source)
    if "dtype" not in options:
        options |= _quantised_dtype(source)
    with _explained(source):
        return _models().Backbone.from_preset(os.fspath(source), load_weights=weights is not None, **options)


def check_known(source: str | os.PathLike) -> None:
    """Raises a `ValueError` with the nearest name for a text that is nothing `knows`."""
    if not knows(source):
        found = nearest(str(source), _presets())
        raise ValueError(
            explain(
                "KerasHub knows no preset of this name, and there is no such folder.",
                given=repr(os.fspath(source)),
                nearest=None if found is None else repr(found),
                expected="a preset's name, a local folder, or a handle (hf://…, kaggle://…)",
            )
        )


def is_body(model: keras.Layer) -> bool:
    """Whether a model is a backbone of KerasHub, bare: it has no head, whatever its upper part looks like.

    Example:

    >>> from keras_hub.models import BertBackbone
    >>> is_body(BertBackbone(vocabulary_size=9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4))
    True
    """
    return any(base.__name__ == "Backbone" and _is_hubs(base) for base in type(model).__mro__)


def taken_by(backbone: keras.Model) -> list[str]:
    """The names of what a body takes.

    Example:

    >>> from keras_hub.models import BertBackbone
    >>> taken_by(BertBackbone(vocabulary_size=9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4))
    ['padding_mask', 'segment_ids', 'token_ids']
    """
    return sorted(tensor.name for tensor in backbone.inputs)


def writes(backbone: keras.Model) -> bool:
    """Whether a body is one of a model that writes text: a language model's, or one that reads a text first."""
    return _class_for(type(backbone), ("CausalLM", "Seq2SeqLM")) is not None


def reads_from_left(backbone: keras.Model) -> bool:
    """Whether a body is a language model's, which reads from left to right: its last token has seen all others."""
    found = _class_for(type(backbone), ("CausalLM",))
    return found is not None and not issubclass(found, _models().Seq2SeqLM)  # KerasHub counts these among the former


def text_preprocessor(source: Source, backbone: keras.Model, *kinds: str) -> keras.Layer | None:
    """What turns texts into the inputs of a body: KerasHub's preprocessor, with the preset's tokenizer in it.

    Args:
        source: what the body was loaded from; an object has no preprocessor.
        backbone: the body.
        *kinds: names of base classes in `keras_hub.models`, the first one preferred.

    Raises:
        ValueError: where a preset or folder has no tokenizer that KerasHub reads.
        FileNotFoundError: as `load`.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    preprocessor_class = _class_for(type(backbone), kinds)
    if preprocessor_class is None:
        raise ValueError(
            explain(
                f"KerasHub has no preprocessor for {type(backbone).__name__}.",
                given=repr(os.fspath(source)),
                to_mend="pass preprocessor=…: a KerasHub preprocessor that gives the inputs of the backbone",
            )
        )
    with _explained(source, what="the tokenizer"):
        settings = _tokenizer_settings(source, preprocessor_class)
        is_found = preprocessor_class.backbone_cls is not None  # by KerasHub, from what the preset says of its body
        if is_found and not settings:
            return preprocessor_class.from_preset(os.fspath(source))
        tokenizer = preprocessor_class.tokenizer_cls.from_preset(os.fspath(source), **settings)
        if not is_found:
            return preprocessor_class(tokenizer)
        return preprocessor_class.from_preset(os.fspath(source), tokenizer=tokenizer)


def task(source: Source, backbone: keras.Model, *kinds: str, preprocessor: keras.Layer | None = None) -> keras.Model:
    """KerasHub's own task on a body, compiled as KerasHub does it.

    Args:
        source: what the body was loaded from.
        backbone: the body.
        *kinds: names of base classes in `keras_hub.models`, the first one preferred.
        preprocessor: what reads text; the preset's own where `None`.

    Raises:
        ValueError: where KerasHub has no such task on this body, or the preset has no tokenizer.
        FileNotFoundError: as `load`.
    """
    found = _task_class(backbone, kinds)
    if preprocessor is None and found.preprocessor_cls is not None:
        preprocessor = text_preprocessor(source, backbone, found.preprocessor_cls.__name__)
    made = found(backbone=backbone, preprocessor=preprocessor)
    if isinstance(source, str | os.PathLike) and made.has_task_weights():
        # Weights above the backbone's own: KerasHub knows in which file of the preset they lie.
        with _explained(source):
            return found.from_preset(os.fspath(source), backbone=backbone, preprocessor=preprocessor)
    return made


@contextlib.contextmanager
def taking_packed_inputs(model: keras.Model) -> Iterator[None]:
    """Within it a KerasHub task takes token ids as its backbone does, where it would else expect texts.

    Does nothing to any other model. The task keeps its preprocessor: what a callback saves has it, and `generate` goes
    on taking texts.
    """
    if getattr(model, "preprocessor", None) is None or "preprocess_samples" in vars(model):
        yield
        return
    # What KerasHub itself calls in `fit`, `evaluate` and `predict`.
    model.preprocess_samples = keras.utils.pack_x_y_sample_weight
    try:
        yield
    finally:
        del model.preprocess_samples


# Pictures


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How a body was trained to see pictures.

    Attributes:
        preprocessing: a `Rescaling` layer, or `"identity"` where pixels go in as they are.
        image_size: (height, width) in pixels, or `None` for any.
    """

    preprocessing: keras.layers.Rescaling | str
    image_size: tuple[int, int] | None


def pictures(source: str | os.PathLike) -> Pictures | None:
    """How the body of a preset or folder was trained to see pictures, or `None` where it does not say.

    Raises:
        FileNotFoundError: as `load`.
    """
    import keras_hub

    try:
        with _explained(source, what="the image converter"):
            converter = keras_hub.layers.ImageConverter.from_preset(os.fspath(source))
    except ValueError:  # no converter for this body, or none kept with it
        return None
    return None if converter is None else Pictures(rescaling(converter), converter.image_size)


def rescaling(converter: keras.Layer) -> keras.layers.Rescaling | str:
    """What a KerasHub `ImageConverter` does to pixel values, as a stock layer in float32; resizing is left out.

    Example:

    >>> import keras_hub
    >>> rescaling(keras_hub.layers.ImageConverter(scale=1 / 255, image_size=(8, 8))).scale == 1 / 255
    True
    """
    import keras_hub

    if type(converter).call is not keras_hub.layers.ImageConverter.call:
        raise ValueError(
            explain(
                f"The {type(converter).__name__} does more than to resize and scale pictures.",
                expected="a converter with a scale and an offset",
                to_mend="pass preprocessing= the name of a convention, or a layer that does the same to pixels 0..255",
            )
        )
    if converter.scale is None and converter.offset is None:
        return "identity"
    scale = 1.0 if converter.scale is None else _plain(converter.scale)
    offset = 0.0 if converter.offset is None else _plain(converter.offset)
    return keras.layers.Rescaling(scale, offset=offset, dtype="float32", name="preprocessing")


def is_image_converter(layer: object) -> bool:
    """Whether a layer is one of KerasHub's that resize and scale pictures."""
    return any(base.__name__ == "ImageConverter" and _is_hubs(base) for base in type(layer).__mro__)


def picture_part(backbone: keras.Model) -> keras.Model:
    """The part of a body that sees pictures: the image tower of CLIP and SigLIP; any other body as it is."""
    tower = getattr(backbone, "vision_encoder", None)
    return tower if graph.has_graph(tower) and len(backbone.inputs) > 1 else backbone


def begins_with_class_token(body: keras.Model, shape: tuple[int | None, ...]) -> bool:
    """Whether the first of a body's tokens stands for the whole picture: it hands out more tokens than patches.

    Args:
        body: a body of KerasHub, or any other model.
        shape: that of its tokens, (batch, tokens, channels).
    """
    patch = body.get_config().get("patch_size") if _is_hubs(type(body)) else None
    picture = body.inputs[0].shape[1:3]
    if patch is None or None in (*picture, shape[1]):
        return False
    sides = (patch, patch) if isinstance(patch, int) else patch
    patches = (picture[0] // sides[0]) * (picture[1] // sides[1])
    return shape[1] > patches


# Within


def _models():
    import keras_hub

    return keras_hub.models


def _presets() -> dict[str, dict]:
    return _models().Backbone.presets


def _is_hubs(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "keras_hub"


def _plain(values: object) -> float | list[float]:
    return np.asarray(values, "float64").tolist()


def _class_for(backbone_class: type, kinds: tuple[str, ...]) -> type | None:
    """The class of the first of these kinds that KerasHub wrote for a backbone's class, or one that it is based on."""
    models = _models()
    every = [member for member in vars(models).values() if inspect.isclass(member)]
    for kind in kinds:
        for base in backbone_class.__mro__:
            for member in every:
                if issubclass(member, getattr(models, kind)) and _is_for(member, base):
                    return member
    return None


def _is_for(cls: type, backbone_class: type) -> bool:
    """Whether a task or preprocessor is for this class of bodies; T5's preprocessor says so by its tokenizer alone."""
    named = getattr(cls, "backbone_cls", None) or getattr(getattr(cls, "tokenizer_cls", None), "backbone_cls", None)
    return named is backbone_class


def _task_class(backbone: keras.Model, kinds: tuple[str, ...]) -> type:
    models = _models()
    if isinstance(backbone, models.BLIP2Backbone):
        # Two tasks share one backbone class; which of them fits depends on the language model in it.
        reads_first = isinstance(backbone.language_model, models.BLIP2FlanT5)
        found = models.BLIP2Seq2SeqLM if reads_first else models.BLIP2CausalLM
    else:
        found = _class_for(type(backbone), kinds)
    bases = tuple(getattr(models, kind) for kind in kinds)
    if found is None or not issubclass(found, bases):
        classes = [member for member in vars(models).values() if inspect.isclass(member) and issubclass(member, bases)]
        bodies = sorted({member.backbone_cls.__name__ for member in classes if member.backbone_cls is not None})
        raise ValueError(
            explain(
                f"KerasHub has no {' or '.join(kinds)} on this body.",
                given=type(backbone).__name__,
                expected="one of " + ", ".join(bodies),
            )
        )
    return found


def _check_body(model: object, weights: str | None, options: dict[str, object]) -> None:
    if isinstance(getattr(model, "backbone", None), keras.Model):
        raise ValueError(
            explain(
                "`backbone` is a whole task, with a head of its own.",
                given=type(model).__name__,
                expected="its body",
                to_mend="pass its .backbone, and preprocessor= its .preprocessor",
            )
        )
    if not graph.has_graph(model):
        raise ValueError(
            explain(
                "`backbone` is neither a name nor a model.",
                given=type(model).__name__,
                expected="a preset's name, a local folder, or a backbone of KerasHub",
            )
        )
    if options:
        raise ValueError(
            explain(
                "A body that is already built takes no options.",
                given=sorted(options),
                to_mend="give them to its constructor",
            )
        )


def _quantised_dtype(source: str | os.PathLike) -> dict[str, object]:
    """The precision of each layer where a folder holds a quantised body: KerasHub forgets it, and then cannot load."""
    config = pathlib.Path(source) / "config.json"
    if not config.is_file():
        return {}
    with _explained(source):
        dtype = json.loads(config.read_text(encoding="utf-8")).get("config", {}).get("dtype")
    is_map = isinstance(dtype, dict) and dtype.get("class_name") == "DTypePolicyMap"
    return {"dtype": dtype} if is_map else {}


def _tokenizer_settings(source: str | os.PathLike, preprocessor_class: type) -> dict[str, object]:
    """What a Hugging Face folder says of its tokenizer and KerasHub does not read: whether accents are taken off.

    BERT's tokenizer takes them off wherever it lowers case, unless it is told otherwise. KerasHub lowers case alone,
    and every word with an accent becomes [UNK].
    """
    import keras_hub

    described = pathlib.Path(source) / "tokenizer_config.json"
    tokenizer_class = preprocessor_class.tokenizer_cls
    if not described.is_file() or not issubclass(tokenizer_class, keras_hub.tokenizers.WordPieceTokenizer):
        return {}
    settings = json.loads(described.read_text(encoding="utf-8"))
    strips = settings.get("strip_accents")
    return {"strip_accents": bool(settings.get("do_lower_case") if strips is None else strips)}


@contextlib.contextmanager
def _explained(source: str | os.PathLike, *, what: str = "the body") -> Iterator[None]:
    """Says what can be done, in place of what KerasHub raises when it cannot load."""
    source = os.fspath(source)
    try:
        yield
    except Exception as problem:  # KerasHub lets through whatever its readers stumble over
        if os.path.isdir(source):
            raise ValueError(_unreadable(pathlib.Path(source), what, problem)) from problem
        if isinstance(problem, OSError) or "has no config.json" in str(problem):
            raise FileNotFoundError(_missing(source, problem)) from problem
        raise


def _missing(source: str, problem: Exception) -> str:
    handle = _presets()[source]["kaggle_handle"] if source in _presets() else source
    scheme, _, name = handle.partition("://")
    if scheme == "hf":
        cache = pathlib.Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
        looked_in, fetch = cache / f"models--{name.replace('/', '--')}", f"huggingface_hub.snapshot_download({name!r})"
    elif scheme == "kaggle":
        cache = pathlib.Path(os.environ.get("KAGGLEHUB_CACHE", "~/.cache/kagglehub")).expanduser() / "models"
        looked_in, fetch = cache / name, f"kagglehub.model_download({name!r})"
    else:
        looked_in, fetch = None, None
    return explain(
        "The preset is not on this machine, and could not be downloaded.",
        given=repr(source),
        looked_in=looked_in,
        to_mend=f"where there is a network, {fetch} gives a folder; copy it here, and pass its path in place of the "
        "name"
        if fetch
        else "copy its folder here, and pass the path in place of the name",
        reason=_reason(problem),
    )


def _unreadable(folder: pathlib.Path, what: str, problem: Exception) -> str:
    config = folder / "config.json"
    described = {}
    with contextlib.suppress(OSError, ValueError):
        described = json.loads(config.read_text(encoding="utf-8"))
    if not isinstance(described, dict) or not described:
        hint = "a folder with a config.json: a KerasHub preset (save_to_preset), or a Hugging Face model"
    elif isinstance(problem, ImportError):
        hint = "pip install safetensors"
    elif what == "the tokenizer":
        hint = "add the tokenizer's files, or pass preprocessor=…"
    elif "model_type" not in described:
        hint = "check the options that were given, and that this version of KerasHub wrote the folder (save_to_preset)"
    elif "has no converter" in str(problem):
        hint = "convert it with KerasHub's tools, or build the backbone and load its weights, and pass the backbone"
    elif what == "the body" and _is_bare(described):
        hint = (
            "KerasHub looks for the names that weights have in a model with a head: save the folder from one "
            f"(…ForMaskedLM, …ForCausalLM), in place of {described['architectures'][0]}"
        )
    else:
        hint = "check that the folder is complete, and of a size that the architecture comes in"
    names = sorted(path.name for path in folder.iterdir())
    return explain(
        f"KerasHub could not read {what} from this folder.",
        given=folder,
        holds=", ".join(names[:12]) + (" …" if len(names) > 12 else "") or "nothing",
        reason=_reason(problem),
        to_mend=hint,
    )


def _reason(problem: Exception) -> str:
    said = str(problem).strip().splitlines()
    return type(problem).__name__ + (f": {said[0]}" if said else "")


def _is_bare(described: dict) -> bool:
    """Whether a Hugging Face folder was saved from a model without a head: `LlamaModel`, and not `LlamaForCausalLM`."""
    return any(str(name).endswith("Model") for name in described.get("architectures") or [])

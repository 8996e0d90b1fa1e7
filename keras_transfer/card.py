"""What a model should not forget about itself, kept where stock Keras keeps it too: class names, and how it reads text.

A plain `keras.Model` has no place for a word of its own: attributes are gone after `save` and `load_model`, and a layer
class of ours would keep the file from opening without this package. One thing in a stock layer's configuration does
take any text and comes back whole: the keys of a `DTypePolicyMap`, which name layers by regular expression. The layer
that hands out the logits holds such a map with one key, the card as JSON. It matches no layer, so it changes no dtype.

A preprocessor of KerasHub is kept as its configuration and the files of its tokenizers, compressed: BERT's 30,000 words
are 150 kB in the `.keras` file.
"""

import base64
import json
import pathlib
import re
import tempfile
import weakref
import zlib
from collections.abc import Mapping
from typing import Any

import keras

from keras_transfer import digests, state
from keras_transfer.errors import explain


def policy(
    card: Mapping[str, Any], dtype: str = "float32", *, preprocessor: keras.Layer | None = None
) -> keras.dtype_policies.DTypePolicyMap:
    """The dtype policy that computes in `dtype` and carries `card`.

    Args:
        card: what JSON can hold.
        dtype: the precision of the layer that gets the policy.
        preprocessor: what turns texts into the model's inputs; `preprocessor` gives it back.

    Raises:
        ValueError: a tokenizer of the preprocessor has no vocabulary yet.

    Example:

    >>> layer = keras.layers.Activation("linear", dtype=policy({"classes": ["ant", "bee"]}))
    >>> read(keras.Sequential([keras.Input((2,)), layer]))
    {'classes': ['ant', 'bee']}
    """
    written = dict(card) if preprocessor is None else {**card, "preprocessor": write_preprocessor(preprocessor)}
    return keras.dtype_policies.DTypePolicyMap(dtype, {re.escape(json.dumps(written)): dtype})


def read(model: keras.Model) -> dict[str, Any]:
    """The card of a model that one of our builders made, also after `save` and `load_model`; `{}` for any other."""
    for layer in reversed(model.layers):
        if isinstance(layer.dtype_policy, keras.dtype_policies.DTypePolicyMap):
            for key in layer.dtype_policy:
                if is_card(key):
                    return json.loads(_unescaped(key))
    return {}


def is_card(key: str) -> bool:
    """Whether the key of a `DTypePolicyMap` is a card, and no pattern over layer names.

    Example:

    >>> is_card(re.escape('{"classes": ["ant"]}')), is_card("encoder/.*")
    (True, False)
    """
    return _unescaped(key).startswith("{")


def _unescaped(key: str) -> str:
    return re.sub(r"\\(.)", r"\1", key, flags=re.DOTALL)


def class_names(model: keras.Model) -> tuple[str, ...] | None:
    """The class names of a classifier in the order of its logits, or `None` where a model was built elsewhere.

    Example:

    >>> import keras_transfer as kt
    >>> kt.class_names(kt.image_classifier("MobileNetV2", ["ant", "bee"], weights=None, image_size=32, alpha=0.35))
    ('ant', 'bee')
    """
    names = read(model).get("classes")
    return None if names is None else tuple(names)


_restored: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def preprocessor(model: keras.Model) -> keras.Layer | None:
    """What turns texts into the inputs of a model that one of our builders made, or `None` where its card has none.

    It is built from the card once for each model, and is then the same object whenever it is asked for.
    """
    if model not in _restored:
        written = read(model).get("preprocessor")
        _restored[model] = None if written is None else read_preprocessor(written)
    return _restored[model]


def write_preprocessor(preprocessor: keras.Layer) -> dict[str, Any]:
    """A preprocessor as JSON can hold it: its Keras configuration, and the files of each layer in it that has some.

    Raises:
        ValueError: a tokenizer has no vocabulary yet.
    """
    return {
        "config": keras.saving.serialize_keras_object(preprocessor),
        "assets": [_files_of(layer) for layer in _with_assets(preprocessor)],
    }


def read_preprocessor(written: Mapping[str, Any]) -> keras.Layer:
    """The preprocessor that `write_preprocessor` wrote; Keras imports the package that its class is from."""
    # Deserializing takes configurations apart.
    preprocessor = keras.saving.deserialize_keras_object(json.loads(json.dumps(written["config"])))
    for layer, files in zip(_with_assets(preprocessor), written["assets"], strict=True):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (pathlib.Path(folder) / name).write_bytes(_content(content))
            layer.load_assets(folder)
    return preprocessor


def preprocessor_settings(written: Mapping[str, Any]) -> dict[str, Any]:
    """What `write_preprocessor` wrote, with the SHA-256 of each file of a tokenizer in place of the file."""
    return {
        "config": written["config"],
        "files_sha256": [
            {name: digests.of_bytes(_content(text)) for name, text in files.items()} for files in written["assets"]
        ],
    }


def _with_assets(preprocessor: keras.Layer) -> list[keras.Layer]:
    layers = [preprocessor, *state.sublayers(preprocessor)]
    return [layer for layer in layers if hasattr(layer, "save_assets") and hasattr(layer, "load_assets")]


def _content(text: str) -> bytes:
    return zlib.decompress(base64.urlsafe_b64decode(text))


def _files_of(layer: keras.Layer) -> dict[str, str]:
    """The files that a layer keeps beside its weights, by name, each compressed and as text."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            layer.save_assets(folder)
        # KerasHub does not say that a vocabulary is missing; it stumbles over it.
        except (AttributeError, TypeError) as error:
            raise ValueError(
                explain(
                    f"The {type(layer).__name__} cannot be kept with the model: it has no vocabulary.",
                    reason=f"{type(error).__name__}: {error}",
                    to_mend="give it one: vocabulary=…, proto=…, or from_preset(…)",
                )
            ) from error
        return {
            path.name: base64.urlsafe_b64encode(zlib.compress(path.read_bytes(), 9)).decode()
            for path in sorted(pathlib.Path(folder).iterdir())
        }

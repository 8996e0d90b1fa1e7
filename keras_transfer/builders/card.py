"""What a model should not forget about itself, its class names first, kept where stock Keras keeps it too.

A plain `keras.Model` has no place for a word of its own: attributes are gone after `save` and `load_model`, and a layer
class of ours would keep the file from opening without this package. One thing in a stock layer's configuration does
take any text and comes back whole: the keys of a `DTypePolicyMap`, which name layers by regular expression. The layer
that hands out the logits holds such a map with one key, the card as JSON. It matches no layer, so it changes no dtype.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import keras


def policy(card: Mapping[str, Any], dtype: str = "float32") -> keras.dtype_policies.DTypePolicyMap:
    """The dtype policy that computes in `dtype` and carries `card`.

    Example:

    >>> layer = keras.layers.Activation("linear", dtype=policy({"classes": ["ant", "bee"]}))
    >>> read(keras.Sequential([keras.Input((2,)), layer]))
    {'classes': ['ant', 'bee']}
    """
    return keras.dtype_policies.DTypePolicyMap(dtype, {re.escape(json.dumps(card)): dtype})


def read(model: keras.Model) -> dict[str, Any]:
    """The card of a model that one of our builders made, also after `save` and `load_model`; `{}` for any other."""
    for layer in reversed(model.layers):
        if isinstance(layer.dtype_policy, keras.dtype_policies.DTypePolicyMap):
            for key in layer.dtype_policy:
                unescaped = re.sub(r"\\(.)", r"\1", key, flags=re.DOTALL)
                if unescaped.startswith("{"):
                    return json.loads(unescaped)
    return {}


def class_names(model: keras.Model) -> tuple[str, ...] | None:
    """The class names of a classifier in the order of its logits, or `None` where a model was built elsewhere.

    Example:

    >>> import keras_transfer as kt
    >>> kt.class_names(kt.image_classifier("MobileNetV2", ["ant", "bee"], weights=None, image_size=32, alpha=0.35))
    ('ant', 'bee')
    """
    names = read(model).get("classes")
    return None if names is None else tuple(names)

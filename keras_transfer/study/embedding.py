"""`embed`: what a model's body makes of examples, as plain numbers for whatever comes next."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones import hub
from keras_transfer.backbones.blocks import blocks
from keras_transfer.backbones.cut import Cut, cut_below
from keras_transfer.data import reading, scanning
from keras_transfer.data.examples import TextExamples
from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Divided, Split, Splits
from keras_transfer.data.text_reading import given_texts
from keras_transfer.data.texts import TextSplits
from keras_transfer.errors import explain, nearest
from keras_transfer.training.features import Cache, Keeping, Store


def embed(model: keras.Model, data: Any, *, split: str = "train", cache: Cache = "auto") -> np.ndarray:
    """What a model's body makes of each example below the head: the numbers that a linear head would see.

    Pictures and texts are read as in training and at inference, nothing is augmented, nothing drops. What was computed
    for the head of a `kt.fit` is found here, and what is computed here is found there, and by the next call: it lies in
    `kt.cache.folder()` under a hash of layers, weights, content and versions. A fine-tuned model has other features
    than the body that it came from; nothing of it is changed.

    Args:
        model: a classifier of `kt.image_classifier` or `kt.text_classifier`, trained or not, or any functional model;
            of one without a head, its output.
        data: `kt.data` splits; or pictures or texts without labels, as `kt.predict` takes them.
        split: which split of splits: `"train"`, `"validation"` or `"test"`.
        cache: `"auto"` keeps features on disk where they can be known again, `"disk"` insists on it, `"memory"` and
            `"off"` keep nothing.

    Returns:
        A float32 array of shape (examples, numbers), in the order of the examples. A feature map or tokens come as
        their mean.

    Raises:
        ValueError: where the data have no such split, an example cannot be read, or the model has no one place below
            its head.

    Example:

    >>> import keras_transfer as kt
    >>> digits = kt.data.digits(classes=[0, 1], per_class=10, batch_size=8)
    >>> model = kt.image_classifier("MobileNet", digits.classes, weights=None, image_size=32, alpha=0.25)
    >>> embed(model, digits, split="validation").shape, embed(model, [np.zeros((40, 60, 3), "uint8")]).shape
    ((4, 256), (1, 256))
    """
    if isinstance(data, Splits):
        return features_of(model, data, _named(data, split), cache=cache)
    check_model(model)
    if split != "train":
        raise ValueError(
            explain(
                "These data have no splits to choose from.",
                given=f"split={split!r}, and {type(data).__name__}",
                expected="splits from kt.data, or pictures or texts, all of which are embedded",
                to_mend="leave `split` out",
            )
        )
    splits = unlabelled(model, data)
    return features_of(model, splits, splits.train, cache=cache)


def features_of(model: keras.Model, splits: Splits, split: Split, *, cache: Cache = "auto") -> np.ndarray:
    """As `embed`, for a split of some splits."""
    keeping = Keeping(cache)
    check_model(model)
    whole = _pooled(model)
    cut = _below_the_head(whole)
    identified = cut.is_identified and splits.view_identity(split, whole, epoch=None) is not None
    if cache == "disk" and not identified:
        raise ValueError(
            explain(
                f"What {model.name} makes of the data cannot be known again.",
                given='cache="disk"',
                expected="layers of Keras, KerasHub and this package below the head",
                to_mend='cache="auto"',
            )
        )
    on_disk = cache == "disk" or (cache == "auto" and identified and _is_writable(keeping.folder))
    store = Store(splits, whole, cut, seed=0, folder=keeping.folder if on_disk else None)
    with hub.taking_packed_inputs(whole):
        rows = store.rows(split, None)
    found = np.concatenate([_flat(tensor) for tensor in rows.take(np.arange(len(rows)))], axis=1)
    in_order = np.empty_like(found)
    in_order[splits.evaluation_order(split, whole)] = found
    return in_order


def why_no_features(model: keras.Model) -> str:
    """Why `features_of` has nothing to take from a model; empty where it has.

    Example:

    >>> inputs = keras.Input((2,))
    >>> heads = [keras.layers.Dense(2)(keras.layers.Dense(width)(inputs)) for width in (3, 4)]
    >>> print(why_no_features(keras.Model(inputs, keras.layers.Add()(heads), name="two")).splitlines()[0])
    two has no one place below its head that says what an example is like.
    """
    try:
        _below_the_head(_pooled(model))
    except ValueError as error:
        return str(error)
    return ""


def check_model(model: Any) -> None:
    """Raises a `ValueError` for what is no model: the data, for instance, where the two are taken for each other."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            explain(
                "`model` is no model.",
                given=type(model).__name__,
                expected="a keras.Model, from kt.image_classifier or kt.text_classifier for instance",
            )
        )


def unlabelled(model: keras.Model, data: Any) -> Splits:
    """Pictures or texts without labels, as the training split of splits with one class, which has no name.

    Raises:
        ValueError: for what is neither, or cannot be read.
    """
    if any(tensor.name == "token_ids" for tensor in model.inputs):
        texts = given_texts(data)
        examples = TextExamples(texts, [""] * len(texts), place=lambda number: f"text {number}")
        kind, options = TextSplits, {"max_length": None, "buckets": None}
    else:
        examples = reading.pictures(data)
        kind, options = ImageSplits, {"image_size": None, "augment": "none"}
    digests, problems = scanning.scan(examples)
    scanning.refuse(problems.values(), noun=examples.noun, to_mend="leave them out")
    if not len(examples):
        raise ValueError(explain("There is nothing to embed.", given="none", expected="at least one example"))
    parts = Divided(Split("train", examples, ("",), digests), None, None)
    return kind(parts, batch_size=min(32, len(examples)), seed=0, **options)


def _named(splits: Splits, name: str) -> Split:
    named = {split.name: split for split in splits.all}
    if name not in named:
        raise ValueError(
            explain(
                "The data have no split of that name.",
                given=repr(name),
                nearest=nearest(str(name), named),
                expected=" or ".join(map(repr, named)),
            )
        )
    return named[name]


def _pooled(model: keras.Model) -> keras.Model:
    """The model; a bare body whose output is a feature map or tokens, with the mean of it: a fiftieth to keep."""
    if blocks(model).head is not None or isinstance(model.output, Mapping | list | tuple):
        return model
    rank = len(model.output.shape)
    if rank < 3 or any(tensor.name == "token_ids" for tensor in model.inputs):
        return model
    pool = keras.layers.GlobalAveragePooling2D if rank == 4 else keras.layers.GlobalAveragePooling1D
    return keras.Model(model.input, pool()(model.output), name=model.name)


def _below_the_head(model: keras.Model) -> Cut:
    """The cut below the lowest layer of the head that has weights or drops, where `fit` has it as well."""
    head = blocks(model).head
    own = [] if head is None else [layer for layer in head.layers if layer.weights or _drops(layer)]
    cut = cut_below(model, own)
    reads_text = any(tensor.name == "token_ids" for tensor in model.inputs)
    if cut is None or len(cut.shapes) != 1 or (reads_text and len(cut.shapes[0]) != 2):
        shapes = "nothing" if cut is None else ", ".join(map(str, cut.shapes))
        raise ValueError(
            explain(
                f"{model.name} has no one place below its head that says what an example is like.",
                given=f"its head is called on {shapes}" if own else f"its outputs are {shapes}",
                expected="one tensor: a vector, or a feature map or tokens of a picture",
                to_mend="kt.text_classifier(backbone, 2, preprocessor=…)" if reads_text else None,
            )
        )
    return cut


def _drops(layer: keras.Layer) -> bool:
    return "Dropout" in type(layer).__name__ or "Noise" in type(layer).__name__


def _flat(tensor: np.ndarray) -> np.ndarray:
    """(examples, …, numbers) as float32 of shape (examples, numbers): the mean over what lies between."""
    if tensor.ndim > 2:
        tensor = tensor.reshape(len(tensor), -1, tensor.shape[-1]).mean(axis=1, dtype="float64")
    return tensor.reshape(len(tensor), -1).astype("float32")


def _is_writable(folder: pathlib.Path) -> bool:
    folder = folder.absolute()
    return os.access(next(place for place in (folder, *folder.parents) if place.exists()), os.W_OK)

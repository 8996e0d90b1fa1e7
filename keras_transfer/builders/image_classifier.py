"""A pretrained body and a new head: pixels in, logits out."""

import os
from collections.abc import Sequence
from typing import Literal

import keras

from keras_transfer.backbones import applications, freezing, hub
from keras_transfer.backbones import preprocessing as conventions
from keras_transfer.builders.heads import check_dropout, class_list, classification_head
from keras_transfer.builders.outputs import compile_as_classifier
from keras_transfer.errors import explain, nearest


def image_classifier(
    backbone: str | os.PathLike | keras.Model,
    classes: Sequence[str] | int,
    *,
    weights: str | None = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    dropout: float = 0.2,
    preprocessing: str | keras.Layer | None = None,
    pooling: Literal["auto", "mean", "first"] = "auto",
    **body_options,
) -> keras.Model:
    """Puts a new classification head on a pretrained body.

    The body starts frozen, and frozen means frozen: no weight trains, no batch-norm statistic moves, no dropout and no
    stochastic depth fires in it. So plain `model.fit` trains the head on fixed features; a plan wakes more of it. The
    model is made of stock layers, and of KerasHub's where the body is: `keras.saving.load_model` opens its file where
    this package is not installed.

    Args:
        backbone: the name of one of the models of `keras.applications`; the name of a KerasHub preset or a local folder
            (a KerasHub preset, or a Hugging Face model), ViT, DINO, SigLIP, Swin and others; or a functional
            `keras.Model` from pictures to a feature map (batch, height, width, channels), tokens (batch, length,
            channels) or a vector (batch, channels), a backbone of KerasHub for instance.
        classes: the class names in the order of the labels, or how many there are.
        weights: `"imagenet"`, or the path of a weights file; a preset's own, whatever they were trained on, where this
            is left as it is; `None` for random ones. A `keras.Model` of one's own has its weights.
        image_size: the side of the pictures in pixels, or (height, width). `None` takes the body's own.
        dropout: share of the pooled features dropped in front of the head while training.
        preprocessing: for a body of one's own: `"identity"` (it takes 0..255 as it is), `"tf"` (-1..1), `"caffe"` (BGR
            minus the mean), `"torch"` (0..1, standardised) or a layer, KerasHub's image converters included. The bodies
            of `keras.applications` have theirs, and so have most presets.
        pooling: what of the body the head sees: the `"mean"` over all places or tokens, or the `"first"` token.
            `"auto"` takes the class token where a body of KerasHub has one.
        **body_options: for the body's constructor, `alpha=0.35` for the MobileNets for instance.

    Returns:
        A compiled `keras.Model`, float32 pixels 0..255 of shape (batch, height, width, 3) to float32 logits of shape
        (batch, classes). Preprocessing is inside, in float32 under any precision policy.

    Raises:
        ValueError: for a backbone that does not exist (with the nearest name), fewer than two classes, options that the
            body does not have, or preprocessing that the body already does itself.
        FileNotFoundError: for weights that are neither on disk nor to be had.

    Example:

    >>> model = image_classifier("MobileNetV2", ["ant", "bee"], weights=None, image_size=32, alpha=0.35)
    >>> model.output_shape
    (None, 2)
    >>> len(model.trainable_variables)
    2
    """
    names = class_list(classes)
    check_dropout(dropout)
    if isinstance(backbone, str) and backbone in applications.names():
        body, convention = _from_applications(backbone, weights, image_size, preprocessing, body_options)
    elif isinstance(backbone, str | os.PathLike):
        body, convention, image_size = _from_hub(backbone, weights, image_size, preprocessing, body_options)
    else:
        body, convention = _own_body(backbone, weights, image_size, preprocessing, body_options)
    freezing.freeze(body)

    pixels = keras.Input(_picture_shape(body, image_size), dtype="float32", name="pixels")
    x = conventions.apply(convention, pixels)
    features = body({name: x for name in body.input} if isinstance(body.input, dict) else x)
    logits = classification_head(_pool(body, features, pooling), names, dropout=dropout)
    model = keras.Model(pixels, logits, name=f"{body.name}_classifier")
    compile_as_classifier(model)
    return model


def _from_applications(backbone, weights, image_size, own_preprocessing, body_options):
    if own_preprocessing is not None:
        raise ValueError(
            explain(
                f"{backbone} has its own preprocessing, which is part of the model that is built.",
                given=f"preprocessing={own_preprocessing!r}",
                to_mend="leave `preprocessing` out; it is for a body of one's own",
            )
        )
    size = applications.image_size(backbone) if image_size is None else image_size
    body = applications.build(backbone, weights=weights, image_size=size, **body_options)
    return body, applications.convention(backbone)


def _from_hub(backbone, weights, image_size, own_preprocessing, body_options):
    if not hub.knows(backbone):
        found = nearest(str(backbone), [*applications.names(), *hub.presets()])
        raise ValueError(
            explain(
                "Neither keras.applications nor KerasHub has a body of this name, and there is no such folder.",
                given=repr(os.fspath(backbone)),
                nearest=None if found is None else repr(found),
                expected="a KerasHub preset, a local folder, or one of " + ", ".join(applications.names()),
            )
        )
    if image_size is not None:
        height, width = _sides(image_size)
        body_options = {"image_shape": (height, width, 3), **body_options}
    weights = "pretrained" if weights == "imagenet" else weights
    body = hub.picture_part(hub.load(backbone, weights=weights, **body_options))
    _check_sees_pictures(body)
    trained_on = hub.pictures(backbone) if own_preprocessing is None else None
    if own_preprocessing is None and trained_on is None:
        raise ValueError(
            explain(
                f"{os.fspath(backbone)!r} does not say what pixels its body was trained on.",
                expected=f"preprocessing= one of {', '.join(map(repr, conventions.CONVENTIONS))}, or a layer",
            )
        )
    if trained_on is None:
        return body, _convention(own_preprocessing, body), image_size
    return body, trained_on.preprocessing, image_size or trained_on.image_size


def _own_body(backbone, weights, image_size, own_preprocessing, body_options):
    if not isinstance(backbone, keras.Model):
        raise ValueError(
            explain(
                "`backbone` is neither a name nor a model.",
                given=type(backbone).__name__,
                expected="the name of a model of keras.applications, or a functional keras.Model",
            )
        )
    if weights not in (None, "imagenet"):
        raise ValueError(
            explain(
                "A body that is already built has its weights.",
                given=f"weights={os.fspath(weights)!r}",
                to_mend="body.load_weights(path) before it, and leave `weights` out",
            )
        )
    if body_options:
        raise ValueError(
            explain(
                "A body that is already built takes no options.",
                given=sorted(body_options),
                to_mend="give them to its constructor",
            )
        )
    if own_preprocessing is None:
        raise ValueError(
            explain(
                f"Nobody but you knows what pixels {backbone.name!r} was trained on.",
                expected=f"preprocessing= one of {', '.join(map(repr, conventions.CONVENTIONS))}, or a layer",
                to_mend='if it takes 0..255 as it is: preprocessing="identity"',
            )
        )
    body = hub.picture_part(backbone)
    _check_sees_pictures(body)
    size = body.inputs[0].shape[1:3]
    if image_size is not None and None not in size and _sides(image_size) != tuple(size):
        raise ValueError(
            explain("The body takes pictures of another size.", given=f"image_size={image_size}", expected=size)
        )
    return body, _convention(own_preprocessing, body)


def _convention(preprocessing: str | keras.Layer, body: keras.Model) -> str | keras.Layer:
    """The user's preprocessing, found to fit the body; of a converter of KerasHub, what it does to pixel values."""
    if hub.is_image_converter(preprocessing):
        preprocessing = hub.rescaling(preprocessing)
    conventions.check(preprocessing, body)
    return preprocessing


def _sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)


def _picture_shape(body: keras.Model, image_size: int | tuple[int, int] | None) -> tuple[int | None, ...]:
    shape = body.inputs[0].shape[1:]
    return shape if image_size is None or None not in shape else (*_sides(image_size), shape[-1])


def _check_sees_pictures(body: keras.Model) -> None:
    if len(body.inputs) != 1 or len(body.inputs[0].shape) != 4:
        reads_text = any(tensor.name == "token_ids" for tensor in body.inputs)
        raise ValueError(
            explain(
                f"{body.name} does not see one picture.",
                given=", ".join(f"{tensor.name} {tuple(tensor.shape)}" for tensor in body.inputs),
                expected="one input of shape (batch, height, width, channels)",
                to_mend="kt.text_classifier(backbone, classes)" if reads_text else None,
            )
        )


def _pool(body: keras.Model, features: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    rank = len(features.shape) if isinstance(features, keras.KerasTensor) else None
    if rank not in (2, 3, 4):
        shape = tuple(features.shape) if rank else None
        raise ValueError(
            explain(
                "The body's output is no feature map, tokens or vector.",
                given=f"shape {shape}" if rank else f"{len(keras.tree.flatten(features))} outputs",
                expected="(batch, height, width, channels), (batch, length, channels) or (batch, channels)",
                to_mend=None if rank else "keras.Model(body.input, one of its outputs)",
            )
        )
    if pooling not in ("auto", "mean") and not (pooling == "first" and rank == 3):
        raise ValueError(
            explain(
                f"`pooling` is not one that {body.name} can have.",
                given=repr(pooling),
                expected="'auto', 'mean'" + (" or 'first'" if rank == 3 else ""),
            )
        )
    if rank == 4:
        return keras.layers.GlobalAveragePooling2D(name="pool")(features)
    if rank == 2:
        return features
    if pooling == "first" or (pooling == "auto" and hub.begins_with_class_token(body, features.shape)):
        return features[:, 0]
    return keras.layers.GlobalAveragePooling1D(name="pool")(features)

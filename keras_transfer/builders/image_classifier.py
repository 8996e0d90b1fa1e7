"""A pretrained body and a new head: pixels in, logits out."""

from collections.abc import Sequence

import keras

from keras_transfer.backbones import applications, freezing
from keras_transfer.backbones import preprocessing as conventions
from keras_transfer.builders import card
from keras_transfer.builders.outputs import compile_as_classifier
from keras_transfer.errors import explain


def image_classifier(
    backbone: str | keras.Model,
    classes: Sequence[str] | int,
    *,
    weights: str | None = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    dropout: float = 0.2,
    preprocessing: str | keras.Layer | None = None,
    **body_options,
) -> keras.Model:
    """Puts a new classification head on a pretrained body.

    The body starts frozen, and frozen means frozen: no weight trains, no batch-norm statistic moves, no dropout and no
    stochastic depth fires in it. So plain `model.fit` trains the head on fixed features; a plan wakes more of it. The
    model is made of stock layers: `keras.saving.load_model` opens its file where this package is not installed.

    Args:
        backbone: the name of one of the models of `keras.applications`, or a functional `keras.Model` from pictures to
            a feature map (batch, height, width, channels), tokens (batch, length, channels) or a vector (batch,
            channels).
        classes: the class names in the order of the labels, or how many there are.
        weights: `"imagenet"`, the path of a weights file, or `None` for random ones. For a `keras.Model` of one's own,
            which has its weights, it is left alone.
        image_size: the side of the pictures in pixels, or (height, width). `None` takes the body's own.
        dropout: share of the pooled features dropped in front of the head while training.
        preprocessing: for a body of one's own: `"identity"` (it takes 0..255 as it is), `"tf"` (-1..1), `"caffe"` (BGR
            minus the mean), `"torch"` (0..1, standardised) or a layer. The bodies of `keras.applications` have theirs.
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
    names = _class_names(classes)
    if not 0 <= dropout < 1:
        raise ValueError(explain("`dropout` is a share.", given=dropout, expected="at least 0 and less than 1"))
    if isinstance(backbone, str):
        body, convention = _from_applications(backbone, weights, image_size, preprocessing, body_options)
    else:
        body, convention = _own_body(backbone, image_size, preprocessing, body_options)
    freezing.freeze(body)

    pixels = keras.Input(body.input_shape[1:], dtype="float32", name="pixels")
    features = body(conventions.apply(convention, pixels))
    features = keras.layers.Dropout(dropout, name="head_dropout")(_pool(features))
    # In float32 like the loss: the head is small, and half precision would round the differences that it learns from.
    # From zero, as in big transfer (Kolesnikov et al. 2020, arXiv:1912.11370): a random head over a thousand features
    # starts with logits that are all noise, and a short first stage would spend itself on forgetting them.
    scores = keras.layers.Dense(len(names), kernel_initializer="zeros", dtype="float32", name="head")(features)
    logits = keras.layers.Activation("linear", dtype=card.policy({"classes": names}), name="logits")(scores)
    model = keras.Model(pixels, logits, name=f"{body.name}_classifier")
    compile_as_classifier(model)
    return model


def _class_names(classes: Sequence[str] | int) -> list[str]:
    if isinstance(classes, str):
        raise ValueError(
            explain("`classes` is one string.", given=repr(classes), expected="a list of class names, or their number")
        )
    names = [str(number) for number in range(classes)] if isinstance(classes, int) else [str(name) for name in classes]
    if len(names) < 2:
        raise ValueError(
            explain(
                "A classifier needs at least two classes.",
                given=names,
                expected="two or more class names",
                to_mend="add a class of everything else, if only one thing is to be recognised",
            )
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(explain("`classes` names a class more than once.", given=twice, expected="each name once"))
    return names


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


def _own_body(backbone, image_size, own_preprocessing, body_options):
    if not isinstance(backbone, keras.Model):
        raise ValueError(
            explain(
                "`backbone` is neither a name nor a model.",
                given=type(backbone).__name__,
                expected="the name of a model of keras.applications, or a functional keras.Model",
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
    conventions.check(own_preprocessing, backbone)
    size = backbone.input_shape[1:3]
    wanted = (image_size, image_size) if isinstance(image_size, int) else image_size
    if wanted is not None and None not in size and tuple(wanted) != tuple(size):
        raise ValueError(
            explain("The body takes pictures of another size.", given=f"image_size={image_size}", expected=size)
        )
    return backbone, own_preprocessing


def _pool(features):
    if len(features.shape) == 4:
        return keras.layers.GlobalAveragePooling2D(name="pool")(features)
    if len(features.shape) == 3:
        return keras.layers.GlobalAveragePooling1D(name="pool")(features)
    if len(features.shape) == 2:
        return features
    raise ValueError(
        explain(
            "The body's output is no feature map, tokens or vector.",
            given=f"shape {tuple(features.shape)}",
            expected="(batch, height, width, channels), (batch, length, channels) or (batch, channels)",
        )
    )

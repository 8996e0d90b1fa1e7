"""The only door to `keras.applications`: its 40 bodies by name, with their input conventions and their weights."""

import inspect
import os
import pathlib
import tempfile
import traceback
import typing
import warnings

import keras
import numpy as np

from keras_transfer.backbones import preprocessing
from keras_transfer.errors import explain, nearest


class _Body(typing.NamedTuple):
    """What `keras.applications` knows of a body but does not tell."""

    family: str  # its module
    side: int  # of the pictures that it was made for
    file: str  # of its ImageNet weights without the classifier; {option} is filled in


def _kernels(name: str) -> str:
    return f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"


_MOBILENET = "mobilenet_{alpha}_{side}_tf_no_top.h5"
_MOBILENET_V2 = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{side}_no_top.h5"
_MOBILENET_V3 = "weights_mobilenet_v3_%s{minimalistic}_224_{alpha}_float_no_top_v2.h5"

_BODIES = {
    "ConvNeXtTiny": _Body("convnext", 224, "convnext_tiny_notop.h5"),
    "ConvNeXtSmall": _Body("convnext", 224, "convnext_small_notop.h5"),
    "ConvNeXtBase": _Body("convnext", 224, "convnext_base_notop.h5"),
    "ConvNeXtLarge": _Body("convnext", 224, "convnext_large_notop.h5"),
    "ConvNeXtXLarge": _Body("convnext", 224, "convnext_xlarge_notop.h5"),
    "DenseNet121": _Body("densenet", 224, _kernels("densenet121")),
    "DenseNet169": _Body("densenet", 224, _kernels("densenet169")),
    "DenseNet201": _Body("densenet", 224, _kernels("densenet201")),
    "EfficientNetB0": _Body("efficientnet", 224, "efficientnetb0_notop.h5"),
    "EfficientNetB1": _Body("efficientnet", 240, "efficientnetb1_notop.h5"),
    "EfficientNetB2": _Body("efficientnet", 260, "efficientnetb2_notop.h5"),
    "EfficientNetB3": _Body("efficientnet", 300, "efficientnetb3_notop.h5"),
    "EfficientNetB4": _Body("efficientnet", 380, "efficientnetb4_notop.h5"),
    "EfficientNetB5": _Body("efficientnet", 456, "efficientnetb5_notop.h5"),
    "EfficientNetB6": _Body("efficientnet", 528, "efficientnetb6_notop.h5"),
    "EfficientNetB7": _Body("efficientnet", 600, "efficientnetb7_notop.h5"),
    "EfficientNetV2B0": _Body("efficientnet_v2", 224, "efficientnetv2-b0_notop.h5"),
    "EfficientNetV2B1": _Body("efficientnet_v2", 240, "efficientnetv2-b1_notop.h5"),
    "EfficientNetV2B2": _Body("efficientnet_v2", 260, "efficientnetv2-b2_notop.h5"),
    "EfficientNetV2B3": _Body("efficientnet_v2", 300, "efficientnetv2-b3_notop.h5"),
    "EfficientNetV2S": _Body("efficientnet_v2", 384, "efficientnetv2-s_notop.h5"),
    "EfficientNetV2M": _Body("efficientnet_v2", 480, "efficientnetv2-m_notop.h5"),
    "EfficientNetV2L": _Body("efficientnet_v2", 480, "efficientnetv2-l_notop.h5"),
    "InceptionResNetV2": _Body("inception_resnet_v2", 299, _kernels("inception_resnet_v2")),
    "InceptionV3": _Body("inception_v3", 299, _kernels("inception_v3")),
    "MobileNet": _Body("mobilenet", 224, _MOBILENET),
    "MobileNetV2": _Body("mobilenet_v2", 224, _MOBILENET_V2),
    "MobileNetV3Small": _Body("mobilenet_v3", 224, _MOBILENET_V3 % "small"),
    "MobileNetV3Large": _Body("mobilenet_v3", 224, _MOBILENET_V3 % "large"),
    "NASNetMobile": _Body("nasnet", 224, "nasnet_mobile_no_top.h5"),
    "NASNetLarge": _Body("nasnet", 331, "nasnet_large_no_top.h5"),
    "ResNet50": _Body("resnet", 224, _kernels("resnet50")),
    "ResNet101": _Body("resnet", 224, _kernels("resnet101")),
    "ResNet152": _Body("resnet", 224, _kernels("resnet152")),
    "ResNet50V2": _Body("resnet_v2", 224, _kernels("resnet50v2")),
    "ResNet101V2": _Body("resnet_v2", 224, _kernels("resnet101v2")),
    "ResNet152V2": _Body("resnet_v2", 224, _kernels("resnet152v2")),
    "VGG16": _Body("vgg16", 224, _kernels("vgg16")),
    "VGG19": _Body("vgg19", 224, _kernels("vgg19")),
    "Xception": _Body("xception", 299, _kernels("xception")),
}

_CONVENTIONS = {
    "convnext": "identity",
    "densenet": "torch",
    "efficientnet": "identity",
    "efficientnet_v2": "identity",
    "inception_resnet_v2": "tf",
    "inception_v3": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "mobilenet_v3": "identity",
    "nasnet": "tf",
    "resnet": "caffe",
    "resnet_v2": "tf",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "tf",
}

# The sides for which MobileNets were trained one by one; at any other side Keras takes the weights for 224.
_TRAINED_SIDES = {"mobilenet": (128, 160, 192, 224), "mobilenet_v2": (96, 128, 160, 192, 224)}

_OURS = {
    "include_top": "a body has none; kt.image_classifier puts the head on it",
    "pooling": "the head pools",
    "input_shape": "pass image_size",
    "input_tensor": "pass image_size",
    "classes": "a body has none; pass them to kt.image_classifier",
    "classifier_activation": "a body has no classifier",
    "include_preprocessing": "pixels 0..255 go in, so it is always included",
    "name": "a body carries the name of its architecture",
    "dropout": "it sits in the classifier that a body does not have",
    "dropout_rate": "it sits in the classifier that a body does not have",
}


def names() -> tuple[str, ...]:
    """The names of all bodies.

    Example:

    >>> len(names()), "MobileNetV2" in names()
    (40, True)
    """
    return tuple(_BODIES)


def convention(name: str) -> str:
    """The input convention of a body: a key of `preprocessing.CONVENTIONS`.

    Raises:
        ValueError: where there is no body of this name.

    Example:

    >>> convention("ResNet50"), convention("ResNet50V2"), convention("EfficientNetV2B0")
    ('caffe', 'tf', 'identity')
    """
    return _CONVENTIONS[_body(name).family]


def image_size(name: str) -> int:
    """The side, in pixels, of the square pictures that a body was made for.

    Raises:
        ValueError: where there is no body of this name.

    Example:

    >>> image_size("EfficientNetV2B0"), image_size("NASNetLarge")
    (224, 331)
    """
    return _body(name).side


def build(
    name: str,
    *,
    weights: str | os.PathLike | None = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    **body_options: object,
) -> keras.Model:
    """A body without its classifier: a functional model, pixels (after `convention(name)`) in, feature maps out.

    Args:
        name: one of `names()`.
        weights: `"imagenet"`, the path of a `.weights.h5` or `.h5` file saved from such a body, or `None` for random
            ones.
        image_size: side or (height, width) in pixels; the side that the body was made for where `None`.
        **body_options: for the constructor in `keras.applications`, such as `alpha=0.35` for the MobileNets.

    Returns:
        A `keras.Model` called `name`: (batch, height, width, 3) in, (batch, rows, columns, channels) out. Layers of its
        own that scale pixels compute in float32 under any precision policy.

    Raises:
        ValueError: where the name, an option or the size is not one that this body takes; where a weights file does not
            exist, does not open or does not fit.
        FileNotFoundError: where ImageNet weights are neither in Keras' folder nor to be had over the network.

    Example:

    >>> body = build("MobileNetV2", weights=None, image_size=96, alpha=0.35)
    >>> body.name, body.output_shape
    ('MobileNetV2', (None, 3, 3, 1280))
    """
    constructor = getattr(keras.applications, name) if name in _BODIES else _body(name)
    _check_options(name, constructor, body_options)
    height, width = _sides(_BODIES[name].side if image_size is None else image_size)
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            explain(
                "Pictures have their channels last here.",
                given=f"keras.config.image_data_format() == {keras.config.image_data_format()!r}",
                to_mend="keras.config.set_image_data_format('channels_last')",
            )
        )
    arguments = {"include_top": False, "pooling": None, "input_shape": (height, width, 3), **body_options}
    if weights is None:
        body = constructor(weights=None, **arguments)
    elif weights == "imagenet":
        body = _with_imagenet_weights(name, constructor, arguments)
    else:
        path = _weights_path(weights)
        body = constructor(weights=None, **arguments)
        _load(body, path, name)
    body.name = name
    for operation in preprocessing.scaling_operations(body):
        preprocessing.to_float32(operation)
    return body


def weights_file(name: str, *, image_size: int | tuple[int, int] | None = None, **body_options: object) -> pathlib.Path:
    """Where Keras keeps, or would look for, the ImageNet weights of a body.

    Args:
        name: one of `names()`.
        image_size: as `build`; the MobileNets have weights per size.
        **body_options: as `build`.

    Example:

    >>> weights_file("MobileNetV2", alpha=0.35).name
    'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5'
    """
    body = _body(name)
    height, width = _sides(body.side if image_size is None else image_size)
    side = height if height == width and height in _TRAINED_SIDES.get(body.family, ()) else 224
    alpha = body_options.get("alpha", 1.0)
    if body.family == "mobilenet":
        alpha = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0"}.get(alpha, "2_5")
    elif body.family == "mobilenet_v2":
        alpha = float(alpha)
    minimalistic = "_minimalistic" if body_options.get("minimalistic") else ""
    return _keras_models() / body.file.format(alpha=alpha, side=side, minimalistic=minimalistic)


def _body(name: str) -> _Body:
    if name in _BODIES:
        return _BODIES[name]
    found = nearest(str(name), _BODIES)
    raise ValueError(
        explain(
            "keras.applications has no body of this name.",
            given=repr(name),
            nearest=None if found is None else repr(found),
            expected="one of " + ", ".join(_BODIES),
        )
    )


def _check_options(name: str, constructor: typing.Callable, options: dict[str, object]) -> None:
    for option in options:
        if option in _OURS:
            raise ValueError(
                explain(
                    f"`{option}` is not an option of the body.",
                    given=f"{option}={options[option]!r}",
                    to_mend=f"leave it out: {_OURS[option]}",
                )
            )
        taken = [key for key in inspect.signature(constructor).parameters if key not in _OURS and key != "weights"]
        if option not in taken:
            found = nearest(option, taken)
            raise ValueError(
                explain(
                    f"{name} has no option of this name.",
                    given=f"{option}={options[option]!r}",
                    nearest=None if found is None else repr(found),
                    expected=", ".join(map(repr, taken)) or "none: this body has no options",
                )
            )


def _sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(
            explain(
                "`image_size` is a side or a (height, width) in pixels.",
                given=repr(image_size),
                expected="224, (224, 320)",
            )
        )
    return sides


def _keras_models() -> pathlib.Path:
    """The folder in which `keras.utils.get_file` keeps weights, told by its own documented rule."""
    home = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    if not os.access(home, os.W_OK):
        home = pathlib.Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()) / ".keras"
    return home / "models"


def _with_imagenet_weights(name: str, constructor: typing.Callable, arguments: dict[str, object]) -> keras.Model:
    options = {key: value for key, value in arguments.items() if key not in _OURS}
    file = weights_file(name, image_size=arguments["input_shape"][:2], **options)
    was_there = file.exists()
    try:
        return constructor(weights="imagenet", **arguments)
    except Exception as problem:
        frames = traceback.extract_tb(problem.__traceback__)
        if any(frame.name == "get_file" for frame in frames):
            raise FileNotFoundError(_missing(name, file, was_there, problem)) from problem
        if pathlib.PurePath(frames[-1].filename).parent.name == "applications" or not file.exists():
            raise  # Keras' own check of the arguments
        raise ValueError(_unfit(name, file, problem)) from problem


def _missing(name: str, file: pathlib.Path, was_there: bool, problem: Exception) -> str:
    if was_there:
        headline = f"The ImageNet weights of {name} are incomplete or altered, and could not be downloaded again."
        given = f"{file.name}, whose checksum is not the published one"
    else:
        headline = f"The ImageNet weights of {name} are not on this machine, and could not be downloaded."
        given = "weights='imagenet'"
    return explain(
        headline,
        given=given,
        expected=file,
        to_mend=f"put {file.name} into {file.parent}, or pass weights=None or the path of a file",
        reason=problem,
    )


def _weights_path(weights: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(weights).expanduser()
    if path.is_file() and path.suffix == ".h5":
        return path
    misspelt = nearest(str(weights), ["imagenet"])
    raise ValueError(
        explain(
            "There is no weights file at this path." if not path.is_file() else "This is not a weights file.",
            given=repr(str(weights)),
            nearest=None if misspelt is None else repr(misspelt),
            expected="'imagenet', None, or the path of a .weights.h5 or .h5 file",
        )
    )


def _load(body: keras.Model, path: pathlib.Path, name: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            body.load_weights(path)
        except Exception as problem:  # h5py, the old format and the new one each raise their own kind
            raise ValueError(_unfit(name, path, problem)) from problem
    if warned:  # Keras only warns of layers that it leaves at their random weights
        raise ValueError(_unfit(name, path, warned[0].message))
    if _BODIES[name].family == "efficientnet":
        _complete_the_scaling(body)


def _complete_the_scaling(body: keras.Model) -> None:
    """Divides EfficientNet's input once more by the root of ImageNet's deviation, where its weights were trained so.

    Keras adds a layer that does this for `weights="imagenet"` and leaves it out for a path, even of the same file.
    Here the variance in the body's Normalization takes it in.
    """
    normalization = next(layer for layer in body.layers if isinstance(layer, keras.layers.Normalization))
    mean, variance, count = normalization.get_weights()
    deviation = np.asarray(preprocessing.IMAGENET_DEVIATION)
    if np.allclose(mean, preprocessing.IMAGENET_MEAN, atol=1e-4) and np.allclose(variance, deviation**2, atol=1e-4):
        normalization.set_weights([mean, variance * deviation, count])
        normalization.finalize_state()


def _unfit(name: str, path: pathlib.Path, problem: Exception | Warning) -> str:
    reason = str(problem).strip().splitlines() or [type(problem).__name__]
    return explain(
        f"These weights do not open, or do not fit the body of {name}.",
        given=path,
        expected=f"a complete file saved from {name} without its classifier, built with the same options",
        to_mend="check the options of the body, or fetch the file again",
        reason=reason[0],
    )

"""From pixels 0..255 to what a body was trained on: four conventions, made of stock layers, in float32."""

import keras
import numpy as np

from keras_transfer.backbones import graph
from keras_transfer.errors import explain, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixels 0..1
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # BGR, of pixels 0..255

CONVENTIONS = {
    "identity": "pixels as they are: the body scales them itself",
    "tf": "-1..1",
    "caffe": "blue, green, red; minus the mean of ImageNet; not scaled",
    "torch": "0..1, minus the mean of ImageNet, over its deviation",
}


def check(preprocessing: str | keras.Layer, body: keras.Model | None = None) -> None:
    """Refuses a convention that does not exist, a layer that does nothing yet, and preprocessing applied twice.

    Args:
        preprocessing: the name of a convention, or a layer.
        body: the model that it will stand under, where there is one.

    Raises:
        ValueError: where the name is unknown; where a `Normalization` was never adapted; where `body` begins with
            layers that scale its input and `preprocessing` would scale it too (a layer that only crops or resizes may
            stand before them).

    Example:

    >>> check("caff")
    Traceback (most recent call last):
    ValueError: `preprocessing` names a convention that does not exist.
      given:     'caff'
      nearest:   'caffe'
      expected:  'identity', 'tf', 'caffe', 'torch', or a keras layer
    """
    if not isinstance(preprocessing, keras.Layer) and preprocessing not in CONVENTIONS:
        raise ValueError(
            explain(
                "`preprocessing` names a convention that does not exist.",
                given=repr(preprocessing),
                nearest=_quoted(nearest(str(preprocessing), CONVENTIONS)),
                expected=", ".join(map(repr, CONVENTIONS)) + ", or a keras layer",
            )
        )
    for layer in _parts(preprocessing):
        if _is_unadapted(layer):
            raise ValueError(
                explain(
                    "`preprocessing` is a Normalization layer that was never adapted: it would change nothing.",
                    given=f"{layer.name!r} with mean 0 and variance 1",
                    expected="mean and variance of the pixels",
                    to_mend="call layer.adapt(pictures), or build it with mean=…, variance=…",
                )
            )
    scaling = [] if body is None else scaling_operations(body)
    if scaling and _would_scale(preprocessing, body):
        raise ValueError(
            explain(
                f"{body.name} would be preprocessed twice: it begins with operations that scale its input.",
                given=f"preprocessing={_described(preprocessing)}",
                expected="preprocessing='identity', because the body has "
                + ", ".join(f"{operation.name!r} ({type(operation).__name__})" for operation in scaling),
                to_mend="pass preprocessing='identity', or a body that begins above those layers",
            )
        )


def apply(preprocessing: str | keras.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
    """Puts a convention, or the user's own layer, on top of a tensor of pixels.

    What is added consists of stock layers, so that a saved model loads in safe mode anywhere. It computes in float32
    whatever the global precision policy is: 16 bits are too few for 0..255. The user's own layer is set to float32 too.

    Args:
        preprocessing: one of `CONVENTIONS`, or a layer that takes pixels.
        x: pixels 0..255, float32, shape (batch, height, width, 3), red first.

    Returns:
        What the body takes, float32, of the same shape.

    Raises:
        ValueError: as `check`.

    Example:

    >>> pixels = keras.ops.array([[[[0.0, 127.5, 255.0]]]])
    >>> keras.ops.convert_to_numpy(apply("tf", pixels)).tolist()
    [[[[-1.0, 0.0, 1.0]]]]
    """
    check(preprocessing)
    if isinstance(preprocessing, keras.Layer):
        to_float32(preprocessing)
        return preprocessing(x)
    if preprocessing == "identity":
        return x
    if preprocessing == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")(x)
    if preprocessing == "caffe":
        offset = [-mean for mean in _CAFFE_MEAN]
        return keras.layers.Rescaling(1.0, offset=offset, dtype="float32")(keras.ops.flip(x, axis=-1))
    scale = [1 / (255 * deviation) for deviation in IMAGENET_DEVIATION]
    offset = [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)]
    return keras.layers.Rescaling(scale, offset=offset, dtype="float32")(x)


def to_float32(layer: keras.Layer) -> None:
    """Sets a layer that scales pixels, and what is nested in it, to compute in float32.

    Example:

    >>> rescaling = keras.layers.Rescaling(1 / 255, dtype="mixed_bfloat16")
    >>> to_float32(rescaling)
    >>> rescaling.compute_dtype
    'float32'
    """
    for part in _parts(layer):
        if part.compute_dtype == "float32":
            continue
        part.dtype_policy = "float32"
        if isinstance(part, keras.layers.Normalization) and part.built:
            # It holds its mean and variance as constants, rounded to the old precision.
            if part.input_mean is None:
                part.finalize_state()
            else:
                part.build(part.get_build_config()["input_shape"])


def scaling_operations(model: keras.Model) -> list[keras.Operation]:
    """The operations that scale or shift a model's input before its first real layer, bottom to top.

    They are `Rescaling` and `Normalization` layers and arithmetic with constants, such as
    `keras.applications.*.preprocess_input` leaves in a graph. Nested models are looked into. A model without a readable
    graph gives none.

    Example:

    >>> body = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3)])
    >>> [type(operation).__name__ for operation in scaling_operations(body)]
    ['Rescaling']
    """
    return [step.operation for step in _scaling_steps(model)[1]]


def expects_pixels(model: keras.Model) -> bool | None:
    """Whether a model takes pixels 0..255, told from the scaling at its bottom; `None` where it has none.

    Example:

    >>> body = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3)])
    >>> expects_pixels(body)
    True
    """
    owner, steps = _scaling_steps(model)
    if not steps or len(owner.inputs) != 1:
        return None
    scaled = keras.Model(owner.inputs[0], steps[-1].outputs[0])
    shape = [1] + [side or 1 for side in scaled.inputs[0].shape[1:]]
    white = keras.ops.convert_to_numpy(scaled(np.full(shape, 255.0, "float32")))
    # White is at 1, at 2.6 (torch) or at 151 (caffe) where 0..255 is meant; at 1100 where 0..1 is.
    return bool(np.abs(white).max() < 200)


def _scaling_steps(model: keras.Model) -> tuple[keras.Model, list[graph.Step]]:
    """The model, perhaps a nested one, that holds the scaling, and the steps that do it."""
    if not graph.has_graph(model):
        return model, []
    scaling = []
    for step in graph.steps(model):
        if _scales(step):
            scaling.append(step)
        elif isinstance(step.operation, keras.Model):
            return (model, scaling) if scaling else _scaling_steps(step.operation)
        elif isinstance(step.operation, keras.Layer) and step.operation.weights:
            break
    return model, scaling


def _scales(step: graph.Step) -> bool:
    if isinstance(step.operation, keras.layers.Rescaling | keras.layers.Normalization):
        return True
    arithmetic = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide")
    is_layer = isinstance(step.operation, keras.Layer)
    return not is_layer and type(step.operation).__name__ in arithmetic and len(step.inputs) == 1


def _would_scale(preprocessing: str | keras.Layer, body: keras.Model) -> bool:
    """Whether preprocessing changes values: a layer that crops, resizes or flips leaves white white."""
    if isinstance(preprocessing, str):
        return preprocessing != "identity"
    white = np.full([1] + [side or 32 for side in body.input_shape[1:]], 255.0, "float32")
    return not np.allclose(keras.ops.convert_to_numpy(preprocessing(white)), 255.0, atol=0.5)


def _parts(layer: object) -> list[keras.Layer]:
    """The layer and all that is nested in it; nothing where it is the name of a convention."""
    if not isinstance(layer, keras.Layer):
        return []
    return [layer, *(part for inner in getattr(layer, "layers", []) for part in _parts(inner))]


def _is_unadapted(layer: keras.Layer) -> bool:
    if not isinstance(layer, keras.layers.Normalization) or layer.input_mean is not None:
        return False
    if not layer.built:
        return True
    mean, variance = (keras.ops.convert_to_numpy(value) for value in (layer.mean, layer.variance))
    return bool(np.all(mean == 0) and np.all(variance == 1))


def _described(preprocessing: str | keras.Layer) -> str:
    return repr(preprocessing) if isinstance(preprocessing, str) else f"{type(preprocessing).__name__}(…)"


def _quoted(name: str | None) -> str | None:
    return None if name is None else repr(name)

"""From a model and pictures to probabilities: the same pixels as in training, whatever form they come in."""

import keras
import numpy as np

from keras_transfer.builders.outputs import gives_logits
from keras_transfer.data.splits import Split, Splits


def predict(model: keras.Model, pictures, *, batch_size: int = 32) -> np.ndarray:
    """Class probabilities for pictures.

    They are decoded, turned upright and brought to the model's size by the functions that training uses.

    Args:
        model: an image classifier.
        pictures: an array (pictures, height, width, 3) of values 0..255, a single picture (height, width, 3), or a list
            of pictures, each an array of any size, a path or the bytes of an encoded file.
        batch_size: pictures at a time.

    Returns:
        A float32 array of shape (pictures, classes), each row summing to 1.

    Raises:
        ValueError: for pictures that cannot be read, each named with its position, or arrays scaled to 0..1.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("MobileNetV2", 3, weights=None, image_size=32, alpha=0.35)
    >>> predict(model, [np.full((40, 60, 3), 128, "uint8")]).shape
    (1, 3)
    """
    from keras_transfer.data import pipeline

    batches = pipeline.picture_batches(pictures, image_size=model.input_shape[1:3], batch_size=batch_size)
    return probabilities(model, batches)


def predict_split(model: keras.Model, splits: Splits, split: Split) -> np.ndarray:
    """Class probabilities for one split, in its order, shape (examples, classes)."""
    return probabilities(model, splits.evaluation_batches(split, model))


def probabilities(model: keras.Model, batches) -> np.ndarray:
    """Class probabilities for batches as `keras.Model.predict` takes them."""
    outputs = np.asarray(model.predict(batches, verbose=0), dtype="float32")
    if not gives_logits(model):
        return outputs
    exponentials = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)

"""From a model and pictures or texts to probabilities: read just as in training, whatever form they come in."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.arguments import is_whole
from keras_transfer.backbones import hub
from keras_transfer.builders.outputs import check_is_classifier, gives_logits
from keras_transfer.data import model_inputs
from keras_transfer.data.examples import PictureExamples
from keras_transfer.data.images import ImageSplits, picture_size
from keras_transfer.data.splits import Batches, Split
from keras_transfer.data.ten_crop import COUNT
from keras_transfer.data.text_reading import given_texts
from keras_transfer.errors import explain


def predict(
    model: keras.Model,
    examples: Any,
    *,
    batch_size: int = 32,
    image_size: int | tuple[int, int] | None = None,
    ten_crop: bool = False,
) -> np.ndarray:
    """Class probabilities for pictures or texts.

    Pictures are decoded, turned upright and brought to the model's size, texts are split into tokens, by the functions
    that training uses. Texts of similar length are read together, so that little is padded.

    Args:
        model: a classifier of pictures or of texts.
        examples: for pictures, an array (pictures, height, width, 3) of values 0..255, a single picture (height, width,
            3), or a list of pictures, each an array of any size, a path, the bytes of an encoded file, or what Pillow
            has opened. For texts, a list of strings or one string; where several are read together, a list of tuples,
            `[(first, second)]` for a single pair.
        batch_size: examples at a time.
        image_size: pixels that pictures are brought to, a number or (height, width), for a model that takes any size.
        ten_crop: whether pictures are looked at in ten parts (four corners and the centre, 15/16 of each side, and the
            mirror image of each), whose probabilities are averaged (Krizhevsky, Sutskever and Hinton 2012). It takes
            ten times as long. Not where classes differ by which way round they are.

    Returns:
        A float32 array of shape (examples, classes), in their order, each row summing to 1.

    Raises:
        ValueError: for pictures that cannot be read, each named with its position, or arrays scaled to 0..1; for what
            is no text; for a model that reads text and has no tokenizer, or that writes text; for texts in ten crops;
            for a model that takes something else than one picture or text, or is no classifier of one class of several.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("MobileNetV2", 3, weights=None, image_size=32, alpha=0.35)
    >>> predict(model, [np.full((40, 60, 3), 128, "uint8")]).shape
    (1, 3)
    """
    if not is_whole(batch_size) or batch_size < 1:
        raise ValueError(
            explain(
                "`batch_size` is none.",
                given=repr(batch_size),
                expected="a whole number from 1",
                to_mend="batch_size=32",
            )
        )
    check_is_classifier(model)
    if _reads_text(model):
        if ten_crop:
            raise ValueError(
                explain("Texts have no crops.", given=f"ten_crop=True for {model.name}", to_mend="leave it out")
            )
        return _of_texts(model, given_texts(examples), batch_size)

    from keras_transfer.data import pipeline

    _check_takes_pictures(model)
    size = picture_size(model, image_size, argument_of="kt.predict")
    pictures = pipeline.readable(examples)
    if ten_crop:
        return _of_ten_crops(model, pictures, size, batch_size)
    batches = pipeline.unchanged(pictures, size=size, batch_size=batch_size)
    return _as_probabilities(model, _outputs(model, batches, len(pictures)))


def predict_split_in_ten_crops(model: keras.Model, splits: ImageSplits, split: Split) -> np.ndarray:
    """Class probabilities for one split of pictures, in its order, shape (examples, classes), as of `predict`."""
    return _of_ten_crops(model, split.examples, splits.size(model), splits.batch_size)


def _of_ten_crops(model: keras.Model, pictures: PictureExamples, size: tuple[int, int], batch_size: int) -> np.ndarray:
    from keras_transfer.data import pipeline

    batches = pipeline.in_ten_crops(pictures, size=size, batch_size=batch_size)
    said = _as_probabilities(model, _outputs(model, batches, COUNT * len(pictures)))
    return said.reshape(len(pictures), COUNT, -1).mean(axis=1)


def predict_split(model: keras.Model, splits: Batches, split: Split) -> np.ndarray:
    """Class probabilities for one split, in its order, shape (examples, classes)."""
    return _as_probabilities(model, outputs_of_split(model, splits, split))


def outputs_of_split(
    model: keras.Model, splits: Batches, split: Split, *, whole: keras.Model | None = None
) -> np.ndarray:
    """What a model with one output makes of one split, in its order, shape (examples, …).

    Args:
        model: takes the batches.
        splits: the data.
        split: which of them.
        whole: whom the batches are made for, where `model` is a part of it that does not say what it takes.
    """
    whole = whole or model
    found = _outputs(model, splits.evaluation_batches(split, whole, in_order=False), len(split))
    in_order = np.empty_like(found)
    in_order[splits.evaluation_order(split, whole)] = found
    return in_order


def _outputs(model: keras.Model, batches: Any, count: int) -> np.ndarray:
    """Of so many examples. Batches of one kind and size are compiled for once, which takes longer than to read more."""
    from keras_transfer.data import pipeline

    alone = batches.map(lambda *batch: batch[0])  # with labels or without, x is asked about
    with hub.taking_packed_inputs(model):
        return model.predict(pipeline.filled_up(alone), verbose=0)[:count]


def _reads_text(model: keras.Model) -> bool:
    return any(tensor.name == "token_ids" for tensor in model.inputs)


def _check_takes_pictures(model: keras.Model) -> None:
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (3, None):
        raise ValueError(
            explain(
                f"What {model.name} takes is not one picture in colour.",
                given=f"inputs of shape {', '.join(map(str, shapes))}",
                expected="one input of shape (batch, height, width, 3), as from kt.image_classifier",
                to_mend="model.predict(…), with batches as the model takes them",
            )
        )


def _of_texts(model: keras.Model, texts: Sequence[str | tuple[str, ...]], batch_size: int) -> np.ndarray:
    odd = next((place for place, text in enumerate(texts) if not _is_text(text)), None)
    if odd is not None:
        raise ValueError(
            explain(
                f"What {model.name} reads is text.",
                given=f"{type(texts[odd]).__name__} at place {odd}",
                expected="a list of strings, or of tuples of strings, or one string",
            )
        )
    found = np.zeros((len(texts), model.output_shape[-1]), np.float32)
    for numbers, inputs in model_inputs.prediction_batches(model, texts, batch_size=batch_size):
        with hub.taking_packed_inputs(model):
            found[numbers] = model.predict_on_batch(inputs)
    return _as_probabilities(model, found)


def _is_text(given: Any) -> bool:
    return isinstance(given, str) or (
        isinstance(given, tuple) and given != () and all(isinstance(part, str) for part in given)
    )


def _as_probabilities(model: keras.Model, outputs: np.ndarray) -> np.ndarray:
    outputs = np.asarray(outputs, dtype="float32")
    if not gives_logits(model):
        return outputs
    exponentials = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)

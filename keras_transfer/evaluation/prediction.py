"""From a model and pictures or texts to probabilities: read just as in training, whatever form they come in."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones import hub
from keras_transfer.builders.outputs import gives_logits
from keras_transfer.data import model_inputs
from keras_transfer.data.examples import PictureExamples
from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Batches, Split
from keras_transfer.data.ten_crop import COUNT
from keras_transfer.data.text_reading import given_texts
from keras_transfer.errors import explain


def predict(model: keras.Model, examples: Any, *, batch_size: int = 32, ten_crop: bool = False) -> np.ndarray:
    """Class probabilities for pictures or texts.

    Pictures are decoded, turned upright and brought to the model's size, texts are split into tokens, by the functions
    that training uses. Texts of similar length are read together, so that little is padded.

    Args:
        model: a classifier of pictures or of texts.
        examples: for pictures, an array (pictures, height, width, 3) of values 0..255, a single picture (height, width,
            3), or a list of pictures, each an array of any size, a path or the bytes of an encoded file. For texts, a
            list of strings or one string; where several are read together, a list of tuples, `[(first, second)]` for
            a single pair.
        batch_size: examples at a time.
        ten_crop: whether pictures are looked at in ten parts (four corners and the centre, 15/16 of each side, and the
            mirror image of each), whose probabilities are averaged (Krizhevsky, Sutskever and Hinton 2012). It takes
            ten times as long. Not where classes differ by which way round they are.

    Returns:
        A float32 array of shape (examples, classes), in their order, each row summing to 1.

    Raises:
        ValueError: for pictures that cannot be read, each named with its position, or arrays scaled to 0..1; for what
            is no text; for a model that reads text and has no tokenizer, or that writes text; for texts in ten crops.

    Example:

    >>> import keras_transfer as kt
    >>> model = kt.image_classifier("MobileNetV2", 3, weights=None, image_size=32, alpha=0.35)
    >>> predict(model, [np.full((40, 60, 3), 128, "uint8")]).shape
    (1, 3)
    """
    if _reads_text(model):
        if ten_crop:
            raise ValueError(
                explain("Texts have no crops.", given=f"ten_crop=True for {model.name}", to_mend="leave it out")
            )
        return _of_texts(model, given_texts(examples), batch_size)

    from keras_transfer.data import pipeline

    pictures, size = pipeline.readable(examples), model.input_shape[1:3]
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
    return said.reshape(-1, COUNT, said.shape[-1]).mean(axis=1)


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


def _of_texts(model: keras.Model, texts: Sequence[str | tuple[str, ...]], batch_size: int) -> np.ndarray:
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ValueError(
            explain(
                f"{model.name} is no classifier: it hands out one answer for each token.",
                expected="a model of kt.text_classifier",
                to_mend="model.generate(texts)" if hasattr(model, "generate") else None,
            )
        )
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

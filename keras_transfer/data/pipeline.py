"""Examples to batches: the only place that knows tf.data.

Every position of a run is computed, not remembered: which example step s needs, and how it is augmented, is a function
of (seed, epoch, example), so a run goes on at any step with the very same batches, decoding nothing that it skips.
"""

import atexit
import functools
import math
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data import reading, ten_crop
from keras_transfer.data.augmentation import Augmentation, augmented
from keras_transfer.data.decoding import resize
from keras_transfer.data.examples import PictureExamples
from keras_transfer.data.scanning import processors, refuse, scan
from keras_transfer.data.splits import order

Dataset = tf.data.Dataset


def _leave_the_gpu_to_the_backend() -> None:
    """TensorFlow only feeds the other backends; where it sees a GPU it takes all of its memory from them."""
    if keras.config.backend() == "tensorflow" or not tf.config.get_visible_devices("GPU"):
        return
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        warnings.warn(f"TensorFlow was used before, and keeps its hold on the GPU: {error}", stacklevel=2)


_leave_the_gpu_to_the_backend()


def engine() -> dict[str, Any]:
    """The version of TensorFlow, and the threads that it was told to compute with (0: as many as it likes)."""
    return {
        "tensorflow": tf.__version__,
        "threads within an operation": tf.config.threading.get_intra_op_parallelism_threads(),
        "threads between operations": tf.config.threading.get_inter_op_parallelism_threads(),
    }


class _Calls:
    """Calls of Python from tf.data's threads, and their end.

    A thread that asks for Python while the interpreter shuts down never gets it, and an iterator that is deleted then
    waits for that thread for ever. So before the end all calls return at once, until the buffers are full and no more
    come.
    """

    def __init__(self) -> None:
        self.ending = False
        self._lock = threading.Lock()
        self._running = 0
        self._last = -math.inf

    def map(self, function: Callable, arguments: Sequence[tf.Tensor], dtype: Any) -> Any:
        """What a Python function makes of tensors, in a dataset's graph; it must be a function of them alone.

        With a list of types it makes a list of tensors.
        """

        def counted(*values: np.ndarray) -> np.ndarray:
            with self._lock:
                self._running += 1
            try:
                return function(*values)
            finally:
                with self._lock:
                    self._running -= 1
                    self._last = time.monotonic()

        return tf.numpy_function(counted, arguments, dtype, stateful=False)

    def end(self, quiet: float = 0.5, patience: float = 30.0) -> None:
        """Returns when no call has run for `quiet` seconds, or after `patience` seconds."""
        self.ending = True
        give_up = time.monotonic() + patience
        while (self._running or time.monotonic() - self._last < quiet) and time.monotonic() < give_up:
            time.sleep(0.02)


_calls = _Calls()
atexit.register(_calls.end)


def training_batches(
    examples: PictureExamples,
    labels: np.ndarray,
    augment: Augmentation | Callable,
    *,
    size: tuple[int, int],
    batch_size: int,
    seed: int,
    first_step: int = 0,
    epochs: int | None = None,
) -> Dataset:
    """Batches of all epochs, one after another, from step `first_step` on.

    A batch holds examples of one epoch only, so the last of each epoch may be smaller.

    Args:
        examples: what to train on.
        labels: their class numbers, int64 of shape (examples,).
        augment: settings, or a function (picture, seed) -> picture.
        size: (height, width) to bring the pictures to, in pixels.
        batch_size: examples per step.
        seed: of the order and the augmentation.
        first_step: the step to begin with, counted from the beginning of the first epoch.
        epochs: where to end; without it there is no end.

    Returns:
        (x, y): float32 of shape (batch, height, width, 3), 0..255, and int64 of shape (batch,).
    """
    steps = -(-len(examples) // batch_size)
    first_epoch, first_in_epoch = divmod(first_step, steps)
    augmented_picture = _augmenting(examples, augment, size, seed)

    def padded_order(epoch: np.ndarray) -> np.ndarray:
        whole = np.full(steps * batch_size, -1, np.int64)
        whole[: len(examples)] = order(len(examples), seed=seed, epoch=int(epoch))
        return whole[first_in_epoch * batch_size :] if epoch == first_epoch else whole

    def numbers_of(epoch: tf.Tensor) -> Dataset:
        numbers = tf.ensure_shape(_calls.map(padded_order, [epoch], tf.int64), [None])
        return Dataset.from_tensor_slices(numbers).map(lambda number: (epoch, number))

    def example(epoch: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return augmented_picture(epoch, number), number

    def without_padding(pictures: tf.Tensor, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.reduce_sum(tf.cast(numbers >= 0, tf.int64))
        return pictures[:count], tf.gather(tf.constant(labels), numbers[:count])

    counted = Dataset.counter(first_epoch) if epochs is None else Dataset.range(first_epoch, epochs)
    batches = (
        counted.flat_map(numbers_of)
        .map(example, num_parallel_calls=processors())
        .batch(batch_size, drop_remainder=True)
        .map(without_padding)
    )
    remaining = tf.data.INFINITE_CARDINALITY if epochs is None else max(0, epochs * steps - first_step)
    return _fed(batches.apply(tf.data.experimental.assert_cardinality(remaining)))


def _augmenting(
    examples: PictureExamples, augment: Augmentation | Callable, size: tuple[int, int], seed: int
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """From an epoch and the number of an example, as tensors, to the picture as it is augmented there.

    A negative number is padding, and gives black.
    """
    settings = augment if isinstance(augment, Augmentation) else Augmentation()

    def load(epoch: np.ndarray, number: np.ndarray) -> np.ndarray:
        if number < 0 or _calls.ending:
            return np.zeros((*size, 3), np.float32)
        return augmented(settings, examples.picture(int(number), at_least=size), size, (seed, int(epoch), int(number)))

    def picture(epoch: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        found = tf.ensure_shape(_calls.map(load, [epoch, number], tf.float32), (*size, 3))
        if augment is settings:
            return found
        key = functools.reduce(
            tf.random.experimental.stateless_fold_in, (epoch, number), tf.constant([seed, 0], tf.int64)
        )
        return tf.clip_by_value(tf.ensure_shape(tf.cast(augment(found, key), tf.float32), (*size, 3)), 0.0, 255.0)

    return picture


def as_augmented(
    examples: PictureExamples,
    augment: Augmentation | Callable,
    *,
    size: tuple[int, int],
    batch_size: int,
    seed: int,
    epoch: int,
) -> Dataset:
    """Batches of all pictures, in order, once, each as `training_batches` augments it in one epoch.

    Returns:
        float32 of shape (batch, height, width, 3), 0..255.
    """
    augmented_picture = _augmenting(examples, augment, size, seed)
    numbers = Dataset.range(len(examples))
    pictures = numbers.map(
        lambda number: augmented_picture(tf.constant(epoch, tf.int64), number), num_parallel_calls=processors()
    )
    return _fed(pictures.batch(batch_size))


def unchanged(examples: PictureExamples, *, size: tuple[int, int], batch_size: int) -> Dataset:
    """Batches of all pictures, in order, once, unchanged but for their size.

    Returns:
        float32 of shape (batch, height, width, 3), 0..255.
    """
    return _fed(_pictures(examples, size).batch(batch_size))


def in_ten_crops(examples: PictureExamples, *, size: tuple[int, int], batch_size: int) -> Dataset:
    """Batches of the ten crops of each picture, one picture's after another's, in order, once.

    Returns:
        float32 of shape (batch, height, width, 3), 0..255.
    """
    least = ten_crop.size_to_decode(size)
    each = _made_of(examples, lambda picture: ten_crop.ten_crops(picture, size), (ten_crop.COUNT, *size, 3), least)
    return _fed(each.unbatch().batch(batch_size))


def evaluation_batches(
    examples: PictureExamples, labels: np.ndarray, *, size: tuple[int, int], batch_size: int
) -> Dataset:
    """Batches of all examples, in order, once, unchanged but for their size.

    Returns:
        (x, y): float32 of shape (batch, height, width, 3), 0..255, and int64 of shape (batch,).
    """
    pictures = _pictures(examples, size).batch(batch_size)
    return _fed(Dataset.zip((pictures, Dataset.from_tensor_slices(labels).batch(batch_size))))


def readable(pictures: Any) -> PictureExamples:
    """Pictures as they are given, each of which has been looked at.

    Args:
        pictures: an array of shape (pictures, height, width, 3), or pictures as arrays, paths or encoded bytes.

    Raises:
        ValueError: a picture cannot be read, or its pixels are scaled already.

    Example:

    >>> batches = unchanged(readable(np.zeros((3, 8, 8, 3), "uint8")), size=(4, 4), batch_size=2)
    >>> [batch.shape for batch in batches.as_numpy_iterator()]
    [(2, 4, 4, 3), (1, 4, 4, 3)]
    """
    examples = reading.pictures(pictures)
    _, problems = scan(examples)
    refuse(problems.values(), noun="picture", to_mend="leave them out, or give them in a format that is read")
    return examples


def computed_batches(
    batch: Callable[[int], Any],
    *,
    example: Any,
    sides: Any = None,
    first_step: int = 0,
    last_step: int | None = None,
) -> Dataset:
    """Batches that Python computes, each from the number of its step.

    Args:
        batch: gives the arrays of a step, in dictionaries and tuples; a function of the step alone.
        example: the batch of some step, which shows structure, types and ranks.
        sides: the shapes of all batches, as arrays in the structure of `example`, -1 for a side that varies; all of
            them do if not given.
        first_step: the step to begin with.
        last_step: the step to end before; without it there is no end.

    Example:

    >>> batches = computed_batches(lambda step: np.full(step, step), example=np.array([0]), first_step=1, last_step=3)
    >>> [batch.tolist() for batch in batches.as_numpy_iterator()]
    [[1], [2, 2]]
    """
    arrays = tf.nest.flatten(example)
    known = [np.full(array.ndim, -1) for array in arrays] if sides is None else tf.nest.flatten(sides)
    shapes = [[None if side < 0 else int(side) for side in shape] for shape in known]

    # TensorFlow holds on to every function that a graph calls, for ever: to this one, and not to the data behind it.
    held = [batch]

    def compute(step: np.ndarray) -> list[np.ndarray]:
        return arrays if _calls.ending else tf.nest.flatten(held[0](int(step)))

    def tensors(step: tf.Tensor) -> Any:
        computed = _calls.map(compute, [step], [array.dtype for array in arrays])
        shaped = [tf.ensure_shape(one, shape) for one, shape in zip(computed, shapes, strict=True)]
        return tf.nest.pack_sequence_as(example, shaped)

    counted = Dataset.counter(first_step) if last_step is None else Dataset.range(first_step, last_step)
    fed = _fed(counted.map(tensors))
    weakref.finalize(fed, held.clear)  # its iterators keep it alive
    return fed


# So many steps are looked up in one call of Python.
_TOGETHER = 64


def gathered_batches(
    tensors: Any, rows_of: Callable[[int], np.ndarray], *, first_step: int = 0, last_step: int | None = None
) -> Dataset:
    """Batches of rows of arrays, each from the number of its step: as `computed_batches`, several times as fast.

    Args:
        tensors: arrays of all examples, each of shape (examples, …), in dictionaries and tuples.
        rows_of: gives the numbers of the rows of a step; a function of the step alone.
        first_step: the step to begin with.
        last_step: the step to end before; without it there is no end.

    Example:

    >>> batches = gathered_batches(np.array([5, 6, 7]), lambda step: np.arange(step), first_step=1, last_step=4)
    >>> [batch.tolist() for batch in batches.as_numpy_iterator()]
    [[5], [5, 6], [5, 6, 7]]
    """
    held = [rows_of]  # as in `computed_batches`

    def look_up(first: np.ndarray) -> list[np.ndarray]:
        if _calls.ending:
            return [np.zeros(1, np.int64), np.ones(1, np.int64)]
        end = first + _TOGETHER if last_step is None else min(first + _TOGETHER, last_step)
        rows = [np.asarray(held[0](int(step)), np.int64) for step in range(first, end)]
        return [np.concatenate(rows), np.cumsum([len(some) for some in rows], dtype=np.int64)]

    def steps(first: tf.Tensor) -> Dataset:
        rows, ends = (tf.ensure_shape(one, [None]) for one in _calls.map(look_up, [first], [tf.int64, tf.int64]))
        starts = tf.concat([tf.zeros(1, tf.int64), ends[:-1]], axis=0)
        return Dataset.from_tensor_slices((starts, ends)).map(lambda start, end: rows[start:end])

    tensors = tf.nest.map_structure(tf.constant, tensors)
    counted = (
        Dataset.counter(first_step, _TOGETHER) if last_step is None else Dataset.range(first_step, last_step, _TOGETHER)
    )
    # How many come of several at once TensorFlow does not know, and Keras warns where data ends uncounted.
    number = tf.data.INFINITE_CARDINALITY if last_step is None else last_step - first_step
    batches = counted.flat_map(steps).apply(tf.data.experimental.assert_cardinality(number))
    fed = _fed(batches.map(lambda rows: tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)))
    weakref.finalize(fed, held.clear)
    return fed


def ordered_batches(tensors: Any, order: np.ndarray, batch_size: int) -> Dataset:
    """Batches of rows of arrays, once, in an order that is known.

    Args:
        tensors: as for `gathered_batches`.
        order: the numbers of the rows.
        batch_size: rows per batch; the last may have fewer.

    Example:

    >>> batches = ordered_batches(np.array([5, 6, 7]), np.array([2, 0, 1]), 2)
    >>> [batch.tolist() for batch in batches.as_numpy_iterator()]
    [[7, 5], [6]]
    """
    tensors = tf.nest.map_structure(lambda tensor: tf.constant(tensor[order]), tensors)

    def batch(step: tf.Tensor) -> Any:
        rows = slice(step * batch_size, (step + 1) * batch_size)
        return tf.nest.map_structure(lambda tensor: tensor[rows], tensors)

    return _fed(Dataset.range(-(-len(order) // batch_size)).map(batch))


def whole_batches(batches: Dataset, size: int) -> Dataset:
    """Of batches without end those that have so many examples: what is left over at the end of an epoch is left out.

    Example:

    >>> epochs = Dataset.from_tensor_slices([5, 6, 7]).batch(2).repeat()
    >>> [batch.tolist() for batch in whole_batches(epochs, 2).take(2).as_numpy_iterator()]
    [[5, 6], [5, 6]]
    """
    whole = batches.filter(lambda *batch: tf.equal(tf.shape(tf.nest.flatten(batch)[0])[0], size))
    return whole.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def filled_up(batches: Dataset) -> Dataset:
    """Batches that are all as large as the first: the last example of one that is smaller comes so often again.

    For what is compiled for each size of a batch: what it says of the examples that came again is to be left out.

    Example:

    >>> [batch.tolist() for batch in filled_up(Dataset.range(5, 8).batch(2)).as_numpy_iterator()]
    [[5, 6], [7, 7]]
    """

    def fill(size: tf.Tensor, batch: Any) -> tuple[tf.Tensor, Any]:
        count = tf.shape(tf.nest.flatten(batch)[0])[0]
        size = tf.maximum(size, count)
        rows = tf.minimum(tf.range(size), count - 1)
        return size, tf.cond(
            size == count, lambda: batch, lambda: tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), batch)
        )

    return batches.scan(tf.constant(0), fill)


def side_by_side(source: Dataset, target: Dataset) -> Dataset:
    """Batches of two domains together, as long as there are both; of the second x alone is taken.

    Returns:
        ({"source": x, "target": x of the target}, {"logits": y of the source, "penalty": zeros}).

    Example:

    >>> source = Dataset.from_tensor_slices(([1, 2], [10, 20]))
    >>> x, y = list(side_by_side(source, Dataset.from_tensor_slices(([3, 4, 5], [0, 0, 0]))).as_numpy_iterator())[1]
    >>> int(x["source"]), int(x["target"]), int(y["logits"])
    (2, 4, 20)
    """

    def together(labelled: tuple, unlabelled: tuple) -> tuple:
        y = {"logits": labelled[1], "penalty": tf.zeros_like(labelled[1], tf.float32)}
        return {"source": labelled[0], "target": unlabelled[0]}, y

    return _fed(Dataset.zip((source, target)).map(together))


def _pictures(examples: PictureExamples, size: tuple[int, int]) -> Dataset:
    return _made_of(examples, lambda picture: resize(picture, size), (*size, 3), size)


def _made_of(
    examples: PictureExamples,
    make: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, ...],
    at_least: tuple[int, int],
) -> Dataset:
    """What `make` makes of each picture, float32 of `shape`, in order, once; `at_least` as of `decoding.decode`."""

    def load(number: np.ndarray) -> np.ndarray:
        if _calls.ending:
            return np.zeros(shape, np.float32)
        return make(examples.picture(int(number), at_least=at_least))

    def made(number: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(_calls.map(load, [number], tf.float32), shape)

    return Dataset.range(len(examples)).map(made, num_parallel_calls=processors())


def _fed(batches: Dataset) -> Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # A fixed number of batches ahead: tuned buffers take as much memory as they are let. And the thread that tunes may
    # sleep for seconds after its data has gone, which whoever drops the data then waits for.
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)

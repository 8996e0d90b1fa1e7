"""Batches: the same whenever and from wherever they are reached, and the same pixels everywhere."""

import hashlib
import itertools
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data import Augmentation, images, pipeline
from keras_transfer.data.augmentation import augmented
from keras_transfer.data.decoding import resize
from keras_transfer.data.splits import order

PIXELS = np.random.default_rng(0).integers(0, 256, (25, 12, 10, 3), np.uint8)
LABELS = [0, 1, 2, 3, 4] * 5


@pytest.fixture
def splits():
    return images((PIXELS, LABELS), image_size=(8, 6), batch_size=8, augment="strong", seed=5)


def taken(batches, count=None):
    return [(x.numpy(), y.numpy()) for x, y in itertools.islice(batches, count)]


def assert_same(first, second):
    assert len(first) == len(second)
    for (x, y), (u, v) in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


@pytest.mark.both_backends
def test_a_batch_is_float32_pictures_of_0_to_255_and_int64_labels(splits):
    x, y = next(iter(splits.training_batches(None)))
    assert (x.dtype, x.shape, y.dtype, y.shape) == (tf.float32, (8, 8, 6, 3), tf.int64, (8,))
    assert x.numpy().max() > 200


def test_epochs_follow_one_another_and_no_batch_mixes_two(splits):
    assert splits.steps_per_epoch() == 3
    batches = taken(splits.training_batches(None, epochs=4))
    assert [len(y) for _, y in batches] == [8, 8, 4] * 4
    for epoch in range(4):
        labels = np.concatenate([y for _, y in batches[3 * epoch : 3 * epoch + 3]])
        np.testing.assert_array_equal(labels, splits.train.labels[order(20, seed=5, epoch=epoch)])


def test_every_picture_is_augmented_by_its_own_seed_epoch_and_number(splits):
    pictures = np.concatenate([x for x, _ in taken(splits.training_batches(None, epochs=2))])
    keys = [(5, epoch, int(number)) for epoch in range(2) for number in order(20, seed=5, epoch=epoch)]
    for picture, key in zip(pictures, keys, strict=True):
        original = splits.train.examples.picture(key[-1])
        np.testing.assert_array_equal(picture, augmented(splits.augmentation, original, (8, 6), key))


@pytest.mark.parametrize("first_step", range(13))
def test_from_any_step_on_the_batches_are_those_of_an_unbroken_run(splits, first_step):
    unbroken = taken(splits.training_batches(None, epochs=4))
    assert_same(taken(splits.training_batches(None, epochs=4, first_step=first_step)), unbroken[first_step:])


def test_what_is_skipped_is_not_decoded(splits, monkeypatch):
    fetched = []
    examples = type(splits.train.examples)
    picture = examples.picture
    monkeypatch.setattr(
        examples, "picture", lambda self, number, at_least=None: fetched.append(number) or picture(self, number)
    )
    taken(splits.training_batches(None, epochs=2, first_step=4))
    assert sorted(fetched) == sorted(order(20, seed=5, epoch=1)[8:])


def test_a_fresh_process_gives_the_same_and_loads_tfds_and_tensorflow_pipelines_only_when_used(splits):
    code = (
        "import hashlib, sys, numpy as np, keras_transfer.data as data\n"
        "x = np.random.default_rng(0).integers(0, 256, (25, 12, 10, 3), np.uint8)\n"
        "splits = data.images((x, [0, 1, 2, 3, 4] * 5), image_size=(8, 6), batch_size=8, augment='strong', seed=5)\n"
        "lazy = ('tensorflow_datasets', 'sklearn.datasets', 'keras_transfer.data.pipeline')\n"
        "print([name for name in lazy if name in sys.modules])\n"
        "batches = splits.training_batches(None, epochs=2, first_step=1)\n"
        "print(hashlib.sha256(b''.join(x.numpy().tobytes() for x, y in batches)).hexdigest())\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    batches = taken(splits.training_batches(None, epochs=2, first_step=1))
    assert printed == ["[]", hashlib.sha256(b"".join(x.tobytes() for x, _ in batches)).hexdigest()]


def test_another_seed_gives_another_order_and_that_of_the_splits_is_the_default(splits):
    own, same, other = (taken(splits.training_batches(None, seed=seed), 1) for seed in (None, 5, 6))
    assert_same(own, same)
    assert (own[0][0] != other[0][0]).any()


def test_the_number_of_batches_is_known(splits):
    assert splits.training_batches(None, epochs=4, first_step=5).cardinality() == 7
    assert splits.training_batches(None, epochs=4, first_step=12).cardinality() == 0
    assert splits.training_batches(None).cardinality() == tf.data.INFINITE_CARDINALITY
    assert splits.evaluation_batches(splits.validation, None).cardinality() == 1


def test_without_epochs_there_is_no_end(splits):
    unbroken = taken(splits.training_batches(None, epochs=20))
    assert_same(taken(splits.training_batches(None, first_step=50), 10), unbroken[50:])


@pytest.mark.both_backends
def test_evaluation_is_in_order_once_and_unchanged(splits):
    for split in splits.all:
        batches = taken(splits.evaluation_batches(split, None))
        expected = [resize(split.examples.picture(number), (8, 6)) for number in range(len(split))]
        np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), expected)
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), split.labels)


@pytest.mark.both_backends
def test_evaluation_peek_and_prediction_see_the_same_pixels(folder, encoded):
    root = folder({"a": 4, "b": 4})
    large = np.random.default_rng(0).integers(0, 256, (100, 130, 3), np.uint8)
    (root / "a/large.jpg").write_bytes(encoded(large, "JPEG"))
    splits = images(root, image_size=(10, 12), batch_size=3, validation=0)
    paths = [splits.train.describe(number) for number in range(9)]
    evaluated = np.concatenate([x for x, _ in taken(splits.evaluation_batches(splits.train, None))])
    for pictures in (paths, [pathlib.Path(path).read_bytes() for path in paths]):
        batches = pipeline.unchanged(pipeline.readable(pictures), size=(10, 12), batch_size=4)
        np.testing.assert_array_equal(np.concatenate(list(batches.as_numpy_iterator())), evaluated)
    np.testing.assert_array_equal(splits.peek(splits.train, range(9)), evaluated)


def test_without_augmentation_training_sees_the_pixels_of_evaluation(splits):
    plain = images((PIXELS, LABELS), image_size=(8, 6), batch_size=20, augment="none", validation=0.2, seed=5)
    x, _ = taken(plain.training_batches(None), 1)[0]
    np.testing.assert_array_equal(x, plain.peek(plain.train, order(20, seed=5, epoch=0)))


@pytest.mark.parametrize(
    "pictures",
    [PIXELS, PIXELS.astype("float32"), list(PIXELS), keras.ops.convert_to_tensor(PIXELS)],
    ids=["uint8", "float32", "list", "tensor"],
)
def test_arrays_of_any_form_are_predicted_alike(pictures):
    batches = list(pipeline.unchanged(pipeline.readable(pictures), size=(8, 6), batch_size=10).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [10, 10, 5]
    np.testing.assert_array_equal(np.concatenate(batches), [resize(picture, (8, 6)) for picture in PIXELS])


def test_one_picture_alone_is_a_batch_of_one(tmp_path, encoded):
    (tmp_path / "one.png").write_bytes(encoded(PIXELS[0]))
    for picture in (PIXELS[0], encoded(PIXELS[0]), tmp_path / "one.png", str(tmp_path / "one.png")):
        batches = list(pipeline.unchanged(pipeline.readable(picture), size=(12, 10), batch_size=4).as_numpy_iterator())
        np.testing.assert_array_equal(batches, [PIXELS[:1].astype("float32")])


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "There are no pictures"),
        (PIXELS / 255, "pixels of `pictures` are scaled already"),
        ([PIXELS[0], "a.png"], r"not all of one kind\.\n  given: +ndarray, str"),
        (str(pathlib.Path(__file__).parent), r"(?s)This is a folder.*mend:.*glob"),
        (["nowhere.png"], "nowhere.png: No such file or directory"),
        ([b"", b"GIF89a"], r"The data has 2 problems\.\n  given: +pictures\[0\]: the file is empty"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"pictures\[0\]: shape \(3, 8, 8\), where"),
    ],
    ids=["none", "scaled", "mixed", "a folder", "missing", "broken", "channels first"],
)
def test_pictures_that_cannot_be_predicted_are_refused(pictures, message):
    with pytest.raises(ValueError, match=message):
        pipeline.unchanged(pipeline.readable(pictures), size=(8, 6), batch_size=2)


def test_a_black_picture_can_be_predicted():
    batches = pipeline.unchanged(pipeline.readable(np.zeros((1, 4, 4, 3), "float32")), size=(4, 4), batch_size=1)
    assert next(batches.as_numpy_iterator()).max() == 0


def test_a_function_of_ones_own_augments_with_a_seed_per_example_and_epoch():
    def brighter(picture, seed):
        return picture + tf.random.stateless_uniform([], seed, 0, 60)

    splits = images((PIXELS, LABELS), image_size=(12, 10), batch_size=20, augment=brighter, validation=0.2)
    epochs = taken(splits.training_batches(None, epochs=2))
    assert_same(epochs, taken(splits.training_batches(None, epochs=2)))
    added = []
    for epoch, (x, _) in enumerate(epochs):
        plain = splits.peek(splits.train, order(20, seed=0, epoch=epoch))
        assert x.max() == 255
        added += [float(np.median((picture - base)[base < 190])) for picture, base in zip(x, plain, strict=True)]
    assert len({round(value, 3) for value in added}) == 40
    assert_same(
        taken(splits.evaluation_batches(splits.validation, None)),
        [(splits.peek(splits.validation, range(5)), splits.validation.labels)],
    )


def test_settings_of_ones_own_augment():
    splits = images(
        (PIXELS, LABELS), image_size=(12, 10), batch_size=20, augment=Augmentation(flip=True), validation=0.2
    )
    x, _ = taken(splits.training_batches(None), 1)[0]
    plain = splits.peek(splits.train, order(20, seed=0, epoch=0))
    flipped = [np.array_equal(picture, base[:, ::-1]) for picture, base in zip(x, plain, strict=True)]
    assert 3 < sum(flipped) < 17


def test_the_size_is_the_models():
    model = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Flatten()])
    splits = images((PIXELS, LABELS), batch_size=8)
    assert next(iter(splits.training_batches(model)))[0].shape == (8, 9, 7, 3)
    assert next(iter(splits.evaluation_batches(splits.train, model)))[0].shape == (8, 9, 7, 3)
    assert splits.peek(splits.train, [0], model).shape == (1, 9, 7, 3)


def test_a_model_that_takes_any_size_needs_one():
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="Nothing says to what size the pictures are to be brought"):
        images((PIXELS, LABELS), batch_size=8).training_batches(model)
    assert images((PIXELS, LABELS), batch_size=8, image_size=5).size(model) == (5, 5)


def test_data_and_model_that_disagree_about_the_size_are_refused(splits):
    model = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"disagree about the size of a picture\.\n  given: +\(8, 6\)"):
        splits.training_batches(model)


@pytest.mark.parametrize("image_size", [0, -3, (3,), (3, 4, 5), (3.5, 2), "large"])
def test_a_size_that_is_none_is_refused(image_size):
    with pytest.raises(ValueError, match="`image_size` is no size"):
        images((PIXELS, LABELS), batch_size=8, image_size=image_size)


@pytest.mark.both_backends
def test_keras_trains_on_the_batches(splits):
    layers = [keras.Input((8, 6, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(5)]
    model = keras.Sequential(layers)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(
        splits.training_batches(model),
        epochs=2,
        steps_per_epoch=splits.steps_per_epoch(),
        validation_data=splits.evaluation_batches(splits.validation, model),
        verbose=0,
    )
    assert np.isfinite(history.history["val_loss"]).all()


def test_a_process_that_leaves_a_pipeline_running_ends():
    """Without `_Calls.end` this one hangs every time: threads of tf.data wait for an interpreter that is going."""
    code = (
        "import time, numpy as np, keras_transfer.data as data\n"
        "class Slow(list):\n"
        "    def __getitem__(self, number):\n"
        "        time.sleep(0.02)\n"
        "        return super().__getitem__(number)\n"
        "x = Slow(np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8))\n"
        "splits = data.images((x, [0, 1] * 30), image_size=8, batch_size=8)\n"
        "batches = iter(splits.training_batches(None))\n"
        "print(next(batches)[0].shape)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    ).stdout
    assert printed.strip() == "(8, 8, 8, 3)"


@pytest.mark.parametrize(("first_step", "last_step"), [(0, 200), (3, 200), (63, 64), (130, None), (5, 5)])
def test_rows_gathered_by_number_are_those_that_python_takes(first_step, last_step):
    """Batches of two sizes, over more steps than are looked up at once."""
    held = {"x": np.arange(30).reshape(10, 3), "y": np.arange(10.0)}

    def rows(step):
        return np.arange(step, step + 1 + step % 2) % 10

    def batch(step):
        return {name: array[rows(step)] for name, array in held.items()}

    steps = {"first_step": first_step, "last_step": last_step}
    gathered = pipeline.gathered_batches(held, rows, **steps)
    computed = pipeline.computed_batches(batch, example=batch(0), **steps)
    assert int(gathered.cardinality()) == int(computed.cardinality())
    pairs = list(zip(itertools.islice(gathered, 200), itertools.islice(computed, 200), strict=True))
    assert len(pairs) == (200 if last_step is None else last_step - first_step)
    for one, other in pairs:
        np.testing.assert_array_equal(one["x"], other["x"])
        np.testing.assert_array_equal(one["y"], other["y"])

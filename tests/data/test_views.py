"""Examples by themselves: which a step takes, and what each looks like in an epoch."""

import numpy as np
import pytest

from keras_transfer.data import images

PIXELS = np.random.default_rng(0).integers(0, 256, (25, 12, 10, 3), np.uint8)
LABELS = [0, 1, 2, 3, 4] * 5


@pytest.fixture
def splits():
    return images((PIXELS, LABELS), image_size=(8, 6), batch_size=8, augment="strong", seed=5)


def _rows(splits, first_step, last_step, seed=None):
    rows_of_step = splits.rows_of_step(None, seed=seed)
    return [rows_of_step(step) for step in range(first_step, last_step)]


def test_a_step_takes_the_rows_that_training_batches_have(splits):
    batches = list(splits.training_batches(None, seed=3, first_step=2, epochs=2).as_numpy_iterator())
    rows = _rows(splits, 2, 6, seed=3)
    assert [epoch for epoch, _ in rows] == [0, 1, 1, 1]
    for (_, labels), (_, numbers) in zip(batches, rows, strict=True):
        np.testing.assert_array_equal(labels, splits.train.labels[numbers])


def test_a_view_has_every_picture_as_its_epoch_augments_it(splits):
    view = np.concatenate(list(splits.view(splits.train, None, epoch=1, seed=3, batch_size=7).as_numpy_iterator()))
    batches = splits.training_batches(None, seed=3, first_step=3, epochs=2).as_numpy_iterator()
    for (pictures, _), (_, numbers) in zip(batches, _rows(splits, 3, 6, seed=3), strict=True):
        np.testing.assert_array_equal(pictures, view[numbers])


def test_a_view_of_a_users_function_is_that_of_the_epoch():
    def shifted(picture, seed):
        import tensorflow as tf

        return picture + tf.random.stateless_uniform([], seed, 0, 50)

    splits = images((PIXELS, LABELS), image_size=(8, 6), batch_size=8, augment=shifted)
    view = np.concatenate(list(splits.view(splits.train, None, epoch=0, seed=0).as_numpy_iterator()))
    ((pictures, _), *_), ((_, numbers), *_) = splits.training_batches(None, epochs=1), _rows(splits, 0, 1)
    np.testing.assert_array_equal(pictures, view[numbers])
    assert splits.view_identity(splits.train, None, epoch=0) is None


def test_a_view_of_no_epoch_has_the_pictures_as_they_are(splits):
    view = np.concatenate(list(splits.view(splits.validation, None, epoch=None).as_numpy_iterator()))
    np.testing.assert_array_equal(view, splits.peek(splits.validation, range(len(splits.validation))))


def test_the_identity_of_a_view_follows_from_pixels_size_and_augmentation(splits):
    def identity(splits, **options):
        return splits.view_identity(splits.train, None, **{"epoch": 0, **options})

    other_labels = images((PIXELS, LABELS[::-1]), image_size=(8, 6), augment="strong", validation=0, batch_size=8)
    same_pixels = images((PIXELS, LABELS), image_size=(8, 6), augment="strong", validation=0, batch_size=8)
    assert identity(other_labels) == identity(same_pixels)
    assert identity(splits, epoch=None) == identity(splits, epoch=None, seed=9)
    different = [
        identity(splits),
        identity(splits, epoch=1),
        identity(splits, epoch=None),
        identity(splits, seed=9),
        identity(same_pixels),
        identity(images((PIXELS, LABELS), image_size=8, augment="strong", validation=0, batch_size=8)),
        identity(images((PIXELS, LABELS), image_size=(8, 6), augment="light", validation=0, batch_size=8)),
    ]
    assert len({str(one) for one in different}) == len(different)

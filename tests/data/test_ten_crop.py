"""Ten crops of a picture, and what is said of it by them."""

import bodies
import numpy as np
import pytest
import readers
from bodies import dark_and_light

import keras_transfer as kt
from keras_transfer.data.decoding import resize
from keras_transfer.data.ten_crop import size_to_decode, ten_crops

both_backends = pytest.mark.both_backends


def _picture(height=40, width=64):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype("uint8")


def _classifier():
    """One whose head tells pictures apart."""
    model = bodies.classifier()
    kernel = model.get_layer("head").kernel
    kernel.assign(np.random.default_rng(1).normal(size=kernel.shape))
    return model


def test_the_crops_are_the_corners_and_the_centre_and_their_mirror_images():
    picture = _picture(32, 64)
    parts = [picture[:30, :60], picture[:30, 4:], picture[2:, :60], picture[2:, 4:], picture[1:31, 2:62]]
    expected = [resize(part, (16, 16)) for part in parts]
    found = ten_crops(picture, (16, 16))
    np.testing.assert_array_equal(found[:5], expected)
    np.testing.assert_array_equal(found[5:], np.flip(expected, axis=2))


def test_a_picture_of_one_pixel_has_ten_crops():
    np.testing.assert_array_equal(ten_crops(np.full((1, 1, 3), 7, "uint8"), (2, 2)), np.full((10, 2, 2, 3), 7.0))


def test_as_much_of_a_large_picture_is_decoded_as_its_parts_need():
    least = size_to_decode((224, 299))
    assert [round(side * 15 / 16) for side in least] == [224, 299]
    assert [round((side - 1) * 15 / 16) for side in least] < [224, 299]


@both_backends
def test_what_is_said_is_the_mean_of_what_is_said_of_each_crop():
    model, pictures = _classifier(), [_picture(), _picture(20, 20), _picture(16, 90)]
    expected = [kt.predict(model, ten_crops(picture, model.input_shape[1:3])).mean(axis=0) for picture in pictures]
    found = kt.predict(model, pictures, ten_crop=True, batch_size=4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - kt.predict(model, pictures)).max() > 1e-3


@both_backends
def test_it_is_the_same_of_a_picture_wherever_it_stands_and_of_its_mirror_image():
    model, pictures = _classifier(), [_picture(), _picture()[:, ::-1]]
    here, mirrored = kt.predict(model, pictures, ten_crop=True)
    np.testing.assert_allclose(mirrored, here, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kt.predict(model, pictures[:1], ten_crop=True)[0], here, rtol=1e-4, atol=1e-6)


def test_a_report_by_crops_is_of_what_predict_says_by_crops():
    model, splits = _classifier(), dark_and_light(24, validation=0.25)
    pictures = [splits.validation.examples.picture(number) for number in range(len(splits.validation))]
    said = kt.predict(model, pictures, ten_crop=True).argmax(axis=1)
    found = kt.evaluate(model, splits, "validation", ten_crop=True)
    assert found.accuracy == np.mean(said == splits.validation.labels)
    assert (found.split, found.confusion.sum()) == ("validation", len(splits.validation))


def test_what_are_no_pictures_has_no_crops():
    texts = kt.data.texts((["a good film", "a bad film"] * 4, ["good", "bad"] * 4), batch_size=4, validation=0)
    reader = readers.text_classifier(layers=1)
    with pytest.raises(ValueError, match="Ten crops are of pictures"):
        kt.evaluate(reader, texts, "train", ten_crop=True)
    with pytest.raises(ValueError, match="Texts have no crops"):
        kt.predict(reader, ["a fine film"], ten_crop=True)

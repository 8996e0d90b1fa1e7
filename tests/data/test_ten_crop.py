"""Ten crops of a picture, and what is said of it by them."""

import bodies
import numpy as np
import pytest
import readers

import keras_transfer as kt
from keras_transfer.data.decoding import decode, encode, resize
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
    assert all(round((side - 1) * 15 / 16) < needed for side, needed in zip(least, (224, 299), strict=True))


def test_crops_of_a_large_file_have_the_pixels_of_the_whole_picture(tmp_path):
    """A JPEG is decoded at a part of its size, which must be enough for the crops."""
    waves = 127.5 + 127.5 * np.sin(np.arange(2000) / 60)
    (tmp_path / "large.jpg").write_bytes(
        encode((waves[:, None, None] * np.ones((1, 2000, 3)) / 2 + waves[:, None] / 2).astype("uint8"), "JPEG")
    )
    model = _classifier()
    whole = decode((tmp_path / "large.jpg").read_bytes())
    found = kt.predict(model, tmp_path / "large.jpg", ten_crop=True)
    np.testing.assert_allclose(found, kt.predict(model, whole, ten_crop=True), atol=2e-3)


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


@both_backends
def test_a_report_by_crops_is_of_what_predict_says_by_crops():
    """The labels are what the crops are taken for, which whole pictures often are not."""
    model, generator = _classifier(), np.random.default_rng(0)
    pictures = generator.integers(0, 256, (200, 4, 4, 3)).astype("uint8").repeat(10, axis=1).repeat(10, axis=2)
    first, second = kt.predict(model, pictures).T
    model.get_layer("head").bias.assign([0.0, np.median(np.log(first / second))])  # each class for half of the pictures
    said, whole = (kt.predict(model, pictures, ten_crop=ten_crop).argmax(axis=1) for ten_crop in (True, False))
    splits = kt.data.images((pictures, np.array(["dark", "light"])[said]), validation=0, augment="none")
    found = kt.evaluate(model, splits, "train", ten_crop=True)
    assert (found.split, found.accuracy) == ("train", 1.0)
    np.testing.assert_array_equal(found.confusion.sum(axis=1), np.bincount(said))
    assert kt.evaluate(model, splits, "train").accuracy == np.mean(said == whole) < 1


def test_what_are_no_pictures_has_no_crops():
    texts = kt.data.texts((["a good film", "a bad film"] * 4, ["good", "bad"] * 4), batch_size=4, validation=0)
    reader = readers.text_classifier(layers=1)
    with pytest.raises(ValueError, match="Ten crops are of pictures"):
        kt.evaluate(reader, texts, "train", ten_crop=True)
    with pytest.raises(ValueError, match="Texts have no crops"):
        kt.predict(reader, ["a fine film"], ten_crop=True)

"""Augmentation is a pure function of its key, stays within 0..255, and does what its settings say and no more."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_transfer.data.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    _recoloured,
    augmentation,
    augmented,
    crop_box,
)
from keras_transfer.data.decoding import resize

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_key_gives_the_same_picture_and_another_key_another(name):
    first, again, other_epoch, other_example, other_seed = (
        augmented(AUGMENTATIONS[name], PICTURE, (20, 30), key)
        for key in [(0, 1, 2), (0, 1, 2), (0, 2, 2), (0, 1, 3), (1, 1, 2)]
    )
    np.testing.assert_array_equal(first, again)
    for other in (other_epoch, other_example, other_seed):
        assert (first == other).all() == (name == "none")


def test_none_is_the_resize_alone():
    np.testing.assert_array_equal(
        augmented(AUGMENTATIONS["none"], PICTURE, (20, 30), (0, 0, 0)), resize(PICTURE, (20, 30))
    )


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_pixels_stay_within_0_and_255(name):
    for number in range(40):
        pixels = augmented(AUGMENTATIONS[name], PICTURE, (16, 16), (0, 0, number))
        assert pixels.dtype == np.float32
        assert pixels.shape == (16, 16, 3)
        assert pixels.min() >= 0
        assert pixels.max() <= 255


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    name=st.sampled_from(["light", "strong"]),
    seed=st.integers(0, 10**6),
)
def test_a_crop_lies_inside_its_picture(height, width, name, seed):
    top, left, bottom, right = crop_box(AUGMENTATIONS[name], height, width, np.random.default_rng(seed))
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width


@pytest.mark.parametrize("name", ["light", "strong"])
def test_crops_have_the_areas_and_aspects_of_their_settings(name):
    settings = AUGMENTATIONS[name]
    random = np.random.default_rng(0)
    boxes = np.array([crop_box(settings, 1000, 2000, random) for _ in range(3000)])
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas, aspects = heights * widths / 2e6, widths / heights / 2
    assert areas.min() > settings.crop_area[0] - 0.03
    assert abs(areas.mean() - np.mean(settings.crop_area)) < 0.02
    # At full area only the picture's own aspect fits, so the widest aspects belong to smaller crops.
    assert aspects.min() > settings.crop_aspect[0] - 0.01
    assert aspects.max() < settings.crop_aspect[1] + 0.01
    # Every edge is reached.
    assert boxes[:, 0].min() == boxes[:, 1].min() == 0
    assert (boxes[:, 2].max(), boxes[:, 3].max()) == (1000, 2000)


def test_half_of_the_pictures_are_flipped():
    flip = Augmentation(flip=True)
    straight = resize(PICTURE, (20, 30))
    pictures = [augmented(flip, PICTURE, (20, 30), (0, 0, number)) for number in range(400)]
    flipped = [np.array_equal(picture, straight[:, ::-1]) for picture in pictures]
    assert all(was or np.array_equal(picture, straight) for was, picture in zip(flipped, pictures, strict=True))
    assert 160 < sum(flipped) < 240


@pytest.mark.parametrize(
    ("setting", "low", "high"), [("brightness", 0.88, 1.12), ("contrast", 0.88, 1.12), ("saturation", 0.88, 1.12)]
)
def test_colours_change_by_at_most_their_extent(setting, low, high):
    grey = np.random.default_rng(0).uniform(100, 150, (10, 10, 3)).astype("float32")
    factors = []
    for number in range(300):
        pixels = augmented(Augmentation(**{setting: 0.12}), grey, (10, 10), (0, 0, number))
        luminance = np.float32([0.299, 0.587, 0.114])
        base = {"brightness": 0.0, "contrast": grey.mean(), "saturation": (grey @ luminance)[..., None]}[setting]
        factors.append(float(np.median((pixels - base) / (grey - base))))
    assert low - 0.001 < min(factors) < low + 0.01
    assert high - 0.01 < max(factors) < high + 0.001


def test_colours_change_one_after_another():
    picture = np.random.default_rng(3).uniform(0, 255, (5, 7, 3)).astype("float32")
    brightness, contrast, saturation = 1.2, 0.8, 0.7
    grey = (picture @ [0.299, 0.587, 0.114])[..., None]
    expected = grey + saturation * (picture - grey)
    expected = expected.mean() + contrast * (expected - expected.mean())
    np.testing.assert_allclose(
        _recoloured(picture, brightness, contrast, saturation), brightness * expected, rtol=1e-5, atol=1e-3
    )


def test_erasing_paints_one_rectangle_in_the_mean_colour():
    for number in range(20):
        pixels = augmented(Augmentation(erase=1.0), PICTURE, (40, 60), (0, 0, number))
        changed = (pixels != PICTURE).any(axis=-1)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        np.testing.assert_allclose(
            pixels[changed], np.broadcast_to(PICTURE.mean(axis=(0, 1)), (changed.sum(), 3)), atol=0.01
        )
        assert 0.01 < len(rows) * len(columns) / 2400 < 0.25


def test_a_misspelt_augmentation_names_the_nearest():
    with pytest.raises(ValueError, match=r"names no augmentation\.\n  given: +'lihgt'[\s\S]*nearest: +light"):
        augmentation("lihgt")


def test_settings_can_be_changed_one_by_one():
    mine = dataclasses.replace(AUGMENTATIONS["strong"], flip=False)
    assert augmentation(mine) is mine

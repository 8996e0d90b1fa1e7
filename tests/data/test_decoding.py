"""Every kind of picture file comes out as the pixels a viewer would show."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_transfer.data import decoding

RAMP = np.stack([np.tile(np.linspace(0, 255, 32).astype("uint8"), (24, 1))] * 3, axis=-1)
HALVES = np.zeros((24, 32, 3), np.uint8)
HALVES[:, :16] = (200, 30, 60)
HALVES[:12, 16:] = (20, 180, 90)


def test_lossless_files_give_the_very_pixels(encoded):
    for format in ("PNG", "BMP"):
        np.testing.assert_array_equal(decoding.decode(encoded(HALVES, format)), HALVES)
    np.testing.assert_array_equal(decoding.decode(encoded(HALVES, "WEBP", lossless=True)), HALVES)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_files_give_nearly_the_pixels(encoded, format):
    assert np.abs(decoding.decode(encoded(RAMP, format, quality=95)).astype(int) - RAMP).mean() < 2


def test_jpeg_pixels_are_those_that_tensorflow_decodes(shared):
    for path in sorted((shared / "images/flowers/test/roses").iterdir())[:10]:
        theirs = tf.io.decode_jpeg(path.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(decoding.decode(path.read_bytes()), theirs)


def test_a_grayscale_jpeg_has_three_equal_channels(encoded):
    pixels = decoding.decode(encoded(RAMP[..., 0], "JPEG", quality=95))
    assert pixels.shape == (24, 32, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    assert np.abs(pixels.astype(int) - RAMP).max() < 8


def test_a_cmyk_jpeg_is_not_inverted(encoded):
    pixels = decoding.decode(encoded(Image.fromarray(HALVES).convert("CMYK"), "JPEG", quality=95, subsampling=0))
    assert np.abs(pixels.astype(int) - HALVES).mean() < 6


def test_a_palette_png_gives_its_colours(encoded):
    np.testing.assert_array_equal(decoding.decode(encoded(Image.fromarray(HALVES).quantize(8))), HALVES)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(encoded, mode):
    picture = Image.fromarray(HALVES).convert("RGBA")
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:, 16:] = 0
    picture.putalpha(Image.fromarray(alpha))
    if mode == "P":
        file = encoded(Image.fromarray(HALVES).quantize(8), transparency=bytes([255] * 8))
        np.testing.assert_array_equal(decoding.decode(file), HALVES)
        palette = Image.fromarray(HALVES).quantize(8)
        black = palette.getpixel((31, 23))
        pixels = decoding.decode(encoded(palette, transparency=black))
        assert (pixels[12:, 16:] == 255).all()
        np.testing.assert_array_equal(pixels[:, :16], HALVES[:, :16])
        return
    pixels = decoding.decode(encoded(picture.convert(mode)))
    assert (pixels[:, 16:] == 255).all()
    if mode == "RGBA":
        np.testing.assert_array_equal(pixels[:, :16], HALVES[:, :16])


def test_half_transparent_is_half_white(encoded):
    picture = np.concatenate([np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 1), 128, np.uint8)], axis=-1)
    assert decoding.decode(encoded(picture))[0, 0].tolist() == [177, 177, 177]


def test_a_colour_key_is_transparency_too(encoded):
    pixels = decoding.decode(encoded(HALVES, transparency=(0, 0, 0)))
    assert (pixels[12:, 16:] == 255).all()
    np.testing.assert_array_equal(pixels[:, :16], HALVES[:, :16])


def test_16_bit_gray_is_scaled_and_not_clipped(encoded):
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert decoding.decode(encoded(deep))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_colour_is_scaled(encoded):
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"\0" + struct.pack(">6H", 0, 32896, 65535, 65535, 257, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    file += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert decoding.decode(file)[0].tolist() == [[0, 128, 255], [255, 1, 0]]


def test_black_and_white_becomes_0_and_255(encoded):
    assert set(np.unique(decoding.decode(encoded(Image.fromarray(HALVES).convert("1"))))) <= {0, 255}


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_a_moving_picture_the_first_frame_is_taken(encoded, format):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (40, 120, 200)]
    file = encoded(
        frames[0], format, save_all=True, append_images=frames[1:], **({} if format == "GIF" else {"lossless": True})
    )
    assert np.abs(decoding.decode(file).astype(int) - 40).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_turned_picture_is_set_upright(encoded, orientation, format):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    file = encoded(HALVES, format, exif=exif, **options)
    stored = decoding.decode(encoded(HALVES, format, **options))
    tagged = Image.fromarray(stored)
    tagged.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(decoding.decode(file), np.asarray(ImageOps.exif_transpose(tagged)))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_a_truncated_file_is_found_wherever_it_ends(encoded, format):
    whole = encoded(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), format)
    assert decoding.why_unreadable(whole) is None
    for part in (0.1, 0.5, 0.9):
        cut = whole[: int(len(whole) * part)]
        assert decoding.why_unreadable(cut), part
        with pytest.raises(ValueError, match="could not be decoded"):
            decoding.decode(cut)


def test_what_is_no_picture_says_how_it_begins():
    assert decoding.why_unreadable(b"") == "the file is empty (0 bytes)"
    assert decoding.why_unreadable(b"<html>not found</html>") == "not a picture; it begins with b'<html>not found<'"


def test_a_large_jpeg_is_decoded_small_and_differs_by_less_than_rounding(shared, encoded):
    path = sorted((shared / "images/flowers/test/daisy").iterdir())[0]
    large = Image.open(path).resize((2000, 1500), Image.Resampling.BICUBIC)
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = encoded(large, "JPEG", quality=90, exif=exif)
        whole, small = decoding.decode(file), decoding.decode(file, at_least=(224, 160))
        assert small.shape[:2] == tuple(side // 2 for side in whole.shape[:2])
        difference = np.abs(decoding.resize(whole, (224, 160)) - decoding.resize(small, (224, 160)))
        assert difference.mean() < 0.25
        assert difference.max() < 4


def test_a_jpeg_below_four_times_the_size_is_decoded_whole(encoded):
    file = encoded(np.zeros((899, 899, 3), np.uint8), "JPEG")
    assert decoding.decode(file, at_least=(225, 225)).shape == (899, 899, 3)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 9),
)
def test_resize_equals_tensorflows(shape, size, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    theirs = tf.image.resize(picture, size, antialias=True).numpy()
    np.testing.assert_allclose(decoding.resize(picture, size), theirs, atol=0.02)


def test_resize_leaves_a_picture_of_that_size_alone():
    picture = np.random.default_rng(0).random((5, 7, 3)).astype("float32") * 255
    np.testing.assert_array_equal(decoding.resize(picture, (5, 7)), picture)


def test_resize_keeps_integers_and_floats_alike():
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    np.testing.assert_array_equal(decoding.resize(picture, (8, 9)), decoding.resize(picture.astype("float32"), (8, 9)))

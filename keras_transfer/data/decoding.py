"""Encoded pictures to pixels, and pixels to the model's size: the only place that knows Pillow.

Training, evaluation, `predict` and whatever serves all go through `decode` and `resize`, so a picture has the same
pixels everywhere.
"""

import io

import numpy as np
from PIL import ExifTags, Image, MpoImagePlugin, WebPImagePlugin

from keras_transfer.errors import explain

ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")
"""The endings of the picture files that are read, in lower case; upper case is read too."""

UNREAD_ENDINGS = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".tif", ".tiff", ".svg", ".psd", ".ico"),
    *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".npy"),
)
"""Endings of pictures that are not read: never passed over in silence, because whoever put them there means them."""

# Pillow knows the two formats named through their modules only once those are imported. An MPO opens as JPEG does.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", WebPImagePlugin.WebPImageFile.format)
_JPEG = ("JPEG", MpoImagePlugin.MpoImageFile.format)
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _open(encoded: bytes) -> Image.Image:
    if not encoded:
        raise ValueError("the file is empty (0 bytes)")
    try:
        return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except Image.UnidentifiedImageError:
        raise ValueError(f"not a picture; it begins with {encoded[:16]!r}") from None


def why_unreadable(encoded: bytes) -> str | None:
    """What keeps `decode` from reading these bytes to their end, or `None` where nothing does.

    Every byte is decoded (a JPEG at an eighth of its size, which finds a missing end as surely and costs half), because
    a truncated file shows nothing in its header.

    Example:

    >>> why_unreadable(b"")
    'the file is empty (0 bytes)'
    >>> why_unreadable(b"<!DOCTYPE html><html>")
    "not a picture; it begins with b'<!DOCTYPE html><'"
    """
    try:
        with _open(encoded) as image:
            if image.format in _JPEG:
                image.draft(None, (image.width // 8, image.height // 8))
                image.load()
                image.getexif()
            else:
                _pixels(image)
    # Pillow's readers raise whatever their format's parser ran into (OSError, SyntaxError, struct.error, EOFError, …).
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def is_picture(first_bytes: bytes) -> bool:
    """Whether a file that begins so is a picture of a kind that is read, whatever it is called.

    Example:

    >>> is_picture(b"GIF89a" + bytes(20)), is_picture(b"file,label")
    (True, False)
    """
    magic = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
    return first_bytes.startswith(magic) or (first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP")


def _pixels(image: Image.Image) -> np.ndarray:
    turned = _TURNED.get(image.getexif().get(ExifTags.Base.Orientation))
    # Pillow's own conversion from 16 bits clips at 255 and gives a white picture.
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"pixels of {deep.min()}..{deep.max()}, which are no 16 bit")
        image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    return np.asarray(image if turned is None else image.transpose(turned))


def decode(encoded: bytes, at_least: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels of an encoded JPEG, PNG, BMP, GIF (its first frame) or WebP, as uint8 of shape (height, width, 3).

    - A turned camera's picture is set upright as its EXIF orientation says.
    - CMYK, grayscale and palette become RGB; 16 bit are scaled to 8, not clipped.
    - What is transparent shows white, as on a page.
    - Colour profiles are not applied.

    Args:
        encoded: the file's bytes.
        at_least: (height, width) that the picture will be brought to. A JPEG of more than four times that is decoded at
            a half, a quarter or an eighth of its size, never below twice `at_least`, so that a crop has its pixels too:
            a 12-megapixel photograph reaches 224 x 224 in a ninth of the time, a tenth of a grey level off on average.

    Raises:
        ValueError: the bytes are no picture, or end too early.

    Example:

    >>> decode(encode(np.full((2, 3, 3), 7, "uint8")))[0, 0]
    array([7, 7, 7], dtype=uint8)
    """
    try:
        with _open(encoded) as image:
            if at_least is not None and image.format in _JPEG:
                # The picture may lie on its side.
                longest = 2 * max(at_least)
                image.draft(None, (longest, longest))
            return _pixels(image)
    except Exception as error:
        raise ValueError(
            explain("A picture could not be decoded.", given=str(error) or type(error).__name__)
        ) from error


def is_opened(picture: object) -> bool:
    """Whether it is a picture that Pillow has opened or made.

    Example:

    >>> is_opened(Image.new("L", (2, 2))), is_opened(np.zeros((2, 2)))
    (True, False)
    """
    return isinstance(picture, Image.Image)


def as_array(picture: object) -> np.ndarray:
    """A picture as an array: of Pillow's pictures what `decode` would make of them, anything else as NumPy reads it.

    Example:

    >>> as_array(Image.new("P", (2, 1), 0)).shape, as_array([[7]]).tolist()
    ((1, 2, 3), [[7]])
    """
    return _pixels(picture) if isinstance(picture, Image.Image) else np.asarray(picture)


def encode(picture: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    """The bytes of a file that holds this picture, uint8 of shape (height, width, 3) or (height, width).

    Example:

    >>> encode(np.zeros((2, 2, 3), "uint8"))[:4]
    b'\\x89PNG'
    """
    held = io.BytesIO()
    Image.fromarray(picture).save(held, format, **options)
    return held.getvalue()


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture brought to `size`, in float32 of the same 0..255: bilinear, antialiased, squashed.

    Without antialiasing a large photograph shrinks to a sample of its pixels. Nothing is cropped: what is at the edge
    of a picture may be what its label means. A picture that has the size already is unchanged. It equals
    `tf.image.resize(picture, size, antialias=True)` to a hundredth of a grey level, in a third of the time.

    Args:
        picture: of shape (height, width, 3), uint8 or float.
        size: (height, width) in pixels.

    Example:

    >>> resize(np.full((4, 6, 3), 9, "uint8"), (2, 2)).tolist()[0]
    [[9.0, 9.0, 9.0], [9.0, 9.0, 9.0]]
    """
    height, width = size
    if picture.shape[:2] == (height, width):
        return picture.astype(np.float32)
    resized = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        # Pillow resizes 8-bit pictures to whole grey levels; its one-channel float mode keeps the fractions.
        plane = Image.fromarray(picture[..., channel].astype(np.float32))
        resized[..., channel] = plane.resize((width, height), Image.Resampling.BILINEAR)
    return resized

"""What training does to a picture before the model sees it: a pure function of (seed, epoch, example)."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from keras_transfer.data.decoding import resize
from keras_transfer.errors import explain, nearest


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far a training picture may be changed. Plain data; pixels stay within 0..255.

    Attributes:
        flip: whether left and right are swapped in half of the pictures.
        crop_area: the smallest and largest part of the picture's area that is kept.
        crop_aspect: the narrowest and widest aspect of that part, as a multiple of the picture's own.
        brightness: pixels are multiplied by 1 ± up to this.
        contrast: distances from the picture's mean are multiplied by 1 ± up to this.
        saturation: distances from grey are multiplied by 1 ± up to this.
        erase: the chance that a rectangle of 2 to 20 % of the area is painted in the picture's mean colour.

    Example:

    >>> light = AUGMENTATIONS["light"]
    >>> light.crop_area, dataclasses.replace(light, flip=False).flip
    ((0.7, 1.0), False)
    """

    flip: bool = False
    crop_area: tuple[float, float] = (1.0, 1.0)
    crop_aspect: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0


AUGMENTATIONS = {
    "none": Augmentation(),
    "light": Augmentation(flip=True, crop_area=(0.7, 1.0), crop_aspect=(0.9, 1.1), brightness=0.12),
    "strong": Augmentation(
        flip=True,
        crop_area=(0.35, 1.0),
        crop_aspect=(3 / 4, 4 / 3),
        brightness=0.25,
        contrast=0.25,
        saturation=0.25,
        erase=0.25,
    ),
}
"""The three that have a name."""


def augmentation(choice: str | Augmentation | Callable) -> Augmentation | Callable:
    """The augmentation that `augment=` means: one of three names, settings of one's own, or a function.

    A function takes a picture (float32 tensor of the model's size, 0..255) and a seed (int64 tensor of shape (2,), its
    own for every example and epoch) and returns a picture of the same shape; it is traced by tf.data.

    Raises:
        ValueError: the name is none of "none", "light" and "strong".

    Example:

    >>> augmentation("light").crop_area
    (0.7, 1.0)
    """
    if isinstance(choice, Augmentation) or callable(choice):
        return choice
    if not isinstance(choice, str) or choice not in AUGMENTATIONS:
        raise ValueError(
            explain(
                "`augment` names no augmentation.",
                given=repr(choice),
                expected="'none', 'light', 'strong', a `kt.data.Augmentation` or a function (picture, seed) -> picture",
                nearest=nearest(str(choice), AUGMENTATIONS),
            )
        )
    return AUGMENTATIONS[choice]


def crop_box(settings: Augmentation, height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """The part of a picture that an augmentation keeps, as (top, left, bottom, right) in whole pixels.

    Example:

    >>> crop_box(AUGMENTATIONS["none"], 10, 20, np.random.default_rng(0))
    (0, 0, 10, 20)
    """
    area = random.uniform(*settings.crop_area)
    aspect = math.exp(random.uniform(*np.log(settings.crop_aspect)))
    down, across = random.random(), random.random()
    kept_height = min(height, max(1, round(height * math.sqrt(area / aspect))))
    kept_width = min(width, max(1, round(width * math.sqrt(area * aspect))))
    top, left = round(down * (height - kept_height)), round(across * (width - kept_width))
    return top, left, top + kept_height, left + kept_width


def augmented(
    settings: Augmentation, picture: np.ndarray, size: tuple[int, int], key: tuple[int, int, int]
) -> np.ndarray:
    """A picture as training sees it: a random part of it brought to `size`, flipped, its colours changed.

    Args:
        settings: how far it may be changed.
        picture: of shape (height, width, 3), 0..255.
        size: (height, width) to bring it to, in pixels.
        key: (seed, epoch, example), which alone decides what happens.

    Returns:
        float32 of shape (*size, 3), 0..255.

    Example:

    >>> light, picture = AUGMENTATIONS["light"], np.full((8, 8, 3), 200, "uint8")
    >>> first, again = (augmented(light, picture, (4, 4), key=(0, 1, 2)) for _ in range(2))
    >>> bool((first == again).all()), first.shape
    (True, (4, 4, 3))
    """
    random = np.random.default_rng(key)
    top, left, bottom, right = crop_box(settings, *picture.shape[:2], random)
    picture = resize(picture[top:bottom, left:right], size)
    if settings.flip and random.random() < 0.5:
        picture = picture[:, ::-1]
    if settings.erase and random.random() < settings.erase:
        picture = _erased(picture, random)
    brightness, contrast, saturation = (
        1 + random.uniform(-extent, extent) if extent else 1.0
        for extent in (settings.brightness, settings.contrast, settings.saturation)
    )
    return np.clip(_recoloured(picture, brightness, contrast, saturation), 0, 255)


def _recoloured(picture: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Between its own grey and itself (saturation), then its mean and itself (contrast), and times the brightness.

    All three are linear, so that one matrix of colours by colours and one offset do them together.
    """
    if saturation == contrast == 1.0:
        return np.ascontiguousarray(picture) * np.float32(brightness)
    pixels = np.ascontiguousarray(picture).reshape(-1, 3)
    of_grey = np.outer([0.299, 0.587, 0.114], np.ones(3))
    mixed = saturation * np.eye(3) + (1 - saturation) * of_grey
    offset = (1 - contrast) * float(np.mean(_mean_colour(pixels) @ mixed))
    recoloured = pixels @ np.float32(brightness * contrast * mixed) + np.float32(brightness * offset)
    return recoloured.reshape(picture.shape)


def _mean_colour(pixels: np.ndarray) -> np.ndarray:
    # As a product: NumPy's own mean over all axes but the last takes ten times as long.
    return np.ones(len(pixels), np.float32) @ pixels / len(pixels)


def _erased(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    part = Augmentation(crop_area=(0.02, 0.2), crop_aspect=(1 / 3, 3))
    top, left, bottom, right = crop_box(part, *picture.shape[:2], random)
    picture = picture.copy()
    picture[top:bottom, left:right] = _mean_colour(picture.reshape(-1, 3))
    return picture

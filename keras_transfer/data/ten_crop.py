"""Ten parts of one picture to look at instead of the whole (Krizhevsky, Sutskever and Hinton 2012)."""

import math

import numpy as np

from keras_transfer.data.decoding import resize

# Of each side. The paper has 7/8. On eleven folds of the training pictures of the four shared sets a fine-tuned body
# had an accuracy of 0.894 by parts of 0.93, 0.886 by parts of 7/8, 0.888 by parts of 4/5, 0.874 by whole pictures (log
# loss 0.348, 0.356, 0.354, 0.365); `benchmarks/ten_crop_folds.py` measures that again.
PART = 15 / 16
COUNT = 10


def ten_crops(picture: np.ndarray, size: tuple[int, int], part: float = PART) -> np.ndarray:
    """The four corners and the centre of a picture, then the same of its mirror image.

    Args:
        picture: of shape (height, width, 3), 0..255.
        size: (height, width) that each part is brought to, in pixels.
        part: of each side of the picture, above 0 and at most 1.

    Returns:
        float32 of shape (10, *size, 3), 0..255.

    Example:

    >>> picture = np.arange(256.0).reshape(16, 16, 1).repeat(3, axis=2)
    >>> crops = ten_crops(picture, (15, 15))
    >>> crops.shape, crops[:5, 0, 0, 0].tolist(), crops[5:, 0, 0, 0].tolist()
    ((10, 15, 15, 3), [0.0, 1.0, 16.0, 17.0, 0.0], [14.0, 15.0, 30.0, 31.0, 14.0])
    """
    height, width = (max(1, round(part * side)) for side in picture.shape[:2])
    down, across = (side - kept for side, kept in zip(picture.shape[:2], (height, width), strict=True))
    corners = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
    crops = [resize(picture[top : top + height, left : left + width], size) for top, left in corners]
    return np.stack([*crops, *(crop[:, ::-1] for crop in crops)])


def size_to_decode(size: tuple[int, int]) -> tuple[int, int]:
    """The least size of a picture whose crops have as many pixels as they are brought to.

    Example:

    >>> size_to_decode((224, 224))
    (239, 239)
    """
    height, width = (math.ceil(side / PART) for side in size)
    return height, width

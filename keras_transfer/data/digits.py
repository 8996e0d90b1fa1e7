"""`digits`: real handwritten digits that come with scikit-learn, so that everything runs with no download."""

from collections.abc import Callable, Iterable

import numpy as np

from keras_transfer.data import arrays
from keras_transfer.data.augmentation import Augmentation, augmentation
from keras_transfer.data.dividing import check_settings, divided
from keras_transfer.data.images import ImageSplits
from keras_transfer.errors import explain


def digits(
    classes: Iterable[int] = range(10),
    per_class: int | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    augment: str | Augmentation | Callable = "none",
    validation: float = 0.2,
    test: float = 0.3,
    seed: int = 0,
) -> ImageSplits:
    """Real handwritten digits, 8 x 8 pixels, about 180 of each: the set that is always there.

    They are the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998), embedded in
    scikit-learn. Grey levels 0..16 become 0..255, on three channels. They are not augmented by default: a mirrored
    digit is none.

    Args:
        classes: the digits to tell apart, some of 0..9.
        per_class: how many labelled examples of each there are to train and validate on; all of them if not given. The
            test split is the same whatever this is.
        image_size: pixels to bring them to, a number or (height, width); only for models that take any size.
        batch_size: examples per step.
        augment: what training does to a picture, as in `images`.
        validation: the part of the labelled examples that is held out for validation.
        test: the part of each class that is held out for the test, before anything else.
        seed: decides what is held out, the order of the epochs and the augmentation.

    Raises:
        ValueError: a class is no digit, or there are not so many of it.

    Example:

    >>> few = digits([5, 6, 7], per_class=10, batch_size=8)
    >>> few.classes, len(few.train), len(few.validation), len(few.test)
    (('5', '6', '7'), 24, 6, 163)
    """
    check_settings(validation, test, seed, "error")
    augmentation(augment)
    wanted = sorted({int(digit) for digit in classes})
    if len(wanted) < 2 or not set(wanted) <= set(range(10)):
        raise ValueError(explain("`classes` are not digits.", given=repr(wanted), expected="at least two of 0..9"))
    from sklearn.datasets import load_digits

    held = load_digits()
    chosen = np.isin(held.target, wanted)
    pictures = np.round(held.images[chosen] * (255 / 16)).astype(np.uint8)
    found = arrays.arrays(pictures, held.target[chosen], name="digits")
    parts = divided(found, validation=validation, test=test, seed=seed, per_class=per_class)
    return ImageSplits(parts, image_size=image_size, batch_size=batch_size, augment=augment, seed=seed)

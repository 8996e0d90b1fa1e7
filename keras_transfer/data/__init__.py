"""Step 1: examples in. Whatever pictures lie in becomes `Splits`."""

from keras_transfer.data.augmentation import Augmentation
from keras_transfer.data.digits import digits
from keras_transfer.data.images import ImageSplits, images
from keras_transfer.data.splits import Split, Splits

__all__ = ["Augmentation", "ImageSplits", "Split", "Splits", "digits", "images"]

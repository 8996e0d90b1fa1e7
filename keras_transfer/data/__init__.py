"""Step 1: examples in. Whatever pictures and texts lie in becomes `Splits`."""

from keras_transfer.data.augmentation import Augmentation
from keras_transfer.data.captions import CaptionSplits, captions
from keras_transfer.data.digits import digits
from keras_transfer.data.images import ImageSplits, images
from keras_transfer.data.language import CorpusSplits, PromptSplits, prompts
from keras_transfer.data.splits import Split, Splits
from keras_transfer.data.texts import TextSplits, texts

__all__ = [
    "Augmentation",
    "CaptionSplits",
    "CorpusSplits",
    "ImageSplits",
    "PromptSplits",
    "Split",
    "Splits",
    "TextSplits",
    "captions",
    "digits",
    "images",
    "prompts",
    "texts",
]

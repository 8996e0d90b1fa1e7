"""The two domains: one with labels, and one that has none, whatever was given."""

import copy
from typing import Any

import keras
import numpy as np

from keras_transfer.data.images import ImageSplits
from keras_transfer.data.splits import Split, Splits
from keras_transfer.study.embedding import unlabelled

# What depends on the labels and may have been computed before they were taken off.
_DERIVED = ("fingerprint",)


def without_labels(model: keras.Model, target: Any, like: Splits | None = None) -> Splits:
    """The examples of a domain whose labels nobody has, or nobody is to see.

    Args:
        model: what is to read them.
        target: splits, of which the training examples are taken; or pictures or texts as `kt.predict` takes them.
        like: the other domain. What comes as bare pictures or texts is put into batches as large as its, and augmented
            as it is: what tells the domains apart is not to be how they were read.

    Returns:
        Splits with nothing but a training split, whose every label is 0. The labels of what was given are not hidden
        behind them: they are not there, and were not read.

    Example:

    >>> from keras_transfer.data import digits
    >>> blind = without_labels(None, digits([3, 8], per_class=10, batch_size=4))
    >>> blind.classes, blind.train.labels.tolist() == [0] * 16, blind.validation, blind.test
    ((), True, None, None)
    """
    if not isinstance(target, Splits):
        target = _treated_like(like, unlabelled(model, target))
    blind = copy.copy(target)
    # Without classes a split looks for no labels. The batches of every kind of data have a y, which says nothing here.
    blind.train = Split(target.train.name, target.train.examples, (), target.train.digests)
    blind.train.labels = np.zeros(len(blind.train), np.int64)
    blind.validation = blind.test = None
    blind.classes = ()
    for name in _DERIVED:
        vars(blind).pop(name, None)
    return blind


def _treated_like(other: Splits | None, target: Splits) -> Splits:
    if other is None:
        return target
    target.batch_size = min(other.batch_size, len(target.train))
    if isinstance(target, ImageSplits) and isinstance(other, ImageSplits):
        target.augment, target.augmentation = other.augment, other.augmentation
        target.image_size = other.image_size
    return target

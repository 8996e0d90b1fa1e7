"""Batches of similar length: which lengths there are, and which rows go together in an epoch."""

import numbers
from collections.abc import Sequence

import numpy as np

from keras_transfer.errors import explain

# Lengths are multiples of this: as wide as the tiles that accelerators compute in, and few shapes to compile for.
_STEP = 8


def choose_lengths(lengths: np.ndarray, max_length: int, *, most: int = 8) -> tuple[int, ...]:
    """The few lengths to pad to that need the least padding in all.

    Args:
        lengths: the tokens of each row, none more than `max_length`.
        max_length: no length is more than this.
        most: how many there may be; each is a shape that XLA compiles for.

    Returns:
        Multiples of 8, or `max_length`, in ascending order; the longest row fits the last.

    Example:

    >>> choose_lengths(np.array([3, 5, 6, 30, 31, 33, 100]), 100, most=3)
    (8, 40, 100)
    """
    rows = np.bincount(-(-np.maximum(lengths, 1) // _STEP))
    ends = np.flatnonzero(rows)
    up_to = np.cumsum(rows)[ends]
    # Dynamic programming: size[j] is the least that the rows up to ends[j] can be padded to with so many lengths. Every
    # further length takes the rows above some ends[i], and leaves the others to the lengths before.
    size = (ends * up_to).astype(np.float64)
    steps = []
    for _ in range(1, min(most, len(ends))):
        sizes = size[:, None] + ends * (up_to - up_to[:, None])
        sizes[np.tril_indices(len(ends))] = np.inf
        steps.append(sizes.argmin(axis=0))
        size = sizes.min(axis=0)
    chosen = [len(ends) - 1]
    for step in reversed(steps):
        chosen.append(step[chosen[-1]])
    return tuple(min(int(ends[number]) * _STEP, max_length) for number in reversed(chosen))


def check_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """Lengths that somebody chose, in ascending order.

    Raises:
        ValueError: they are no whole numbers from 1.

    Example:

    >>> check_lengths([128, 32])
    (32, 128)
    """
    if not len(lengths) or not all(isinstance(length, numbers.Integral) and length >= 1 for length in lengths):
        raise ValueError(
            explain(
                "`buckets` are no lengths.",
                given=repr(lengths),
                expected="how many tokens the rows of a batch may be padded to, for instance (16, 32, 64)",
                to_mend="leave it out: those that need the least padding are chosen",
            )
        )
    return tuple(sorted({int(length) for length in lengths}))


def bucket_of(lengths: np.ndarray, buckets: Sequence[int], max_length: int) -> np.ndarray:
    """The length that each row is padded to: the least of `buckets` that it fits, `max_length` where it fits none.

    Example:

    >>> bucket_of(np.array([5, 8, 9, 70]), (8, 32), 128).tolist()
    [8, 8, 32, 128]
    """
    bounds = np.array([*(bucket for bucket in buckets if bucket < max_length), max_length])
    return bounds[np.searchsorted(bounds, lengths)]


def arrange(padded: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch, each of rows that are padded to one length as far as that goes.

    Within a length, rows meet in the order of the epoch. What is left of each length, less than a batch, is filled up
    with what is left of the next. So an epoch has as many batches as one of rows that are all of one length, and the
    lengths of its batches are the same in every epoch.

    Args:
        padded: what each row is padded to.
        batch_size: rows per batch; the last batch may be smaller.
        seed: with `epoch` decides which rows go together, and the order of the batches.
        epoch: its number.

    Returns:
        The numbers of each batch's rows; every row comes once.

    Example:

    >>> padded = np.array([8, 8, 8, 16, 16])
    >>> [padded[batch].tolist() for batch in arrange(padded, 2, seed=0, epoch=0)]
    [[8, 8], [16, 16], [8]]
    """
    drawn = np.random.default_rng((seed, epoch))
    shuffled = drawn.permutation(len(padded))
    batches, left = [], []
    for length in np.unique(padded):
        rows = shuffled[padded[shuffled] == length]
        whole = len(rows) - len(rows) % batch_size
        batches += list(rows[:whole].reshape(-1, batch_size))
        left.append(rows[whole:])
    rest = np.concatenate(left)
    batches += [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
    smaller = [batches.pop()] if len(batches[-1]) < batch_size else []
    return [batches[number] for number in drawn.permutation(len(batches))] + smaller

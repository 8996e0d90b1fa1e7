"""Which rows go together: by length, every one once, in an order that (seed, epoch) decides."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_transfer.data.buckets import arrange, bucket_of, check_lengths, choose_lengths

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=60).map(np.array)


@given(LENGTHS, st.integers(1, 5))
def test_no_other_lengths_need_less_padding(lengths, most):
    chosen = choose_lengths(lengths, 104, most=most)
    ends = sorted({-(-int(length) // 8) * 8 for length in lengths})
    assert len(chosen) <= most
    assert set(chosen) <= set(ends)
    others = (
        (*some, ends[-1]) for count in range(min(most, len(ends))) for some in itertools.combinations(ends[:-1], count)
    )
    least = min(bucket_of(lengths, other, 104).sum() for other in others)
    assert bucket_of(lengths, chosen, 104).sum() == least


@given(LENGTHS, st.integers(1, 9))
def test_every_row_fits_and_no_length_exceeds_the_longest_allowed(lengths, most):
    padded = bucket_of(lengths, choose_lengths(lengths, 100, most=most), 100)
    assert (padded >= lengths).all()
    assert padded.max() <= 100
    assert len(np.unique(padded)) <= most


@settings(max_examples=200)
@given(LENGTHS, st.integers(1, 20), st.integers(0, 3), st.integers(0, 3))
def test_every_row_comes_once_and_only_the_last_batch_is_smaller(lengths, batch_size, seed, epoch):
    padded = bucket_of(lengths, (8, 16, 32, 64), 100)
    batches = arrange(padded, batch_size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(LENGTHS, st.integers(1, 20))
def test_lengths_mix_only_in_what_is_left_of_each(lengths, batch_size):
    padded = bucket_of(lengths, (8, 16, 32, 64), 100)
    batches = arrange(padded, batch_size, seed=0, epoch=0)
    pure = sum(count // batch_size for count in np.unique(padded, return_counts=True)[1])
    assert sum(len(np.unique(padded[batch])) == 1 and len(batch) == batch_size for batch in batches) >= pure


@given(LENGTHS, st.integers(1, 20))
def test_the_shapes_of_an_epoch_are_those_of_every_other(lengths, batch_size):
    padded = bucket_of(lengths, (8, 16, 32, 64), 100)
    shapes = [
        sorted((len(batch), padded[batch].max()) for batch in arrange(padded, batch_size, seed=seed, epoch=epoch))
        for seed, epoch in ((0, 0), (0, 1), (7, 3))
    ]
    assert shapes[0] == shapes[1] == shapes[2]


def test_rows_meet_others_in_every_epoch_and_the_same_again_in_the_same_epoch():
    padded = np.full(64, 8)
    first, again, other, seeded = (
        [batch.tolist() for batch in arrange(padded, 8, seed=seed, epoch=epoch)]
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert first == again
    assert {frozenset(batch) for batch in first}.isdisjoint({frozenset(batch) for batch in other})
    assert first != seeded


def test_the_order_of_the_batches_does_not_go_by_length():
    padded = np.repeat([8, 16, 32, 64], 50)
    lengths = [padded[batch[0]] for batch in arrange(padded, 10, seed=0, epoch=0)]
    assert lengths != sorted(lengths)


def test_lengths_that_somebody_chose_are_checked():
    assert check_lengths([64, 16, 16]) == (16, 64)
    for wrong in ([], [0], [1.5], ["8"]):
        with pytest.raises(ValueError, match="`buckets` are no lengths"):
            check_lengths(wrong)

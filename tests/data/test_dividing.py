"""What is held out is stratified, seeded, and never taken off test."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_transfer import data
from keras_transfer.data.arrays import arrays
from keras_transfer.data.dividing import divided
from keras_transfer.data.splits import order

images = functools.partial(data.images, batch_size=4)


def drawn(counts: list[int], seed: int = 0) -> tuple[np.ndarray, list[str]]:
    labels = [f"class {number}" for number, count in enumerate(counts) for _ in range(count)]
    return np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 3), np.uint8), labels


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(3, 30), min_size=2, max_size=5),
    validation=st.floats(0.01, 0.9),
    test=st.floats(0.01, 0.9),
    seed=st.integers(0, 99),
)
def test_every_class_is_in_every_split_and_every_example_in_one(counts, validation, test, seed):
    parts = divided(arrays(*drawn(counts)), validation=validation, test=test, seed=seed)
    splits = (parts.train, parts.validation, parts.test)
    for split in splits:
        assert all(count >= 1 for count in split.counts.values())
    digests = [digest for split in splits for digest in split.digests]
    assert len(set(digests)) == len(digests) == sum(counts)
    for number, count in enumerate(counts):
        name = f"class {number}"
        assert parts.test.counts[name] == min(count - 2, max(1, round(test * count)))


def test_held_out_is_the_asked_part_of_each_class():
    splits = images(drawn([50, 100]), validation=0.2, test=0.1)
    assert splits.counts == {
        "train": {"class 0": 36, "class 1": 72},
        "validation": {"class 0": 9, "class 1": 18},
        "test": {"class 0": 5, "class 1": 10},
    }


def test_the_same_seed_holds_out_the_same_and_another_others():
    first, again, other = (images(drawn([40, 40]), seed=seed).validation.digests for seed in (3, 3, 4))
    assert first == again
    assert set(first) != set(other)


def test_what_is_held_out_depends_on_content_and_not_on_order():
    pictures, labels = drawn([30, 30])
    shuffled = np.random.default_rng(1).permutation(60)
    straight = images((pictures, labels)).validation.digests
    mixed = images((pictures[shuffled], [labels[number] for number in shuffled])).validation.digests
    assert set(straight) == set(mixed)


def test_equal_pictures_stay_on_one_side():
    pictures, labels = drawn([10, 10])
    pictures, labels = np.concatenate([pictures] * 3), labels * 3
    splits = images((pictures, labels), validation=0.3, test=0.2)
    sides = [set(split.digests) for split in splits.all]
    assert sum(map(len, sides)) == 20
    assert not any("byte for byte" in note for note in splits.notes)


def test_a_given_validation_is_used_as_it_is():
    source = {"train": drawn([10, 10]), "val": drawn([3, 4], 1), "test": drawn([5, 6], 2)}
    assert [len(split) for split in images(source).all] == [20, 7, 11]


def test_a_missing_validation_is_taken_off_train_and_never_off_test():
    splits = images({"train": drawn([10, 10]), "test": drawn([5, 6], 2)})
    assert [(split.name, len(split)) for split in splits.all] == [("train", 16), ("validation", 4), ("test", 11)]
    assert "validation is 20 % of each class, taken off train" in splits.notes


def test_without_a_test_split_the_table_says_what_is_reported_on():
    splits = images(drawn([10, 10]))
    assert splits.test is None
    assert "no test split: what is reported is measured on validation" in str(splits)


def test_validation_0_takes_none():
    splits = images(drawn([10, 10]), validation=0)
    assert splits.validation is None
    assert len(splits.train) == 20


def test_a_class_of_one_cannot_be_divided_and_says_so():
    with pytest.raises(
        ValueError, match="class 'class 1': has 1 different pictures, and to hold one out for validation takes 2"
    ):
        images(drawn([10, 1]))
    assert len(images(drawn([10, 1]), validation=0, batch_size=2).train) == 11


def test_asking_for_a_second_test_split_is_refused():
    with pytest.raises(ValueError, match="The source has a test split, and `test` asks for another"):
        images({"train": drawn([10, 10]), "test": drawn([5, 6], 2)}, test=0.2)


def test_pictures_of_test_that_train_has_too_are_counted():
    pictures, labels = drawn([10, 10])
    splits = images({"train": (pictures, labels), "test": (pictures[5:15], labels[5:15])}, validation=0)
    assert any(
        note.startswith("10 of the 10 pictures of test are in train too, byte for byte") for note in splits.notes
    )


def test_one_picture_with_two_labels_is_noted():
    pictures, labels = drawn([10, 10])
    pictures[12] = pictures[3]
    notes = images((pictures, labels), validation=0).notes
    assert any("with another label; the first is x[12]" in note for note in notes)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, "a fifth", True])
def test_a_part_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match="`validation` is no part of the data"):
        images(drawn([10, 10]), validation=fraction)


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(ValueError, match="`seed` is no seed"):
        images(drawn([10, 10]), seed=seed)


@pytest.mark.parametrize("batch_size", [0, 17, 2.0])
def test_a_batch_that_does_not_fit_the_training_set_is_refused(batch_size):
    with pytest.raises(ValueError) as error:
        images(drawn([10, 10]), batch_size=batch_size)
    assert str(error.value) == (
        "`batch_size` does not fit the training set.\n"
        f"  given:     {batch_size}\n"
        "  expected:  a whole number from 1 to 16, the number of training examples\n"
        "  to mend:   batch_size=16"
    )


def test_one_class_only_is_refused():
    with pytest.raises(ValueError, match="train: has one class only, 'class 0'; at least two can be told apart"):
        images(drawn([10]))


def test_the_fingerprint_is_of_content_labels_and_order():
    pictures, labels = drawn([10, 10])
    changed = pictures.copy()
    changed[0, 0, 0, 0] ^= 1
    relabelled = ["class 1", *labels[1:]]
    renamed = [label.replace("class", "kind") for label in labels]
    sources = [
        (pictures, labels),
        (pictures.copy(), list(labels)),
        (changed, labels),
        (pictures, relabelled),
        (pictures, renamed),
    ]
    sources.append((pictures[::-1], labels[::-1]))
    first, again, *others = (images(source, validation=0).fingerprint for source in sources)
    assert first == again
    assert len({first, *others}) == 5
    assert images((pictures, labels), seed=1).fingerprint != images((pictures, labels), seed=2).fingerprint


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6))
def test_the_order_of_an_epoch_is_a_permutation(count, seed, epoch):
    drawn_order = order(count, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(np.sort(drawn_order), np.arange(count))
    np.testing.assert_array_equal(drawn_order, order(count, seed=seed, epoch=epoch))


def test_orders_differ_from_epoch_to_epoch_and_every_place_is_as_likely():
    orders = np.array([order(10, seed=0, epoch=epoch) for epoch in range(5000)])
    assert len({tuple(row) for row in orders}) > 4990
    counts = np.stack([np.bincount(orders[:, place], minlength=10) for place in range(10)])
    assert ((counts - 500) ** 2 / 500).sum() / 81 < 1.5


def test_many_classes_make_a_short_table():
    lines = str(images(drawn([3] * 40))).splitlines()
    assert lines[26].startswith("… 15 more")
    assert lines[27].split() == ["all", "80", "40"]

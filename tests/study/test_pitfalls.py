import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, residual_body
from readers import text_classifier

import keras_transfer as kt
from keras_transfer.data.decoding import decode, encode
from keras_transfer.study import domain_shift, folds, near_duplicates, pitfalls, wrong_labels
from keras_transfer.study.near_duplicates import Pair


def _scenes(count, size=32, seed=0):
    """Pictures that are unlike each other at every scale: sums of a few coarse and fine patches."""
    generator = np.random.default_rng(seed)
    found = np.zeros((count, size, size, 3))
    for cells in (2, 4, 8):
        patches = generator.uniform(0, 255, (count, cells, cells, 3))
        found += np.kron(patches, np.ones((1, size // cells, size // cells, 1))) / 3
    return found.astype("uint8")


def _again(picture):
    """The same picture in another file: mirrored and compressed."""
    return decode(encode(np.ascontiguousarray(picture[:, ::-1]), "JPEG", quality=75))


@pytest.fixture(scope="module")
def body():
    """Features that say what is where, as those of a trained body do and those of a random deep one do not."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((32, 32, 3))
    patches = keras.layers.Conv2D(8, 8, strides=8, name="patches")(pixels)
    seen = keras.Model(pixels, keras.layers.Flatten()(patches), name="seen")
    return kt.image_classifier(seen, ["0", "1"], preprocessing="tf")


def _leaky():
    """Forty pictures, of which two of test are in train, one mirrored; and one is twice in train, with two labels."""
    pictures, labels = _scenes(40), np.arange(40) % 2
    train, test = pictures[:28].copy(), pictures[28:]
    train[3], train[8], train[20] = _again(test[5]), decode(encode(test[2], "JPEG", quality=75)), train[11]
    sets = {"train": (train, labels[:28]), "test": (test, labels[28:])}
    return kt.data.images(sets, batch_size=8, validation=0, augment="none")


def test_what_is_there_twice_is_found_and_nothing_else(body):
    found = near_duplicates.near_duplicates(_leaky(), body)
    pairs = {(pair.one, pair.other): pair for pair in found}
    assert set(pairs) == {
        (("train", 3), ("test", 5)),
        (("train", 8), ("test", 2)),
        (("train", 11), ("train", 20)),
    }
    assert [pair.is_mirrored for pair in pairs.values()].count(True) == 1
    assert pairs[("train", 3), ("test", 5)].is_mirrored
    assert not pairs[("train", 11), ("train", 20)].same_label
    assert not pairs[("train", 11), ("train", 20)].is_between_splits


def test_mirror_images_are_left_alone_where_they_are_not_asked_for(body):
    found = near_duplicates.near_duplicates(_leaky(), body, flips=False)
    assert {(pair.one, pair.other) for pair in found} == {
        (("train", 8), ("test", 2)),
        (("train", 11), ("train", 20)),
    }


def test_pictures_that_are_all_alike_are_no_duplicates(body):
    """Handwritten digits: the correlation of two threes is what that of twins is among photographs."""
    digits = kt.data.digits(classes=[0, 1], per_class=60, image_size=32)
    found = near_duplicates.near_duplicates(digits, body, flips=False)
    assert len(found) <= 0.05 * sum(map(len, digits.all))


def _grains(pictures, seed):
    """The same pictures with noise, as an augmented export has them."""
    noise = np.random.default_rng(seed).normal(0, 6, pictures.shape)
    return np.clip(pictures + noise, 0, 255).astype("uint8")


@pytest.mark.parametrize("copies", [1, 2, 3, 4])
@pytest.mark.parametrize("subject", ["scenes", "digits"])
def test_however_often_a_picture_is_there_its_copies_are_found_and_nothing_else(subject, copies, body):
    """A set that was augmented, and divided then: every picture of test is in train as well."""
    digits = kt.data.digits(classes=[0, 1], per_class=120, image_size=32, validation=0, test=0).train
    plain = _scenes(200) if subject == "scenes" else np.stack([digits.examples.picture(n) for n in range(200)])
    test = plain[:100]
    train = plain[100:] if copies == 1 else np.concatenate([_grains(test, seed) for seed in range(1, copies)])
    sets = {"train": (train, np.arange(len(train)) % 2), "test": (test, np.arange(100) % 2)}
    splits = kt.data.images(sets, batch_size=32, validation=0, augment="none")
    found = near_duplicates.near_duplicates(splits, body, flips=False)
    right = [pair for pair in found if copies > 1 and pair.one[1] % 100 == pair.other[1] % 100]
    spoilt = {pair.other[1] for pair in right if pair.is_between_splits}
    assert len(found) - len(right) <= 1
    assert len(spoilt) >= 97 * (copies > 1)


def test_the_report_names_each_with_its_figure_and_draws_them(body, tmp_path):
    data = _leaky()
    found = kt.pitfalls(data, body)
    (split, number), by_split = found.pairs[0].one, {split.name: split for split in data.all}
    assert found.where((split, number)) == by_split[split].examples.describe(number)
    by_name = {check.name: check for check in found.checks}
    assert "2 pairs" in by_name["near-duplicates between splits"].figure
    assert "1 pair, 1 of them with two labels" in by_name["near-duplicates within train"].figure
    assert not by_name["imbalance"].is_there
    drawn = found.plot(tmp_path)
    assert "pairs.png" in [path.name for path in drawn]
    assert decode(drawn[0].read_bytes()).shape[0] > 300


def test_wrong_labels_are_found_among_right_ones():
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    features = generator.normal(size=(120, 8)) + 4 * np.eye(8)[labels]
    planted = [7, 40, 61, 100]
    wrong = labels.copy()
    wrong[planted] = (labels[planted] + 1) % 3
    places = [("train", number) for number in range(120)]
    found = wrong_labels.wrong_labels(features, wrong, places, ["a", "b", "c"])
    assert {suspect.place[1] for suspect in found} >= set(planted)
    assert len(found) <= 6
    assert all(s.looks_like == "abc"[labels[s.place[1]]] for s in found if s.place[1] in planted)
    clean = wrong_labels.wrong_labels(features, labels, places, ["a", "b", "c"])
    assert len(clean) <= 2


def test_the_label_of_a_class_of_one_example_is_not_judged():
    """Who has not seen the example gives its class nothing, whatever it looks like."""
    labels = np.array([0, 1] * 15 + [2])
    features = np.random.default_rng(0).normal(size=(31, 4)) + 3 * labels[:, None]
    places = [("train", number) for number in range(31)]
    with np.errstate(all="raise"):
        found = wrong_labels.wrong_labels(features, labels, places, ["a", "b", "c"])
    assert 30 not in {suspect.place[1] for suspect in found}


def test_of_two_or_three_examples_none_is_a_twin(body):
    for count in (2, 3):
        splits = kt.data.images((_scenes(count), np.arange(count) % 2), batch_size=2, validation=0, test=0)
        assert near_duplicates.near_duplicates(splits, body) == []


def test_two_draws_are_near_and_two_sources_are_far():
    generator = np.random.default_rng(0)
    draw = generator.normal(size=(300, 10))
    near = domain_shift.shift_between(draw[:150], draw[150:], ("train", "validation"))
    assert near.interval[0] < 0.5 < near.interval[1]
    assert near.words.startswith("no difference beyond noise")
    assert not near.is_notable
    far = domain_shift.shift_between(draw[:150], draw[150:] + 2.0, ("train", "test"))
    assert far.right > 0.95
    assert far.distance == pytest.approx(2 * (2 * far.right - 1))
    assert "apart" in far.words
    assert far.examples == 300


def test_few_and_uneven_classes_are_named():
    pictures = _scenes(44)
    labels = np.array(["common"] * 36 + ["rare"] * 8)
    splits = kt.data.images((pictures, labels), batch_size=8, validation=0.25, augment="none")
    model = kt.image_classifier(residual_body(32), splits.classes, preprocessing="tf")
    found = kt.pitfalls(splits, model, flips=False)
    by_name = {check.name: check for check in found.found}
    assert by_name["too little data per class"].figure.startswith("6 training examples of 'rare'")
    assert by_name["imbalance"].figure.startswith("4.5 times as many of 'common' as of 'rare'")


def test_what_was_looked_for_in_some_of_the_data_is_counted_on_all(body):
    labels = np.repeat(["ant", "bee"], 40)
    whole = kt.data.images((_scenes(80), labels), batch_size=8, validation=0.25, augment="none")
    some = folds.sampled(whole, 8, seed=0)
    found = kt.pitfalls(some.splits, body, flips=False)
    assert found.checks[0].is_there
    counted = pitfalls.of_the_whole(found, some)
    assert not counted.checks[0].is_there
    assert counted.checks[0].figure.startswith("30 training examples of")
    assert counted.checks[1].figure.startswith("30 training examples of each class")
    assert [check.name for check in counted.checks] == [check.name for check in found.checks]
    assert counted.checks[2].figure == (
        "0 pairs; looked for among 8 of 60 of train, 8 of 20 of validation, copies to the byte among all"
    )
    assert counted.checks[-1] == found.checks[-1]


def test_what_was_found_in_some_of_the_data_is_named_by_its_place_in_all(body):
    """Some of the wrong labels and noisy copies were drawn; copies to the byte are looked for among all."""
    labels = np.arange(90) % 2
    scenes = _scenes(90) // 2 + 127 * labels[:, None, None, None].astype("uint8")
    scenes[70:80] = scenes[:10]
    noise = np.random.default_rng(0).integers(-3, 4, scenes[10:20].shape)
    scenes[80:90] = np.clip(scenes[10:20].astype(int) + noise, 0, 255)
    mislabelled = np.arange(40, 50)
    labels[mislabelled] = 1 - labels[mislabelled]
    whole = kt.data.images(
        {"train": (scenes[:70], labels[:70]), "test": (scenes[70:], labels[70:])}, batch_size=8, validation=0
    )
    sample = folds.sampled(whole, 40, seed=1)
    found = pitfalls.of_the_whole(kt.pitfalls(sample.splits, body, flips=False), sample)
    planted = {(("train", n), ("test", n)) for n in range(20)}
    said = {(pair.one, pair.other) for pair in found.pairs}
    assert said <= planted
    assert {pair for pair in planted if pair[0][1] < 10} <= said, "copies to the byte are found wherever they are"
    assert {pair for pair in said if pair[0][1] >= 10}, "some of the others were drawn"
    assert found.checks[2].figure.startswith(f"{len(said)} pairs, of train and test: they spoil {len(said)} of test; ")
    suspected = {suspect.place for suspect in found.suspects}
    assert suspected
    assert suspected <= {("train", number) for number in mislabelled}


def test_what_near_duplicates_spoil_is_counted_in_each_split():
    pairs = [Pair(("train", n), ("test", n), 1.0, 1.0, False, True) for n in range(30)]
    pairs += [Pair(("train", 40), ("test", 0), 1.0, 1.0, False, True)]  # once more like a picture of train
    pairs += [Pair(("train", 3), ("validation", 7), 1.0, 1.0, False, True)]
    between = pitfalls._doubles(pairs)[0]
    assert (
        between.figure == "32 pairs, of train and test, train and validation: they spoil 30 of test and 1 of validation"
    )


def test_a_source_that_is_unlike_the_target_is_named(body):
    bright = np.clip(_scenes(40, seed=1).astype(int) // 4, 0, 255).astype("uint8")
    source = kt.data.images((bright, np.arange(40) % 2), batch_size=8, augment="none")
    target = kt.data.images((_scenes(40), np.arange(40) % 2), batch_size=8, augment="none")
    found = kt.pitfalls(target, body, source=source, flips=False)
    assert found.shifts[-1].one == "source"
    assert found.shifts[-1].right > 0.9
    assert "target unlike source" in [check.name for check in found.found]


def test_texts_are_compared_by_their_letters():
    texts = [
        "it was a very good film",
        "the film was not bad",
        "fine",
        "a bad film it was",
        "not good, not bad, a film",
    ]
    texts += ["It was a VERY good film!", "very bad", "the good, the bad"]
    splits = kt.data.texts((texts, ["good", "bad"] * 4), batch_size=2, validation=0)
    pairs = near_duplicates.near_duplicates(splits, text_classifier())
    assert [(pair.one[1], pair.other[1], pair.look) for pair in pairs] == [(0, 5, 1.0)]


def test_a_source_that_is_no_data_and_a_seed_that_is_no_number_are_refused():
    with pytest.raises(ValueError, match=r"(?s)`source` is no data.*given: +str"):
        kt.pitfalls(dark_and_light(), classifier(), source="pictures/")
    with pytest.raises(ValueError, match=r"(?s)`seed` is no seed.*given: +'a'"):
        kt.pitfalls(dark_and_light(), classifier(), seed="a")


def test_without_validation_test_is_held_against_train(body):
    pictures = _scenes(80)
    pictures[40:] = 255 - pictures[40:] // 4
    parts = {"train": (pictures[:40], np.arange(40) % 2), "test": (pictures[40:], np.arange(40) % 2)}
    found = kt.pitfalls(kt.data.images(parts, batch_size=8, validation=0, augment="none"), body, flips=False)
    (shift,) = found.shifts
    assert (shift.one, shift.other, shift.is_notable) == ("train", "test", True)
    assert "test unlike train: which of the two" in " ".join(str(found).split())
    assert "What is learnt from train may not hold on the test" in " ".join(str(found).split())


def test_what_is_there_twice_among_the_examples_that_judge_is_named(body):
    pictures = _scenes(60)
    pictures[50:54] = pictures[40:44]
    parts = {"train": (pictures[:40], np.arange(40) % 2), "test": (pictures[40:], np.arange(20) % 2)}
    found = kt.pitfalls(kt.data.images(parts, batch_size=8, validation=0, augment="none"), body, flips=False)
    figures = {check.name: check.figure for check in found.checks}
    assert figures["near-duplicates within validation or test"] == "4 pairs, of test"
    assert figures["near-duplicates within train"] == figures["near-duplicates between splits"] == "0 pairs"
    assert "near-duplicates within validation or test" in [check.name for check in found.found]

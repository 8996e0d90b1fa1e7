"""TFDS sets, reached by number in either of its formats, and a clear word when there is none."""

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")

from keras_transfer.data import images, texts  # noqa: E402
from keras_transfer.data import tfds as door  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (14, 6, 5, 3), np.uint8)


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Ten pictures to train on, four to test on; the names of the classes are in no alphabetical order."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["wolf", "bear"]),
            "comment": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {
            "train": self._generate_examples(0, 10),
            "test": self._generate_examples(10, 14),
            "extra": self._generate_examples(0, 1),
        }

    def _generate_examples(self, start, stop):
        for number in range(start, stop):
            yield number, {"image": PIXELS[number], "label": ["wolf", "bear"][number % 2], "comment": "growls"}


class OneSplitOfText(tfds.core.GeneratorBasedBuilder):
    """No pictures at all."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"text": "hello"}


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def prepared(request, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp(request.param)
    TinyPictures(data_dir=data_dir, file_format=request.param).download_and_prepare()
    return data_dir


def test_a_prepared_set_has_its_own_classes_splits_and_pixels(prepared):
    splits = images("tiny_pictures", data_dir=prepared, batch_size=2, validation=0, image_size=(6, 5))
    assert splits.classes == ("wolf", "bear")
    assert splits.counts == {"train": {"wolf": 5, "bear": 5}, "test": {"wolf": 2, "bear": 2}}
    assert splits.test.describe(2) == "tiny_pictures:test[2]"
    for split, theirs in ((splits.train, PIXELS[:10]), (splits.test, PIXELS[10:])):
        ours = splits.peek(split, range(len(split)))
        order = [int(np.flatnonzero((theirs == picture).all(axis=(1, 2, 3)))[0]) for picture in ours]
        assert sorted(order) == list(range(len(theirs)))
        np.testing.assert_array_equal(split.labels, np.array(order) % 2)


def test_its_batches_are_those_of_its_pictures(prepared):
    splits = images("tiny_pictures", data_dir=prepared, batch_size=4, augment="none", image_size=(6, 5))
    pictures, labels = next(iter(splits.evaluation_batches(splits.test, None)))
    np.testing.assert_array_equal(pictures, splits.peek(splits.test, range(4)))
    np.testing.assert_array_equal(labels, splits.test.labels)
    assert sum(len(batch[1]) for batch in splits.training_batches(None, epochs=2)) == 16


def test_it_is_prepared_as_array_record_where_it_is_not_yet(tmp_path):
    splits = images("tiny_pictures", data_dir=tmp_path, batch_size=2)
    assert len(splits.test) == 4
    assert list(tmp_path.glob("**/*.array_record-*"))


def test_both_formats_have_the_same_fingerprint(tmp_path):
    prints = set()
    for file_format in ("array_record", "tfrecord"):
        TinyPictures(data_dir=tmp_path / file_format, file_format=file_format).download_and_prepare()
        prints.add(images("tiny_pictures", data_dir=tmp_path / file_format, batch_size=2).fingerprint)
    assert len(prints) == 1


def test_a_misspelt_name_names_the_nearest(tmp_path):
    with pytest.raises(
        ValueError, match=r"TFDS knows no data set of that name\.\n  given: +'tf_flower'[\s\S]*nearest: +tf_flowers"
    ):
        images("tf_flower", data_dir=tmp_path)


def test_without_a_network_the_error_says_where_to_put_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "_is_offline", lambda: True)
    with pytest.raises(ValueError) as error:
        images("tf_flowers", data_dir=tmp_path)
    message = str(error.value)
    assert message.startswith("The TFDS data set 'tf_flowers' is not on this machine, and could not be fetched.")
    assert f"data_dir={str(tmp_path)!r}" in message
    assert "there is no network" in message
    assert "give its path as `data_dir`" in message


def test_a_set_without_labelled_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"does not hold pictures with one label each\.\n  given: +text \(Text\)"):
        images("one_split_of_text", data_dir=tmp_path)


class TinyReviews(tfds.core.GeneratorBasedBuilder):
    """Six reviews to train on, and four whose labels a benchmark keeps to itself."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "idx": tfds.features.Scalar(np.int32),
            "label": tfds.features.ClassLabel(names=["negative", "positive"]),
            "sentence": tfds.features.Text(),
            "title": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples(6, True), "test": self._generate_examples(4, False)}

    def _generate_examples(self, count, is_labelled):
        for number in range(count):
            label = number % 2 if is_labelled else -1
            yield number, {"idx": number, "label": label, "sentence": f"naïve {number}", "title": f"Title {number}"}


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("reviews")
    TinyReviews(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def test_texts_are_read_with_their_own_classes(reviews):
    found = door.texts("tiny_reviews", text="sentence", data_dir=reviews)
    train = found.splits["train"]
    assert found.classes == ("negative", "positive")
    assert sorted(zip(train.texts, train.class_names, strict=True)) == [
        (f"naïve {number}", ["negative", "positive"][number % 2]) for number in range(6)
    ]
    assert train.describe(2) == "tiny_reviews:train[2]"


def test_texts_that_are_read_together_lie_in_several_features(reviews):
    found = door.texts("tiny_reviews", text=("title", "sentence"), data_dir=reviews)
    assert sorted(found.splits["train"].texts) == [(f"Title {number}", f"naïve {number}") for number in range(6)]
    with pytest.raises(ValueError, match=r"has no such feature[\s\S]*'sentense'[\s\S]*sentence"):
        texts("tiny_reviews", text=("title", "sentense"), data_dir=reviews)


def test_labels_that_are_kept_secret_are_none(reviews):
    with pytest.raises(ValueError, match=r"tiny_reviews:test\[3\]: has no label \(it is -1\)"):
        texts("tiny_reviews", text="sentence", data_dir=reviews, batch_size=2)


def test_a_set_without_labels_is_a_corpus(reviews):
    splits = texts("tiny_reviews", text="title", label=False, data_dir=reviews, validation=0)
    assert sorted(splits.peek(splits.test, range(4))) == [f"Title {number}" for number in range(4)]


def test_features_of_text_that_cannot_be_told_apart_are_asked_for(reviews):
    with pytest.raises(ValueError, match=r"holds the text cannot be told[\s\S]*sentence \(Text\), title \(Text\)"):
        texts("tiny_reviews", data_dir=reviews)
    with pytest.raises(ValueError, match=r"has no such feature[\s\S]*nearest: +sentence"):
        texts("tiny_reviews", text="sentense", data_dir=reviews)

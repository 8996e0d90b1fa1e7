import keras
import keras_hub
import numpy as np
import pytest
from bodies import classifier, dark_and_light, pictures, residual_body
from readers import text_classifier
from vocabularies import word_pieces

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.data.decoding import encode
from keras_transfer.training import features


def _by_hand(model, batch):
    return keras.Model(model.input, model.get_layer("pool").output).predict(batch, verbose=0)


def _count_of_passes(monkeypatch):
    """How often features are computed from now on."""
    calls = []
    own = features.Store.computed

    def counted(self, split, view):
        calls.append(split.name)
        return own(self, split, view)

    monkeypatch.setattr(features.Store, "computed", counted)
    return calls


@pytest.mark.both_backends
def test_features_are_what_the_head_is_called_on():
    splits, model = dark_and_light(), classifier()
    found = kt.embed(model, splits, split="validation")
    expected = _by_hand(model, splits.peek(splits.validation, range(len(splits.validation)), model))
    assert found.dtype == np.float32
    assert found.shape == (len(splits.validation), 8)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_second_call_computes_nothing_and_fit_finds_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    splits, model = dark_and_light(), classifier()
    calls = _count_of_passes(monkeypatch)
    first = [kt.embed(model, splits, split=split) for split in ("train", "validation")]
    assert calls == ["train", "validation"]
    again = kt.embed(model, splits, split="train")
    assert calls == ["train", "validation"]
    np.testing.assert_array_equal(first[0], again)
    kt.fit(model, splits, kt.feature_extraction(model, epochs=2), cache="disk", verbose=False)
    assert calls == ["train", "validation"]


def test_what_trains_makes_no_difference_and_nothing_of_the_model_is_changed():
    splits, model = dark_and_light(), classifier()
    frozen = kt.embed(model, splits)
    before, trains = state.values(model), [layer.trainable for layer in state.sublayers(model)]
    np.testing.assert_array_equal(kt.embed(model, splits, cache="off"), frozen)
    assert [layer.trainable for layer in state.sublayers(model)] == trains
    assert all(map(np.array_equal, state.values(model), before))
    kt.fit(model, splits, kt.Plan([kt.Stage("all", 1, learning_rate=1e-2)]), verbose=False)
    tuned = kt.embed(model, splits)
    assert np.abs(tuned - frozen).max() > 1e-3
    expected = _by_hand(model, splits.peek(splits.train, range(len(splits.train)), model))
    np.testing.assert_allclose(tuned, expected, rtol=1e-4, atol=1e-5)


def test_pictures_without_labels_come_as_arrays_of_any_size_and_as_files(tmp_path):
    model = classifier()
    given = [np.full((20, 30, 3), 40, "uint8"), np.full((16, 16, 3), 200, "uint8")]
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, picture in zip(paths, given, strict=True):
        path.write_bytes(encode(picture))
    np.testing.assert_array_equal(kt.embed(model, given), kt.embed(model, paths))
    whole = pictures(5)
    np.testing.assert_allclose(kt.embed(model, whole), _by_hand(model, whole), rtol=1e-4, atol=1e-5)


def test_a_bare_body_gives_the_mean_of_its_feature_map():
    body, whole = residual_body(), pictures(3)
    expected = body.predict(whole, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(kt.embed(body, whole), expected, rtol=1e-4, atol=1e-5)


def test_a_head_with_a_hidden_layer_is_left_out_whole():
    pixels = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(residual_body()(pixels))
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(4, activation="relu")(pooled))
    model = keras.Model(pixels, keras.layers.Dense(2)(hidden))
    assert kt.embed(model, pictures(3)).shape == (3, 8)


def test_texts_come_in_their_order_whatever_their_length():
    model = text_classifier()
    texts = ["it was a very good film", "bad", "not the film", "fine"] * 3
    splits = kt.data.texts((texts, ["good", "bad", "bad", "good"] * 3), batch_size=4, validation=0.25)
    one_by_one = np.concatenate([kt.embed(model, text, cache="off") for text in texts[:4]])
    np.testing.assert_allclose(kt.embed(model, texts)[:4], one_by_one, rtol=1e-3, atol=1e-4)
    read = splits.peek(splits.train, range(len(splits.train)))
    np.testing.assert_allclose(kt.embed(model, splits), kt.embed(model, list(read)), rtol=1e-3, atol=1e-4)


def test_texts_that_are_read_together_are_taken_as_predict_takes_them():
    model = text_classifier()
    pairs = [("it was a film", "bad"), ("fine", "the film")]
    found = kt.embed(model, pairs, cache="off")
    for given in ([list(pair) for pair in pairs], np.array(pairs)):
        np.testing.assert_array_equal(kt.embed(model, given, cache="off"), found)
    with pytest.raises(ValueError, match="has 0 texts to be read together, and the first row 2"):
        kt.embed(model, [*pairs, ()])


def test_a_split_that_is_not_there_is_an_error_with_the_nearest():
    with pytest.raises(ValueError, match="nearest: *validation"):
        kt.embed(classifier(), dark_and_light(), split="validaton")


def test_a_model_and_data_in_each_others_place_are_refused():
    with pytest.raises(ValueError, match="`model` is no model"):
        kt.embed(dark_and_light(), classifier())
    with pytest.raises(ValueError, match="`model` is no model"):
        kt.pitfalls(dark_and_light(), "MobileNetV2")
    with pytest.raises(ValueError, match="`splits` are no labelled data"):
        kt.pitfalls(classifier(), dark_and_light())


def test_a_language_model_is_refused_with_what_to_do():
    tokenizer = word_pieces()
    body = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(), num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
    )
    with pytest.raises(ValueError, match="kt.text_classifier"):
        kt.embed(body, ["a good film"])


def test_of_data_without_splits_none_can_be_named():
    with pytest.raises(ValueError, match=r"(?s)no splits to choose from.*split='test'"):
        kt.embed(classifier(), pictures(3), split="test")

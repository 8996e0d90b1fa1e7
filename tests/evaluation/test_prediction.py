import io

import bodies
import keras
import numpy as np
import pytest
from adapters import families
from bodies import classifier, dark_and_light
from columns import Column
from PIL import Image
from vocabularies import WORDS, word_pieces

import keras_transfer as kt
from keras_transfer.data import decoding
from keras_transfer.evaluation.prediction import predict_split

pytestmark = pytest.mark.both_backends


def _png(picture) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _pictures(*sizes):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3)).astype("uint8") for size in sizes]


def test_probabilities_are_the_softmax_of_the_logits():
    model = classifier()
    picture = _pictures((16, 16))[0]
    logits = np.asarray(model(picture[None].astype("float32")), "float64")[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    found = kt.predict(model, picture[None])
    assert found.shape == (1, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_arrays_paths_and_bytes_give_the_same(tmp_path):
    model = classifier()
    drawn = _pictures((16, 16), (20, 30), (50, 8))
    paths = []
    for number, picture in enumerate(drawn):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(_png(picture))
    from_arrays = kt.predict(model, drawn)
    np.testing.assert_array_equal(from_arrays, kt.predict(model, paths))
    np.testing.assert_array_equal(from_arrays, kt.predict(model, [str(path) for path in paths]))
    np.testing.assert_array_equal(from_arrays, kt.predict(model, [_png(picture) for picture in drawn]))
    np.testing.assert_array_equal(from_arrays, kt.predict(model, Column(paths)))
    np.testing.assert_array_equal(from_arrays, kt.predict(model, iter(paths)))


def test_one_picture_is_a_batch_of_one():
    model = classifier()
    picture = _pictures((40, 40))[0]
    np.testing.assert_array_equal(kt.predict(model, picture), kt.predict(model, picture[None]))


def test_one_grey_picture_is_a_batch_of_one():
    model, colour = classifier(), _pictures((40, 30))[0]
    grey = colour[..., :1]
    expected = kt.predict(model, np.repeat(grey, 3, axis=2)[None])
    np.testing.assert_array_equal(kt.predict(model, grey), expected)
    np.testing.assert_array_equal(kt.predict(model, grey[..., 0]), expected)


def test_one_picture_with_transparency_as_an_array_is_refused_and_not_taken_for_many():
    with pytest.raises(ValueError, match=r"shape \(40, 30, 4\).*leave transparency out"):
        kt.predict(classifier(), np.zeros((40, 30, 4), "uint8"))


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "RGBA", "CMYK", "1"])
def test_what_pillow_has_opened_is_what_its_file_would_be(mode):
    model, picture = classifier(), Image.fromarray(_pictures((20, 30))[0]).convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG" if mode == "CMYK" else "PNG")
    opened = Image.open(file)
    expected = kt.predict(model, [file.getvalue()])
    np.testing.assert_array_equal(kt.predict(model, opened), expected)
    np.testing.assert_array_equal(kt.predict(model, [opened, opened]), np.repeat(expected, 2, axis=0))


def test_what_pillow_has_opened_is_set_upright():
    model, picture = classifier(), Image.fromarray(_pictures((20, 30))[0])
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture.save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(kt.predict(model, Image.open(file)), kt.predict(model, [file.getvalue()]))
    assert np.abs(kt.predict(model, Image.open(file)) - kt.predict(model, picture)).max() > 1e-3


def _any_size():
    pixels = keras.Input((None, None, 3))
    return kt.image_classifier(keras.Model(pixels, keras.layers.Conv2D(4, 3)(pixels)), 2, preprocessing="tf")


def test_a_model_of_any_size_is_told_the_size():
    model, picture = _any_size(), _pictures((40, 30))[0]
    resized = decoding.resize(picture, (12, 16))
    found = kt.predict(model, [picture], image_size=(12, 16))
    np.testing.assert_allclose(found, kt.predict(model, [resized], image_size=(12, 16)), rtol=1e-5)
    assert kt.predict(model, [picture], image_size=12, ten_crop=True).shape == (1, 2)


@pytest.mark.parametrize("ten_crop", [False, True])
def test_a_model_of_any_size_that_is_told_none_says_so(ten_crop):
    with pytest.raises(ValueError, match=r"kt\.predict\(…, image_size=224\)"):
        kt.predict(_any_size(), _pictures((40, 30)), ten_crop=ten_crop)


def test_another_size_than_the_model_s_is_refused():
    with pytest.raises(ValueError, match="disagree about the size"):
        kt.predict(classifier(), _pictures((40, 30)), image_size=20)


def _of(*outputs, shape=(16, 16, 3)):
    """A model that hands out what these layers make of its pooled picture."""
    pixels = keras.Input(shape)
    pooled = keras.layers.GlobalAveragePooling2D()(pixels)
    return keras.Model(pixels, [output(pooled) for output in outputs] if len(outputs) > 1 else outputs[0](pooled))


class _Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize("ten_crop", [False, True])
@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: _of(keras.layers.Dense(1)), r"Dense\(2\)"),
        (lambda: _of(keras.layers.Dense(1, activation="sigmoid")), r"Dense\(2\)"),
        (lambda: _of(keras.layers.Dense(3, activation="sigmoid")), "do not sum to 1"),
        (lambda: _of(keras.layers.Dense(2), keras.layers.Dense(2)), "of the output that is meant"),
        (bodies.residual_body, "for a body without a head"),
        (_Subclassed, "_Subclassed, no graph"),
        (lambda: _of(keras.layers.Dense(2), shape=(16, 16, 1)), "not one picture in colour"),
        (lambda: _two_inputs(), "not one picture in colour"),
    ],
    ids=["one logit", "one share", "shares", "two outputs", "no head", "no graph", "grey", "two inputs"],
)
def test_what_is_no_classifier_of_pictures_is_refused(model, told, ten_crop):
    with pytest.raises(ValueError, match=told):
        kt.predict(model(), _pictures((16, 16)), ten_crop=ten_crop)


def _two_inputs():
    pixels, more = keras.Input((16, 16, 3)), keras.Input((2,))
    joined = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(pixels), more])
    return keras.Model([pixels, more], keras.layers.Dense(2)(joined))


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, None, True])
def test_a_batch_size_that_is_none_is_refused(batch_size):
    with pytest.raises(ValueError, match="`batch_size` is none"):
        kt.predict(classifier(), _pictures((16, 16)), batch_size=batch_size)


def test_pictures_scaled_to_one_are_refused():
    with pytest.raises(ValueError, match="255"):
        kt.predict(classifier(), np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)))


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(_png(_pictures((16, 16))[0])[:60])
    with pytest.raises(ValueError, match="torn.png"):
        kt.predict(classifier(), [tmp_path / "torn.png"])


def test_a_split_is_predicted_in_its_order():
    splits = dark_and_light()
    model = classifier()
    everything = splits.peek(splits.train, range(len(splits.train)), model)
    np.testing.assert_allclose(
        predict_split(model, splits, splits.train), kt.predict(model, everything.astype("uint8")), rtol=1e-5, atol=1e-6
    )


class Counted(keras.layers.Layer):
    """Knows for which batches it was traced."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def call(self, x):
        self.shapes.append(tuple(x.shape))
        return x


def test_a_smaller_last_batch_is_compiled_for_with_the_others_and_a_split_with_pictures():
    counted = Counted()
    body = keras.Sequential([keras.Input((16, 16, 3)), counted, keras.layers.Flatten(), keras.layers.Dense(2)])
    splits = dark_and_light(26, validation=0)
    logits = np.asarray(body(splits.peek(splits.train, range(26), body)), "float64")
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    counted.shapes.clear()
    for predicted in (
        lambda: predict_split(body, splits, splits.train),
        lambda: kt.predict(body, splits.peek(splits.train, range(26), body), batch_size=8),
    ):
        found = predicted()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert counted.shapes == [(8, 16, 16, 3)]


def test_a_model_that_gives_probabilities_is_taken_at_its_word():
    pixels = keras.Input((16, 16, 3))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(pixels))
    model = keras.Model(pixels, outputs)
    picture = _pictures((16, 16))[0][None]
    np.testing.assert_allclose(kt.predict(model, picture), model(picture.astype("float32")), rtol=1e-6)


TEXTS = ["the film was good", "fine", "it was not a very bad film , not very bad", "", "a fine film ."]


def _reader(**options):
    """A classifier of texts whose head tells them apart."""
    import keras_hub

    body = keras_hub.models.BertBackbone(
        vocabulary_size=len(WORDS) + 5, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
    )
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(word_pieces(**options), sequence_length=16)
    model = kt.text_classifier(body, ["bad", "good"], preprocessor=preprocessor)
    head = model.get_layer("head")
    head.kernel.assign(np.random.default_rng(0).normal(size=head.kernel.shape))
    return model, preprocessor


def test_texts_are_read_as_the_preprocessor_packs_them():
    model, preprocessor = _reader()
    logits = model.predict(preprocessor(TEXTS), verbose=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kt.predict(model, TEXTS, batch_size=2), expected, rtol=1e-4)
    np.testing.assert_allclose(kt.predict(model, Column(TEXTS)), expected, rtol=1e-4)


def test_texts_that_are_read_together_are_told_from_what_they_are_joined():
    model, preprocessor = _reader()
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    logits = model.predict(preprocessor((TEXTS, TEXTS[::-1]), y=None), verbose=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kt.predict(model, pairs, batch_size=2), expected, rtol=1e-4)
    np.testing.assert_allclose(kt.predict(model, np.array(pairs)), expected, rtol=1e-4)
    joined = kt.predict(model, [" ".join(pair) for pair in pairs])
    assert np.abs(joined - expected).max() > 1e-3


def test_the_order_of_texts_is_kept():
    model, _ = _reader()
    found = kt.predict(model, TEXTS, batch_size=2)
    for text, row in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(kt.predict(model, text)[0], row, rtol=1e-4)
    np.testing.assert_allclose(kt.predict(model, TEXTS[::-1]), found[::-1], rtol=1e-4)


def test_accents_are_read_as_the_tokenizer_was_told():
    strips, keeps = _reader(strip_accents=True)[0], _reader(strip_accents=False)[0]
    keeps.set_weights(strips.get_weights())
    assert np.array_equal(kt.predict(strips, "crème"), kt.predict(strips, "creme"))
    assert not np.array_equal(kt.predict(keeps, "crème"), kt.predict(keeps, "creme"))


def test_a_task_of_keras_hub_reads_texts_too():
    import keras_hub

    body = keras_hub.models.BertBackbone(
        vocabulary_size=len(WORDS) + 5, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
    )
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(word_pieces(), sequence_length=16)
    task = keras_hub.models.BertTextClassifier(backbone=body, num_classes=2, preprocessor=preprocessor)
    logits = task.predict(TEXTS, verbose=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kt.predict(task, TEXTS), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "texts", "message"),
    [
        (lambda: _reader()[0], ["fine", 3], "int at place 1"),
        (lambda: _reader()[0], ["fine", ("the film", 3)], "tuple at place 1"),
        (lambda: kt.text_classifier(families.bert(), 2), TEXTS, "preprocessor="),
        (lambda: kt.causal_lm(families.gpt2()), TEXTS, "model.generate"),
    ],
)
def test_what_cannot_be_read_as_text_is_said(model, texts, message):
    with pytest.raises(ValueError, match=message):
        kt.predict(model(), texts)


def test_of_no_texts_there_are_no_probabilities():
    assert kt.predict(_reader()[0], []).shape == (0, 2)

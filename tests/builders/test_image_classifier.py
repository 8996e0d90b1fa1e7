import keras
import numpy as np
import pytest
from bodies import classifier, pictures, residual_body

import keras_transfer as kt

# One of every family of keras.applications, as small as the family goes; NASNet and the Inceptions need 75 pixels.
FAMILIES = {
    "ConvNeXtTiny": {},
    "DenseNet121": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
    "InceptionResNetV2": {"image_size": 75},
    "InceptionV3": {"image_size": 75},
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {"alpha": 0.75},
    "NASNetMobile": {},
    "ResNet50": {},
    "ResNet50V2": {},
    "VGG16": {},
    "Xception": {"image_size": 71},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_builds_trains_its_head_saves_and_loads(name, tmp_path):
    options = {"image_size": 32} | FAMILIES[name]
    model = kt.image_classifier(name, ["ant", "bee"], weights=None, **options)
    size = model.input_shape[1]
    x = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("uint8")
    body = [value.copy() for value in model.get_layer(model.name.removesuffix("_classifier")).get_weights()]
    head = model.get_layer("head").get_weights()
    model.compile(model.optimizer, model.loss, run_eagerly=True)  # to trace some of these takes a minute
    model.fit(x, np.array([1, 1]), verbose=0)
    for before, after in zip(body, model.get_layer(model.name.removesuffix("_classifier")).get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not np.array_equal(head[0], model.get_layer("head").get_weights()[0])
    # A pure function of the picture: random layers are silent in the frozen body, so training differs in the head
    # alone.
    pooled = model.get_layer("pool").output
    features, logits = keras.Model(model.input, [pooled, model.output])(x, training=False)
    np.testing.assert_array_equal(keras.Model(model.input, pooled)(x, training=True), features)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert kt.class_names(loaded) == ("ant", "bee")
    np.testing.assert_allclose(loaded(x), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.both_backends
def test_pixels_in_logits_out_in_float32():
    model = classifier()
    logits = model(pictures())
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert tuple(logits.shape) == (4, 2)


@pytest.mark.both_backends
def test_uint8_pictures_are_taken_as_they_are():
    model = classifier()
    x = pictures().round()
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(x.astype("uint8"), verbose=0))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_preprocessing_and_logits_are_in_float32_under_any_policy(policy):
    keras.config.set_dtype_policy(policy)
    model = kt.image_classifier("EfficientNetV2B0", 2, weights=None, image_size=32)
    body = model.get_layer("EfficientNetV2B0")
    assert body.get_layer("rescaling").compute_dtype == "float32"
    assert body.get_layer("stem_conv").compute_dtype == policy.removeprefix("mixed_")
    assert model.get_layer("logits").compute_dtype == "float32"


@pytest.mark.both_backends
def test_plain_fit_trains_on_logits():
    model = kt.image_classifier(residual_body(depth=1), ["dark", "light"], preprocessing="tf", dropout=0.0)
    x = np.concatenate([np.full((8, 16, 16, 3), 20.0), np.full((8, 16, 16, 3), 220.0)]).astype("float32")
    y = np.repeat([0, 1], 8)
    model.optimizer.learning_rate = 0.05
    history = model.fit(x, y, epochs=60, verbose=0)
    assert history.history["accuracy"][-1] == 1.0
    assert history.history["loss"][-1] < 0.3


def test_a_body_of_ones_own_with_weights_is_used_as_it_is():
    body = residual_body()
    weights = body.get_weights()
    model = kt.image_classifier(body, 2, preprocessing="tf")
    for ours, theirs in zip(weights, model.get_layer("residual").get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_layer_serves_as_preprocessing():
    model = kt.image_classifier(residual_body(), 2, preprocessing=keras.layers.Rescaling(1 / 255))
    expected = kt.image_classifier(residual_body(), 2, preprocessing="identity")
    expected.set_weights(model.get_weights())
    np.testing.assert_allclose(model(pictures()), expected(pictures() / 255), rtol=1e-5, atol=1e-6)


def test_real_weights_are_found_where_keras_keeps_them(shared):
    model = kt.image_classifier("MobileNetV2", ["ant", "bee"], alpha=0.35)
    bare = keras.applications.MobileNetV2(alpha=0.35, include_top=False, input_shape=(224, 224, 3))
    x = pictures(2, 224)
    features = keras.Model(model.input, model.get_layer("pool").output)
    expected = bare(keras.applications.mobilenet_v2.preprocess_input(x.copy()))
    np.testing.assert_allclose(features(x), np.mean(expected, axis=(1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("ResNet5", 2), {}, "nearest:.*ResNet5"),
        (("ResNet50", ["only"]), {}, "at least two classes"),
        (("ResNet50", ["a", "a"]), {}, "more than once"),
        (("ResNet50", "cats"), {}, "one string"),
        (("ResNet50", 2), {"dropout": 1.0}, "less than 1"),
        (("ResNet50", 2), {"preprocessing": "caffe"}, "has its own preprocessing"),
        (("MobileNetV2", 2), {"weights": None, "alfa": 0.35}, "nearest:.*alpha"),
        ((3, 2), {}, "neither a name nor a model"),
    ],
)
def test_a_mistake_is_said_with_its_mend(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        kt.image_classifier(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Nobody but you knows"),
        ({"preprocessing": "caffee"}, "nearest:.*caffe"),
        ({"preprocessing": "tf", "alpha": 1.0}, "takes no options"),
        ({"preprocessing": "tf", "image_size": 32}, "of another size"),
    ],
)
def test_a_mistake_with_a_body_of_ones_own_is_said_too(options, message):
    with pytest.raises(ValueError, match=message):
        kt.image_classifier(residual_body(), 2, **options)


def test_preprocessing_twice_is_refused():
    pixels = keras.Input((16, 16, 3))
    body = keras.Model(pixels, keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(pixels)))
    with pytest.raises(ValueError, match="(?i)twice|already"):
        kt.image_classifier(body, 2, preprocessing="tf")

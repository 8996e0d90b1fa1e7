import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, residual_body
from sklearn.linear_model import LogisticRegression

import keras_transfer as kt
from keras_transfer.training.linear_probe import C, start_from_probe


def _features(model, splits):
    pooled = keras.Model(model.input, model.get_layer("pool").output)
    return pooled.predict(splits.evaluation_batches(splits.train, model), verbose=0).astype("float64")


@pytest.mark.parametrize("classes", [("dark", "light"), ("dark", "light", "odd")], ids=["two classes", "three"])
def test_the_head_becomes_logistic_regression_on_the_features(classes):
    generator = np.random.default_rng(0)
    labels = np.arange(30) % len(classes)
    pictures = (generator.uniform(0, 80, (30, 16, 16, 3)) + 80 * labels[:, None, None, None]).astype("uint8")
    splits = kt.data.images((pictures, np.array(classes)[labels]), batch_size=8, augment="none", validation=0.0)
    model = classifier(classes)
    start_from_probe(model, splits, seed=0)
    features = _features(model, splits)
    probe = LogisticRegression(C=C, max_iter=1000)
    scale = np.sqrt(np.mean(features**2))
    probe.fit(features / scale, splits.train.labels)
    logits = model.predict(splits.evaluation_batches(splits.train, model), verbose=0)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, probe.predict_proba(features / scale), atol=1e-4)


def test_the_scale_of_the_features_does_not_matter():
    """Regularisation means the same for a body whose features are a hundred times as large."""
    splits = dark_and_light()
    predictions = []
    for scale in (1.0, 100.0):
        keras.utils.set_random_seed(0)
        body = residual_body()
        larger = keras.Model(body.input, keras.layers.Rescaling(scale)(body.output), name="larger")
        model = kt.image_classifier(larger, splits.classes, preprocessing="tf")
        start_from_probe(model, splits, seed=0)
        predictions.append(model.predict(splits.evaluation_batches(splits.train, model), verbose=0))
    np.testing.assert_allclose(*predictions, atol=1e-3)


@pytest.mark.both_backends
def test_a_stage_that_starts_from_the_probe_is_good_before_its_first_step():
    splits = dark_and_light()
    model = classifier()
    plan = kt.Plan([kt.Stage("head", 1, start="probe", learning_rate=1e-6)])
    assert kt.fit(model, splits, plan, verbose=False).report.accuracy == 1.0


def test_a_head_that_is_not_linear_is_refused():
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(residual_body()(pixels))
    x = keras.layers.Dense(4, activation="relu", name="hidden")(x)
    model = keras.Model(pixels, keras.layers.Dense(2, name="out")(x))
    with pytest.raises(ValueError, match="the head is not linear"):
        start_from_probe(model, dark_and_light(), seed=0)

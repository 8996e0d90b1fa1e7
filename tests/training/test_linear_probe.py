import keras
import numpy as np
import pytest
from bodies import dark_and_light, residual_body
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

import keras_transfer as kt
from keras_transfer.plans.plan import PROBES
from keras_transfer.study import folds
from keras_transfer.training import linear_probe
from keras_transfer.training.linear_probe import STRENGTHS, start_from_probe


def classifier(classes=("dark", "light")):
    return kt.image_classifier(residual_body(depth=1), classes, preprocessing="tf")


def _features(model, splits):
    pooled = keras.Model(model.input, model.get_layer("pool").output)
    return pooled.predict(splits.evaluation_batches(splits.train, model), verbose=0).astype("float64")


def _best_strength(features, labels, parts=4):
    """By the definition: the mean over the parts of the log loss of a probe fitted on the others."""
    losses = {}
    for strength in STRENGTHS:
        held_out = []
        for fitted, left in StratifiedKFold(parts, shuffle=True, random_state=0).split(features, labels):
            probe = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(features[fitted], labels[fitted])
            given = probe.predict_proba(features[left])[np.arange(len(left)), labels[left]]
            held_out.append(-np.log(given).mean())
        losses[strength] = np.mean(held_out)
    return min(losses, key=losses.get)


@pytest.mark.parametrize("start", ["probe", "standardised_probe"])
@pytest.mark.parametrize("classes", [("dark", "light"), ("dark", "light", "odd")], ids=["two classes", "three"])
def test_the_head_becomes_logistic_regression_on_the_features(classes, start):
    generator = np.random.default_rng(0)
    labels = np.arange(30) % len(classes)
    pictures = (generator.uniform(0, 80, (30, 16, 16, 3)) + 80 * labels[:, None, None, None]).astype("uint8")
    splits = kt.data.images((pictures, np.array(classes)[labels]), batch_size=8, augment="none", validation=0.0)
    model = classifier(classes)
    start_from_probe(model, splits, seed=0, start=start)
    features = _features(model, splits)
    scaled = StandardScaler().fit_transform(features) if start != "probe" else features / np.sqrt(np.mean(features**2))
    probe = LogisticRegression(C=_best_strength(scaled, splits.train.labels), max_iter=1000)
    probe.fit(scaled, splits.train.labels)
    logits = model.predict(splits.evaluation_batches(splits.train, model), verbose=0)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, probe.predict_proba(scaled), atol=1e-4)


@pytest.mark.parametrize("start", PROBES)
@pytest.mark.parametrize("present", [("dark", "light"), ("dark", "grey", "light"), ("light",)])
def test_a_class_of_which_there_is_no_example_is_hardly_ever_said(present, start):
    """A rare class is missing from a part of the data, or from all of train: the others keep their columns."""
    classes, shades = ("dark", "grey", "light", "odd"), {"dark": 0, "grey": 80, "light": 160, "odd": 120}
    generator, names = np.random.default_rng(0), np.array(present)[np.arange(30) % len(present)]
    names = np.concatenate([names, np.tile(classes, 2)])
    offsets = np.array([shades[name] for name in names])[:, None, None, None]
    pictures = (generator.uniform(0, 80, (38, 16, 16, 3)) + offsets).astype("uint8")
    whole = kt.data.images((pictures, names), batch_size=8, augment="none", validation=0, test=0)
    numbers = [range(30), range(30, 34), range(34, 38)]
    splits = folds.divided(whole, folds.Division(*map(np.array, numbers)))
    model = classifier(classes)
    start_from_probe(model, splits, seed=0, start=start)
    logits = model.predict(splits.evaluation_batches(splits.train, model), verbose=0)
    assert np.all(logits.argmax(axis=1) == splits.train.labels)
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    missing = [place for place, name in enumerate(classes) if name not in present]
    assert 0 < said[:, missing].max() < 0.001
    np.testing.assert_array_equal(np.asarray(model.get_layer("head").kernel)[:, missing], 0)


LARGER = [1.0, 10.0, 0.1, 100.0, 0.01, 3.0, 5.0, 0.3]


@pytest.mark.parametrize(("start", "scale"), [*((start, 100.0) for start in PROBES), ("standardised_probe", LARGER)])
def test_the_scale_of_the_features_does_not_matter(start, scale):
    """Regularisation means the same for a body whose features are larger, standardised also each by its own factor."""
    splits = dark_and_light()
    predictions = []
    for factor in (1.0, scale):
        keras.utils.set_random_seed(0)
        body = residual_body(depth=1)
        larger = keras.Model(body.input, keras.layers.Rescaling(factor)(body.output), name="larger")
        model = kt.image_classifier(larger, splits.classes, preprocessing="tf")
        start_from_probe(model, splits, seed=0, start=start)
        predictions.append(model.predict(splits.evaluation_batches(splits.train, model), verbose=0))
    np.testing.assert_allclose(*predictions, atol=1e-3)


def test_a_feature_that_is_always_the_same_is_left_out():
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = generator.normal(size=(40, 3)) + labels[:, None]
    telling = linear_probe.predictions(features[:30], labels[:30], features[30:], classes=2, seed=0)
    constant, other = np.full((30, 1), 7.0), np.full((10, 1), 8.0)
    found = linear_probe.predictions(
        np.hstack([features[:30], constant]), labels[:30], np.hstack([features[30:], other]), classes=2, seed=0
    )
    np.testing.assert_allclose(found, telling, atol=1e-3)


@pytest.mark.both_backends
@pytest.mark.parametrize("start", PROBES)
def test_a_stage_that_starts_from_the_probe_is_good_before_its_first_step(start):
    splits = dark_and_light()
    model = classifier()
    plan = kt.Plan([kt.Stage("head", 1, start=start, learning_rate=1e-6)])
    assert kt.fit(model, splits, plan, verbose=False).report.accuracy == 1.0


def test_a_head_that_is_not_linear_is_refused():
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(residual_body(depth=1)(pixels))
    x = keras.layers.Dense(4, activation="relu", name="hidden")(x)
    model = keras.Model(pixels, keras.layers.Dense(2, name="out")(x))
    with pytest.raises(ValueError, match="the head is not linear"):
        start_from_probe(model, dark_and_light(), seed=0)


def test_a_rare_class_is_among_the_examples_that_are_taken():
    labels = np.array([0] * 5000 + [1] * 5000 + [2])
    chosen = linear_probe.some_of_each(labels, 100, seed=0)
    assert len(set(chosen.tolist())) == 100
    assert set(labels[chosen].tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(chosen, linear_probe.some_of_each(labels, 100, seed=0))


def test_labels_that_say_nothing_are_followed_less_than_labels_that_do():
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(80, 20)), np.arange(80) % 2
    assert linear_probe._strength(features, labels, None, seed=0)[0] <= 0.01
    telling = features + 4 * labels[:, None] * (np.arange(20) == 0)
    assert linear_probe._strength(telling, labels, None, seed=0)[0] >= 0.1


def test_a_class_with_a_single_example_has_no_say_in_how_closely_the_others_are_followed():
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(80, 20)), np.arange(80) % 2
    for telling in (features, features + 4 * labels[:, None] * (np.arange(20) == 0)):
        alone = np.vstack([telling, np.full((1, 20), 9.0)]), np.append(labels, 2)
        without, loss = linear_probe._strength(telling, labels, None, seed=0)
        beside, its_loss = linear_probe._strength(*alone, None, seed=0)
        assert STRENGTHS.index(beside) == pytest.approx(STRENGTHS.index(without), abs=1)
        assert its_loss == pytest.approx(loss, rel=0.3)
    nothing_to_ask = linear_probe._strength(features[:2], np.array([0, 1]), None, seed=0)
    assert nothing_to_ask == (0.03, pytest.approx(np.log(2)))


def test_a_tempered_probe_says_the_same_and_is_as_unsure_of_what_it_was_fitted_to_as_of_other_examples(monkeypatch):
    labels = np.arange(40) % 2
    pictures = np.random.default_rng(0).uniform(0, 230, (40, 16, 16, 3)) + 12 * labels[:, None, None, None]
    names = np.array(["dark", "light"])[labels]
    splits = kt.data.images((pictures.astype("uint8"), names), batch_size=8, augment="none", validation=0.0)
    logits, chosen, choose = {}, [], linear_probe._strength
    monkeypatch.setattr(linear_probe, "_strength", lambda *given: chosen.append(choose(*given)) or chosen[-1])
    for start in ("probe", "tempered_probe"):
        keras.utils.set_random_seed(0)
        model = classifier()
        start_from_probe(model, splits, seed=0, start=start)
        logits[start] = model.predict(splits.evaluation_batches(splits.train, model), verbose=0)
    share = logits["tempered_probe"][0, 0] / logits["probe"][0, 0]
    assert 0 < share < 1
    np.testing.assert_allclose(logits["tempered_probe"], share * logits["probe"], rtol=1e-3, atol=1e-5)
    losses = {start: log_loss(splits.train.labels, softmax(found, axis=1)) for start, found in logits.items()}
    held_out = chosen[-1][1]  # the loss under cross-validation of the strength that was chosen
    assert losses["tempered_probe"] == pytest.approx(held_out, rel=1e-3)
    assert losses["probe"] < held_out


def test_of_many_classes_several_examples_of_each_are_drawn():
    """Drawn at random, 1,000 of 200 classes would leave one class or another with a single example."""
    labels = np.repeat(np.arange(200), 30)
    chosen = linear_probe.some_of_each(labels, 1000, seed=0, least=4)
    assert len(set(chosen.tolist())) == 1000
    assert np.bincount(labels[chosen]).min() >= 4
    every = linear_probe.some_of_each(labels, 9999, seed=0, least=4)
    np.testing.assert_array_equal(every, linear_probe.some_of_each(labels, 9999, seed=0))


def test_what_is_held_out_is_judged_by_a_probe_that_has_not_seen_it():
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = generator.normal(size=(40, 5)) + labels[:, None]
    folds = np.arange(40) // 10
    found = linear_probe.out_of_fold(features, labels, folds, seed=0)
    scaled = StandardScaler().fit_transform(features)
    strength = _best_strength(scaled, labels)
    probe = LogisticRegression(C=strength, max_iter=1000).fit(scaled[folds != 2], labels[folds != 2])
    np.testing.assert_allclose(found[folds == 2], probe.predict_proba(scaled[folds == 2]), atol=1e-3)


def test_of_several_divisions_each_is_judged_as_it_would_be_alone():
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = generator.normal(size=(30, 5)) + labels[:, None]
    divisions = np.stack([np.arange(30) // 10, np.arange(30) % 5])
    found = linear_probe.out_of_fold(features, labels, divisions, seed=0)
    for said, division in zip(found, divisions, strict=True):
        np.testing.assert_array_equal(said, linear_probe.out_of_fold(features, labels, division, seed=0))
    assert np.abs(found[0] - found[1]).max() > 0.01

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, pictures

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.study.adaptation import statistics
from keras_transfer.study.adaptation.domains import without_labels


def _inputs_of(model, name, x):
    """What a layer of the body is called on, from a model of stock Keras."""
    body = model.get_layer("residual")
    return keras.Model(body.input, body.get_layer(name).input).predict(x / 127.5 - 1, verbose=0)


@pytest.mark.both_backends
def test_every_batch_norm_has_the_mean_and_variance_of_what_reaches_it_in_the_target():
    model, x = classifier(), pictures(20) * 0.3
    statistics.re_estimate(model, without_labels(model, x))
    for name in ("stem_bn", "block1_bn", "block3_bn"):
        seen = _inputs_of(model, name, x).astype("float64")
        layer = model.get_layer("residual").get_layer(name)
        np.testing.assert_allclose(layer.moving_mean.numpy(), seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance.numpy(), seen.var((0, 1, 2)), rtol=1e-4)


def test_statistics_of_several_batches_are_those_of_all_examples_in_the_lowest_layer():
    model, x = classifier(), pictures(3 * statistics.BATCH - 5) * np.linspace(0, 1, 187)[:, None, None, None]
    statistics.re_estimate(model, without_labels(model, x))
    seen, layer = _inputs_of(model, "stem_bn", x), model.get_layer("residual").get_layer("stem_bn")
    np.testing.assert_allclose(layer.moving_variance.numpy(), seen.astype("float64").var((0, 1, 2)), rtol=1e-4)


def test_only_moving_statistics_change_and_the_layers_are_left_as_they_were():
    model = classifier()
    before = state.values(model)
    own_calls = [vars(layer).get("call") for layer in state.sublayers(model)]
    statistics.re_estimate(model, dark_and_light())
    moved = {
        identity.path.split("/")[-1]
        for identity, old, new in zip(state.identities(model), before, state.values(model), strict=True)
        if not np.array_equal(old, new)
    }
    assert moved == {"moving_mean", "moving_variance"}
    assert [vars(layer).get("call") for layer in state.sublayers(model)] == own_calls


def test_batches_are_of_about_one_size_and_hold_every_example_once():
    batches = statistics._batches(130, seed=0)
    assert [len(rows) for rows in batches] == [44, 43, 43]
    assert sorted(np.concatenate(batches)) == list(range(130))


def test_aligned_features_have_the_mean_and_spread_of_the_source():
    draw = np.random.default_rng(0)
    source, target = draw.normal(3, 2, (50, 4)), draw.normal(-1, 0.5, (40, 4))
    scale, shift = statistics.alignment(source, target)
    aligned = target * scale + shift
    np.testing.assert_allclose(aligned.mean(0), source.mean(0))
    np.testing.assert_allclose(aligned.std(0), source.std(0))


def test_a_feature_that_is_silent_in_the_target_is_moved_and_not_blown_up():
    source = np.array([[0.0, 1.0], [2.0, 3.0]])
    scale, shift = statistics.alignment(source, np.array([[0.0, 5.0], [2.0, 5.0]]))
    assert scale[1] == pytest.approx(1 / statistics.LEAST_SPREAD)
    np.testing.assert_allclose(5.0 * scale[1] + shift[1], 2.0)


@pytest.mark.both_backends
def test_the_folded_head_says_what_the_formula_says():
    model, x = classifier(["a", "b", "c"]), pictures(12)
    features, head = kt.embed(model, x).astype("float64"), model.get_layer("head")
    draw = np.random.default_rng(1)
    scale, shift = draw.uniform(0.5, 2, 8), draw.normal(size=8)
    head.bias.assign(draw.normal(size=3))
    expected = (features * scale + shift) @ head.kernel.numpy() + head.bias.numpy()
    statistics.fold(model, scale, shift)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_begins_with_no_dense_layer_is_refused():
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.LayerNormalization(name="norm")(x)))
    with pytest.raises(ValueError, match="LayerNormalization 'norm'"):
        statistics.lowest_of_head(model)

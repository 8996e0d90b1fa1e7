"""The statistics of batch norms: those of a domain in place of those there were, or on the way to them."""

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, pictures

from keras_transfer import state
from keras_transfer.backbones.freezing import batch_norms
from keras_transfer.study.adaptation.domains import without_labels
from keras_transfer.training import batch_statistics
from keras_transfer.training.batch_statistics import Passes, in_batches, inputs_of, re_estimate


def _inputs_of(model, name, x):
    """What a layer of the body is called on, from a model of stock Keras."""
    body = model.get_layer("residual")
    return keras.Model(body.input, body.get_layer(name).input).predict(x / 127.5 - 1, verbose=0)


@pytest.mark.both_backends
def test_every_batch_norm_has_the_mean_and_variance_of_what_reaches_it_in_the_target():
    model, x = classifier(), pictures(20) * 0.3
    re_estimate(model, without_labels(model, x))
    for name in ("stem_bn", "block1_bn", "block3_bn"):
        seen = _inputs_of(model, name, x).astype("float64")
        layer = model.get_layer("residual").get_layer(name)
        np.testing.assert_allclose(layer.moving_mean.numpy(), seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance.numpy(), seen.var((0, 1, 2)), rtol=1e-4)


def test_statistics_of_several_batches_are_those_of_all_examples_in_the_lowest_layer():
    model, x = classifier(), pictures(3 * batch_statistics.BATCH - 5) * np.linspace(0, 1, 187)[:, None, None, None]
    re_estimate(model, without_labels(model, x))
    seen, layer = _inputs_of(model, "stem_bn", x), model.get_layer("residual").get_layer("stem_bn")
    np.testing.assert_allclose(layer.moving_variance.numpy(), seen.astype("float64").var((0, 1, 2)), rtol=1e-4)


@pytest.mark.both_backends
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_layer_sees_what_those_below_it_make_of_a_batch_by_as_much_of_its_own_statistics(share):
    """Step by step in NumPy: two dense layers, each with a batch norm, and two batches that are not of one size."""
    first, second = (keras.layers.BatchNormalization(name=name) for name in ("first", "second"))
    dense = [keras.layers.Dense(4, use_bias=False) for _ in range(2)]
    model = keras.Sequential([keras.Input((3,)), dense[0], first, keras.layers.ReLU(), dense[1], second])
    draw = np.random.default_rng(1)
    for layer in (first, second):
        for variable, low, high in zip(layer.weights, (0.5, -1, -1, 0.5), (2, 1, 1, 2), strict=True):
            variable.assign(draw.uniform(low, high, 4))
    batches = [draw.normal(place, 1 + place, (count, 3)).astype("float32") for place, count in ((0, 9), (1, 5))]
    old = {layer: [weight.numpy().astype("float64") for weight in layer.weights] for layer in (first, second)}
    reached = {first: [], second: []}
    for batch in batches:
        x = batch.astype("float64")
        for kernel, layer in zip(dense, (first, second), strict=True):
            x = np.maximum(x, 0) @ kernel.kernel.numpy() if layer is second else x @ kernel.kernel.numpy()
            reached[layer].append(x)
            gamma, beta, mean, variance = old[layer]
            mean, variance = (1 - share) * mean + share * x.mean(0), (1 - share) * variance + share * x.var(0)
            x = (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta
    Passes(model).move(batches, share=share)
    for layer, seen in reached.items():
        _, _, mean, variance = old[layer]
        together = np.concatenate(seen)
        expected = (1 - share) * mean + share * together.mean(0), (1 - share) * variance + share * together.var(0)
        np.testing.assert_allclose(layer.moving_mean.numpy(), expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance.numpy(), expected[1], rtol=1e-4)


@pytest.mark.both_backends
def test_passes_are_compiled_once():
    model, called = classifier(), []
    layer = model.get_layer("residual").get_layer("stem_bn")
    own_call = layer.call
    layer.call = lambda *args, **kwargs: called.append(1) or own_call(*args, **kwargs)
    batches = [pictures(6) * scale for scale in (0.3, 0.6)]
    passes = Passes(model)
    passes.distance(batches)
    passes.move(batches, share=0.5)
    passes.move(batches)
    assert len(called) == 1


def test_only_moving_statistics_change_and_the_layers_are_left_as_they_were():
    model = classifier()
    before = state.values(model)
    own_calls = [vars(layer).get("call") for layer in state.sublayers(model)]
    re_estimate(model, dark_and_light())
    moved = {
        identity.path.split("/")[-1]
        for identity, old, new in zip(state.identities(model), before, state.values(model), strict=True)
        if not np.array_equal(old, new)
    }
    assert moved == {"moving_mean", "moving_variance"}
    assert [vars(layer).get("call") for layer in state.sublayers(model)] == own_calls


def test_batches_are_of_about_one_size_and_hold_every_example_once():
    batches = in_batches(np.random.default_rng(0).permutation(130))
    assert [len(rows) for rows in batches] == [44, 43, 43]
    assert sorted(np.concatenate(batches)) == list(range(130))


@pytest.mark.both_backends
def test_the_distance_is_that_of_the_formula_and_nothing_moves():
    model, x = classifier(), pictures(20)
    domain = without_labels(model, x)
    layers = batch_norms(model)
    draw = np.random.default_rng(3)
    for layer in layers:
        layer.moving_mean.assign(draw.normal(0, 0.3, 8))
        layer.moving_variance.assign(draw.uniform(0.5, 2, 8))
    before = state.values(model)
    expected = []
    for layer in layers:
        seen = _inputs_of(model, layer.name, x).astype("float64")
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy() + layer.epsilon
        ratio = 0.5 * np.log((seen.var((0, 1, 2)) + layer.epsilon) / variance)
        expected.append(((seen.mean((0, 1, 2)) - mean) ** 2 / variance + 2 * ratio**2).mean())
    found = Passes(model).distance([inputs_of(model, domain, np.arange(20))])
    assert found == pytest.approx(np.mean(expected), rel=1e-3)
    for old, new in zip(before, state.values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_data_that_the_statistics_are_of_are_at_no_distance():
    model = classifier()
    domain = without_labels(model, pictures(20))
    re_estimate(model, domain)
    assert Passes(model).distance([inputs_of(model, domain, np.arange(20))]) < 1e-6


def test_a_model_without_batch_norms_has_no_such_distance():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="calls none"):
        Passes(model).distance([np.zeros((2, 4), "float32")])

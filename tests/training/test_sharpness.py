"""Sharpness-aware steps, held against their formula: what a step does, what it leaves behind, and what it goes with."""

import dataclasses
import functools

import bodies
import keras
import numpy as np
import pytest
from bodies import dark_and_light

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.training.sharpness import sharpness_aware, uphill

both_backends = pytest.mark.both_backends
classifier = functools.partial(bodies.classifier, depth=1)


def _compiled(*layers, rate=0.5):
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3, name="head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return model


def _examples(count=16):
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 4)).astype("float32"), generator.integers(0, 3, count)


def _one_step(model, radius):
    """The loss that is reported, and the weights before and after."""
    x, y = _examples()
    before = state.values(model)
    with sharpness_aware(model, radius):
        history = model.fit(x, y, batch_size=len(x), epochs=1, shuffle=False, verbose=0).history
    return history["loss"][0], before, state.values(model)


def _loss_and_gradients(weights, decay):
    """Of a tanh layer with L2 regularisation under a softmax, by hand."""
    x, y = _examples()
    kernel, bias, head_kernel, head_bias = (weight.astype("float64") for weight in weights)
    hidden = np.tanh(x @ kernel + bias)
    logits = hidden @ head_kernel + head_bias
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = -np.log(said[np.arange(len(y)), y]).mean() + decay * np.sum(kernel**2)
    error = (said - np.eye(3)[y]) / len(y)
    below = (error @ head_kernel.T) * (1 - hidden**2)
    return loss, [x.T @ below + 2 * decay * kernel, below.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


# --- a step ----------------------------------------------------------------------------------------------------------


@both_backends
@pytest.mark.parametrize("trained_before", [False, True])
def test_a_step_descends_by_the_gradient_a_little_uphill(trained_before):
    """A model that has taken Keras' own steps before, too: what was traced of those is not run on."""
    model = _compiled(keras.layers.Dense(5, "tanh", kernel_regularizer=keras.regularizers.L2(0.1)))
    if trained_before:
        _one_step(model, radius=0.0)
    loss, before, after = _one_step(model, radius=0.3)
    here, gradients = _loss_and_gradients(before, decay=0.1)
    length = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
    above = [weight + 0.3 * gradient / length for weight, gradient in zip(before, gradients, strict=True)]
    _, found_there = _loss_and_gradients(above, decay=0.1)
    for old, new, here_too, gradient in zip(before, after, gradients, found_there, strict=True):
        np.testing.assert_allclose(new, old - 0.5 * gradient, rtol=1e-5, atol=1e-6)
        assert not np.allclose(new, old - 0.5 * here_too, rtol=1e-2, atol=1e-3)
    assert loss == pytest.approx(here, rel=1e-5)  # of the weights that the model has, and not of those uphill


@both_backends
def test_a_row_of_an_embedding_that_is_there_twice_counts_once():
    """TensorFlow hands out its gradient row by row, and the sum of the rows is meant. Against plain steps of Keras."""

    def step(weights, radius=0.0):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Embedding(2, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential([keras.Input((6,)), *layers])
        model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        if weights:
            state.assign(model, weights)
        before = state.values(model)
        with sharpness_aware(model, radius):
            model.fit(np.arange(48).reshape(8, 6) % 2, np.arange(8) % 2, batch_size=8, epochs=1, verbose=0)
        return before, [old - new for old, new in zip(before, state.values(model), strict=True)]

    weights, gradients = step(None)
    length = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
    _, expected = step([weight + 0.5 * each / length for weight, each in zip(weights, gradients, strict=True)])
    _, found = step(weights, radius=0.5)
    for one, other, here in zip(found, expected, gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        assert not np.allclose(one, here, rtol=1e-2, atol=1e-3)


class _Counter(keras.layers.Layer):
    """Adds how often it has been called in training."""

    def __init__(self):
        super().__init__()
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")
        self.mean = keras.metrics.Mean(name="loss")  # a layer's own, which is not the model's

    def call(self, inputs, training=False):
        before = keras.ops.convert_to_tensor(self.calls)
        if training:
            self.calls.assign(before + 1.0)
        return inputs + before


@both_backends
def test_what_a_layer_counts_is_counted_once_a_step_and_the_same_in_both_passes():
    found = []
    for radius in (0.0, 1e-5):
        keras.utils.set_random_seed(0)
        model = _compiled(_Counter())
        for _ in range(2):
            loss, _, after = _one_step(model, radius)
        assert float(model.layers[0].calls.numpy()) == 2
        found.append((loss, after))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    for plain, nearly in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(nearly, plain, rtol=1e-3, atol=2e-5)


@both_backends
def test_both_passes_see_the_same_dropout():
    """Hardly uphill, the step is the plain one, to the state of the generator: another mask would lead elsewhere."""
    found = []
    for radius in (0.0, 1e-5):
        keras.utils.set_random_seed(0)
        model = _compiled(keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5, seed=3))
        found.append(_one_step(model, radius)[2])
    for plain, nearly in zip(*found, strict=True):
        np.testing.assert_allclose(nearly, plain, rtol=1e-3, atol=2e-5)


@both_backends
def test_moving_statistics_are_those_of_the_weights_the_model_has():
    found = []
    for radius in (0.0, 2.0):
        keras.utils.set_random_seed(0)
        model = _compiled(keras.layers.Dense(8), keras.layers.BatchNormalization(name="norm", momentum=0.5))
        _one_step(model, radius)
        norm = model.get_layer("norm")
        found.append([norm.moving_mean.numpy(), norm.moving_variance.numpy()])
    for plain, aware in zip(*found, strict=True):
        np.testing.assert_allclose(aware, plain, rtol=1e-5)


@both_backends
def test_afterwards_the_model_takes_keras_own_steps():
    model = _compiled(keras.layers.Dense(5, "tanh"))
    _one_step(model, 0.3)
    assert not {"train_step", "compute_loss_and_updates"} & vars(model).keys()
    before = [value.copy() for value in state.values(model)]
    x, y = _examples()
    model.fit(x, y, batch_size=len(x), epochs=1, shuffle=False, verbose=0)
    _, gradients = _loss_and_gradients(before, decay=0.0)
    for old, new, gradient in zip(before, state.values(model), gradients, strict=True):
        np.testing.assert_allclose(new, old - 0.5 * gradient, rtol=1e-5, atol=1e-6)


class _OwnKernel(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, inputs):
        return keras.ops.tanh(inputs @ self.kernel)


@both_backends
def test_a_layer_that_is_computed_anew_for_its_gradient_is_moved_as_any_other():
    found = []
    for mode in (None, "full"):
        keras.utils.set_random_seed(0)
        with keras.RematScope(mode):
            layer = _OwnKernel()
        found.append(_one_step(_compiled(layer), 0.5))
    (_, began, plain), (_, _, anew) = found
    for start, one, other in zip(began, plain, anew, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
        assert np.abs(one - start).max() > 1e-3


def test_a_loss_that_is_not_told_of_training_is_minimised_as_well():
    class Untold(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return super().compute_loss(x, y, y_pred, sample_weight)

    found = []
    for kind in (keras.Sequential, Untold):
        keras.utils.set_random_seed(0)
        model = kind([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        found.append(_one_step(model, 0.5)[2])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6)


def test_without_any_gradient_nothing_is_moved():
    still = uphill([np.ones(2, "float32")], [np.zeros(2, "float32")], radius=0.05)
    np.testing.assert_array_equal(still[0], [1.0, 1.0])


# --- within a stage --------------------------------------------------------------------------------------------------


def _fitted(plan, data=None, **options):
    keras.utils.set_random_seed(0)
    model = classifier()
    run = kt.fit(model, data or dark_and_light(24), plan, verbose=False, **options)
    return run, state.values(model)


def _plan(**options):
    return kt.Plan([kt.Stage("all", 2, **{"learning_rate": 0.01, "optimizer": "sgd", "sam": 0.5, **options})])


def test_a_stage_trains_by_it():
    (_, aware), (_, plain) = _fitted(_plan()), _fitted(_plan(sam=0.0))
    assert max(np.abs(one - other).max() for one, other in zip(aware, plain, strict=True)) > 1e-4


def test_a_stage_on_kept_features_comes_to_the_same():
    plan = kt.Plan([kt.Stage("head", 3, learning_rate=0.05, optimizer="sgd", sam=0.5)])
    without = dataclasses.replace(plan, stages=[dataclasses.replace(plan.stages[0], sam=0.0)])
    (_, whole), (_, cached), (_, plain) = _fitted(plan, cache="off"), _fitted(plan), _fitted(without)
    assert max(np.abs(one - other).max() for one, other in zip(cached, plain, strict=True)) > 1e-3
    for one, other in zip(whole, cached, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@both_backends
def test_all_else_that_a_stage_may_have_is_done_as_without():
    """Hardly uphill: pull, average, clipping and moving statistics are those of the plain run, applied once a step."""
    options = {"ema": 0.5, "l2_sp": 2.0, "clip_norm": 0.1, "batch_norm": "adapt", "weight_decay": 0.1}
    (aware_run, aware), (plain_run, plain) = _fitted(_plan(**options, sam=1e-6)), _fitted(_plan(**options, sam=0.0))
    for one, other in zip(aware, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert [row["loss"] for row in aware_run.history] == pytest.approx([row["loss"] for row in plain_run.history])


def test_in_half_precision_it_comes_to_about_the_same():
    def squared_distance(one, other):
        return sum(np.sum((here - there) ** 2) for here, there in zip(one, other, strict=True))

    half, whole, plain = (
        _fitted(plan, precision=precision)[1]
        for plan, precision in ((_plan(), "mixed_float16"), (_plan(), None), (_plan(sam=0.0), None))
    )
    assert squared_distance(half, whole) < 0.1 * squared_distance(plain, whole)


def test_adapters_learn_by_it():
    found = []
    for sam in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        model = classifier()
        kt.fit(model, dark_and_light(24), kt.lora(model, targets="block*", epochs=2, sam=sam), verbose=False)
        found.append(np.array(model.get_layer("head").kernel.numpy()))
    assert np.abs(found[0] - found[1]).max() > 1e-4


# --- errors ---------------------------------------------------------------------------------------------------------


def test_a_radius_below_nothing_is_refused():
    with pytest.raises(ValueError, match="`sam` of a stage is out of range"):
        kt.Stage("all", 2, sam=-0.05)


def test_a_model_with_steps_of_its_own_is_refused_before_anything_is_trained():
    class Own(keras.Model):
        def train_step(self, *arguments):
            return super().train_step(*arguments)

    usual = classifier()
    model = Own(usual.inputs, usual.outputs)
    with pytest.raises(ValueError, match=r"Own\.train_step"):
        kt.fit(model, dark_and_light(24), _plan(), verbose=False)

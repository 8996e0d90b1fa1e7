import keras
import numpy as np
import pytest

from keras_transfer.study.adaptation.adversarial import DomainAdversary, reverse_gradient, strength_at
from keras_transfer.study.adaptation.coral import Coral, coral_distance
from keras_transfer.study.adaptation.measures import covariance_distance, gap
from keras_transfer.study.domain_shift import shift_between

pytestmark = pytest.mark.both_backends


def _gradients(function, *values):
    """Of a scalar function of the values, by the backend's own means."""
    if keras.backend.backend() == "jax":
        import jax

        return [np.asarray(one) for one in jax.grad(function, argnums=tuple(range(len(values))))(*values)]
    import tensorflow as tf

    tensors = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        result = function(*tensors)
    return [one.numpy() for one in tape.gradient(result, tensors)]


def _draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_the_distance_is_that_of_the_paper():
    source, target = _draw(20, 5), 3 * _draw(30, 5, seed=1) + 7
    ones = np.ones((20, 1)), np.ones((30, 1))
    # As written there: C = (D'D - (1'D)'(1'D) / n) / (n - 1).
    covariances = [
        (x.T @ x - (one.T @ x).T @ (one.T @ x) / len(x)) / (len(x) - 1)
        for x, one in zip((source.astype("float64"), target.astype("float64")), ones, strict=True)
    ]
    expected = np.linalg.norm(covariances[0] - covariances[1], "fro") ** 2 / (4 * 5**2)
    assert float(coral_distance(source, target)) == pytest.approx(expected, rel=1e-4)
    assert covariance_distance(source, target) == pytest.approx(expected, rel=1e-4)
    assert float(Coral(0.5)(source, target)) == pytest.approx(0.5 * expected, rel=1e-4)


def test_the_distance_is_zero_for_one_example_each_and_blind_to_the_means():
    x = _draw(10, 3)
    assert float(coral_distance(x[:1], x[1:2])) == 0.0
    assert float(coral_distance(x, x + 5)) == pytest.approx(0.0, abs=1e-9)


def test_the_gradient_comes_back_reversed_and_scaled_and_the_value_is_exact():
    x, weights = _draw(4, 3), _draw(4, 3, seed=1)
    (found,) = _gradients(lambda features: keras.ops.sum(reverse_gradient(features, 0.7) * weights), x)
    np.testing.assert_allclose(found, -0.7 * weights, rtol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(reverse_gradient(x, 0.7)), x)


def test_the_strength_follows_the_schedule_of_the_paper():
    for progress in (0.0, 0.25, 0.5, 1.0):
        expected = 2 / (1 + np.exp(-10 * progress)) - 1
        assert float(strength_at(progress)) == pytest.approx(expected, rel=1e-5)


def _loss_and_gradient_by_hand(adversary, source, target, strength):
    """The adversary's loss and what comes back to the source's features, in NumPy."""
    layers = [(layer.kernel.numpy(), layer.bias.numpy()) for layer in (*adversary.hidden, adversary.verdict)]

    def forward(x):
        kept = [x]
        for number, (kernel, bias) in enumerate(layers):
            x = x @ kernel + bias
            kept.append(np.maximum(x, 0) if number < 2 else x)
            x = kept[-1]
        return kept

    of_source, of_target = forward(source), forward(target)
    loss = np.log1p(np.exp(of_source[-1])).mean() / 2 + np.log1p(np.exp(-of_target[-1])).mean() / 2
    back = 1 / (1 + np.exp(-of_source[-1])) / len(source) / 2
    for number in (2, 1, 0):
        back = back @ layers[number][0].T
        if number:
            back = back * (of_source[number] > 0)
    return loss, -strength * back


def test_the_adversary_hands_back_what_a_calculation_by_hand_does():
    source, target = _draw(6, 4), _draw(5, 4, seed=1)
    adversary = DomainAdversary(steps=10, weight=0.5, width=7)
    adversary.build(source.shape, target.shape)
    adversary.step.assign(3.0)
    strength = 0.5 * (2 / (1 + np.exp(-3.0)) - 1)
    loss, expected = _loss_and_gradient_by_hand(adversary, source, target, strength)
    assert float(adversary(source, target)) == pytest.approx(loss, rel=1e-5)
    found, _ = _gradients(lambda s, t: adversary(s, t), source, target)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_steps_are_counted_in_training_alone():
    adversary = DomainAdversary(steps=4, weight=1.0, width=3)
    for training in (True, False, True):
        adversary(_draw(2, 3), _draw(2, 3), training=training)
    assert float(adversary.step.numpy()) == 2.0


def test_a_gap_of_alike_domains_is_small_and_of_unlike_ones_large():
    near, far = gap(_draw(300, 6), _draw(300, 6, seed=1)), gap(_draw(300, 6), 3 * _draw(300, 6, seed=1) + 4)
    assert near.means < 0.15 < 1 < far.means
    assert near.covariances < 0.1 < 1 < far.covariances
    assert near.proxy_a < 0.5 < 1.9 < far.proxy_a


def test_a_gap_of_domains_is_their_shift_elsewhere():
    source, target = _draw(40, 6), _draw(60, 6, seed=1) + 0.7
    assert gap(source, target, seed=3).proxy_a == shift_between(source, target, ("one", "other"), seed=3).distance
    assert np.isnan(gap(source, target[:1]).proxy_a)

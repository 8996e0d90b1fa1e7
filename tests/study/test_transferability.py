import numpy as np
import pytest

from keras_transfer.study import folds, intervals, transferability


def _log_density(target, features, alpha, beta):
    """Of N(0, I / beta + F F^T / alpha), from its definition."""
    covariance = np.eye(len(target)) / beta + features @ features.T / alpha
    _, determinant = np.linalg.slogdet(2 * np.pi * covariance)
    return -(determinant + target @ np.linalg.solve(covariance, target)) / 2


def _largest(target, features):
    """Its maximum over alpha and beta, by a grid that closes in."""
    middle, width = np.zeros(2), 8.0
    for _ in range(30):
        grid = [middle + width * np.array([a, b]) for a in np.linspace(-1, 1, 7) for b in np.linspace(-1, 1, 7)]
        middle = max(grid, key=lambda point: _log_density(target, features, *np.exp(point)))
        width *= 0.6
    return _log_density(target, features, *np.exp(middle))


@pytest.mark.parametrize("shape", [(30, 4), (24, 24), (20, 45)], ids=["few numbers", "as many", "more than examples"])
def test_log_me_is_the_largest_marginal_likelihood_per_example(shape):
    generator = np.random.default_rng(1)
    labels = np.arange(shape[0]) % 3
    features = generator.normal(size=shape) + 0.8 * labels[:, None] * (np.arange(shape[1]) < 3)
    expected = np.mean([_largest((labels == label) * 1.0, features) for label in range(3)]) / shape[0]
    assert transferability.log_me(features, labels) == pytest.approx(expected, abs=1e-4)


def test_log_me_is_larger_for_features_that_say_more_and_ignores_their_scale():
    generator = np.random.default_rng(0)
    labels, noise = np.arange(60) % 2, generator.normal(size=(60, 10))
    telling = noise + labels[:, None]
    assert transferability.log_me(telling, labels) > transferability.log_me(noise, labels) + 0.1
    assert transferability.log_me(1000 * telling, labels) == pytest.approx(
        transferability.log_me(telling, labels), abs=1e-3
    )


def test_few_examples_are_divided_often_so_that_how_hardly_matters():
    generator, labels = np.random.default_rng(0), np.arange(60) % 3
    features = generator.normal(size=(60, 8)) + 0.6 * generator.normal(size=(3, 8))[labels]
    found = [transferability.measures(features, labels, seed=seed) for seed in range(6)]
    assert found[0].right.shape == (3, 7, 60)
    once = np.concatenate([each.right.mean(axis=-1).ravel() for each in found])
    assert np.std([each.accuracy for each in found]) < np.std(once) / 2
    different = {tuple(row) for each in found for row in each.right.reshape(21, 60).tolist()}
    assert len(different) > 100  # no two seeds ask on the same divisions


def test_many_examples_are_divided_once_for_each_strength():
    labels = np.arange(1500) % 2
    features = np.random.default_rng(0).normal(size=(1500, 2)) + labels[:, None]
    assert transferability.measures(features, labels, seed=0).right.shape == (3, 1, 1500)


def test_features_that_are_all_zero_say_nothing_and_stop_nobody():
    labels = np.arange(20) % 2
    telling = np.random.default_rng(0).normal(size=(20, 3)) + 3 * labels[:, None]
    found = [transferability.log_me(features, labels) for features in (np.zeros((20, 3)), telling)]
    assert found[0] < found[1]


def test_neighbours_vote_and_an_example_has_no_say_about_itself():
    features = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0]])
    votes = transferability.neighbours(features, np.array([0, 0, 1, 1]), 2)
    assert votes[2].tolist() == [1.0, 0.0]
    assert votes[0, 0] == pytest.approx(0.5, abs=0.02)


def test_the_more_examples_the_narrower_the_interval():
    right, other = np.arange(40) % 10 > 0, np.arange(40) % 10 > 1
    few = intervals.of_difference(right, other)
    many = intervals.of_difference(np.tile(right, 10), np.tile(other, 10))
    assert few.value == many.value == pytest.approx(0.1)
    assert many.is_clear
    assert few.high - few.low > 2.5 * (many.high - many.low)


def test_a_difference_of_nothing_is_not_clear_and_differences_add_their_noise():
    right = np.arange(50) % 5 > 0
    none = intervals.of_difference(right, right)
    assert none.value == 0
    assert not none.is_clear
    some = intervals.of_difference(np.tile(right, 4), np.tile(np.arange(50) % 5 > 1, 4))
    total = none + -some
    assert total.value == -some.value
    assert total.high - total.low == pytest.approx(np.hypot(none.high - none.low, some.high - some.low))


def test_folds_hold_every_class_evenly():
    labels = np.array([0] * 23 + [1] * 7 + [2] * 2)
    found = folds.stratified(labels, 5, seed=3)
    assert sorted(np.bincount(found[labels == 0]).tolist()) == [4, 4, 5, 5, 5]
    assert np.ptp(np.bincount(found)) <= 1

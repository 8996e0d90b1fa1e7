"""Intervals: the figures themselves, and how often they are right where the truth is known."""

import numpy as np
import pytest
from sklearn import metrics

from keras_transfer.study.intervals import Scores, accuracy, macro_f1


def _predictions(seeds=3, examples=60, classes=4):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, examples)
    others = generator.integers(0, classes, (seeds, examples))
    return labels, np.where(generator.random((seeds, examples)) < 0.7, labels, others)


def test_the_figures_are_those_of_scikit_learn():
    labels, predicted = _predictions()
    np.testing.assert_allclose(accuracy(labels, predicted).values, [np.mean(row == labels) for row in predicted])
    expected = [metrics.f1_score(labels, row, average="macro") for row in predicted]
    np.testing.assert_allclose(macro_f1(labels, predicted, 4).values, expected)
    # A class that is neither there nor predicted is left out.
    np.testing.assert_allclose(macro_f1(labels, predicted, 6).values, expected)


@pytest.mark.parametrize("number", [0, 7, 21, 59])
def test_an_influence_is_what_more_weight_on_the_example_does(number):
    labels, predicted = _predictions(seeds=1)
    weights = np.ones(len(labels))
    weights[number] += 1e-6
    for scores, figure in (
        (accuracy(labels, predicted), lambda w: metrics.accuracy_score(labels, predicted[0], sample_weight=w)),
        (
            macro_f1(labels, predicted, 4),
            lambda w: metrics.f1_score(labels, predicted[0], average="macro", sample_weight=w),
        ),
    ):
        slope = (figure(weights) - figure(np.ones(len(labels)))) / 1e-6 * len(labels)
        assert scores.influences[0, number] == pytest.approx(slope, abs=1e-4)


def test_with_one_seed_the_difference_is_that_of_mcnemar_with_two_examples_added():
    labels = np.zeros(100, int)
    first, second = (np.ones((1, 100), int) for _ in range(2))
    first[0, :90] = 0
    second[0, 20:] = 0  # 20 that only the first gets right, 10 that only the second does
    found = accuracy(labels, first).minus(accuracy(labels, second)).estimate()
    assert found.value == pytest.approx(0.1)
    variance = (20 + 10 - (20 - 10) ** 2 / 100 + 2) / 100 / 99
    assert (found.high - found.low) / 2 == pytest.approx(1.984 * variance**0.5, rel=1e-3)  # t of 99 degrees


def test_few_seeds_that_differ_make_a_wide_interval():
    influences = np.zeros((3, 10_000))
    found = Scores(np.array([0.8, 0.85, 0.9]), influences).estimate()
    assert (found.high - found.low) / 2 == pytest.approx(4.303 * 0.05 / 3**0.5, rel=0.01)  # t of 2 degrees
    alike = Scores(np.array([0.85, 0.85, 0.85]), influences).estimate()
    assert (alike.high - alike.low) / 2 < 0.001


def test_nothing_wrong_among_few_is_not_taken_for_certain():
    labels = np.zeros(20, int)
    found = accuracy(labels, np.zeros((1, 20), int)).estimate()
    assert found.low == pytest.approx(0.85, abs=0.01)  # the rule of three: 1 - 3 / 20


@pytest.mark.parametrize(("seeds", "most"), [(3, 0.08), (5, 0.06)])
@pytest.mark.parametrize("between_seeds", [0.0, 0.4])
def test_methods_that_are_alike_seldom_differ_beyond_the_noise(seeds, most, between_seeds):
    generator = np.random.default_rng(1)
    labels, alarms, repeats = np.zeros(200, int), 0, 600
    for _ in range(repeats):
        difficulty = generator.normal(size=200)

        def predicted(difficulty=difficulty):
            ability = 1.5 + between_seeds * generator.normal(size=(seeds, 1))
            return (ability + difficulty + generator.normal(size=(seeds, 200)) < 0).astype(int)

        alarms += accuracy(labels, predicted()).minus(accuracy(labels, predicted())).estimate().is_clear
    assert alarms / repeats < most

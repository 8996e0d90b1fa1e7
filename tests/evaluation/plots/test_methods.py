"""Pictures of several methods: what they say, and that they are legible whatever the names and numbers."""

import numpy as np
import pytest
from figures import assert_a_picture, assert_legible, assert_refused, history, words

from keras_transfer.evaluation import plots
from keras_transfer.evaluation.plots.methods import ClassDifference, Point

POINTS = [
    Point("head only", 0.86, 0.81, 0.9, 3.8, 26_000),
    Point("fine-tuned", 0.95, 0.92, 0.98, 67.0, 9_000_000),
    Point("from scratch", 0.52, 0.42, 0.62, 56.0, 9_000_000),
]


def test_cost_says_the_finding_and_marks_lie_where_the_figures_are(tmp_path, drawn):
    path = plots.accuracy_against_cost(POINTS, tmp_path / "cost.png")
    assert_a_picture(path, (1400, 1900), (500, 800))
    said = words(drawn[0])
    assert "95.0 % is the highest accuracy, in 1 min 7 s of training" in said
    assert "the quickest takes 3.8 s and has 86.0 %" in said
    seconds, stored = drawn[0].axes[:2]
    marks = [line for line in seconds.lines if len(line.get_xdata()) == 1]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [(3.8, 0.86), (67.0, 0.95), (56.0, 0.52)]
    bars = [line.get_ydata() for line in stored.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(bars, [(0.81, 0.9), (0.92, 0.98), (0.42, 0.62)])
    assert_legible(drawn[0])


@pytest.mark.parametrize("count", [1, 2, 12])
def test_cost_is_legible_for_many_methods_and_long_names(count, tmp_path, drawn):
    points = [Point(f"method {n} " + "long " * n, 0.5, 0.4, 0.6, 1.0 + n, 2000 * (n + 1)) for n in range(count)]
    plots.accuracy_against_cost(points, tmp_path / "cost.png")
    assert_legible(drawn[0])


def test_curves_are_the_mean_of_the_seeds_and_the_band_their_range(tmp_path, drawn):
    rows = history(("head", 2), ("all", 3))
    other = [{**row, "val_accuracy": row["val_accuracy"] + 0.1} for row in rows]
    plots.method_curves({"fine-tuned": [rows, other], "head only": [rows[:2]]}, tmp_path / "curves.png")
    panel = drawn[0].axes[0]
    (band,) = panel.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert (low, high) == (pytest.approx(rows[0]["val_accuracy"]), pytest.approx(other[-1]["val_accuracy"]))
    means = [line.get_ydata() for line in panel.lines]
    expected = [row["val_accuracy"] + 0.05 for row in rows]
    assert any(len(mean) == 5 and np.allclose(mean, expected) for mean in means)
    # The border between the stages, at 2.5 epochs.
    assert [2.5, 2.5] in [list(line.get_xdata()) for line in panel.lines]
    assert f"Validation accuracy ends highest with fine-tuned, {100 * expected[-1]:.1f} %" in words(drawn[0])
    assert_legible(drawn[0])


def test_curves_without_validation_are_those_of_training(tmp_path, drawn):
    plots.method_curves({"head only": [history(("head", 3), validation=False)]}, tmp_path / "curves.png")
    assert "Train accuracy ends highest" in words(drawn[0])
    assert_legible(drawn[0])


def test_many_methods_have_a_panel_each(tmp_path, drawn):
    histories = {f"method {n} with a rather long name": [history(("head", n + 1))] for n in range(7)}
    plots.method_curves(histories, tmp_path / "curves.png")
    assert len(drawn[0].axes) == 7
    assert_legible(drawn[0])


def test_class_differences_are_in_order_and_the_noise_is_grey(tmp_path, drawn):
    differences = [
        ClassDifference("ant", -0.2, -0.3, -0.1),
        ClassDifference("bee", 0.1, -0.05, 0.25),
        ClassDifference("$5 wasp", 0.3, 0.2, 0.4),
    ]
    plots.class_differences(differences, "fine-tuned", "head only", tmp_path / "classes.png")
    said = words(drawn[0])
    assert "In 2 of 3 classes the two differ beyond the noise" in said
    assert "← head only finds more" in said
    panel = drawn[0].axes[0]
    assert [bar.get_width() for bar in panel.patches] == [pytest.approx(30), pytest.approx(10), pytest.approx(-20)]
    assert len({bar.get_facecolor() for bar in panel.patches}) == 3
    assert [label.get_text() for label in panel.get_yticklabels()] == ["$5 wasp", "bee", "ant"]
    assert_legible(drawn[0])


def test_of_many_classes_those_that_differ_most_are_drawn(tmp_path, drawn):
    differences = [ClassDifference(f"class {n}", n / 100, 0.0, 0.9) for n in range(100)]
    plots.class_differences(differences, "a", "b", tmp_path / "classes.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert labels == [f"class {n}" for n in range(99, 59, -1)]
    assert "the 40 of 100 classes that differ most" in words(drawn[0])
    assert_legible(drawn[0])


def test_nothing_to_draw_is_refused(tmp_path):
    path = tmp_path / "picture.png"
    assert_refused("`points` is empty", plots.accuracy_against_cost, [], path)
    assert_refused("`histories` is empty", plots.method_curves, {}, path)
    assert_refused("`differences` is empty", plots.class_differences, [], "a", "b", path)
    assert not path.exists()


def test_a_seed_that_stopped_early_stays_as_it_ended(tmp_path, drawn):
    short, long = history(("head", 1)), history(("head", 3))
    histories = {"patient": [[{**row, "val_accuracy": 0.3} for row in short]] * 2, "steady": [long] * 3}
    histories["patient"].append([{**row, "val_accuracy": 0.9} for row in long])
    ends = long[-1]["val_accuracy"]
    plots.method_curves(histories, tmp_path / "curves.png")
    means = [line.get_ydata() for line in drawn[0].axes[0].lines]
    assert any(np.allclose(mean, [0.5, 0.5, 0.5]) for mean in means if len(mean) == 3)
    first, end = ("steady", ends) if ends > 0.5 else ("patient", 0.5)
    assert f"Validation accuracy ends highest with {first}, {100 * end:.1f} %" in words(drawn[0])

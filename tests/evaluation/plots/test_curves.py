"""What the learning curves say, and that nothing on them is cut off or overlaps."""

import math

import numpy as np
import pytest
from figures import assert_a_picture, assert_legible, assert_refused, history, words

from keras_transfer.evaluation import plots


def test_the_curves_say_the_finding_and_name_the_stages(tmp_path, drawn):
    rows = history(("head", 3), ("all", 10), accuracy=0.95, val_accuracy=0.5, val_loss=1.25)
    path = plots.learning_curves(rows, tmp_path / "curves.png")
    assert_a_picture(path, (1300, 1600), (1100, 1350))
    (figure,) = drawn
    said = words(figure)
    assert "Validation accuracy 50.0 % after epoch 13" in said
    # The best is epoch 12: 0.9 * (1 - 0.9 ** 12) = 0.6458
    assert "best 64.6 % after epoch 12, ringed · train accuracy 95.0 % · 32.5 s" in said
    assert "head\nends at 24.4 %" in said
    assert "all\nends at 50.0 %" in said
    assert "validation 50.0 %" in said
    assert "validation 1.25" in said
    assert [panel.get_ylabel() for panel in figure.axes] == ["accuracy", "loss", "learning\nrate"]
    assert_legible(figure)


def test_the_curves_are_the_history(tmp_path, drawn):
    rows = history(("head", 2), ("all", 3))
    plots.learning_curves(rows, tmp_path / "curves.png")
    accuracy, loss, rate = drawn[0].axes
    lines = {line.get_label(): line for line in accuracy.lines}
    np.testing.assert_allclose(lines["train"].get_ydata(), [row["accuracy"] for row in rows])
    np.testing.assert_allclose(lines["validation"].get_ydata(), [row["val_accuracy"] for row in rows])
    np.testing.assert_allclose(lines["validation"].get_xdata(), [1, 2, 3, 4, 5])
    lines = {line.get_label(): line for line in loss.lines}
    np.testing.assert_allclose(lines["train"].get_ydata(), [row["loss"] for row in rows])
    np.testing.assert_allclose(
        np.concatenate([line.get_ydata() for line in rate.lines]), [1e-3, 5e-4, 1e-3, 5e-4, 2.5e-4]
    )


def test_every_stage_is_a_band_of_its_own_epochs(tmp_path, drawn):
    plots.learning_curves(history(("head", 2), ("top:2", 1), ("all", 3)), tmp_path / "curves.png")
    for panel in drawn[0].axes:
        bands = [(band.get_x(), band.get_x() + band.get_width()) for band in panel.patches]
        assert bands == [(0.5, 2.5), (2.5, 3.5), (3.5, 6.5)]


SHAPES = {
    "one_epoch": [("head", 1)],
    "one_stage": [("head", 120)],
    "gradual_unfreezing": [("head", 3), *((f"top:{i}", 1) for i in range(1, 17)), ("all", 6)],
    "a_stage_per_block": [(f"block_{i}_expand_and_project", 1) for i in range(67)],
    "long_names": [("head", 2), ("block_13_expand…block_16_project_batch_norm_and_more", 2), ("b" * 80, 4)],
}


@pytest.mark.parametrize("stages", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("validation", [True, False], ids=["validation", "no_validation"])
def test_curves_are_legible(stages, validation, tmp_path, drawn):
    plots.learning_curves(history(*stages, validation=validation), tmp_path / "curves.png")
    assert_legible(drawn[0])
    assert ("Validation" if validation else "Train accuracy") in words(drawn[0])


def test_lines_that_end_together_have_labels_that_do_not(tmp_path, drawn):
    rows = history(("head", 4), accuracy=0.5, val_accuracy=0.5, loss=1.0, val_loss=1.001)
    plots.learning_curves(rows, tmp_path / "curves.png")
    assert_legible(drawn[0])


def test_a_loss_that_was_not_finite_is_told(tmp_path, drawn):
    rows = history(("head", 3), loss=math.nan, val_loss=math.inf)
    plots.learning_curves(rows, tmp_path / "curves.png")
    assert "the loss was not finite in epoch 3" in words(drawn[0])
    rows = history(("head", 1), validation=False, loss=math.nan, accuracy=math.nan)
    plots.learning_curves(rows, tmp_path / "curves.png")
    assert "No accuracy was ever finite" in words(drawn[1])


def test_a_history_that_cannot_be_drawn_is_refused(tmp_path):
    path = tmp_path / "curves.png"
    assert_refused("`history` is empty", plots.learning_curves, [], path)
    misspelt = [{**history(("head", 1))[0], "accuracy": None, "acuracy": 1.0}]
    assert_refused(r"Row 0 of `history` lacks accuracy(.|\n)*nearest:\s+acuracy", plots.learning_curves, misspelt, path)
    twice = history(("head", 1)) + history(("all", 1))
    assert_refused(r"do not rise(.|\n)*1, 1", plots.learning_curves, twice, path)
    assert not path.exists()

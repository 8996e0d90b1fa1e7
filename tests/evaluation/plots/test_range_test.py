"""What the picture of a range test says, and that nothing on it is cut off or overlaps."""

import numpy as np
import pytest
from figures import assert_a_picture, assert_legible, assert_refused, words

from keras_transfer.evaluation import plots

RATES = np.geomspace(1e-7, 1.0, 100).tolist()
LOSSES = [0.7 - 0.5 * (20 < step < 80) + 0.5 * (step >= 80) for step in range(100)]


@pytest.mark.parametrize("suggested", [2e-7, 1e-3, 0.9])
def test_it_says_the_finding_and_marks_the_rates(tmp_path, drawn, suggested):
    marks = {"suggestion": suggested, "a tenth of the lowest's": suggested / 10, "the stage's own": 0.02}
    path = plots.range_test(RATES, LOSSES, LOSSES, marks, tmp_path / "rates.png", title="learning rate of 'head'")
    assert_a_picture(path, (1000, 1300), (600, 900))
    said = words(drawn[0])
    assert "learning rate of 'head'" in said
    assert f"suggestion {suggested:.2g}" in said
    assert "the stage's own 0.02" in said
    assert ("a tenth of the lowest's" in said) == (suggested > 1e-6), "what was not tried has no place on the axis"
    np.testing.assert_allclose(drawn[0].axes[0].lines[1].get_ydata(), LOSSES)
    if suggested == 1e-3:
        assert_legible(drawn[0])


def test_an_explosion_does_not_flatten_the_curve(tmp_path, drawn):
    losses = [*LOSSES[:-2], 1e6, 1e9]
    plots.range_test(RATES, losses, LOSSES, {}, tmp_path / "rates.png", title="rates")
    assert drawn[0].axes[0].get_ylim()[1] < 5


def test_a_path_without_an_ending_is_refused(tmp_path):
    assert_refused(
        "does not end like a picture", plots.range_test, RATES, LOSSES, LOSSES, {}, tmp_path / "rates", title=""
    )

"""What a picture says and whether it is legible, and what is drawn on it."""

import itertools

import numpy as np
import pytest
from matplotlib import image
from matplotlib.text import Text

from keras_transfer.evaluation.report import report


def texts(figure):
    """Every visible text of the figure, as artists."""
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text().strip())
    return [text for text in found if text.get_visible()]


def words(figure):
    return " | ".join(text.get_text() for text in texts(figure))


def assert_legible(figure):
    """Nothing is cut off at the edges, and no two upright texts lie on each other."""
    renderer = figure._get_renderer()
    placed = {text: text.get_window_extent(renderer) for text in texts(figure)}
    # Tick labels outside an axis' limits exist but are not drawn.
    placed = {text: box for text, box in placed.items() if box.width > 1 and _is_drawn(figure, text)}
    for text, box in placed.items():
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert box.y1 <= figure.bbox.y1 + 1, text
    upright = [(text, box) for text, box in placed.items() if text.get_rotation() == 0]
    for (one, one_box), (other, other_box) in itertools.combinations(upright, 2):
        overlap_x = min(one_box.x1, other_box.x1) - max(one_box.x0, other_box.x0)
        overlap_y = min(one_box.y1, other_box.y1) - max(one_box.y0, other_box.y0)
        assert min(overlap_x, overlap_y) < 3, (one.get_text(), other.get_text())


def _is_drawn(figure, text):
    for panel in figure.axes:
        for axis, limits in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if text in (tick.label1, tick.label2):
                    return tick.get_visible() and min(limits) <= tick.get_loc() <= max(limits)
    return True


def assert_a_picture(path, width, height):
    """A PNG of that size (pixels, from and to), with more on it than white."""
    pixels = image.imread(path)
    assert width[0] <= pixels.shape[1] <= width[1]
    assert height[0] <= pixels.shape[0] <= height[1]
    assert (pixels[..., :3] < 0.97).any(axis=-1).mean() > 0.01


def assert_refused(words, function, *arguments, **options):
    with pytest.raises(ValueError, match=words):
        function(*arguments, **options)


def history(*stages, validation=True, **last):
    """Rows of the given (stage, epochs), accuracies rising by a tenth of what is left; `last` changes the last row."""
    rows = []
    for stage, epochs in stages:
        for epoch in range(epochs):
            accuracy = 1 - 0.9 ** (len(rows) + 1)
            row = {"stage": stage, "epoch": len(rows) + 1, "loss": 2 * (1 - accuracy), "accuracy": accuracy}
            row |= {"learning_rate": 1e-3 * 0.5**epoch, "seconds": 2.5}
            if validation:
                row |= {"val_loss": 2.2 * (1 - accuracy), "val_accuracy": 0.9 * accuracy}
            rows.append(row)
    rows[-1] |= last
    return rows


def found(classes, labels, predicted, split="test"):
    return report(labels, np.eye(len(classes))[np.asarray(predicted)], classes, split=split)


def random_report(classes, examples, split="test"):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, len(classes), examples)
    wrong = generator.integers(0, len(classes), examples)
    return found(classes, labels, np.where(generator.random(examples) < 0.8, labels, wrong), split)

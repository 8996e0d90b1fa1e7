"""Which pictures are drawn as most wrong, what stands beneath them, and what is refused."""

import numpy as np
import pytest
from figures import assert_a_picture, assert_legible, assert_refused, texts, words
from PIL import Image

from keras_transfer.evaluation import plots


def pictures(count, side=24):
    """Each of one colour of its own, so that it can be recognised on the sheet."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, side, side, 3)).copy()


def test_the_most_confidently_wrong_come_first_with_what_was_said_and_what_is(tmp_path, drawn):
    labels = [0, 1, 0, 1, 0]
    probabilities = [[0.98, 0.02], [0.6, 0.4], [0.02, 0.98], [0.9, 0.1], [0.45, 0.55]]
    path = plots.most_wrong(pictures(5), labels, probabilities, ["roses", "tulips"], tmp_path / "wrong.png")
    assert_a_picture(path, (700, 1500), (300, 900))
    (figure,) = drawn
    said = words(figure)
    assert "4 of 5 pictures wrong" in said
    assert [panel.images[0].get_array()[0, 0, 0] for panel in figure.axes] == [2, 3, 1, 4]
    captions = [text.get_text() for text in texts(figure) if text.get_text().startswith(("said", "is", "#"))]
    assert captions[:3] == ["said tulips 98 %,", "is roses", "#2"]
    assert captions[3:6] == ["said roses 90 %,", "is tulips", "#3"]
    assert_legible(figure)


def test_no_more_than_count_are_drawn_and_the_title_counts_all(tmp_path, drawn):
    plots.most_wrong(pictures(30), [0] * 30, [[0.3, 0.7]] * 30, ["a", "b"], tmp_path / "wrong.png", count=5)
    assert len(drawn[0].axes) == 5
    assert "30 of 30 pictures wrong | the 5 most confident of them" in words(drawn[0])


def test_where_nothing_is_wrong_the_least_certain_are_drawn(tmp_path, drawn):
    probabilities = [[0.9, 0.05, 0.05], [0.1, 0.6, 0.3], [0.1, 0.2, 0.7]]
    plots.most_wrong(pictures(3), [0, 1, 2], probabilities, ["a", "b", "c"], tmp_path / "wrong.png", count=2)
    said = words(drawn[0])
    assert "All 3 pictures are right | these 2 were the least certain" in said
    assert [panel.images[0].get_array()[0, 0, 0] for panel in drawn[0].axes] == [1, 2]
    assert "said b 60 %, | then c 30 % | #1" in said


@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_a_contact_sheet_is_legible(count, tmp_path, drawn):
    names = ["a flower with a very long name that ends in daisy", "roses"]
    plots.most_wrong(
        pictures(50), [0, 1] * 25, [[0.1, 0.9], [0.9, 0.1]] * 25, names, tmp_path / "wrong.png", count=count
    )
    assert len(drawn[0].axes) == count
    assert_legible(drawn[0])


def test_real_pictures_keep_their_colours_and_shapes(shared, tmp_path, drawn):
    files = sorted((shared / "images" / "flowers" / "test" / "roses").iterdir())[:3]
    roses = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    plots.most_wrong(
        roses, [0, 0, 0], [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], ["roses", "tulips"], tmp_path / "wrong.png"
    )
    for panel, rose in zip(drawn[0].axes, roses, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), rose)
        assert panel.get_aspect() == 1


def test_only_the_pictures_that_are_drawn_are_looked_at(tmp_path):
    class Lazy:
        looked_at = ()

        def __len__(self):
            return 3

        def __getitem__(self, index):
            self.looked_at += (index,)
            return pictures(3)[index]

    lazy = Lazy()
    plots.most_wrong(lazy, [0, 0, 0], [[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]], ["a", "b"], tmp_path / "wrong.png")
    assert lazy.looked_at == (1,)


WRONG_PICTURES = {
    "scaled_to_one": (np.full((1, 8, 8, 3), 0.5), r"scaled to 0\.\.1(.|\n)*255 \* pictures"),
    "scaled_around_zero": (np.linspace(-2, 2, 192).reshape(1, 8, 8, 3), r"values -2 to 2"),
    "too_bright": (np.full((1, 8, 8, 3), 1000), "values 1000 to 1000"),
    "not_finite": (np.full((1, 8, 8, 3), np.nan), "Picture 0 cannot be drawn"),
    "no_colours": (np.zeros((1, 8, 8)), r"shape \(8, 8\)"),
    "too_many": (np.zeros((2, 8, 8, 3)), "not equally many"),
}


@pytest.mark.parametrize(("wrong", "said"), WRONG_PICTURES.values(), ids=WRONG_PICTURES.keys())
def test_pictures_that_are_none_are_refused(wrong, said, tmp_path):
    assert_refused(said, plots.most_wrong, wrong, [0], [[0.1, 0.9]], ["a", "b"], tmp_path / "wrong.png")


def test_a_black_picture_is_a_picture(tmp_path):
    plots.most_wrong(np.zeros((1, 8, 8, 3)), [0], [[0.1, 0.9]], ["a", "b"], tmp_path / "wrong.png")


def test_predictions_are_checked_as_in_a_report(tmp_path):
    arguments = (pictures(1), [0], [[4.0, -2.0]], ["a", "b"], tmp_path / "wrong.png")
    assert_refused("no probabilities", plots.most_wrong, *arguments)
    arguments = (pictures(1), [0], [[0.5, 0.5]], ["a", "b"], tmp_path / "wrong.png")
    assert_refused("`count` is too small", plots.most_wrong, *arguments, count=0)

"""What the pictures say, that they are written, and that nothing on them is cut off or overlaps."""

import itertools
import math
import re
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager, ft2font, image
from PIL import Image

from keras_transfer.evaluation import plots
from keras_transfer.evaluation.report import report

PETS = [
    "Abyssinian",
    "american_bulldog",
    "american_pit_bull_terrier",
    "basset_hound",
    "beagle",
    "Bengal",
    "Birman",
    "Bombay",
    "boxer",
    "British_Shorthair",
    "chihuahua",
    "Egyptian_Mau",
    "english_cocker_spaniel",
    "english_setter",
    "german_shorthaired",
    "great_pyrenees",
    "havanese",
    "japanese_chin",
    "keeshond",
    "leonberger",
    "Maine_Coon",
    "miniature_pinscher",
    "newfoundland",
    "Persian",
    "pomeranian",
    "pug",
    "Ragdoll",
    "Russian_Blue",
    "saint_bernard",
    "samoyed",
    "scottish_terrier",
    "shiba_inu",
    "Siamese",
    "Sphynx",
    "staffordshire_bull_terrier",
    "wheaten_terrier",
    "yorkshire_terrier",
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved in this test, so that what stands on them can be read."""
    figures, save = [], plots.Figure.savefig

    def savefig(figure, *arguments, **options):
        save(figure, *arguments, **options)
        figures.append(figure)

    monkeypatch.setattr(plots.Figure, "savefig", savefig)
    return figures


def texts(figure):
    """Every visible text of the figure, as artists."""
    found = figure.findobj(lambda artist: isinstance(artist, plots.Text) and artist.get_text().strip())
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


# --- learning curves -------------------------------------------------------------------------------------------------


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


# --- confusion -------------------------------------------------------------------------------------------------------


def found(classes, labels, predicted, split="test"):
    return report(labels, np.eye(len(classes))[np.asarray(predicted)], classes, split=split)


def random_report(classes, examples, split="test"):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, len(classes), examples)
    wrong = generator.integers(0, len(classes), examples)
    return found(classes, labels, np.where(generator.random(examples) < 0.8, labels, wrong), split)


def test_the_confusion_says_the_finding_and_counts(tmp_path, drawn):
    labels, predicted = [0] * 10 + [1] * 4 + [2] * 6, [0] * 7 + [1] * 3 + [1] * 4 + [2] * 5 + [0]
    flowers = ["roses", "tulips", "daisies"]
    path = plots.confusion(found(flowers, labels, predicted), tmp_path / "confusion.png")
    assert_a_picture(path, (900, 1300), (700, 1200))
    (figure,) = drawn
    said = words(figure)
    assert "Accuracy 80.0 % on 20 test examples" in said
    assert "most frequent mistake: roses taken for tulips, 3 of 10" in said
    matrix = figure.axes[-1]
    counts = {text.get_position(): text.get_text() for text in matrix.texts}
    assert counts == {(0, 0): "7", (1, 0): "3", (1, 1): "4", (2, 2): "5", (0, 2): "1"}
    assert [label.get_text() for label in matrix.get_yticklabels()] == flowers
    for recall in ("70.0 %", "100.0 %", "83.3 %"):
        assert recall in said
    assert_legible(figure)


def test_the_diagonal_is_blue_mistakes_are_orange_and_both_deepen_with_their_share(tmp_path, drawn):
    labels, predicted = [0] * 10 + [1] * 10, [0] * 8 + [1] * 2 + [0] * 5 + [1] * 5
    plots.confusion(found(["ants", "bees"], labels, predicted), tmp_path / "confusion.png")
    cells = drawn[0].axes[-1].images[0].get_array()
    red, blue = cells[..., 0], cells[..., 2]
    assert (blue > red)[np.eye(2, dtype=bool)].all()
    assert (red > blue)[~np.eye(2, dtype=bool)].all()
    brightness = cells.sum(axis=-1)
    assert brightness[0, 0] < brightness[1, 1]
    assert brightness[1, 0] < brightness[0, 1]


def test_the_confusion_on_validation_says_that_there_was_no_test_split(tmp_path, drawn):
    plots.confusion(random_report(["ants", "bees"], 50, "validation"), tmp_path / "confusion.png")
    assert "there was no test split" in words(drawn[0])
    plots.confusion(random_report(["ants", "bees"], 50), tmp_path / "confusion.png")
    assert "no test split" not in words(drawn[1])


def test_a_confusion_without_mistakes_says_so(tmp_path, drawn):
    plots.confusion(found(["ants", "bees"], [0, 1], [0, 1]), tmp_path / "confusion.png")
    assert "no mistake" in words(drawn[0])


def test_a_class_without_examples_has_no_recall(tmp_path, drawn):
    plots.confusion(found(["ants", "bees"], [0, 0], [0, 1]), tmp_path / "confusion.png")
    assert "| – |" in words(drawn[0])


CLASSES = {
    "2": (["ants", "bees"], 153),
    "5": (["daisy", "dandelion", "roses", "sunflowers", "tulips"], 200),
    "10_long": ([f"{letter * 60} {letter}" for letter in "abcdefghij"], 300),
    "37": (PETS, 3669),
    "2_of_many_examples": (["ants", "bees"], 200_000),
}


@pytest.mark.parametrize(("classes", "examples"), CLASSES.values(), ids=CLASSES.keys())
def test_a_confusion_is_legible(classes, examples, tmp_path, drawn):
    plots.confusion(random_report(classes, examples), tmp_path / "confusion.png")
    assert_legible(drawn[0])


def test_two_hundred_classes_are_named_and_their_worst_mistakes_listed(tmp_path, drawn):
    classes = [f"{number:03d}.bird" for number in range(200)]
    labels = np.repeat(np.arange(200), 5)
    predicted = labels.copy()
    predicted[labels == 7] = 9
    path = plots.confusion(found(classes, labels, predicted), tmp_path / "confusion.png")
    assert_a_picture(path, (2800, 3800), (2500, 3500))
    matrix = drawn[0].axes[-1]
    assert [label.get_text() for label in matrix.get_xticklabels()] == classes
    assert "5 of 5 | 007.bird → 009.bird" in words(drawn[0])
    assert len(matrix.texts) == 0
    # A cell has at least twelve pixels a side, and its name as many points as its neighbours leave it.
    assert matrix.bbox.width / 200 > 12
    sizes = {label.get_fontsize() for label in matrix.get_yticklabels()}
    assert all(4 < size < 72 * matrix.bbox.height / 200 / drawn[0].dpi for size in sizes)


def test_a_thousand_classes_are_numbered(tmp_path, drawn):
    plots.confusion(random_report([f"class {number}" for number in range(1000)], 5000), tmp_path / "confusion.png")
    labels = [label.get_text() for label in drawn[0].axes[-1].get_xticklabels()]
    assert labels == [str(number) for number in range(0, 1000, 100)]
    assert max(drawn[0].get_size_inches()) < 30


# --- most wrong ------------------------------------------------------------------------------------------------------


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


# --- names, files, settings ------------------------------------------------------------------------------------------


def test_names_are_drawn_as_they_are_spelt(tmp_path, drawn):
    names = ["$5_note$", "Straße", "cafe\u0301 Ω", "a\nb"]
    plots.confusion(random_report(names, 40), tmp_path / "confusion.png")
    labels = [label.get_text() for label in drawn[0].axes[-1].get_yticklabels()]
    assert labels == ["$5_note$", "Straße", "cafe\u0301 Ω", "a b"]


def letters(font):
    return set(ft2font.FT2Font(font_manager.findfont(font)).get_charmap())


def test_letters_that_the_usual_font_lacks_come_from_another_one(tmp_path, drawn):
    letter = chr(min(letters("STIXGeneral") - letters("DejaVu Sans")))
    plots.confusion(random_report([letter, "b"], 40), tmp_path / "confusion.png")
    assert drawn[0].axes[-1].get_yticklabels()[0].get_text() == letter
    assert "no installed font" not in words(drawn[0])


@pytest.mark.filterwarnings("error")
def test_a_name_that_no_font_can_draw_becomes_its_number_and_the_picture_says_so(tmp_path, drawn):
    nobodys = "\U000e1234"
    plots.confusion(random_report(["a", nobodys * 3], 40), tmp_path / "confusion.png")
    assert drawn[0].axes[-1].get_yticklabels()[1].get_text() == "no. 1"
    assert "“no. …”: a name with letters that no installed font has" in words(drawn[0])


def test_names_that_are_too_long_lose_their_middle(tmp_path, drawn):
    names = ["american_pit_bull_terrier_of_the_first_kind", "american_pit_bull_terrier_of_the_second_kind"]
    plots.confusion(random_report(names, 40), tmp_path / "confusion.png")
    first, second = [label.get_text() for label in drawn[0].axes[-1].get_yticklabels()]
    assert first != second
    assert re.fullmatch("american_.*….*first_kind", first)


def test_folders_are_made_and_the_format_follows_the_ending(tmp_path):
    path = plots.confusion(random_report(["a", "b"], 40), tmp_path / "a" / "b" / "confusion.SVG")
    assert path.read_text(encoding="utf-8").startswith("<?xml")
    assert_refused(
        r"given:\s+.*c\.jpgg(.|\n)*nearest:\s+.*c\.png",
        plots.confusion,
        random_report(["a", "b"], 40),
        tmp_path / "c.jpgg",
    )


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "confusion.png"
    path.write_bytes(b"the old one")

    def full_disk(figure, file, **options):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(plots.Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        plots.confusion(random_report(["a", "b"], 40), path)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_leaves_matplotlib_as_it_was_and_does_not_follow_the_users_style(tmp_path):
    pyplot_was_there = "matplotlib.pyplot" in sys.modules
    rows = history(("head", 2))
    plain = plots.learning_curves(rows, tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "black", "lines.linewidth": 9, "savefig.dpi": 10}):
        before = dict(matplotlib.rcParams)
        styled = plots.learning_curves(rows, tmp_path / "styled.png")
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(image.imread(plain), image.imread(styled))
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_was_there

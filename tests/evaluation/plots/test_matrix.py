"""What the confusion matrix says, and that nothing on it is cut off or overlaps."""

import numpy as np
import pytest
from figures import assert_a_picture, assert_legible, found, random_report, words

from keras_transfer.evaluation import plots

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

"""The figures of a report, against values worked out by hand."""

import dataclasses
import json
import math
import re
import unicodedata

import numpy as np
import pytest
from sklearn import metrics

from keras_transfer.evaluation.cost import Cost, StageCost
from keras_transfer.evaluation.report import ClassScore, Report, report

COST = Cost(
    stages=[
        StageCost("head", epochs=3, seconds=12.5, examples_per_second=96.0, trainable_parameters=6405, steps=39),
        StageCost(
            "all", epochs=10, seconds=130.25, examples_per_second=41.2, trainable_parameters=2_400_123, steps=130
        ),
    ],
    total_seconds=145.9,
    peak_memory_bytes=3 * 2**29,
)


def said(predicted, classes, confidence=0.9):
    """Probabilities whose largest of each row is the given class."""
    predicted = np.asarray(predicted)
    rest = (1 - confidence) / (classes - 1)
    return np.full((len(predicted), classes), rest) + (confidence - rest) * np.eye(classes)[predicted]


def three_classes(**options):
    """ants: 3 of 4 found; bees: 2 of 3, wasps: 1 of 3; confusion as in the test beneath."""
    labels = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    predicted = [0, 0, 0, 1, 1, 1, 2, 2, 1, 1]
    return report(labels, said(predicted, 3), ["ants", "bees", "wasps"], **{"split": "test", **options})


def columns(line):
    """What a terminal makes of it: two columns for wide letters, none for combining ones."""
    return sum(0 if unicodedata.combining(x) else 2 if unicodedata.east_asian_width(x) in "WF" else 1 for x in line)


def test_three_classes_worked_out_by_hand():
    found = three_classes()
    assert found.confusion.tolist() == [[3, 1, 0], [0, 2, 1], [0, 2, 1]]
    assert found.accuracy == 6 / 10
    assert found.examples == 10
    ants, bees, wasps = found.per_class.values()
    assert dataclasses.astuple(ants) == pytest.approx((3 / 3, 3 / 4, 6 / 7, 4))
    assert dataclasses.astuple(bees) == pytest.approx((2 / 5, 2 / 3, 1 / 2, 3))
    assert dataclasses.astuple(wasps) == pytest.approx((1 / 2, 1 / 3, 2 / 5, 3))
    assert found.macro_f1 == pytest.approx((6 / 7 + 1 / 2 + 2 / 5) / 3)


def test_rows_of_the_confusion_are_the_truth_and_columns_what_was_said():
    found = report([0, 0, 0], said([1, 1, 1], 2), ["ants", "bees"], split="test")
    assert found.confusion.tolist() == [[0, 3], [0, 0]]


def test_the_confusion_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        three_classes().confusion[0, 0] = 7


def test_all_right():
    found = report([0, 1, 1], said([0, 1, 1], 2), ["ants", "bees"], split="test")
    assert (found.accuracy, found.macro_f1) == (1.0, 1.0)
    assert all((score.precision, score.recall, score.f1) == (1, 1, 1) for score in found.per_class.values())
    assert found.mistakes() == []


def test_all_wrong():
    found = report([0, 1, 1], said([1, 0, 0], 2), ["ants", "bees"], split="test")
    assert (found.accuracy, found.macro_f1) == (0.0, 0.0)
    assert all((score.precision, score.recall, score.f1) == (0, 0, 0) for score in found.per_class.values())
    assert found.mistakes() == [("bees", "ants", 2), ("ants", "bees", 1)]


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (180, 200, 0.8506, 0.9343)],
)
def test_the_accuracy_has_wilsons_interval(right, of, low, high):
    predicted = [0] * right + [1] * (of - right)
    found = report([0] * of, said(predicted, 2), ["ants", "bees"], split="test")
    assert found.accuracy_interval == pytest.approx((low, high), abs=5e-5)


def test_of_equal_probabilities_the_first_class_is_said():
    found = report([0, 1], [[0.5, 0.5], [0.5, 0.5]], ["ants", "bees"], split="test")
    assert found.confusion.tolist() == [[1, 0], [1, 0]]


def test_a_class_without_examples_has_an_unknown_recall():
    # wasps have no example but are said once; flies have none and are never said.
    found = report([0, 0, 1, 1], said([0, 2, 1, 1], 4), ["ants", "bees", "wasps", "flies"], split="test")
    wasps, flies = found.per_class["wasps"], found.per_class["flies"]
    assert (wasps.precision, wasps.f1, wasps.support) == (0.0, 0.0, 0)
    assert math.isnan(wasps.recall)
    assert all(map(math.isnan, (flies.precision, flies.recall, flies.f1)))
    # ants 2 * 1 / (2 + 1), bees 1, wasps 0: the flies have no F1, so they are not in the mean.
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert "2 of the 4 classes have no example in the test split" in str(found)
    assert "no test examples" in str(found)


def test_a_class_that_is_never_said_has_an_unknown_precision():
    found = report([0, 1], said([0, 0], 2), ["ants", "bees"], split="test")
    bees = found.per_class["bees"]
    assert math.isnan(bees.precision)
    assert (bees.recall, bees.f1) == (0.0, 0.0)


def test_the_macro_f1_is_the_one_that_scikit_learn_gives_by_default():
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 6, 80), generator.integers(0, 8, 80)
    found = report(labels, said(predicted, 9), [f"c{i}" for i in range(9)], split="test")
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    counts = np.zeros((9, 9), int)
    np.add.at(counts, (labels, predicted), 1)
    np.testing.assert_array_equal(found.confusion, counts)


def test_mistakes_come_most_frequent_first_and_at_a_tie_the_larger_share_first():
    assert three_classes().mistakes() == [("wasps", "bees", 2), ("bees", "wasps", 1), ("ants", "bees", 1)]
    assert three_classes().mistakes(1) == [("wasps", "bees", 2)]


def test_float16_probabilities_are_taken():
    probabilities = said([0, 1, 2], 3, confidence=0.4).astype(np.float16)
    assert report([0, 1, 2], probabilities, list("abc"), split="test").accuracy == 1


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_report_whose_parts_disagree_is_refused():
    found = three_classes()
    with pytest.raises(ValueError, match="`accuracy` is not the one"):
        dataclasses.replace(found, accuracy=0.9)
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        dataclasses.replace(found, confusion=np.eye(2))
    with pytest.raises(ValueError, match="supports"):
        dataclasses.replace(found, per_class={**found.per_class, "ants": ClassScore(1, 1, 1, 5)})


# --- read by people --------------------------------------------------------------------------------------------------


def test_the_text_of_a_report():
    assert str(three_classes(cost=COST)) == (
        "test: accuracy 60.0 %, macro-F1 0.586, on 10 examples of 3 classes\n"
        "(the accuracy's 95 % interval is 31.3 % to 83.2 %)\n"
        "\n"
        "class  precision  recall     F1  examples  most often taken for\n"
        "ants       1.000   0.750  0.857         4  bees (1)\n"
        "bees       0.400   0.667  0.500         3  wasps (1)\n"
        "wasps      0.500   0.333  0.400         3  bees (2)\n"
        "\n"
        "stage  epochs  steps  seconds  examples/s  trainable parameters\n"
        "head        3     39     12.5        96.0                 6,405\n"
        "all        10    130    130.2        41.2             2,400,123\n"
        "in all 2 min 26 s, peak memory 1.50 GiB"
    )


def test_a_report_on_validation_says_that_there_was_no_test_split():
    assert "There was no test split" in str(three_classes(split="validation"))
    assert "no test split" not in str(three_classes(split="test"))
    assert "nothing about new ones" in str(three_classes(split="train"))


NAMES = {
    "plain": "class {}",
    "long": "Straßenbahnhaltestellenansage_{}_vor_dem_Hauptbahnhof_bei_Regen_und_Sonnenschein",
    "chinese": "猫と犬と鳥と魚と馬と羊と牛と豚と猿と象 {}",
    "accents": "cafe\u0301 {}",
    "line_break": "two\nlines {}",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("count", [2, 10, 200])
def test_no_line_is_wider_than_a_hundred_columns_and_all_columns_align(count, name):
    generator = np.random.default_rng(count)
    labels = np.repeat(np.arange(count), 12)
    predicted = np.where(generator.random(labels.size) < 0.8, labels, generator.integers(0, count, labels.size))
    classes = [name.format(number) for number in range(count)]
    long_stage = StageCost("block_13_expand, " * 9, 1, 1e5, 12345.6, 123_456_789, 1_000_000)
    cost = Cost([long_stage], 1e6, 2**40)
    lines = str(report(labels, said(predicted, count), classes, split="validation", cost=cost)).splitlines()
    assert max(map(columns, lines)) <= 100
    head = next(number for number, line in enumerate(lines) if "precision" in line)
    rows = lines[head + 1 : head + 1 + min(count, 20)]
    assert len(rows) == min(count, 20)
    ends_of_the_supports = {columns(row[: re.search(r"\d\.\d{3} +12(?= |$)", row).end()]) for row in rows}
    assert len(ends_of_the_supports) == 1


def test_of_very_many_classes_the_weakest_are_shown_and_the_rest_summed_up():
    labels = np.repeat(np.arange(200), 4)
    predicted = labels.copy()
    predicted[labels == 77] = 78
    text = str(report(labels, said(predicted, 200), [f"class {i}" for i in range(200)], split="test"))
    lines = text.splitlines()
    assert lines[3].startswith("weakest 20 of 200 ")
    assert lines[4].split() == ["class", "77", "–", "0.000", "0.000", "4", "class", "78", "(4)"]
    assert lines[5].startswith("class 78 ")
    assert lines[-1] == "The F1 of the other 180 runs from 1.000 to 1.000, median 1.000; all are in `per_class`."
    assert len(lines) == 25


# --- read by programs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [None, COST, Cost([], 1.0, None)], ids=["no_cost", "cost", "no_memory"])
def test_a_report_survives_json_exactly(cost):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 50)
    classes = ['"quoted"', "猫", "bees", "flies"]
    found = report(labels, generator.dirichlet(np.ones(4), 50), classes, split="validation", cost=cost)
    again = Report.from_json(found.to_json())
    assert again == found
    assert hash(again) == hash(found)
    assert again.cost == cost
    assert again.accuracy == found.accuracy
    assert again.macro_f1 == found.macro_f1
    assert again.confusion.dtype == np.int64
    np.testing.assert_array_equal(again.confusion, found.confusion)
    assert math.isnan(again.per_class["flies"].recall)
    assert str(again) == str(found)


def test_reports_that_differ_are_not_equal():
    assert three_classes() != three_classes(cost=COST)
    assert three_classes() != three_classes(split="train")
    assert three_classes() != "a report"


def test_the_json_is_strict_and_its_numbers_can_be_read_by_anyone():
    found = report([0, 1], said([0, 0], 2), ["ants", "bees"], split="test")
    parts = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert parts["per_class"]["bees"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}
    assert parts["confusion"] == [[1, 0], [1, 0]]


def test_numbers_of_numpy_in_a_cost_go_into_json():
    stage = StageCost("head", np.int64(1), np.float32(2), np.float32(3), np.int64(4), np.int64(5))
    found = three_classes(cost=Cost([stage], np.float64(2), np.int64(7)))
    assert Report.from_json(found.to_json()).cost == found.cost


NO_REPORT = {
    "a_path": ("runs/pets/report.json", r"given:\s+'runs/pets/report.json'"),
    "a_list": ("[1, 2]", "not a report"),
    "another_file": ('{"format": "plan", "version": 1}', "format 'plan', version 1"),
    "a_newer_version": ('{"format": "keras_transfer.report", "version": 2}', r"version 2\n.*version 1"),
    "a_part_is_missing": ('{"format": "keras_transfer.report", "version": 1}', "KeyError: 'per_class'"),
}


@pytest.mark.parametrize(("text", "words"), NO_REPORT.values(), ids=NO_REPORT.keys())
def test_json_that_is_no_report_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        Report.from_json(text)


def test_json_that_was_tampered_with_is_refused():
    text = three_classes().to_json()
    with pytest.raises(ValueError, match="`accuracy` is not the one"):
        Report.from_json(text.replace('"accuracy": 0.6', '"accuracy": 0.7'))

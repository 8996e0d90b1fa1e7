"""Predictions that cannot be judged are refused, in words that say which and where."""

import math

import numpy as np
import pytest

from keras_transfer.evaluation.report import report

GOOD = {"labels": [0, 1], "probabilities": [[0.9, 0.1], [0.2, 0.8]], "classes": ["ants", "bees"], "split": "test"}
REFUSED = {
    "no_examples": ({"labels": np.zeros(0, int), "probabilities": np.zeros((0, 2))}, r"shape \(0,\), int64"),
    "one_hot_labels": ({"labels": [[1, 0], [0, 1]]}, r"labels\.argmax\(axis=1\)"),
    "float_labels": ({"labels": [0.0, 1.0]}, "float64"),
    "label_too_large": ({"labels": [0, 2]}, r"2 at position 1; 1 of 2 are outside"),
    "negative_label": ({"labels": [-1, 1]}, r"-1 at position 0"),
    "too_few_rows": ({"probabilities": [[0.9, 0.1]]}, r"shape \(1, 2\)\n.*shape \(2, 2\): 2 labels, 2 classes"),
    "too_few_columns": ({"probabilities": [[1.0], [1.0]]}, r"shape \(2, 1\)"),
    "probability_nan": ({"probabilities": [[0.9, 0.1], [math.nan, 0.8]]}, "1 of 2 rows with NaN.*position 1"),
    "probability_infinite": ({"probabilities": [[math.inf, 0.1], [0.2, 0.8]]}, "1 of 2 rows with NaN or infinity"),
    "logits": ({"probabilities": [[4.0, -3.0], [0.2, 0.8]]}, r"1 of 2 rows.*\[4, -3\].*(.|\n)*keras\.ops\.softmax"),
    "negative_but_summing_to_one": ({"probabilities": [[1.5, -0.5], [0.2, 0.8]]}, "no probabilities"),
    "one_class": ({"classes": ["ants"]}, "at least two classes"),
    "class_twice": ({"classes": ["ants", "ants"]}, r"more than once:  \['ants'\]"),
    "class_that_is_no_name": ({"classes": ["ants", 3]}, r"not a name:  \[3\]"),
    "classes_in_one_string": ({"classes": "ab"}, "one string"),
    "misspelt_split": ({"split": "validaton"}, r"nearest:\s+validation"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_predictions_that_cannot_be_judged_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        report(**{**GOOD, **changes})

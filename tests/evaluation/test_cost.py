"""What a cost may be, and what it says of what was not measured."""

import math

import pytest

from keras_transfer.evaluation.cost import Cost


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_cost_that_cannot_be_is_refused(seconds):
    with pytest.raises(ValueError, match="`total_seconds` of a Cost"):
        Cost([], total_seconds=seconds, peak_memory_bytes=None)


def test_memory_that_was_not_measured_is_not_called_zero():
    assert str(Cost([], 5, None)) == "in all 5.0 s, peak memory not measured"

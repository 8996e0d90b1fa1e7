"""Figures as people read them, where rounding would mislead."""

from keras_transfer.formatting import duration, percent


def test_what_is_not_quite_all_is_never_rounded_to_all():
    assert [percent(share) for share in (1.0, 0.99999, 0.9994, 0.5, 0.0001, 0.0)] == [
        "100.0 %",
        "> 99.9 %",
        "99.9 %",
        "50.0 %",
        "< 0.1 %",
        "0.0 %",
    ]
    assert [percent(share, digits=0) for share in (0.994, 0.999, 0.001)] == ["99 %", "> 99 %", "< 1 %"]


def test_durations():
    assert [duration(seconds) for seconds in (0, 59.9, 59.96, 119.7, 3599.9, 7380)] == [
        "0.0 s",
        "59.9 s",
        "1 min 0 s",
        "2 min 0 s",
        "1 h 0 min",
        "2 h 3 min",
    ]

"""What TensorFlow says of retracing where several models are meant to be traced, and what it goes on saying."""

import logging

import keras
import pytest

from keras_transfer.study.several_models import one_after_another

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's warning")


@pytest.fixture
def said():
    """What TensorFlow's logger says."""
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("tensorflow").addHandler(handler)
    yield heard
    logging.getLogger("tensorflow").removeHandler(handler)


def _trace_several():
    """Traces eight functions of the same code, that nothing has been traced of before."""
    import tensorflow as tf

    names = {}
    exec("def made():\n    return lambda x: x + 1", names)
    for _ in range(8):
        tf.function(names["made"]())(tf.constant(1))


def test_tensorflow_takes_several_functions_of_one_code_for_one(said):
    _trace_several()
    assert any("triggered tf.function retracing" in line for line in said), "then this module has nothing to do"


def test_it_is_quiet_about_that_within_and_about_nothing_else_nor_afterwards(said):
    logger = logging.getLogger("tensorflow")
    with one_after_another(), one_after_another():
        _trace_several()
        assert said == []
        logger.warning("the disk is full")
    with pytest.raises(ValueError, match="as it was"), one_after_another():
        raise ValueError("as it was")
    logger.warning("5 calls triggered tf.function retracing")
    assert said == ["the disk is full", "5 calls triggered tf.function retracing"]

"""Whether a model's outputs are logits, probabilities, or neither: by what its last operation does to them."""

import keras
import numpy as np
import pytest
from bodies import dark_and_light

import keras_transfer as kt
from keras_transfer.builders.outputs import gives_logits, kind_of_outputs

layers = keras.layers


def _ending(*end):
    """A model of 16 × 16 pixels that ends with some operations."""
    pixels = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(pixels))
    for operation in end:
        x = operation(x)
    return keras.Model(pixels, x)


def _softmax_of_ones_own(x):
    return keras.ops.softmax(x)


ENDS = {
    "logits": ("logits", [layers.Dense(2)]),
    "logits named": ("logits", [layers.Dense(2), layers.Activation("linear")]),
    "logits in a nested model": ("logits", [lambda x: keras.Sequential([keras.Input((4,)), layers.Dense(2)])(x)]),
    "below a gate": (
        "logits",
        [layers.Dense(8, "sigmoid"), lambda x: keras.Sequential([keras.Input((8,)), layers.Dense(2)])(x)],
    ),
    "scaled": ("logits", [layers.Dense(2), lambda x: x * 3.0]),
    "log softmax": ("logits", [layers.Dense(2, "log_softmax")]),
    "of a norm": ("logits", [layers.Dense(2), layers.BatchNormalization()]),
    "softmax": ("probabilities", [layers.Dense(2, "softmax")]),
    "a layer": ("probabilities", [layers.Dense(2), layers.Softmax()]),
    "an activation": ("probabilities", [layers.Dense(2), layers.Activation("softmax")]),
    "a call": ("probabilities", [layers.Dense(2), keras.ops.softmax]),
    "a function": ("probabilities", [layers.Dense(2, _softmax_of_ones_own)]),
    "in a nested model": (
        "probabilities",
        [lambda x: keras.Sequential([keras.Input((4,)), layers.Dense(2, "softmax")])(x)],
    ),
    "handed on": ("probabilities", [layers.Dense(2, "softmax"), layers.Dropout(0.1), layers.Activation("linear")]),
    "an ensemble": (
        "probabilities",
        [lambda x: layers.Average()([layers.Dense(2, "softmax")(x), layers.Dense(2, "softmax")(x)])],
    ),
    "sigmoid": ("shares", [layers.Dense(2, "sigmoid")]),
    "sigmoid, a call": ("shares", [layers.Dense(2), keras.ops.sigmoid]),
}


@pytest.mark.both_backends
@pytest.mark.parametrize("end", ENDS)
def test_what_a_model_hands_out_is_found_by_its_last_operation(end, tmp_path):
    kind, operations = ENDS[end]
    model = _ending(*operations)
    assert kind_of_outputs(model) == kind
    assert gives_logits(model) == (kind != "probabilities")


@pytest.mark.both_backends
def test_probabilities_of_a_call_are_what_predict_says_and_training_lowers_their_loss():
    data = dark_and_light(48)
    model = _ending(layers.Dense(2), keras.ops.softmax)
    pictures = data.peek(data.train, range(4), model)
    said = model.predict(pictures, verbose=0)
    np.testing.assert_allclose(kt.predict(model, list(pictures)), said, atol=1e-6)
    model = _ending(layers.Rescaling(1 / 127.5, offset=-1), layers.Dense(2), keras.ops.softmax)
    plan = kt.Plan([kt.Stage("all", 25, learning_rate=0.02)])
    run = kt.fit(model, data, plan, verbose=False)
    # As logits, probabilities never get below log(1 + 1/e) = 0.313.
    assert run.history[-1]["loss"] < 0.25


def test_shares_are_refused_before_anything_is_trained(tmp_path):
    model = _ending(layers.Dense(2, "sigmoid"))
    with pytest.raises(ValueError, match=r"(?s)neither logits nor probabilities.*mend: *keras.layers.Dense\(classes\)"):
        kt.fit(model, dark_and_light(), kt.Plan([kt.Stage("all", 1)]), workdir=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()

"""Whatever is done to a model, it is what it was afterwards."""

import random

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, pictures

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.adapters import attach, beside
from keras_transfer.study.put_back import as_it_was

both_backends = pytest.mark.both_backends

ADAPTERS = kt.LoRA(rank=2, targets="block[12]_conv", dropout=0.2, biases="adapted")


def everything(model):
    """All that makes a model what it is, as things that can be compared."""
    layers = [model, *state.sublayers(model)]
    return {
        "variables": [id(variable) for _, variable in state.walk(model)],
        "values": [value.tobytes() for value in state.values(model)],
        "trains": [variable.trainable for _, variable in state.walk(model)],
        "classes": [type(layer) for layer in layers],
        "flags": [layer.trainable for layer in layers],
        "attributes": [
            {name: id(value) for name, value in vars(layer).items() if name not in ("_lora_beside",)}
            for layer in layers
        ],
        "lists": [
            {name: [id(one) for one in value] for name, value in vars(layer).items() if isinstance(value, list)}
            for layer in layers
        ],
        "tables": [
            {name: list(value) for name, value in vars(layer).items() if type(value) is dict} for layer in layers
        ],
        "optimizer": [value.tobytes() for value in state.values_of(model.optimizer.variables)],
        "adapters": (attach.names(model), attach.active(model)),
        "generators": (random.getstate(), np.random.get_state()[1].tobytes()),  # noqa: NPY002
    }


def assert_same(before, model):
    for name, value in everything(model).items():
        assert value == before[name], name


def trained(**options):
    """A classifier that somebody is in the middle of training."""
    model, data = classifier(depth=2, **options), dark_and_light(40)
    model.fit(data.training_batches(model, epochs=1), verbose=0)
    return model, data


TRIALS = {
    "whole body": kt.Stage("all", 1, batch_norm="adapt", learning_rate=0.1),
    "drawn anew": kt.Stage("all", 1, start="random", batch_norm="adapt"),
    "probe": kt.Stage("head", 1, start="probe"),
    "biases": kt.Stage("all", 1, part="biases"),
    "adapters": kt.Stage("head", 1, adapters=ADAPTERS, learning_rate=0.1),
    "pulled and averaged": kt.Stage("top:2", 1, l2_sp=10.0, ema=0.5),
}
ON_JAX_TOO = ("whole body", "adapters", "pulled and averaged")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=both_backends if name in ON_JAX_TOO else ()) for name in TRIALS]
)
def test_after_a_whole_fit_the_model_is_what_it_was(name):
    model, data = trained(dropout=0.3)
    before = everything(model)
    with as_it_was(model):
        kt.fit(model, data, kt.Plan([TRIALS[name]]), verbose=False)
        assert everything(model)["values"] != before["values"]
    assert_same(before, model)


class _Broken(Exception):
    pass


class _Break(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise _Broken


@pytest.mark.parametrize("name", ["whole body", "adapters"])
def test_also_where_an_error_comes_in_the_middle_of_a_step(name):
    model, data = trained()
    before = everything(model)
    with pytest.raises(_Broken), as_it_was(model):
        kt.fit(model, data, kt.Plan([TRIALS[name]]), verbose=False, callbacks=[_Break()], precision="mixed_bfloat16")
    assert_same(before, model)


@both_backends
def test_a_model_with_adapters_goes_on_with_them():
    model, data = trained()
    kt.add_lora(model, ADAPTERS, name="mine", train=[model.get_layer("head")])
    model.compile("sgd", model.loss)
    model.fit(data.training_batches(model, epochs=1), verbose=0)
    before, kept = everything(model), [vars(each) for each in beside.everywhere(model)]
    base = [[value.tobytes() for value in each["base"]] for each in kept]
    with as_it_was(model):
        kt.fit(model, data, kt.Plan([TRIALS["adapters"]]), verbose=False)
        assert attach.names(model) == ("default", "mine")
    assert_same(before, model)
    assert [[value.tobytes() for value in each.base] for each in beside.everywhere(model)] == base
    assert [list(each.values) for each in beside.everywhere(model)] == [["mine"]]


def test_predictions_and_further_training_are_those_of_a_model_on_which_nothing_was_tried():
    found = []
    for tries in (False, True):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        model, data = trained(dropout=0.3)
        if tries:
            with as_it_was(model):
                kt.fit(model, data, kt.Plan([TRIALS["whole body"]]), verbose=False)
            with as_it_was(model):
                kt.fit(model, data, kt.Plan([TRIALS["adapters"]]), verbose=False)
        predicted = model.predict(pictures(), verbose=0)
        model.fit(data.training_batches(model, epochs=2), verbose=0)
        found.append([predicted, *state.values(model), *state.values_of(model.optimizer.variables)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)

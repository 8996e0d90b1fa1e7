"""The moving average of the weights: what is averaged, who sees it, and what a stage ends with."""

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light

import keras_transfer as kt
from keras_transfer.training import stages
from keras_transfer.training.averaging import averages

both_backends = pytest.mark.both_backends


class _Trained(keras.callbacks.Callback):
    """The head's kernel after every step, and at the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.epochs = [], []

    def _kernel(self):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        return np.array(self.model.get_layer("head").kernel.numpy())

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self._kernel())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self._kernel())


def _fitted(stages, data=None, **options):
    model = classifier()
    stages = stages if isinstance(stages, list) else [stages]
    run = kt.fit(model, data or dark_and_light(24), kt.Plan(stages), verbose=False, **options)
    return run, model


def _stage(**options):
    return kt.Stage("head", 4, **{"learning_rate": 0.05, "ema": 0.7, **options})


@both_backends
@pytest.mark.parametrize("validation", [0.2, 0.0])
def test_the_stage_ends_with_the_average_that_numpy_finds(validation):
    seen = _Trained()
    data = dark_and_light(24, validation=validation)
    _, model = _fitted(_stage(), data, callbacks=[seen])
    expected = seen.steps[0]
    at_epochs = []
    for number, kernel in enumerate(seen.steps, 1):
        expected = kernel if number == 1 else 0.7 * expected + 0.3 * kernel
        if number % data.steps_per_epoch() == 0:
            at_epochs.append(expected)
    np.testing.assert_allclose(model.get_layer("head").kernel.numpy(), expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(seen.epochs, at_epochs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not np.allclose(expected, seen.steps[-1], rtol=1e-3)


@both_backends
def test_the_steps_are_those_of_training_without_and_validation_sees_the_average():
    """To the last bit: the average is looked at, and never trained on."""
    steps, losses, data = [], [], dark_and_light(24)
    for ema in (None, 0.7):
        keras.utils.set_random_seed(0)
        watch = _Trained()
        run, model = _fitted(_stage(ema=ema), data, callbacks=[watch])
        steps.append(watch.steps)
        losses.append(run.history[-1]["val_loss"])
    np.testing.assert_array_equal(*steps)
    found = model.evaluate(data.evaluation_batches(data.validation, model), verbose=0, return_dict=True)
    assert losses[1] == pytest.approx(found["loss"], rel=1e-5)
    assert losses[1] != pytest.approx(losses[0], rel=1e-3)


@both_backends
def test_early_stopping_goes_back_to_the_average_of_its_best_epoch():
    seen = _Trained()
    stage = kt.Stage("head", 12, learning_rate=30.0, schedule="constant", warmup=0.0, patience=3, ema=0.6)
    run, model = _fitted(stage, dark_and_light(32, augment="light"), callbacks=[seen])
    best = int(np.argmin([row["val_loss"] for row in run.history]))
    assert len(run.history) < 12
    np.testing.assert_array_equal(model.get_layer("head").kernel.numpy(), seen.epochs[best])


def test_the_safeguard_goes_from_the_beginning_to_the_average(monkeypatch):
    given = {}
    whole = stages.safeguard

    def noted(model, batches, before, **options):
        given["end"] = np.array(model.get_layer("head").kernel.numpy())
        return whole(model, batches, before, **options)

    monkeypatch.setattr(stages, "safeguard", noted)
    seen = _Trained()
    _fitted(_stage(safeguard=True), callbacks=[seen])
    np.testing.assert_array_equal(given["end"], seen.epochs[-1])
    assert not np.allclose(given["end"], seen.steps[-1], rtol=1e-3)


@both_backends
def test_a_loss_that_is_no_number_leaves_the_average_of_the_last_whole_epoch():
    seen = _Trained()

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.get_layer("head").bias.assign([np.nan, 0.0])

    model = classifier()
    with pytest.raises(kt.NonFiniteLossError):
        kt.fit(model, dark_and_light(24), kt.Plan([_stage()]), verbose=False, callbacks=[seen, Spoil()])
    np.testing.assert_array_equal(model.get_layer("head").kernel.numpy(), seen.epochs[1])


def test_the_next_stage_goes_on_from_the_average_and_keeps_none_of_its_own():
    watch = _Trained()
    _, model = _fitted([kt.Stage("head", 2, "one", ema=0.5), kt.Stage("head", 1, "two")], callbacks=[watch])
    np.testing.assert_array_equal(model.get_layer("head").kernel.numpy(), watch.steps[-1])


def test_moving_statistics_are_left_as_they_are():
    """They are an average already, and both runs take the same steps."""
    found = []
    for ema in (None, 0.9):
        keras.utils.set_random_seed(0)
        _, model = _fitted(kt.Stage("top:1", 2, batch_norm="adapt", learning_rate=0.01, ema=ema))
        layer = model.get_layer("residual").get_layer("block3_bn")
        found.append((layer.moving_mean.numpy(), layer.gamma.numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert not np.array_equal(found[0][1], found[1][1])


def test_half_precision_averages_as_well():
    run, model = _fitted(_stage(), precision="mixed_float16")
    data = dark_and_light(24)
    found = model.evaluate(data.evaluation_batches(data.validation, model), verbose=0, return_dict=True)
    assert run.history[-1]["val_loss"] == pytest.approx(found["loss"], rel=2e-2)


def test_an_optimizer_without_averages_has_none():
    model = classifier()
    optimizer = kt.LayerwiseOptimizer(keras.optimizers.AdamW(1e-3), {model: 1.0})
    assert averages(optimizer) == []
    optimizer.build(model.trainable_variables)
    assert averages(optimizer) == []
    assert averages(keras.optimizers.LossScaleOptimizer(optimizer)) == []


@pytest.mark.parametrize("ema", [0, 1, 1.5, -0.1])
def test_a_momentum_lies_between_0_and_1(ema):
    with pytest.raises(ValueError, match="between 0 and 1"):
        kt.Stage("head", 1, ema=ema)


def test_a_stage_of_one_step_ends_with_that_step():
    watch = _Trained()
    _, model = _fitted(kt.Stage("head", 1, ema=0.999, warmup=0.0), dark_and_light(10, batch_size=8), callbacks=[watch])
    assert len(watch.steps) == 1
    np.testing.assert_array_equal(model.get_layer("head").kernel.numpy(), watch.steps[0])

"""Statistics of batch norms between those of pretraining and those of the data, as far as the data say."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, residual_body

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.backbones.freezing import batch_norms
from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.training import calibration, stages
from keras_transfer.training.batch_statistics import re_estimate
from keras_transfer.training.calibration import BELIEFS, SHARES, calibrate
from keras_transfer.training.safeguard import Point

CALIBRATED = Stage("head", 1, start="probe", statistics="calibrated")


def splits(**options) -> kt.data.Splits:
    return dark_and_light(64, validation=0, **options)


def pixels(count: int) -> np.ndarray:
    return splits().peek(splits().train, range(count), classifier()).astype("float32")


def at_home() -> keras.Model:
    """A model whose batch norms have the statistics of these pictures."""
    keras.utils.set_random_seed(0)
    model = classifier()
    re_estimate(model, splits())
    return model


def far_away() -> keras.Model:
    """One whose batch norms know so much lighter pictures that hardly a unit of the body speaks."""
    model = at_home()
    for layer in batch_norms(model):
        spread = np.sqrt(layer.moving_variance.numpy())
        layer.moving_mean.assign(layer.moving_mean.numpy() + 4 * spread)
    return model


def values_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {identity.path: value for identity, value in zip(state.identities(model), state.values(model), strict=True)}


@pytest.mark.both_backends
def test_pictures_unlike_those_of_pretraining_move_the_statistics_and_nothing_else():
    model = far_away()
    before = values_of(model)
    found = calibrate(model, splits(), seed=0)
    assert found.distance > 10
    assert 0.05 < found.share < 0.75
    assert found.examples == 64
    by_share = {point.share: point for point in found.path}
    assert by_share[0.0].loss > np.log(2) / 2
    assert min(point.loss for point in found.path) < by_share[0.0].loss / 2
    moved = {path.split("/")[-1] for path, value in values_of(model).items() if not np.array_equal(value, before[path])}
    assert moved == {"moving_mean", "moving_variance"}
    # What reaches the lowest layer does not depend on the share, so its statistics are what the formula says.
    body = model.get_layer("residual")
    x = pixels(64) / 127.5 - 1
    seen = keras.Model(body.input, body.get_layer("stem_bn").input).predict(x, verbose=0).astype("float64")
    for name, own in (("moving_mean", seen.mean((0, 1, 2))), ("moving_variance", seen.var((0, 1, 2)))):
        old = next(value for path, value in before.items() if path.endswith(f"stem_bn/{name}"))
        expected = (1 - found.share) * old + found.share * own
        np.testing.assert_allclose(getattr(body.get_layer("stem_bn"), name).numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.both_backends
def test_where_they_do_already_every_statistic_keeps_its_bits():
    model = at_home()
    before = state.values(model)
    found = calibrate(model, splits(), seed=0)
    assert (found.share, found.path) == (0, ())
    assert found.distance < 0.01
    assert "less than 0.3: they are kept" in str(found)
    for old, new in zip(before, state.values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_calibration_that_is_broken_off_has_moved_nothing(monkeypatch):
    model, judged = far_away(), []
    before = state.values(model)

    def break_off(*args):
        judged.append(args)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return 0.5, 0.5

    monkeypatch.setattr(calibration, "_judged", break_off)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, splits(), seed=0)
    for old, new in zip(before, state.values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_believed_beforehand_is_a_belief_for_each_share():
    assert len(BELIEFS) == len(SHARES)
    assert sum(BELIEFS) == pytest.approx(1)
    assert SHARES[0] == 0


def test_where_labels_speak_clearly_for_the_statistics_that_there_are_little_moves():
    path = [Point(share, 0.2 + 0.4 * share, 0.9) for share in SHARES]
    assert calibration._mean_share(path, 1000) < 0.01


def test_at_most_256_examples_are_asked_and_several_of_every_class_that_is():
    labels = np.random.default_rng(0).integers(100, size=3000)
    rows = calibration._asked(labels, seed=0)
    assert len(rows) == len(set(rows.tolist())) == calibration.MOST_EXAMPLES == 256
    assert np.bincount(labels[rows]).max() >= 4
    assert np.unique(np.bincount(labels[rows])[np.bincount(labels[rows]) > 0]).min() >= 2


@pytest.mark.parametrize("counts", [(1, 1, 1), (30, 1, 1), (30,)])
def test_nothing_is_asked_where_no_two_classes_have_several_examples(counts):
    labels = np.repeat(range(len(counts)), counts)
    assert not calibration._can_be_divided(labels[calibration._asked(labels, seed=0)])


def test_nothing_moves_where_nothing_can_be_asked():
    pictures = np.zeros((2, 16, 16, 3), "uint8")
    labels = np.array(["dark", "light"])
    singles = kt.data.images((pictures, labels), validation=0, augment="none", batch_size=2)
    model = far_away()
    found = calibrate(model, singles, seed=0)
    assert (found.share, found.path) == (0, ())
    assert "no two classes have several examples" in str(found)


def test_the_head_that_is_fitted_afterwards_reads_the_features_that_there_are_then():
    model = far_away()
    said_before = kt.embed(model, pixels(8))
    audit = kt.fit(model, splits(), Plan([CALIBRATED]), seed=0, verbose=False).audits[0]
    found = audit.calibration
    assert found.share > 0
    assert not np.allclose(said_before, kt.embed(model, pixels(8)))
    assert kt.evaluate(model, splits(), "train").accuracy == 1
    assert f"another domain: they were moved {found.share:.2f} of the way" in str(audit)
    # What moved in training is counted from the calibrated statistics.
    assert all(moved.statistics in (None, 0) for moved in audit.moved)
    # Written and read, it is the same.
    assert type(audit).from_dict(json.loads(json.dumps(dataclasses.asdict(audit)))) == audit


def test_a_resumed_stage_goes_on_with_the_statistics_it_was_given(tmp_path, monkeypatch):
    plan = Plan([dataclasses.replace(CALIBRATED, epochs=3)])
    model = far_away()
    whole = kt.fit(model, splits(), plan, seed=0, verbose=False)
    values = state.values(model)

    class BreakOff(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 13:
                raise KeyboardInterrupt

    options = {"seed": 0, "verbose": False, "workdir": tmp_path, "checkpoint_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        kt.fit(far_away(), splits(), plan, callbacks=[BreakOff()], **options)
    monkeypatch.setattr(stages, "calibrate", lambda *_, **__: pytest.fail("asked again"))
    model = far_away()
    resumed = kt.fit(model, splits(), plan, **options)
    assert resumed.audits == whole.audits
    for one, other in zip(values, state.values(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_staged_fine_tuning_calibrates_before_the_head_and_keeps_what_it_found():
    plan = kt.staged_fine_tuning(classifier())
    assert [stage.statistics for stage in plan.stages] == ["calibrated", "kept"]
    assert "batch norm frozen on calibrated statistics" in str(plan)
    assert Plan.from_json(plan.to_json()) == plan
    assert [stage.statistics for stage in kt.staged_fine_tuning(classifier(), calibrate=False).stages] == ["kept"] * 2


def without_batch_norms() -> keras.Model:
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="stem_conv")(pixels)
    body = keras.Model(pixels, keras.layers.Conv2D(4, 3, name="block1_conv")(x), name="plain")
    return kt.image_classifier(body, ["dark", "light"], preprocessing="tf")


def test_a_body_without_batch_norms_has_nothing_to_calibrate():
    model = without_batch_norms()
    assert [stage.statistics for stage in kt.staged_fine_tuning(model).stages] == ["kept", "kept"]
    with pytest.raises(ValueError, match="leave `statistics` out"):
        kt.fit(model, splits(), Plan([CALIBRATED]), verbose=False)


def test_adapters_are_refused_beside_it():
    with pytest.raises(ValueError, match="Adapters leave the body"):
        Stage("lora", 1, adapters=kt.LoRA(rank=2), statistics="calibrated")


def test_a_choice_that_is_no_choice_names_the_nearest():
    with pytest.raises(ValueError, match="calibrated"):
        Stage("head", 1, statistics="calibrate")


def test_a_head_that_is_not_linear_is_refused():
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(residual_body()(pixels))
    model = keras.Model(pixels, keras.layers.Dense(2, name="logits")(keras.layers.Dense(4, name="hidden")(x)))
    with pytest.raises(ValueError, match='statistics="kept"'):
        calibrate(model, splits(), seed=0)

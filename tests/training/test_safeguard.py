import dataclasses
import json

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light
from scipy.special import softmax

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.evaluation.prediction import predict_split
from keras_transfer.training import stages
from keras_transfer.training.audit import Audit
from keras_transfer.training.linear_probe import start_from_probe
from keras_transfer.training.safeguard import BELIEFS, OF_HEAD, Interpolation, Point, calibrated_loss, safeguard

both_backends = pytest.mark.both_backends


def _trained_from(model, change, change_of_bias=0.0):
    """The values before a stage that added `change` to the head's kernel."""
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    before = state.values(model)
    head = model.get_layer("head")
    head.kernel.assign(head.kernel + change)
    head.bias.assign(head.bias + change_of_bias)
    return before


def _good_kernel(model, splits):
    """A kernel that classifies perfectly: what a long stage would find."""
    start_from_probe(model, splits, seed=0)
    return np.asarray(model.get_layer("head").kernel)


@both_backends
def test_a_stage_that_made_everything_worse_is_as_good_as_undone():
    splits = dark_and_light(96)
    model = classifier()
    good = _good_kernel(model, splits)
    before = _trained_from(model, -9 * good, -9 * np.asarray(model.get_layer("head").bias))
    found = safeguard(model, splits, before)
    assert found.share < 0.1
    np.testing.assert_allclose(np.asarray(model.get_layer("head").kernel), good * (1 - 9 * found.share), rtol=1e-4)


@both_backends
def test_a_stage_that_made_everything_better_is_kept_nearly_whole():
    splits = dark_and_light(400)
    model = classifier()
    good, head = _good_kernel(model, splits), model.get_layer("head")
    bias = np.asarray(head.bias)
    head.kernel.assign(-good)
    head.bias.assign(-bias)
    before = _trained_from(model, 2 * good, 2 * bias)
    found = safeguard(model, splits, before)
    assert found.share > 0.8
    # Behind the middle the head says the same, the more surely the further.
    assert [point.accuracy for point in found.path if point.share > 0.5] == [1.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(np.asarray(head.kernel), (2 * found.share - 1) * good, rtol=1e-4, atol=1e-6)


def test_to_be_too_sure_is_not_held_against_a_stage():
    """Ten times the scores are the same answers at a tenth of the temperature."""
    generator = np.random.default_rng(3)
    scores = generator.normal(size=(200, 4))
    labels = (scores + generator.gumbel(size=scores.shape)).argmax(axis=1)  # drawn as the scores say
    loss = calibrated_loss(softmax(scores, axis=1), labels)
    assert 0 < loss < np.log(4)
    assert calibrated_loss(softmax(10 * scores, axis=1), labels) == pytest.approx(loss, rel=1e-3)
    assert calibrated_loss(softmax(0.1 * scores, axis=1), labels) == pytest.approx(loss, rel=1e-3)


def test_the_loss_of_a_point_is_that_at_its_best_temperature():
    splits = dark_and_light(96)
    model = classifier()
    found = safeguard(model, splits, _trained_from(model, np.random.default_rng(3).normal(size=(8, 2))))
    logits = np.log(predict_split(model, splits, splits.validation))
    at = [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)(splits.validation.labels, logits / temperature)
        for temperature in np.geomspace(1 / 16, 16, 400)
    ]
    point = next(point for point in found.path if point.share == found.share)
    assert point.loss == pytest.approx(float(min(at)), rel=2e-3)


def test_the_share_is_the_mean_of_the_shares_weighed_by_belief_and_likelihood():
    splits = dark_and_light(96)
    model = classifier()
    generator = np.random.default_rng(3)
    before = _trained_from(model, generator.normal(size=model.get_layer("head").kernel.shape) * 0.05)
    found = safeguard(model, splits, before)
    losses = np.array([point.loss for point in found.path if point.share in BELIEFS])
    weights = np.array([*BELIEFS.values()]) * np.exp(-len(splits.validation) * losses)
    assert found.share == pytest.approx(float(weights @ np.array([*BELIEFS]) / weights.sum()), abs=1e-6)
    assert 0.2 < found.share < 0.8  # the two ends are about as good as each other


@both_backends
def test_what_the_stage_did_not_touch_keeps_its_bits():
    splits = dark_and_light(96)
    model = classifier()
    before = _trained_from(model, 0.1)
    safeguard(model, splits, before)
    for (identity, variable), old in zip(state.walk(model), before, strict=True):
        if not identity.path.startswith("head/kernel"):
            np.testing.assert_array_equal(variable.numpy(), old, err_msg=identity.path)


@both_backends
def test_a_head_alone_is_put_back_where_it_got_worse_and_kept_whole_elsewhere():
    splits = dark_and_light(96)
    model = classifier()
    good, head = _good_kernel(model, splits), model.get_layer("head")
    bias = np.asarray(head.bias)
    for change, share in ((-9.0, 0.0), (0.5, 1.0)):
        head.kernel.assign(good)
        head.bias.assign(bias)
        before = _trained_from(model, change * good, change * bias)
        ends = {0.0: before, 1.0: state.values(model)}
        found = safeguard(model, splits, before, beliefs=OF_HEAD)
        assert [point.share for point in found.path] == [0.0, 1.0]
        for value, expected in zip(state.values(model), ends[found.share], strict=True):
            np.testing.assert_array_equal(value, expected)
        assert found.share == share


def test_staged_fine_tuning_is_never_below_its_own_linear_probe_on_validation(monkeypatch):
    """The probe, its head stage and the end of the last stage are steps that none goes down."""
    splits = dark_and_light(48)
    model = classifier()
    probes = []

    def look(of, batches, **options):
        start_from_probe(of, batches, **options)
        said = predict_split(of, batches, splits.validation).argmax(axis=1)
        probes.append(float(np.mean(said == splits.validation.labels)))

    monkeypatch.setattr(stages, "start_from_probe", look)
    plan = kt.staged_fine_tuning(model, epochs=(1, 2), learning_rate=0.5)
    run = kt.fit(model, splits, plan, callbacks=[_Negated()], verbose=False)
    of_head, of_all = ({p.share: p.accuracy for p in audit.interpolation.path} for audit in run.audits)
    assert probes == [of_head[0.0]]
    assert of_head[1.0] < 0.5 < of_head[0.0], "the head is to get worse here"
    assert run.audits[0].interpolation.share == 0.0
    assert of_all[0.0] == probes[0]
    assert of_all[run.audits[1].interpolation.share] >= of_all[0.0]
    ended = of_all[run.audits[1].interpolation.share]
    assert kt.evaluate(model, splits, "validation").accuracy == pytest.approx(ended)


class _Negated(keras.callbacks.Callback):
    """Turns the head round at the end of the first epoch, so that it says the contrary."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            for variable in self.model.get_layer("head").trainable_variables:
                variable.assign(-variable)


def test_without_a_validation_split_three_quarters_of_the_way_are_kept_and_said(capsys):
    splits = dark_and_light(24, validation=0.0)
    model = classifier()
    kernel = model.get_layer("residual").get_layer("block3_conv").kernel
    before = np.asarray(kernel)
    reached = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            reached.append(np.asarray(kernel))

    run = kt.fit(
        model,
        splits,
        kt.Plan([kt.Stage("top:1", 1, safeguard=True), kt.Stage("head", 1, safeguard=True)]),
        callbacks=[Watch()],
    )
    found = run.audits[0].interpolation
    assert found.share == pytest.approx(sum(share * belief for share, belief in BELIEFS.items()))
    assert found.path == ()
    expected = (1 - found.share) * before + found.share * reached[0]
    np.testing.assert_allclose(np.asarray(kernel), expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(before, reached[0], rtol=1e-5)
    assert "0.74 of the way was kept, for want of a validation split" in capsys.readouterr().out
    assert Audit.from_dict(json.loads(json.dumps(dataclasses.asdict(run.audits[0])))).interpolation == found
    assert run.audits[1].interpolation.share == 1.0, "a head alone is kept as it was trained"


def test_it_says_why_it_does_not_end_at_the_lowest_loss_and_no_share_twice():
    path = tuple(Point(share, loss=0.3 + share / 10, accuracy=0.8) for share in (0.0, 0.4, 0.401, 1.0))
    said = str(Interpolation(0.401, path))
    assert "0.40 of the way was kept, from three quarters towards the lowest loss" in said
    assert said.endswith("0: 0.300 (80.0 %), 0.4: 0.340 (80.0 %), 1: 0.400 (80.0 %)")
    assert "1.00 of the way was kept; along it" in str(Interpolation(1.0, path))


def test_a_share_that_accuracy_chose_is_not_said_to_come_from_the_loss():
    path = tuple(Point(share, loss=0.3, accuracy=0.9 if share == 0.4 else 0.8) for share in (*BELIEFS, 0.738))
    assert "0.40 of the way was kept; along it" in str(Interpolation(0.4, path))

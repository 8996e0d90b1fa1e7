import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from bodies import dark_and_light, residual_body
from readers import text_classifier

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.adapters import attach
from keras_transfer.study import advise as module
from keras_transfer.study import folds, trials
from keras_transfer.study.advise import TRIALS_SHARE, _Study
from keras_transfer.study.candidates import candidates
from keras_transfer.study.embedding import features_of
from keras_transfer.study.evidence import Evidence, built, calibrated, frozen
from keras_transfer.study.pace import Clock, Pace
from keras_transfer.study.prospects import LEAD, body_margin, features_worth, method_margin, prospects, raised
from keras_transfer.study.rules import METHODS, leaning, rules
from keras_transfer.study.transferability import Measures, measures
from keras_transfer.study.trials import Trial, run_trial
from keras_transfer.study.whole_plans import most_epochs
from keras_transfer.training.batch_statistics import Passes, inputs_of, moving_statistics, re_estimate
from keras_transfer.training.calibration import FAR, Calibration, calibrate


def _body(seed, **options):
    keras.utils.set_random_seed(seed)
    return residual_body(**{"depth": 1} | options)


def _seeing(splits):
    return kt.image_classifier(_body(0), splits.classes, preprocessing="tf")


def _blind(splits):
    """Its features are the same for every picture, but for noise."""
    body = _body(1)
    dull = keras.Model(body.input, keras.layers.Rescaling(0.0, offset=1.0)(body.output), name="dull")
    return kt.image_classifier(dull, splits.classes, preprocessing="tf")


@pytest.fixture(scope="module")
def found():
    splits = dark_and_light(60, batch_size=8, validation=0.25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "rounds", lambda splits: 1)
        return kt.advise(splits, {"blind": _blind, "seeing": _seeing}, minutes=3.0, verbose=False)


@pytest.mark.both_backends
def test_the_better_body_is_first_and_is_recommended(found):
    assert found.order == ("seeing", "blind")
    assert found.body == "seeing"
    assert found.evidence[0].measures.accuracy == 1.0
    assert found.evidence[1].measures.accuracy <= 0.6
    assert found.examples == 60
    assert found.body_margin.is_clear
    assert found.body_margin.over.endswith("of blind")


def test_the_recommendation_runs_as_it_is_written(found):
    splits = dark_and_light(60, batch_size=8, validation=0.25)
    named = {"kt": kt, "splits": splits, "backbones": {"seeing": _seeing, "blind": _blind}}
    method = f"kt.{found.method}(model)"
    assert method in found.code
    exec(found.code.replace(method, "kt.feature_extraction(model, epochs=1)"), named)
    assert named["run"].report.accuracy > 0.9


def _ways_to_name_bodies():
    splits = dark_and_light(24)
    unnamed, others = (lambda splits: _seeing(splits)), (lambda splits: _blind(splits))
    return {
        "a function": (_seeing, "_seeing", "backbones(splits)"),
        "a model": (_seeing(splits), "residual_classifier", "backbones"),
        "functions": ([_blind, _seeing], "_seeing", "backbones[1](splits)"),
        "unnamed functions": ([others, unnamed], "body 2", "backbones[1](splits)"),
        "models": ([_seeing(splits)], "residual_classifier", "backbones[0]"),
        "by name": ({"my body": unnamed}, "my body", "backbones['my body'](splits)"),
    }


@pytest.mark.parametrize("way", _ways_to_name_bodies())
def test_the_line_to_run_next_runs_however_the_bodies_were_given(way):
    splits = dark_and_light(24)
    backbones, name, expression = _ways_to_name_bodies()[way]
    made = {candidate.name: candidate for candidate in candidates(splits, backbones, seed=0)}
    assert made[name].code == expression
    model = eval(made[name].code, {"splits": splits, "backbones": backbones})
    assert isinstance(model, keras.Model)
    assert model.output_shape == (None, 2)


def test_the_advice_on_unnamed_functions_runs():
    splits = dark_and_light(40, validation=0.25)
    backbones = [lambda splits: _seeing(splits)]
    found = kt.advise(splits, backbones, minutes=0.001, seed=np.int64(1), verbose=False)
    named = {"kt": kt, "splits": splits, "backbones": backbones}
    assert found.body == "body 1"
    exec(found.code.replace(f"kt.{found.method}(model)", "kt.feature_extraction(model, epochs=1)"), named)
    assert named["run"].report.accuracy > 0.9


def test_what_is_equal_is_said_to_be(found):
    assert {trial.body for trial in found.trials} == {"seeing"}
    assert all(trial.accuracy == 1.0 for trial in found.trials)
    assert found.method == "feature_extraction"
    assert not found.is_clear
    assert found.method_margin.difference.value == 0
    assert str(found.method_margin).startswith("no difference beyond noise, +0.0 points")


def test_the_answer_reads_well(found):
    text = str(found)
    assert max(map(len, text.splitlines())) <= 120
    for part in ("next:\n", "the flow chart says", "frozen features", "pitfalls in the data", "of 3 minutes"):
        assert part in text
    assert {rule.about for rule in found.rules} == {"data", "similarity", "body", "budget"}


def test_the_test_split_has_no_say():
    splits = dark_and_light(40, batch_size=8, validation=0.25, test=0.2)
    numbers = {split.name: set(split.digests) for split in splits.all}
    judges = []
    for number in range(folds.rounds(splits)):
        divided = folds.divided(splits, folds.division(splits, number, seed=0))
        parts = [set(split.digests) for split in divided.all]
        assert not set.union(*parts) & numbers["test"]
        assert sum(map(len, parts)) == len(splits.train) + len(splits.validation)
        assert len(set.union(*parts)) == sum(map(len, parts))
        judges.append(parts[2])
    assert set.union(*judges) == numbers["train"] | numbers["validation"]


def test_without_validation_parts_of_train_take_turns():
    splits = dark_and_light(40, batch_size=8, validation=0)
    judges = [folds.division(splits, number, seed=0).judged for number in range(folds.rounds(splits))]
    assert len(judges) == 5
    assert sorted(np.concatenate(judges).tolist()) == list(range(40))


def test_a_handful_of_examples_is_not_divided():
    assert folds.rounds(dark_and_light(12, batch_size=4, validation=0.25)) == 0


def test_of_much_data_a_part_with_every_class_is_taken():
    splits = dark_and_light(60, batch_size=8, validation=0.25)
    sample = folds.sampled(splits, 12, seed=0)
    some = sample.splits
    assert [len(split) for split in some.all] == [12, 12]
    for split, whole in zip(some.all, splits.all, strict=True):
        numbers = [sample.place((split.name, number))[1] for number in range(12)]
        assert [whole.digests[number] for number in numbers] == split.digests
    assert sample.parts == {"train": "12 of 44", "validation": "12 of 16"}
    assert min(some.train.counts.values()) >= 1
    assert set(some.train.digests) <= set(splits.train.digests)
    assert folds.sampled(splits, 60, seed=0).splits is splits


def test_of_much_data_the_part_has_the_classes_in_their_proportion():
    labels = np.repeat(["many", "few"], [90, 30])
    pictures = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), "uint8")
    splits = kt.data.images((pictures, labels), batch_size=8, validation=0, augment="none")
    assert folds.sampled(splits, 40, seed=0).splits.train.counts == {"few": 10, "many": 30}


def test_the_flow_chart_goes_by_the_whole_data_although_some_of_them_are_looked_at(monkeypatch):
    monkeypatch.setattr(module, "FEWEST_EXAMPLES", 10)
    monkeypatch.setattr(module, "FEATURES_SHARE", 0.0)
    splits = dark_and_light(80, batch_size=4, validation=0.25)
    found = kt.advise(splits, [_seeing], minutes=0.02, verbose=False)
    assert "all of train: 10 of 60 examples were used" in found.not_reached
    assert found.rules[0].found == "30 training examples a class"


def test_why_a_method_has_no_margin_is_said_as_it_is(found):
    def said(**changed):
        return dataclasses.replace(found, method_margin=None, **changed)._of_method()

    assert said(method=METHODS[0]) == "the method: its linear probe was measured; nothing else was tried on this body"
    assert "not tried" in said(method=METHODS[1], trials=())
    assert "tried on another body" in said(method=METHODS[1])


def test_only_what_was_measured_is_said_to_have_come_out_best(found):
    def headline(method, trials=found.trials):
        unclear = dataclasses.replace(found, body_margin=None, method=method, trials=trials)
        return str(unclear).split("\n  -")[0]

    assert not found.method_margin.is_clear
    assert "No difference beyond noise: staged_fine_tuning of seeing came out best." in headline(METHODS[1])
    assert "thought to do best, and was not tried" in headline(METHODS[1], trials=())
    assert "came out best" in headline(METHODS[0], trials=()), "the probe of frozen features is its measurement"


def test_a_rare_class_that_a_trial_cannot_learn_does_not_end_the_advice(monkeypatch):
    """Two examples of a class, and five parts: one trial has them both among those that it is not to learn from."""
    labels = np.repeat([0, 1, 2], [16, 16, 2])
    shades = np.random.default_rng(0).uniform(0, 60, (34, 16, 16, 3)) + 90 * labels[:, None, None, None]
    names = np.array(["dark", "light", "rare"])[labels]
    splits = kt.data.images((shades.astype("uint8"), names), batch_size=8, validation=0, test=0, augment="none")
    folded = [folds.division(splits, number, seed=0) for number in range(folds.rounds(splits))]
    without = [number for number, parts in enumerate(folded) if 2 not in splits.train.labels[parts.fitted]]
    assert without
    (candidate,) = candidates(splits, [_seeing], seed=0)
    trial = run_trial(_frozen(candidate, splits), splits, METHODS[1], without[0], epochs=1, clock=Clock(5.0), seed=0)
    assert trial.accuracy > 0.5


def test_when_the_minutes_are_over_it_says_what_was_not_reached():
    splits = dark_and_light(40, batch_size=8, validation=0.25)
    found = kt.advise(splits, {"seeing": _seeing, "blind": _blind}, minutes=0.001, verbose=False)
    assert found.order == ("seeing",)
    assert "the features of blind" in found.not_reached
    assert found.pitfalls is None
    assert not found.trials
    assert "not reached:" in str(found)


def test_bodies_are_not_built_after_the_minutes_are_over():
    splits, made = dark_and_light(40, batch_size=8, validation=0.25), []

    def body(name):
        return lambda splits: made.append(name) or _seeing(splits)

    found = kt.advise(splits, {name: body(name) for name in "abc"}, minutes=1e-6, verbose=False)
    assert made == ["a"]
    assert {"the features of b", "the features of c"} <= set(found.not_reached)


def _frozen(candidate, splits):
    return frozen(built(candidate, splits), splits, seed=0)


def test_a_trial_ends_with_the_minutes_and_a_model_of_ones_own_is_given_back():
    splits = dark_and_light(40, batch_size=8, validation=0.25)
    model = _seeing(splits)
    before, optimizer = state.values(model), model.optimizer
    (candidate,) = candidates(splits, {"mine": model}, seed=0)
    body = _frozen(candidate, splits)
    assert run_trial(body, splits, METHODS[1], 0, epochs=5, clock=Clock(0.0), seed=0) is None
    assert all(map(np.array_equal, state.values(model), before))
    assert model.optimizer is optimizer


def test_a_trial_is_judged_beside_a_probe_on_the_same_examples():
    splits = dark_and_light(40, batch_size=8, validation=0.25)
    (candidate,) = candidates(splits, {"seeing": _seeing}, seed=0)
    body, clock = _frozen(candidate, splits), Clock(5.0)
    trial = run_trial(body, splits, METHODS[1], 1, epochs=1, clock=clock, seed=0)
    judged = folds.division(splits, 1, seed=0).judged
    assert len(trial.right) == len(trial.probe_right) == len(judged) == 6
    assert trial.epochs == 1
    blind = dataclasses.replace(body, features=np.ones_like(body.features))
    assert body.probe_is_right(folds.division(splits, 1, seed=0), seed=0).mean() == 1.0
    assert blind.probe_is_right(folds.division(splits, 1, seed=0), seed=0).mean() == 0.5


@pytest.mark.parametrize(("method", "recommended"), [("staged_fine_tuning", [3, 134]), ("lora", [100])])
def test_a_trial_tries_what_is_recommended_as_far_as_the_minutes_allow(method, recommended, monkeypatch):
    """400 steps are the least of the plan that nobody has set anything of: 134 epochs of three batches."""
    splits = dark_and_light(40, batch_size=8, validation=0.25)
    texts = kt.data.texts((["good film", "bad", "not bad", "fine"] * 10, ["good", "bad"] * 20), batch_size=8)
    splits = texts if method == "lora" else splits
    (candidate,) = candidates(splits, [text_classifier(layers=1)] if method == "lora" else {"seeing": _seeing}, seed=0)
    body, given = _frozen(candidate, splits), []

    def one_epoch_of(model, data, plan, **options):
        given.append((plan, getattr(kt, method)(model).over(data.steps_per_epoch(model))))
        return kt.fit(model, data, dataclasses.replace(plan, stages=[kt.Stage("head", 1)]), **options)

    monkeypatch.setattr(trials, "fit", one_epoch_of)
    most = body.pace.most_epochs[method]
    whole = run_trial(body, splits, method, 0, epochs=most, clock=Clock(5.0), seed=0)
    short = run_trial(body, splits, method, 0, epochs=2, clock=Clock(5.0), seed=0)
    assert given[0][0] == given[0][1]
    assert [stage.epochs for stage in given[0][0]] == recommended
    assert [stage.epochs for stage in given[1][0]] == [*recommended[:-1], 2]
    assert [stage.augment for stage in given[1][0]] == [stage.augment for stage in given[1][1]]
    assert (whole.epochs, whole.whole, whole.length) == (most, most, str(most))
    assert (short.epochs, short.length) == (2, f"2 of {most}")


@pytest.fixture(scope="module")
def another_domain():
    """A body with random statistics, and pictures that differ in little."""
    splits = dark_and_light(40, batch_size=8, validation=0.25)
    (candidate,) = candidates(splits, {"seeing": _seeing}, seed=0)
    return _frozen(candidate, splits), splits


@pytest.fixture(scope="module")
def asked(another_domain):
    """The same body, when it is known how far its statistics are to be moved."""
    body, splits = another_domain
    return calibrated(body, splits, seconds=600.0, seed=0)


def test_in_another_domain_features_are_judged_as_fine_tuning_begins_with_them(another_domain, asked):
    (body, splits), found = another_domain, asked.evidence
    model = body.candidate.model()
    expected = calibrate(model, splits, seed=0)
    assert found.calibration == expected
    assert expected.distance > FAR
    assert expected.share > 0
    features = np.concatenate([features_of(model, splits, split) for split in (splits.train, splits.validation)])
    assert not np.allclose(features, body.features)
    worth = measures(features, body.labels, seed=0)
    assert found.calibrated.log_me == pytest.approx(worth.log_me, rel=1e-4)
    assert np.array_equal(found.calibrated.right, worth.right)
    assert found.beginning("staged_fine_tuning") is found.calibrated
    assert found.beginning("feature_extraction") is found.beginning("lora") is found.measures is body.evidence.measures


def test_in_its_own_domain_a_body_is_as_it_is():
    splits = dark_and_light(40, batch_size=8, validation=0.25)
    model = _seeing(splits)
    re_estimate(model, splits)
    (candidate,) = candidates(splits, {"mine": model}, seed=0)
    body = _frozen(candidate, splits)
    found = calibrated(body, splits, seconds=600.0, seed=0).evidence
    assert found.calibration.distance < FAR
    assert not found.beginning_is_unknown
    assert found.calibrated is None
    assert found.beginning("staged_fine_tuning") is found.measures


def test_a_model_of_ones_own_has_its_statistics_back():
    splits = dark_and_light(40, batch_size=8, validation=0.25)
    model = _seeing(splits)
    before = state.values(model)
    (candidate,) = candidates(splits, {"mine": model}, seed=0)
    assert calibrated(_frozen(candidate, splits), splits, seconds=600.0, seed=0).evidence.calibrated
    assert all(map(np.array_equal, state.values(model), before))


def test_what_would_take_too_long_to_ask_is_said_not_to_be_reached(another_domain):
    body, splits = another_domain
    study = _Study(Clock(1e-9), seed=0, verbose=False)
    assert study.calibrated([body], splits) == [body]
    assert study.not_reached == ["how far fine-tuning moves the statistics of seeing"]


def test_asking_is_thought_to_take_what_it_took_to_build_and_judge_once_more_and_the_passes(another_domain):
    """Asked are 30 examples: in one pass to see that it is another domain, then in eleven."""
    body, splits = another_domain
    slow = dataclasses.replace(body, evidence=dataclasses.replace(body.evidence, seconds=200.0))
    assert calibrated(slow, splits, seconds=199.0, seed=0) is slow
    slow = dataclasses.replace(slow, pace=dataclasses.replace(body.pace, forward=10.0))
    assert calibrated(slow, splits, seconds=200.0 + 1.5 * 30 * 10.0 - 1, seed=0) is slow
    found = calibrated(slow, splits, seconds=200.0 + 1.5 * 11 * 30 * 10.0 - 1, seed=0).evidence
    assert found.beginning_is_unknown
    assert found.seconds > 200.0
    assert calibrated(slow, splits, seconds=200.0 + 1.5 * 11 * 30 * 10.0 + 60, seed=0).evidence.calibrated


def test_a_head_that_no_method_begins_with_is_refused_before_anything_is_computed():
    splits = dark_and_light(40, batch_size=8)
    body = residual_body(depth=1)
    hidden = keras.layers.Dense(4, name="hidden")(keras.layers.GlobalAveragePooling2D()(body.output))
    model = keras.Model(body.input, keras.layers.Dense(2)(hidden))
    with pytest.raises(ValueError, match=r"mine cannot be advised on(.|\n)*kt.image_classifier"):
        kt.advise(splits, {"mine": model}, minutes=0.01, verbose=False)


def test_a_transformer_has_no_statistics_to_ask_about():
    texts = (["good film", "bad", "not bad", "fine"] * 10, ["good", "bad"] * 20)
    splits = kt.data.texts(texts, batch_size=8)
    (candidate,) = candidates(splits, [text_classifier(layers=1)], seed=0)
    body, study = _frozen(candidate, splits), _Study(Clock(1e-9), seed=0, verbose=False)
    assert study.calibrated([body], splits) == [body]
    assert not study.not_reached


def test_a_trial_begins_with_the_statistics_that_were_chosen(another_domain, asked, monkeypatch):
    """The share is known; the statistics are those of the examples that the trial learns from."""
    (_, splits), body, begun = another_domain, asked, []

    def one_epoch_of(model, data, plan, **options):
        begun.append((state.values_of(moving_statistics(model)), plan, data))
        return kt.fit(model, data, dataclasses.replace(plan, stages=[kt.Stage("head", 1)]), **options)

    monkeypatch.setattr(trials, "fit", one_epoch_of)
    run_trial(body, splits, METHODS[1], 0, epochs=1, clock=Clock(5.0), seed=0)
    ((statistics, plan, data),) = begun
    model = body.candidate.model()
    rows = np.arange(len(data.train))
    Passes(model).move([inputs_of(model, data, rows)], share=body.evidence.calibration.share)
    for reached, own in zip(statistics, state.values_of(moving_statistics(model)), strict=True):
        np.testing.assert_allclose(reached, own, rtol=1e-4, atol=1e-5)
    assert [stage.statistics for stage in plan] == ["kept", "kept"]


def test_what_fine_tuning_begins_with_counts_for_it_alone():
    """A body that gains in another domain before it is trained is the better one to train, and no better as it is."""
    right = [_of_200(0.70), _of_200(0.72)]
    moved = Measures(_of_200(0.77)[None, None], 0.0, 0.0, 0.0)
    evidence = [dataclasses.replace(_evidence("a", right[0]), calibrated=moved), _evidence("b", right[1])]
    ranked = {str(one): one.accuracy for one in prospects(evidence, [], {"a": FOR_IT, "b": FOR_IT})}
    assert list(ranked) == [
        "staged_fine_tuning of a",
        "staged_fine_tuning of b",
        "feature_extraction of b",
        "feature_extraction of a",
    ]
    assert ranked["staged_fine_tuning of a"] == pytest.approx(raised(0.77, LEAD))
    # Give or take what is believed of a lead on 200 examples.
    assert ranked["feature_extraction of a"] == pytest.approx(0.70, abs=0.002)
    in_question = [SimpleNamespace(evidence=row) for row in evidence]
    assert module._near(in_question)[0] is in_question[0]


def test_to_have_been_asked_in_time_is_no_merit():
    """Two bodies in another domain are equal as they are; one of them was not asked what it gains, one has no need."""
    right, moved = _of_200(0.70), Measures(_of_200(0.76)[None, None], 0.0, 0.0, 0.0)
    asked = {"calibrates": True, "calibration": Calibration(1.0, 0.3, (), 100), "calibrated": moved}
    rows = {"asked": asked, "unasked": {"calibrates": True}, "transformer": {}}
    evidence = [dataclasses.replace(_evidence(name, right), **parts) for name, parts in rows.items()]
    assert features_worth(METHODS[1], evidence) == pytest.approx([0.76, 0.76, 0.70])
    assert features_worth(METHODS[2], evidence) == pytest.approx([0.70, 0.70, 0.70])
    assert features_worth(METHODS[1], evidence[1:]) == pytest.approx([0.70, 0.70])

    def order(*rows):
        return [one.evidence.body for one in module._near([SimpleNamespace(evidence=row) for row in rows])]

    better = dataclasses.replace(_evidence("unasked", _of_200(0.71)), calibrates=True)
    assert order(evidence[0], better) == ["unasked", "asked"]
    assert order(evidence[0], dataclasses.replace(better, calibration=asked["calibration"]))[0] == "asked"


def test_a_lead_in_what_fine_tuning_begins_with_is_as_uncertain_as_these_features():
    """Frozen, two bodies are right about the same; as fine-tuning begins with them, each about others."""
    draw, moved = np.random.default_rng(0), {}
    for body, share in (("a", 0.70), ("b", 0.62)):
        moved[body] = Measures((draw.permutation(200) < share * 200)[None, None], 0.0, 0.0, 0.0)
    frozen_right = _of_200(0.5)
    evidence = [dataclasses.replace(_evidence(body, frozen_right), calibrated=worth) for body, worth in moved.items()]
    margin = body_margin(prospects(evidence, [], {"a": FOR_IT, "b": FOR_IT}), evidence).difference
    of_these = moved["a"].lead_over(moved["b"])
    assert 0.02 < margin.value < of_these.value == pytest.approx(0.08)
    assert margin.high - margin.low > of_these.high - of_these.low > 0.1


def test_of_much_data_a_trial_takes_no_more_epochs_than_the_plan_has():
    splits = dark_and_light(400, batch_size=4, validation=0.25)
    model = _seeing(splits)
    assert most_epochs("staged_fine_tuning", model, splits, seed=0) == 10
    assert most_epochs("staged_fine_tuning", model, dark_and_light(40, batch_size=8), seed=0) == 100


def test_what_was_tried_in_part_is_said(found):
    (trial,) = found.trials
    part = dataclasses.replace(trial, epochs=7, whole=80, body="seeing", method=METHODS[0])
    text = str(dataclasses.replace(found, trials=(part,)))
    assert "This is the whole plan, and takes longer: trials had 7 of 80 epochs of the body." in text
    assert "7 of 80 " in text.split("tried, on examples")[1]
    assert "takes longer" not in str(dataclasses.replace(found, trials=(dataclasses.replace(part, epochs=80),)))


def test_a_transformer_is_tried_with_lora_and_has_no_adapter_afterwards():
    texts = ["it was a very good film", "bad", "not the film", "fine"] * 8
    splits = kt.data.texts((texts, ["good", "bad", "bad", "good"] * 8), batch_size=4, validation=0.25)
    model = text_classifier(layers=1)
    (candidate,) = candidates(splits, [model], seed=0)
    body = _frozen(candidate, splits)
    assert body.evidence.methods == METHODS
    trial = run_trial(body, splits, "lora", 0, epochs=1, clock=Clock(5.0), seed=0)
    assert trial.method == "lora"
    assert len(trial.right) == len(splits.validation)
    assert not attach.names(model)


def _evidence(body, right, parameters=100, methods=METHODS[:2]):
    right = np.array(right, bool)[None, None]
    return Evidence(body, parameters, methods, Measures(right, 0.0, 0.0, 0.0), 1.0)


def _trial(body, right, probe_right, number=0, method=METHODS[1]):
    return Trial(body, method, number, 5, 5, np.array(right, bool), np.array(probe_right, bool), 1.0)


# Neither for nor against fine-tuning, and for it.
SILENT = rules(per_class=9, nearness=0.4, parameters=4e5, is_transformer=False, epochs_in_time=9)
FOR_IT = rules(per_class=80, nearness=0.4, parameters=4e5, is_transformer=False, epochs_in_time=9)


def test_a_gain_on_few_examples_is_believed_in_part():
    evidence, hard = [_evidence("a", np.arange(100) % 10 > 1)], np.arange(20) % 2 > 0
    few = [_trial("a", hard | (np.arange(20) < 4), hard)]
    many = [_trial("a", np.tile(few[0].right, 10), np.tile(hard, 10), number) for number in range(5)]
    ranked = prospects(evidence, few, {"a": FOR_IT})
    assert (ranked[0].method, ranked[0].gain.value) == (METHODS[1], pytest.approx(0.1))
    assert 0.83 < ranked[0].accuracy < 0.85
    assert prospects(evidence, many, {"a": FOR_IT})[0].accuracy == pytest.approx(0.9, abs=0.01)
    assert not method_margin(ranked, few).is_clear
    margin = method_margin(prospects(evidence, many, {"a": FOR_IT}), many)
    assert margin.is_clear
    assert margin.difference.examples == 1000


def test_a_gain_on_one_body_is_believed_of_another_in_part():
    evidence = [_evidence("a", np.arange(100) % 10 > 1), _evidence("b", np.arange(100) % 10 > 1)]
    hard = np.arange(1000) % 2 > 0
    trials = [_trial("a", hard | (np.arange(1000) < 120), hard)]
    charts = {"a": SILENT, "b": SILENT}
    found = {(one.body, one.method): one for one in prospects(evidence, trials, charts)}
    gains = [found[body, METHODS[1]].accuracy - found[body, METHODS[0]].accuracy for body in "ab"]
    assert 0.05 < gains[0] < 0.06
    assert 0.03 < gains[1] < gains[0]
    assert found["b", METHODS[1]].gain is None
    assert not found["b", METHODS[1]].was_tried


def test_what_was_not_tried_is_as_the_flow_chart_says():
    evidence = [_evidence("a", np.arange(100) % 10 > 1)]
    assert leaning(FOR_IT) == METHODS[1]
    ranked = prospects(evidence, [], {"a": FOR_IT})
    assert [(one.method, one.accuracy) for one in ranked] == [
        (METHODS[1], pytest.approx(raised(0.8, LEAD))),
        (METHODS[0], pytest.approx(0.8)),
    ]
    assert method_margin(ranked, []) is None
    few = rules(per_class=8, nearness=0.9, parameters=4e5, is_transformer=False, epochs_in_time=9)
    assert [one.method for one in prospects(evidence, [], {"a": few})] == [METHODS[0], METHODS[1]]


def test_bodies_differ_by_their_features_and_by_what_methods_gain():
    right = np.arange(200) % 10 > 1
    evidence = [_evidence("a", right), _evidence("b", right & (np.arange(200) % 10 > 2))]
    hard = np.arange(400) % 2 > 0
    trials = [_trial("a", hard, hard), _trial("b", hard | (np.arange(400) % 3 > 0), hard)]
    charts = {"a": SILENT, "b": SILENT}
    before = prospects(evidence, [], charts)
    assert before[0].body == "a"
    assert body_margin(before, evidence).difference.value == pytest.approx(0.1)
    after = prospects(evidence, trials, charts)
    assert (after[0].body, after[0].method) == ("b", METHODS[1])
    margin = body_margin(after, evidence)
    assert margin.over.endswith("of a")
    assert margin.difference.value == pytest.approx(
        after[0].accuracy - next(x.accuracy for x in after if x.body == "a")
    )
    assert margin.is_clear
    assert margin.not_tried == ()


def _of_200(share):
    return np.arange(200) < round(share * 200)


def test_a_body_that_was_tried_leads_one_that_was_not_by_what_is_expected_of_both():
    """A gain that was measured on one body is no lead over another on which nobody has looked for it."""
    evidence = [_evidence("a", _of_200(0.80)), _evidence("b", _of_200(0.79))]
    trials = [_trial("a", np.arange(100) > 5, np.arange(100) > 19)]
    ranked = prospects(evidence, trials, {"a": FOR_IT, "b": FOR_IT})
    margin = body_margin(ranked, evidence)
    second = next(one for one in ranked if one.body == "b")
    assert (ranked[0].body, margin.over) == ("a", "staged_fine_tuning of b")
    assert margin.difference.value == pytest.approx(ranked[0].accuracy - second.accuracy)
    assert not margin.is_clear
    assert "not tried: staged_fine_tuning of b" in str(margin)


def test_the_body_that_is_recommended_never_trails_the_next_one():
    """A large gain on twenty examples is believed in part: for the rank, and so for the margin."""
    evidence = [_evidence("a", _of_200(0.80)), _evidence("b", _of_200(0.70))]
    none, large = np.arange(100) > 19, np.ones(20, bool)
    trials = [_trial("a", none, none), _trial("b", large, np.arange(20) > 3)]
    ranked = prospects(evidence, trials, {"a": FOR_IT, "b": FOR_IT})
    margin = body_margin(ranked, evidence)
    assert ranked[0].body == "a"
    assert trials[1].accuracy - 0.8 == pytest.approx(0.2)
    assert margin.difference.value > 0


def test_the_more_was_tried_the_surer_the_margin():
    evidence = [_evidence("a", _of_200(0.80)), _evidence("b", _of_200(0.79))]
    plain = np.arange(1000) % 5 > 0
    tuned = {"a": plain | (np.arange(1000) < 600), "b": plain}
    widths = []
    for bodies in ("", "a", "ab"):
        trials = [_trial(body, tuned[body], plain) for body in bodies]
        difference = body_margin(prospects(evidence, trials, {"a": FOR_IT, "b": FOR_IT}), evidence).difference
        widths.append(difference.high - difference.low)
    assert widths[0] > widths[1] > widths[2]


def test_two_methods_are_compared_in_the_rounds_that_both_took_part_in():
    evidence = [_evidence("a", [True] * 80 + [False] * 20, methods=METHODS)]
    plain = np.arange(100) % 2 > 0
    trials = [
        _trial("a", plain | (np.arange(100) < 60), plain, 0, "lora"),
        _trial("a", plain | (np.arange(100) < 20), plain, 0),
        _trial("a", plain, plain, 1, "lora"),
    ]
    ranked = prospects(evidence, trials, {"a": SILENT})
    assert [one.method for one in ranked] == ["lora", METHODS[1], METHODS[0]]
    margin = method_margin(ranked, trials)
    assert (margin.over, margin.difference.examples) == (METHODS[1], 100)
    assert margin.difference.value == pytest.approx(0.2)


CHARTS = {
    "few and near": (dict(per_class=8, nearness=0.9, parameters=4e5, is_transformer=False, epochs_in_time=9), 0),
    "many and far": (dict(per_class=900, nearness=0.3, parameters=4e5, is_transformer=False, epochs_in_time=9), 1),
    "large transformer": (dict(per_class=8, nearness=0.3, parameters=3e8, is_transformer=True, epochs_in_time=9), 0),
    "no time": (dict(per_class=15, nearness=0.9, parameters=4e5, is_transformer=False, epochs_in_time=1), 0),
}


@pytest.mark.parametrize("name", CHARTS)
def test_the_flow_chart(name):
    given, expected = CHARTS[name]
    found = rules(**given)
    assert leaning(found) == METHODS[expected]
    assert all(rule.confidence in ("low", "medium") and rule.found and rule.because for rule in found)
    if given["is_transformer"]:
        assert found[2].says == "lora"


def test_the_pace_is_learnt_from_trials():
    pace = Pace(examples=100, forward=0.01, most_epochs={"staged_fine_tuning": 50, "lora": 3})
    assert pace.epoch == pytest.approx(4.0)
    thought = pace.seconds("staged_fine_tuning", 8)
    pace.learn("staged_fine_tuning", 8, took=3 * thought)
    assert pace.seconds("staged_fine_tuning", 8) == pytest.approx(3 * thought)
    assert pace.seconds("lora", 10) == pace.seconds("lora", 3)


@pytest.mark.parametrize(
    ("seconds", "epochs", "tried"), [(1000, 12, 2), (100, 8, 2), (66, 4, 2), (50, 8, 1), (20, 4, 1), (12, 0, 0)]
)
def test_what_is_in_question_fits_into_the_minutes(seconds, epochs, tried, another_domain):
    study = _Study(Clock(seconds / 60 / TRIALS_SHARE + 0.001), seed=0, verbose=False)
    body = dataclasses.replace(another_domain[0], pace=Pace(100, 0.01, {"staged_fine_tuning": 12}))
    found, count = study._in_question([body, body])
    assert (len(found), count) == (tried, epochs)
    assert len(study.not_reached) == 2 - tried
    assert all("4 epochs of seeing" in said for said in study.not_reached)


@pytest.mark.parametrize(
    ("backbones", "words"),
    [
        ([], "names no body"),
        ([3], "of no kind that is known"),
        ([_seeing, _seeing], "more than once"),
        ([lambda splits: 3], "makes no model"),
        ([lambda: 3], r"(?s)cannot be called with the splits.*takes \(\)"),
        ([keras.applications.MobileNetV2], r"(?s)without a head.*mend: *its name, 'MobileNetV2'"),
        ([_body(0)], r"(?s)for a classifier.*mend: *kt.image_classifier"),
        (["MobilNetV2"], "nearest: *'MobileNetV2'"),
        ([lambda splits: kt.image_classifier(_body(0), 3, preprocessing="tf")], "classes"),
    ],
    ids=[
        "none",
        "a number",
        "twice",
        "no model",
        "of nothing",
        "of Keras",
        "a body",
        "a misspelt name",
        "other classes",
    ],
)
def test_candidates_that_are_none_are_refused(backbones, words):
    with pytest.raises(ValueError, match=words):
        kt.advise(dark_and_light(), backbones, minutes=0.1, verbose=False)


def test_a_body_that_sees_is_refused_for_texts():
    texts = kt.data.texts((["a bad film", "a good film"], ["bad", "good"]), validation=0, batch_size=2)
    with pytest.raises(ValueError, match="'MobileNetV2' sees pictures, and these data are texts"):
        kt.advise(texts, ["MobileNetV2"], verbose=False)


@pytest.mark.parametrize("seed", ["a", -1, 1.5, True, None, 2**32], ids=str)
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match=r"`seed` is no seed(.|\n)*given: (.|\n)*expected: (.|\n)*to mend: *seed=0"):
        kt.advise(dark_and_light(), [_seeing], seed=seed, verbose=False)


@pytest.mark.parametrize(
    ("splits", "minutes", "words"),
    [
        ("pictures/", 5, "no labelled data"),
        (None, 0, "no time"),
        (None, float("nan"), "no time"),
        (None, "5", "no time"),
        (None, True, "no time"),
    ],
    ids=["a folder", "no minutes", "not a number", "a word", "yes"],
)
def test_what_is_no_data_or_no_time_is_refused(splits, minutes, words):
    splits = splits or dark_and_light()
    with pytest.raises(ValueError, match=words):
        kt.advise(splits, [_seeing], minutes=minutes, verbose=False)


def test_of_bodies_that_tie_the_larger_is_better_to_train_and_no_size_makes_up_for_a_clear_lead():
    """Probes that agree about every example leave no doubt about frozen features, and half of it about trained ones."""
    sizes = {"small": 400_000, "large": 1_600_000}
    charts = dict.fromkeys(sizes, FOR_IT)
    tie = [_evidence(body, _of_200(0.7), size) for body, size in sizes.items()]
    assert str(prospects(tie, [], charts)[0]) == "staged_fine_tuning of large"
    assert features_worth(METHODS[0], tie) == pytest.approx([0.7, 0.7], abs=5e-4)
    small, large = features_worth(METHODS[1], tie)
    assert large - small == pytest.approx(0.5 * 2 * 0.11 * _slope(140.5 / 201), rel=0.02)
    assert (large + small) / 2 == pytest.approx(0.7)
    behind = [_evidence("small", _of_200(0.86), 400_000), _evidence("large", _of_200(0.8), 400_000_000)]
    assert prospects(behind, [], charts)[0].body == "small"


def _slope(accuracy):
    """How many of accuracy one of log-odds is."""
    return accuracy * (1 - accuracy)


def test_sizes_and_training_are_worth_more_where_more_is_wrong():
    def lead_and_gain(share):
        rows = [_evidence(name, _of_200(share), size) for name, size in (("small", 1e6), ("large", 2e6))]
        small, large = features_worth(METHODS[1], rows)
        tuned = max(one.accuracy for one in prospects(rows, [], {"small": FOR_IT, "large": FOR_IT}))
        return large - small, tuned - large

    of_hard, of_easy = lead_and_gain(0.6), lead_and_gain(0.95)
    assert of_hard[0] > 4 * of_easy[0] > 0
    assert of_hard[1] > 4 * of_easy[1] > 0


def _right_apart(examples, *shares, seed=0):
    """Two bodies that are right about so many examples, each about its own."""
    draw = np.random.default_rng(seed)
    return [draw.permutation(examples) < round(share * examples) for share in shares]


def test_of_a_lead_on_few_examples_that_part_is_believed_that_is_not_noise():
    """Of two bodies: the lead that sizes say, and of what goes beyond it the share of its variance that is its own."""
    small, large = _right_apart(140, 0.74, 0.70)
    rows = [_evidence("small", small, 400_000), _evidence("large", large, 800_000)]
    slope = _slope((0.72 * 140 + 0.5) / 141)
    of_sizes, lead = -0.11 * slope, np.mean(small) - np.mean(large)
    noise = (np.sum((small * 1.0 - large - lead) ** 2) + 2) / (140 * 139)
    own = 2 * (0.21 * slope) ** 2
    believed = features_worth(METHODS[0], rows)
    assert believed[0] - believed[1] == pytest.approx(of_sizes + own / (own + noise) * (lead - of_sizes), rel=0.01)
    to_train = features_worth(METHODS[1], rows)
    assert to_train[0] - to_train[1] == pytest.approx(of_sizes + own / 2 / (own + noise) * (lead - of_sizes), rel=0.01)
    assert np.mean(believed) == pytest.approx((np.mean(small) + np.mean(large)) / 2, abs=1e-3)


def test_a_lead_on_many_examples_is_believed():
    rows = [_evidence(name, right) for name, right in zip("ab", _right_apart(100_000, 0.713, 0.71), strict=True)]
    np.testing.assert_allclose(features_worth(METHODS[0], rows), [0.713, 0.71], atol=2e-4)


def test_a_body_that_is_clearly_worse_draws_none_to_itself():
    near = [_evidence(name, right) for name, right in zip("ab", _right_apart(140, 0.74, 0.70), strict=True)]
    worse = _evidence("random", _of_200(0.3)[:140] * 0, 10**9)
    np.testing.assert_allclose(features_worth(METHODS[0], [*near, worse]), [*features_worth(METHODS[0], near), 0.0])


def test_a_body_alone_is_worth_what_its_probe_says():
    assert features_worth(METHODS[0], [_evidence("a", _of_200(0.7))]) == pytest.approx([0.7])


def test_a_body_is_not_thought_better_for_lying_on_the_other_side_of_a_bound_of_the_flow_chart():
    """On the features of the better one nearest neighbours are above the bound, so its own chart says to freeze it."""
    near, far = (
        rules(per_class=60, nearness=nearness, parameters=4e5, is_transformer=False, epochs_in_time=0)
        for nearness in (0.9, 0.4)
    )
    assert [leaning(chart) for chart in (near, far)] == [METHODS[0], METHODS[1]]
    evidence = [_evidence("better", _of_200(0.97)), _evidence("worse", _of_200(0.94))]
    ranked = prospects(evidence, [], {"better": near, "worse": far})
    by_method = {method: [one.body for one in ranked if one.method == method] for method in METHODS[:2]}
    assert by_method == {METHODS[0]: ["better", "worse"], METHODS[1]: ["better", "worse"]}
    assert ranked[0].body == "better"


def test_nothing_is_expected_to_be_right_more_often_than_always():
    perfect = [_evidence("a", _of_200(1.0)), _evidence("b", _of_200(1.0), parameters=10**9)]
    ranked = prospects(perfect, [], {"a": FOR_IT, "b": FOR_IT})
    assert max(one.accuracy for one in ranked) <= 1.0
    # Of equals the one that trains less.
    (alone, _) = prospects(perfect[:1], [], {"a": FOR_IT})
    assert str(alone) == "feature_extraction of a"
    # Of a body that is seldom wrong training is thought to mend a fifth of the errors.
    (tuned, frozen) = prospects([_evidence("a", _of_200(0.95))], [], {"a": FOR_IT})
    assert (tuned.accuracy - frozen.accuracy) / 0.05 == pytest.approx(0.2, abs=0.02)


def test_a_candidate_of_which_nothing_is_known_is_named_and_makes_no_advice_clear(found):
    alone = {"body_margin": None, "method_margin": None, "trials": ()}
    unknown = dataclasses.replace(found, unknown=("the other", "a third"), **alone)
    text = " ".join(str(unknown).split())
    assert "Nothing to compare with: " in text
    assert "Recommended" not in text
    assert "the body: of the other and a third nothing is known: the minutes were over" in text
    assert not unknown.is_clear
    assert "there was no other to compare it with" in str(dataclasses.replace(found, unknown=(), **alone))


def test_the_minutes_may_leave_a_candidate_unknown():
    study, splits = _Study(Clock(0.0), seed=0, verbose=False), dark_and_light(40)
    both = candidates(splits, {"one": _seeing, "two": _seeing}, seed=0)
    assert [model.candidate.name for model in study.built(both, splits)] == ["one"]
    assert study.unknown == ["two"]


def test_what_was_not_tried_says_what_it_rests_on(found):
    body = found.evidence[0].body
    frozen, worth = found.evidence[0], found.evidence[0].measures
    untried = {"body": body, "trials": (), "method_margin": None}
    against = rules(per_class=5, nearness=0.9, parameters=4e5, is_transformer=False, epochs_in_time=9)
    said = [
        str(dataclasses.replace(found, method=METHODS[1], rules=tuple(chart), evidence=(evidence,), **untried))
        for chart, evidence in (
            (FOR_IT, frozen),
            (against, frozen),
            (against, dataclasses.replace(frozen, measures=Measures(worth.right * 0, 9.0, 0, 0), calibrated=worth)),
        )
    ]
    text, other, moved = (" ".join(one.split()) for one in said)
    assert "the method: this is what the flow chart says; it was not tried" in text
    assert "the size of the body, and what is known of the others, speaks for it, where the flow chart says" in other
    assert "the probe after its statistics have been moved speaks for it, where the flow chart says" in moved

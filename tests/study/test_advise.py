import keras
import numpy as np
import pytest
from bodies import dark_and_light, residual_body

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.study import advice, folds
from keras_transfer.study.advice import Evidence, difference, estimates
from keras_transfer.study.rules import leaning, rules
from keras_transfer.study.transferability import Measures
from keras_transfer.study.trials import Clock, Pace, Trial, run_trial


def _body(seed, **options):
    keras.utils.set_random_seed(seed)
    return residual_body(**options)


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
    return kt.advise(splits, {"blind": _blind, "seeing": _seeing}, minutes=1.5, verbose=False)


def test_the_better_body_is_first_and_is_recommended(found):
    assert found.order == ("seeing", "blind")
    assert found.body == "seeing"
    assert found.evidence[0].measures.accuracy == 1.0
    assert found.evidence[1].measures.accuracy <= 0.6
    assert found.examples == 60


def test_the_recommendation_runs_as_it_is_written(found):
    splits = dark_and_light(60, batch_size=8, validation=0.25)
    named = {"kt": kt, "splits": splits, "backbones": {"seeing": _seeing, "blind": _blind}}
    method = f"kt.{found.method}(model)"
    assert method in found.code
    exec(found.code.replace(method, "kt.feature_extraction(model, epochs=1)"), named)
    assert named["run"].report.accuracy > 0.9


def test_what_is_equal_is_said_to_be(found):
    assert not found.is_clear
    assert str(found).startswith("No difference beyond noise: ")
    assert found.margin.low <= 0 <= found.margin.high


def test_the_answer_reads_well(found):
    text = str(found)
    assert max(map(len, text.splitlines())) <= 120
    for part in ("next:\n", "the flow chart says:", "frozen features", "pitfalls in the data", "of 1.5 minutes"):
        assert part in text
    assert {rule.about for rule in found.rules} == {"data", "similarity", "body", "budget"}


def test_the_test_split_has_no_say():
    splits = dark_and_light(40, batch_size=8, validation=0.25, test=0.2)
    numbers = {split.name: set(split.digests) for split in splits.all}
    for number in range(folds.rounds(splits)):
        divided = folds.held_out_in_turn(splits, number, seed=0)
        parts = [set(split.digests) for split in divided.all]
        assert not set.union(*parts) & numbers["test"]
        assert sum(map(len, divided.all)) == len(splits.train) + len(splits.validation)
        assert len(set.union(*parts)) == sum(map(len, parts))
    held_out = [set(folds.held_out_in_turn(splits, number, seed=0).test.digests) for number in range(6)]
    assert set.union(*held_out) == numbers["train"] | numbers["validation"]


def test_without_validation_parts_of_train_take_turns():
    splits = dark_and_light(40, batch_size=8, validation=0)
    held_out = [set(folds.held_out_in_turn(splits, number, seed=0).test.digests) for number in range(5)]
    assert folds.rounds(splits) == 5
    assert set.union(*held_out) == set(splits.train.digests)
    assert sum(map(len, held_out)) == len(splits.train)


def test_when_the_minutes_are_over_it_says_what_was_not_reached():
    splits = dark_and_light(40, batch_size=8, validation=0.25)
    found = kt.advise(splits, {"seeing": _seeing, "blind": _blind}, minutes=0.001, verbose=False)
    assert found.order == ("seeing",)
    assert "the features of blind" in found.not_reached
    assert not found.trials
    assert "not reached:" in str(found)
    assert found.method == "feature_extraction"


def test_a_trial_ends_with_the_minutes_and_a_model_of_ones_own_is_given_back():
    from keras_transfer.study.candidates import candidates

    splits = dark_and_light(40, batch_size=8, validation=0.25)
    model = _seeing(splits)
    before = state.values(model)
    (candidate,) = candidates(splits, {"mine": model})
    clock = Clock(0.0)
    trial = run_trial(candidate, splits, "staged_fine_tuning", 0, epochs=50, clock=clock, seed=0)
    assert trial.was_cut
    assert all(map(np.array_equal, state.values(model), before))


def _evidence(body, right, parameters=100):
    right = np.array(right, bool)
    return Evidence(body, body, parameters, Measures(np.zeros((len(right), 2)), right, 0.0, 0.0, 0.0), 1.0)


def _trial(body, method, right, number=0):
    return Trial(body, method, number, 5, np.array(right, bool), 1.0, False)


def test_a_method_is_judged_by_what_it_gains_on_the_same_examples():
    probe, hard = np.arange(100) % 10 > 1, np.arange(20) % 2 > 0
    evidence = [_evidence("a", probe), _evidence("b", np.arange(100) % 10 > 2)]
    trials = [
        _trial("a", "feature_extraction", hard),
        _trial("a", "staged_fine_tuning", hard | (np.arange(20) < 4)),
    ]
    ranked = estimates(evidence, trials)
    assert [(one.body, one.method) for one in ranked[:2]] == [
        ("a", "staged_fine_tuning"), ("a", "feature_extraction")
    ]  # fmt: skip
    assert ranked[0].accuracy == pytest.approx(0.8 + 2 / 20)
    gain = difference(ranked[0], ranked[1], evidence, trials)
    assert gain.value == pytest.approx(2 / 20)
    assert not gain.is_clear
    between = difference(ranked[1], ranked[2], evidence, trials)
    assert between.value == pytest.approx(0.1)
    assert between.is_clear


def test_rounds_add_up_and_make_a_difference_clear():
    evidence = [_evidence("a", [True] * 80 + [False] * 20)]
    trials = [
        _trial("a", method, np.arange(40) % 5 > worst, number)
        for number in range(3)
        for method, worst in (("feature_extraction", 1), ("staged_fine_tuning", 0))
    ]
    one = estimates(evidence, trials[:2])[0]
    three = estimates(evidence, trials)[0]
    assert one.gain.value == three.gain.value == pytest.approx(0.2)
    assert three.gain.examples == 120
    assert three.gain.low > one.gain.low > 0


CHARTS = {
    "few and near": (dict(per_class=8, nearness=0.9, parameters=4e5, is_transformer=False, epochs_in_time=9), 0),
    "many and far": (dict(per_class=900, nearness=0.3, parameters=4e5, is_transformer=False, epochs_in_time=9), 1),
    "large transformer": (dict(per_class=15, nearness=0.3, parameters=3e8, is_transformer=True, epochs_in_time=9), 0),
    "no time": (dict(per_class=15, nearness=0.9, parameters=4e5, is_transformer=False, epochs_in_time=1), 0),
}


@pytest.mark.parametrize("name", CHARTS)
def test_the_flow_chart(name):
    given, expected = CHARTS[name]
    found = rules(**given)
    assert leaning(found) == ("feature_extraction", "staged_fine_tuning", "lora")[expected]
    assert all(rule.confidence in ("low", "medium") and rule.found and rule.because for rule in found)
    if given["is_transformer"]:
        assert found[2].says == "lora"


def test_epochs_follow_from_the_time():
    pace = Pace(examples=100, forward=0.01)
    assert pace.epoch == pytest.approx(4.0)
    assert pace.epochs("staged_fine_tuning", 20 + 4 * 5.5) == 5
    assert pace.epochs("staged_fine_tuning", 1000) == 10
    assert pace.epochs("staged_fine_tuning", 20 + 4 * 1.5) == 0
    assert pace.epochs("feature_extraction", 1) == 1


@pytest.mark.parametrize(
    ("backbones", "words"),
    [
        ([], "names no body"),
        ([3], "of no kind that is known"),
        ([_seeing, _seeing], "more than once"),
        ([lambda splits: 3], "makes no model"),
    ],
    ids=["none", "a number", "twice", "no model"],
)
def test_candidates_that_are_none_are_refused(backbones, words):
    with pytest.raises(ValueError, match=words):
        kt.advise(dark_and_light(), backbones, minutes=0.1, verbose=False)


def test_estimates_without_trials_are_the_probes():
    ranked = advice.estimates([_evidence("a", [True, False]), _evidence("b", [True, True])], [])
    assert [(one.body, one.accuracy) for one in ranked] == [("b", 1.0), ("a", 0.5)]

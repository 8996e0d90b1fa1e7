"""Comparisons that are carried out: same seeds, same budget, resumed, broken off, and what is measured of each run."""

import keras
import numpy as np
import pytest
from bodies import dark_and_light, residual_body

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.study import compare as module
from keras_transfer.study.memory import watched


@pytest.fixture(scope="module")
def splits():
    return dark_and_light(48)


def build():
    return kt.image_classifier(residual_body(), ("dark", "light"), preprocessing="tf")


PLANS = {
    "head only": kt.feature_extraction,
    "fine-tuned": lambda model: kt.staged_fine_tuning(model, epochs=(3, 10), safeguard=False),
    "from scratch": kt.from_scratch,
}


def _compare(splits, plans=PLANS, **options):
    return kt.compare(build, splits, plans, **{"seeds": 2, "epochs": 2, "verbose": False} | options)


@pytest.mark.both_backends
def test_every_method_has_its_turn_with_every_seed_and_ends_as_fit_does(splits):
    comparison = _compare(splits)
    assert [(trial.seed, trial.method) for trial in comparison.trials] == [
        (seed, name) for seed in (0, 1) for name in PLANS
    ]
    assert [method.plan.epochs for method in comparison.methods] == [2, 2, 2]
    keras.utils.set_random_seed(1)
    model = build()
    plan = kt.from_scratch(model, epochs=2)
    run = kt.fit(model, splits, plan, seed=1, verbose=False)
    trial = comparison.of("from scratch")[1]
    np.testing.assert_array_equal(trial.predicted, run.probabilities.argmax(axis=1))
    assert [row["loss"] for row in trial.history] == [row["loss"] for row in run.history]
    row = comparison.rows[2]
    assert row.by_seed[1] == pytest.approx(run.report.accuracy)
    assert comparison.report("from scratch", 1).macro_f1 == pytest.approx(run.report.macro_f1)


def test_what_has_to_be_stored_is_what_differs_from_the_pretrained_weights(splits):
    plans = PLANS | {"lora": lambda model: kt.lora(model, rank=2, targets="block3_conv")}
    comparison = _compare(splits, plans, seeds=1)
    stored = {row.method.name: row.stored_bytes for row in comparison.rows}
    model = build()
    whole = sum(value.nbytes for value in state.values(model) if value.dtype == "float32")
    head = 4 * (8 * 2 + 2)
    # LoRA on a convolution of 3 x 3 and 8 channels: (9 * 8 + 8) numbers for each rank.
    assert stored == {"head only": head, "fine-tuned": stored["fine-tuned"], "from scratch": whole, "lora": head + 640}
    statistics = 4 * 2 * 8 * 4  # four batch norms, which fine-tuning leaves as they were
    assert stored["fine-tuned"] == whole - statistics
    trainable = {row.method.name: row.trainable_parameters for row in comparison.rows}
    assert trainable["head only"] == 18
    assert trainable["lora"] == 18 + 160


def test_a_comparison_that_is_finished_is_read_and_nothing_is_trained(splits, tmp_path, monkeypatch):
    first = _compare(splits, workdir=tmp_path)
    assert (tmp_path / "comparison.json").read_text() == first.to_json()
    assert (tmp_path / "from scratch" / "seed_1" / "report.json").exists()

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(keras.Model, "fit", refuse)
    again = _compare(splits, workdir=tmp_path)
    assert again.to_json() == first.to_json()


def test_a_comparison_that_was_broken_off_goes_on(splits, tmp_path, monkeypatch):
    whole = _compare(splits, seeds=1)
    fit, begun = module.fit, []

    def break_off(model, splits, plan, **options):
        begun.append(plan.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return fit(model, splits, plan, **options)

    monkeypatch.setattr(module, "fit", break_off)
    with pytest.raises(KeyboardInterrupt):
        _compare(splits, seeds=1, workdir=tmp_path)
    found = _compare(splits, seeds=1, workdir=tmp_path)
    assert begun == [
        "feature_extraction",
        "staged_fine_tuning",
        "feature_extraction",
        "staged_fine_tuning",
        "from_scratch",
    ]
    for one, other in zip(found.trials, whole.trials, strict=True):
        assert [row["loss"] for row in one.history] == [row["loss"] for row in other.history]
        np.testing.assert_array_equal(one.predicted, other.predicted)


def test_what_is_not_begun_in_time_is_left_out_and_said(splits, monkeypatch):
    comparison = _compare(splits, minutes=1e-6)
    assert [trial.is_done for trial in comparison.trials] == [True, False, False, False, False, False]
    assert "Not begun in time, and so left out: “fine-tuned” (seed 0), “from scratch” (seed 0)" in str(comparison)


def test_a_run_that_fails_is_kept_with_its_reason(splits, capsys):
    plans = {"head only": kt.feature_extraction, "explodes": lambda model: kt.from_scratch(model, learning_rate=1e30)}
    comparison = _compare(splits, plans, seeds=1, verbose=True)
    (failed,) = comparison.failed
    assert failed.method == "explodes"
    assert "NaN" in failed.problem or "not finite" in failed.problem or "infinite" in failed.problem
    assert [row.method.name for row in comparison.rows] == ["head only"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("seed 0  explodes   failed: ")


def test_an_audit_that_fails_is_kept_too(splits, monkeypatch):
    def refuse(*arguments, **options):
        raise kt.AuditError("block1 moved although it was frozen")

    monkeypatch.setattr(module, "fit", refuse)
    comparison = _compare(splits, seeds=1)
    assert {trial.problem for trial in comparison.trials} == {"failed: block1 moved although it was frozen"}


def test_a_builder_whose_model_was_trained_before_is_refused(splits):
    body = residual_body()

    def same_body():
        return kt.image_classifier(body, ("dark", "light"), preprocessing="tf")

    plans = {name: PLANS[name] for name in ("fine-tuned", "head only")}
    with pytest.raises(ValueError, match="(?s)other weights for 'head only' than for 'fine-tuned'.*set_weights"):
        kt.compare(same_body, splits, plans, seeds=1, epochs=2, verbose=False)


@pytest.mark.both_backends
def test_forgetting_is_what_the_source_head_says_before_and_after(splits):
    keras.utils.set_random_seed(5)
    teacher = build()
    run = kt.fit(teacher, splits, kt.from_scratch(teacher, epochs=4, learning_rate=1e-2), verbose=False)
    taught = teacher.get_layer("residual").get_weights()
    before = state.values(teacher)

    def from_teacher():
        model = build()
        model.get_layer("residual").set_weights(taught)
        return model

    plans = {
        "head only": kt.feature_extraction,
        "far away": lambda model: kt.Plan([kt.Stage("all", 2, learning_rate=1.0, optimizer="adam")]),
        "from scratch": kt.from_scratch,
        "lora": lambda model: kt.lora(model, rank=2, targets="block3_conv", learning_rate=0.5),
    }
    source = kt.Source(splits, teacher)
    comparison = kt.compare(from_teacher, splits, plans, seeds=1, epochs=2, source=source, verbose=False)
    assert comparison.source.accuracy == pytest.approx(run.report.accuracy)
    assert comparison.source.accuracy > 0.9
    lost = {row.method.name: row.lost for row in comparison.rows}
    assert lost["head only"] == 0
    assert lost["far away"] > 0.2
    assert lost["from scratch"] is None  # it had nothing to lose
    assert lost["lora"] is not None
    for one, other in zip(state.values(teacher), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_a_source_head_a_probe_is_fitted_before_and_after(splits):
    plans = {"head only": kt.feature_extraction}
    comparison = _compare(splits, plans, seeds=1, source=kt.Source(splits))
    assert comparison.source.judged_by == "a linear probe"
    assert comparison.source.accuracy > 0.9
    assert comparison.rows[0].lost == 0


def test_a_source_head_of_many_classes_is_asked_for_some_of_them(splits):
    wide = kt.image_classifier(residual_body(), 10, preprocessing="tf")
    head = wide.get_layer("head")
    head.bias.assign(np.eye(10)[7] * 100)  # says the seventh of everything
    source = kt.Source(splits, wide, outputs={"dark": 7, "light": 3})
    assert source.accuracy(wide) == pytest.approx(np.mean(source.split.labels == 0))
    for outputs in ({"dark": 7}, {"dark": 7, "lihgt": 3}, {"dark": 7, "light": 10}):
        with pytest.raises(ValueError, match="its place among the model's outputs"):
            kt.Source(splits, wide, outputs=outputs)


def test_another_body_than_the_sources_is_refused(splits):
    other = kt.image_classifier(residual_body(width=4), ("dark", "light"), preprocessing="tf")
    with pytest.raises(ValueError, match=r"(?s)another than.*\(3, 3, 3, 8\).*\(3, 3, 3, 4\)"):
        kt.Source(splits, other).accuracy(build())


REFUSED = {
    "no plans": ({"plans": {}}, "no methods"),
    "a plan itself": ({"plans": {"head": kt.Plan([kt.Stage("head", 1)])}}, "no methods"),
    "no plan": ({"plans": {"head": lambda model: None}}, "'head' makes no plan"),
    "no seeds": ({"seeds": 0}, "`seeds`"),
    "a seed twice": ({"seeds": [1, 1]}, "`seeds`"),
    "no epochs": ({"epochs": 0}, "`epochs`"),
    "fewer epochs than stages": ({"epochs": 1}, "more stages than there are epochs"),
    "no minutes": ({"minutes": 0}, "`minutes`"),
    "an argument of nothing": ({"class_wieght": "balanced"}, r"(?s)no such argument.*nearest:\s+class_weight"),
    "an argument of each run's own": ({"seed": 3}, r"(?s)no such argument.*nearest:\s+seeds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_mean_nothing_are_refused_before_anything_is_trained(case, splits, monkeypatch):
    monkeypatch.setattr(module, "fit", None)
    options, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        _compare(splits, **options)


def test_two_names_of_one_folder_are_refused(splits, tmp_path):
    plans = {"a/b": kt.feature_extraction, "a:b": kt.feature_extraction}
    with pytest.raises(ValueError, match="one folder"):
        _compare(splits, plans, workdir=tmp_path)


def test_memory_is_what_the_work_added_and_not_what_came_before():
    before = np.ones(25_000_000)  # 200 MB
    with watched() as memory:
        held = np.ones(10_000_000)
        memory.look()
    if memory.added is None:
        pytest.skip("NOT TESTED: this system does not say what a process holds")
    assert 75e6 < memory.added < 150e6
    assert len(before) > len(held)

import csv
import functools
import json
import re
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, pictures, residual_body

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.plans.fates import fates
from keras_transfer.training import compilation
from keras_transfer.training.linear_probe import linear_head

both_backends = pytest.mark.both_backends


def _fit(model, plan, **options):
    return kt.fit(model, dark_and_light(), plan, verbose=False, **options)


def _small():
    """A classifier of one block, where it is no matter how many there are."""
    return classifier(depth=1)


def _by_layer(model, prefix):
    return {
        identity.path: value
        for identity, value in zip(state.identities(model), state.values(model), strict=True)
        if identity.path.startswith(prefix)
    }


def test_a_stage_that_augments_more_strongly_makes_strong_of_light_and_nothing_else():
    @functools.cache
    def trained(augment, of_the_data):
        keras.utils.set_random_seed(0)
        model = _small()
        data = dark_and_light(16, augment=of_the_data, validation=0)
        kt.fit(model, data, kt.Plan([kt.Stage("all", 1, augment=augment)]), verbose=False)
        return state.values(model)

    own = kt.data.Augmentation(brightness=0.1)
    for given, same_as in (("light", "strong"), ("none", "none"), ("strong", "strong"), (own, own)):
        pairs = zip(trained("stronger", given), trained("as given", same_as), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs), given
    assert not np.array_equal(trained("as given", "strong")[0], trained("as given", "none")[0])


def test_a_stage_goes_on_until_it_has_its_least_steps():
    data = dark_and_light()
    steps = data.steps_per_epoch()
    model = _small()
    plan = kt.Plan([kt.Stage("head", 1), kt.Stage("all", 2, least_steps=3 * steps + 1)])
    run = kt.fit(model, data, plan, verbose=False)
    assert [row["stage"] for row in run.history] == ["head"] + ["all"] * 4
    assert [stage.epochs for stage in run.plan] == [1, 4]
    assert [stage.steps for stage in run.report.cost.stages] == [steps, 4 * steps]


@both_backends
def test_only_the_head_moves_in_feature_extraction():
    model = classifier()
    before = state.values(model)
    run = _fit(model, kt.feature_extraction(model, epochs=2))
    moved = [
        identity.path
        for identity, old, new in zip(state.identities(model), before, state.values(model), strict=True)
        if not np.array_equal(old, new) and "seed" not in identity.path
    ]
    assert moved == ["head/kernel", "head/bias"]
    assert [row.weights > 0 for row in run.audits[0].moved] == [False] * (len(run.audits[0].moved) - 1) + [True]


@both_backends
def test_blocks_below_the_first_awake_one_keep_every_bit_statistics_too():
    model = classifier()
    before = _by_layer(model, ("stem", "block1", "block2"))
    _fit(model, kt.Plan([kt.Stage(["block3"], 2, batch_norm="adapt")]))
    after = _by_layer(model, ("stem", "block1", "block2"))
    assert len(before) == 18
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)


@both_backends
def test_adapting_batch_norms_follow_the_data_in_awake_blocks_alone():
    model = classifier()
    run = _fit(model, kt.Plan([kt.Stage(["block3"], 1, batch_norm="adapt")]))
    statistics = {row.block: row.statistics for row in run.audits[0].moved}
    assert statistics["block3"] > 0.001
    assert statistics["block1"] == statistics["block2"] == 0


@both_backends
def test_frozen_batch_norms_keep_their_statistics_in_awake_blocks():
    model = classifier()
    run = _fit(model, kt.Plan([kt.Stage("all", 1)]))
    assert {row.statistics for row in run.audits[0].moved} == {0.0, None}
    assert all(row.weights > 0 for row in run.audits[0].moved)


@both_backends
def test_scale_and_offset_of_batch_norms_train_where_statistics_do_not():
    model = classifier()
    before = {path: value for block in ("block1", "block3") for path, value in _by_layer(model, (block,)).items()}
    run = _fit(model, kt.Plan([kt.Stage(["block3"], 1, batch_norm="affine")]))
    after = _by_layer(model, ("block1", "block3"))
    moved = [path.split("/")[-2:] for path, value in before.items() if not np.array_equal(value, after[path])]
    assert ["block3_bn", "gamma"] in moved
    assert ["block3_bn", "beta"] in moved
    assert {layer for layer, _ in moved} == {"block3_conv", "block3_bn"}
    assert {row.statistics for row in run.audits[0].moved} == {0.0, None}


@both_backends
def test_a_step_is_no_longer_than_its_clipped_gradient():
    model = classifier()
    stage = kt.Stage("all", 1, optimizer="sgd", learning_rate=0.5, clip_norm=0.01, schedule="constant", warmup=0.0)
    before = state.values(model)
    kt.fit(model, dark_and_light(24, batch_size=24, validation=0), kt.Plan([stage]), verbose=False)
    apart = [
        np.sum((new - old) ** 2)
        for identity, old, new in zip(state.identities(model), before, state.values(model), strict=True)
        if "seed" not in identity.path
    ]
    assert np.sqrt(np.sum(apart)) == pytest.approx(0.5 * 0.01, rel=1e-3)


@both_backends
def test_dropout_below_the_first_awake_block_does_not_fire_and_above_it_does():
    model = classifier(dropout=0.0)
    _fit(model, kt.Plan([kt.Stage(["block3"], 1)]))
    body = model.get_layer("residual")
    below = keras.Model(body.input, body.get_layer("block2_add").output)
    x = pictures()
    np.testing.assert_array_equal(below(x, training=True), below(x, training=False))
    assert np.abs(np.asarray(model(x, training=True)) - np.asarray(model(x, training=False))).max() > 1e-4


def _staged(seed, **options):
    keras.utils.set_random_seed(0)
    model = _small()
    return _fit(model, kt.staged_fine_tuning(model, epochs=(1, 2), calibrate=False), seed=seed, **options), model


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A run of two stages in a workdir, which several tests look at."""

    class Watch(keras.callbacks.Callback):
        epochs = ()

        def on_epoch_begin(self, epoch, logs=None):
            self.epochs = (*self.epochs, epoch)

    workdir, watch = tmp_path_factory.mktemp("staged") / "run", Watch()
    run, model = _staged(seed=1, workdir=workdir, callbacks=[watch])
    return types.SimpleNamespace(run=run, model=model, workdir=workdir, epochs=watch.epochs, ends=state.values(model))


@both_backends
def test_one_seed_gives_the_same_weights_twice_and_another_seed_others(staged):
    again, others = (state.values(_staged(seed)[1]) for seed in (1, 2))
    for first, second in zip(staged.ends, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(staged.ends[0], others[0])


@both_backends
def test_lower_blocks_move_less_under_layer_decay():
    model = classifier()
    run = _fit(model, kt.Plan([kt.Stage("all", 2, layer_decay=0.1, optimizer="sgd", learning_rate=0.01)]))
    moved = {row.block: row.weights for row in run.audits[0].moved}
    assert moved["block3"] > 5 * moved["block2"] > 25 * moved["block1"]


@both_backends
def test_a_stage_sees_the_epochs_that_come_after_those_of_the_stage_before(staged):
    assert staged.epochs == (0, 1, 2)
    assert [(row["stage"], row["epoch"]) for row in staged.run.history] == [("head", 1), ("all", 2), ("all", 3)]


@both_backends
def test_the_rate_climbs_and_falls_as_the_stage_says():
    model = _small()
    run = _fit(model, kt.Plan([kt.Stage("head", 4, learning_rate=0.1, schedule="linear", warmup=0.5)]))
    rates = [row["learning_rate"] for row in run.history]
    np.testing.assert_allclose(rates, [0.05, 0.1, 0.05, 0.0], atol=1e-6)


@both_backends
def test_from_scratch_draws_every_weight_anew_by_the_seed():
    ends = []
    for _ in range(2):
        model = _small()  # other random weights each time
        _fit(model, kt.from_scratch(model, epochs=1), seed=5)
        ends.append(state.values(model))
    for first, again in zip(*ends, strict=True):
        np.testing.assert_array_equal(first, again)


def test_statistics_keep_up_with_a_short_training_from_scratch():
    """With the momentum of their layers, which suits a million steps, they would be random still."""
    model = classifier()
    body = model.get_layer("residual")
    norms = [layer for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.999
    run = _fit(model, kt.from_scratch(model, epochs=10))
    assert run.report.accuracy == 1.0
    assert {norm.momentum for norm in norms} == {0.999}


@both_backends
def test_training_learns():
    model = _small()
    run = _fit(model, kt.Plan([kt.Stage("head", 15, learning_rate=0.1)]))
    assert run.report.split == "validation"
    assert run.report.accuracy == 1.0
    assert run.history[-1]["loss"] < 0.5 * run.history[0]["loss"]


class _Meddler(keras.callbacks.Callback):
    """Assigns a frozen weight in the middle of training."""

    def on_train_end(self, logs=None):
        kernel = self.model.get_layer("residual").get_layer("stem_conv").kernel
        kernel.assign(kernel + 1e-6)


@both_backends
def test_the_audit_catches_a_frozen_weight_that_moved():
    model = _small()
    with pytest.raises(kt.AuditError, match="stem_conv/kernel"):
        _fit(model, kt.feature_extraction(model, epochs=1), callbacks=[_Meddler()])


class _Undo(keras.callbacks.Callback):
    """Puts one block back to where it started."""

    def on_train_begin(self, logs=None):
        self.before = self.model.get_layer("residual").get_layer("block1_conv").get_weights()

    def on_train_end(self, logs=None):
        self.model.get_layer("residual").get_layer("block1_conv").set_weights(self.before)


@both_backends
def test_the_audit_catches_a_block_that_did_not_move():
    model = _small()
    with pytest.raises(kt.AuditError, match="did not move"):
        _fit(model, kt.Plan([kt.Stage("all", 1)]), callbacks=[_Undo()])


@both_backends
def test_a_loss_that_is_no_number_stops_and_gives_the_last_good_weights_back():
    model = _small()
    before = state.values(model)
    plan = kt.Plan([kt.Stage("all", 2, "wild", learning_rate=1e30, optimizer="sgd", warmup=0.0, schedule="constant")])
    with pytest.raises(kt.NonFiniteLossError, match="stage 'wild'") as error:
        _fit(model, plan)
    assert "epoch 1, step" in str(error.value)
    assert "learning rate 1e+30" in str(error.value)
    assert "a lower learning_rate than 1e+30" in str(error.value)
    for identity, old, new in zip(state.identities(model), before, state.values(model), strict=True):
        if "seed" not in identity.path:
            np.testing.assert_array_equal(old, new, err_msg=identity.path)


@both_backends
def test_early_stopping_goes_back_to_the_best_weights():
    kept = {}

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept[epoch] = self.model.get_weights()

    model = classifier()
    # A rate that overshoots: validation loss is best early and grows from there.
    plan = kt.Plan([kt.Stage("head", 30, learning_rate=30.0, schedule="constant", warmup=0.0, patience=3)])
    run = _fit(model, plan, callbacks=[Keep()])
    best = int(np.argmin([row["val_loss"] for row in run.history]))
    assert len(run.history) == best + 1 + 3
    for ours, theirs in zip(model.get_weights(), kept[best], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_class_weights_change_what_is_learned_and_balanced_ones_are_those_written_out():
    splits = dark_and_light(validation=0.2)
    counts = splits.train.counts
    explicit = {name: len(splits.train) / (2 * count) for name, count in counts.items()}
    ends = []
    for weights in ("balanced", explicit, {"dark": 10.0, "light": 0.1}):
        keras.utils.set_random_seed(0)
        model = _small()
        kt.fit(model, splits, kt.feature_extraction(model, epochs=1), class_weight=weights, verbose=False)
        ends.append(model.get_layer("head").get_weights())
    balanced, same, others = ends
    np.testing.assert_array_equal(balanced[0], same[0])
    assert not np.allclose(balanced[1], others[1])


@both_backends
def test_half_precision_trains_and_leaves_the_model_as_it_was():
    model = _small()
    policies = [layer.dtype_policy.name for layer in state.sublayers(model)]
    dtypes = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            body = self.model.get_layer("residual")
            dtypes.extend([body.get_layer("block1_conv").compute_dtype, self.model.get_layer("head").compute_dtype])

    run = _fit(model, kt.Plan([kt.Stage("all", 1)]), precision="mixed_bfloat16", callbacks=[Watch()])
    assert dtypes == ["bfloat16", "float32"]
    assert policies == [layer.dtype_policy.name for layer in state.sublayers(model)]
    assert all(row.weights > 0 for row in run.audits[0].moved)


@both_backends
def test_float16_trains_with_a_scaled_loss():
    model = _small()
    run = _fit(model, kt.Plan([kt.Stage("all", 2)]), precision="mixed_float16")
    assert np.isfinite(run.history[-1]["loss"])


def test_the_workdir_holds_what_happened(staged):
    run, folder = staged.run, staged.workdir
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["stage"] for row in rows] == ["head", "all", "all"]
    assert float(rows[0]["loss"]) == run.history[0]["loss"]
    facts = json.loads((folder / "run.json").read_text())
    assert kt.Plan.from_dict(facts["plan"]) == run.plan
    assert facts["data"] == dark_and_light().fingerprint
    assert len(json.loads((folder / "audit.json").read_text())) == 2
    assert list((folder / "tensorboard").rglob("events*"))
    loaded = keras.saving.load_model(folder / "model.keras")
    np.testing.assert_allclose(loaded(pictures()), staged.model(pictures()), rtol=1e-6)
    assert not list(folder.glob(".*"))


def test_what_was_trained_loads_without_this_package(staged, tmp_path):
    np.save(tmp_path / "pictures.npy", pictures())
    staged.model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras, numpy; sys.modules['keras_transfer'] = None;"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r});"
        f"numpy.save({str(tmp_path / 'logits.npy')!r}, model.predict(numpy.load({str(tmp_path / 'pictures.npy')!r})))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    logits = staged.model.predict(pictures(), verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits, rtol=1e-5)


def test_the_pictures_of_a_run_are_drawn(staged, tmp_path):
    paths = staged.run.plot(tmp_path)
    assert [path.name for path in paths] == ["learning_curves.png", "confusion.png", "most_wrong.png"]
    assert all(path.stat().st_size > 5000 for path in paths)


@both_backends
def test_a_model_that_gives_probabilities_is_trained_and_left_with_a_loss_that_knows_it():
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="low")(pixels))
    model = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(keras.layers.Rescaling(1 / 255)(x)))
    run = _fit(model, kt.Plan([kt.Stage("head", 20, learning_rate=0.3)]))
    assert run.report.accuracy == 1.0
    assert model.loss.get_config()["from_logits"] is False


def test_classes_that_disagree_with_the_data_are_refused():
    model = classifier(("a", "b", "c"))
    with pytest.raises(ValueError, match="given:     3 outputs\n  expected:  2: dark, light"):
        _fit(model, kt.feature_extraction(model))


def test_classes_in_another_order_are_refused():
    model = classifier(("light", "dark"))
    with pytest.raises(ValueError, match="in another order"):
        _fit(model, kt.feature_extraction(model))


def test_a_plan_made_for_another_model_is_refused_before_anything_trains():
    model = classifier()
    before = state.values(model)
    with pytest.raises(ValueError, match="nearest: +'?block3"):
        _fit(model, kt.Plan([kt.Stage("head", 1), kt.Stage("blok3", 1)]))
    np.testing.assert_array_equal(before[0], state.values(model)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weight": "balance"}, "'balanced', or a mapping"),
        ({"class_weight": {"dark": 1, "ligth": 2}}, "nearest:   light"),
        ({"class_weight": {0: 1, 1: 2}}, "classes by their names, not by their numbers"),
        ({"class_weight": [1, 2]}, r"mend:   \{'dark': 1.0, 'light': 1.0, …\}"),
        ({"class_weight": {"dark": -5, "light": 1}}, "finite numbers from 0 up"),
        ({"class_weight": {"dark": float("nan"), "light": 1}}, "finite numbers from 0 up"),
        ({"class_weight": {"dark": 0, "light": 0}}, "not all of them 0"),
        ({"seed": None}, "`seed` is no seed"),
        ({"seed": -1}, "`seed` is no seed"),
        ({"precision": "float16"}, "nearest:   'mixed_float16'|nearest:   mixed_float16"),
        ({"jit_compile": "always"}, "`jit_compile` of fit is out of place"),
        ({"precision": "float16"}, "nearest:   mixed_float16"),
    ],
)
def test_a_misspelt_argument_is_refused(options, message):
    model = _small()
    with pytest.raises(ValueError, match=message):
        _fit(model, kt.feature_extraction(model, epochs=1), **options)


def test_stopping_early_needs_a_validation_split():
    generator = np.random.default_rng(0)
    halves = {
        name: (generator.integers(0, 255, (8, 16, 16, 3), "uint8"), ["dark", "light"] * 4) for name in ("train", "test")
    }
    splits = kt.data.images(halves, validation=0.0, batch_size=4)
    model = _small()
    with pytest.raises(ValueError, match="nothing to tell it when"):
        kt.fit(model, splits, kt.Plan([kt.Stage("head", 1, patience=1)]), verbose=False)


def test_a_head_that_takes_no_probe_is_refused_before_anything_trains():
    source = classifier()
    model = keras.Model(source.input, keras.layers.Dense(2, use_bias=False)(source.get_layer("head").input))
    plan = kt.Plan([kt.Stage("top:1", 1), kt.Stage("head", 1, start="probe")])
    before = state.values(model)
    with pytest.raises(ValueError, match="the head is not linear"):
        kt.fit(model, dark_and_light(), plan)
    assert all(np.array_equal(one, other) for one, other in zip(before, state.values(model), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda model, splits, plan: (model, plan, splits), "(?s)`splits`.*Plan"),
        (lambda model, splits, plan: (model, splits.train, plan), "(?s)`splits`.*whole"),
        (lambda model, splits, plan: (model, splits, plan.stages[0]), r"(?s)`plan`.*kt.Plan\(\[stage\]\)"),
    ],
    ids=["swapped", "one split", "one stage"],
)
def test_an_argument_of_another_kind_is_refused(arguments, message):
    model = _small()
    with pytest.raises(ValueError, match=message):
        kt.fit(*arguments(model, dark_and_light(), kt.feature_extraction(model)))


def test_one_callback_without_a_list_is_refused():
    model = _small()
    with pytest.raises(ValueError, match=r"\[callback\]"):
        kt.fit(model, dark_and_light(), kt.feature_extraction(model), callbacks=keras.callbacks.TerminateOnNaN())


def test_no_norm_decays_whatever_its_scale_is_called():
    inputs = keras.Input((4,))
    normed = LlamaNorm(name="norm")(keras.layers.Dense(3, name="dense")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(normed))
    stage = kt.Stage("all", 1, weight_decay=0.1)
    optimizer = compilation.optimizer(stage, fates(model, stage), steps=10)
    optimizer.build(model.trainable_variables)
    decays = {variable.path: optimizer.optimizer._use_weight_decay(variable) for variable in model.trainable_variables}
    assert decays["norm/scale"] is False
    assert [path for path, does in decays.items() if does] == ["dense/kernel", "head/kernel"]


class LlamaNorm(keras.layers.Layer):
    """Its one weight has the name that it has in KerasHub's Llama, Gemma, Mistral and Qwen."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale


def test_what_is_wrong_with_a_line_is_said_before_the_workdir_is_anybodys(tmp_path):
    """The line that was mended is then no other run."""
    for wrong in ({"precision": "float16"}, {"seed": -1}, {"jit_compile": "yes"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            _fit(_small(), kt.Plan([kt.Stage("head", 1)]), workdir=tmp_path / "run", **wrong)
        assert not (tmp_path / "run").exists()


def test_a_stage_that_can_keep_nothing_goes_without_where_another_keeps_its_features(capsys):
    model = _small()
    plan = kt.Plan([kt.Stage("head", 2, start="probe"), kt.Stage("all", 1)])
    run = kt.fit(model, dark_and_light(), plan, cache="memory")
    assert [stage.epochs for stage in run.report.cost.stages] == [2, 1]
    assert "features: not kept, nothing that takes work lies below what trains" in capsys.readouterr().out


def test_statistics_that_cannot_be_calibrated_are_refused_before_anything_is_trained():
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(pixels))
    x = keras.layers.Dense(4, "relu", name="hidden")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(pixels, keras.layers.Dense(2, name="scores")(keras.layers.Lambda(lambda x: x * x)(x)))
    before = state.values(model)
    plan = kt.Plan([kt.Stage("head", 1), kt.Stage("all", 1, statistics="calibrated")])
    try:
        linear_head(model)
    except ValueError as reason:
        said = str(reason).splitlines()[0]
        with pytest.raises(ValueError, match=re.escape(said)):
            _fit(model, plan)
    else:
        pytest.fail("this head was to be none that is linear")
    for value, old in zip(state.values(model), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_what_moved_from_zero_is_said_so_and_written_as_json(tmp_path):
    model = kt.image_classifier(residual_body(), ("dark", "light"), preprocessing="tf")
    run = _fit(model, kt.Plan([kt.Stage("head", 1)]), workdir=tmp_path)
    assert run.audits[0].moved[-1].weights is None
    assert "from 0" in str(run.audits[0])

    def refused(name):
        raise AssertionError(name)

    assert json.loads((tmp_path / "audit.json").read_text(), parse_constant=refused)


def test_a_stage_of_one_step_learns_whatever_its_warm_up_is():
    data = dark_and_light(8, batch_size=8, validation=0)
    model = _small()
    kt.fit(model, data, kt.Plan([kt.Stage("head", 1, warmup=0.9)]), verbose=False)


@pytest.mark.parametrize("kind", ["without an input", "a subclass"])
def test_a_model_without_a_graph_is_refused_by_that_name(kind):
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    model = keras.Sequential([keras.layers.Dense(2)]) if kind == "without an input" else Own()
    with pytest.raises(ValueError, match=r"(?s)no graph that could be read.*keras.Model\(inputs, outputs\)"):
        _fit(model, kt.Plan([kt.Stage("all", 1)]))

"""The range test: what it tries, what it says, and that nothing is left of it."""

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light, pictures
from figures import words
from vocabularies import word_pieces

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.backbones.freezing import batch_norms
from keras_transfer.study import learning_rate
from keras_transfer.study.learning_rate import Rise
from keras_transfer.study.put_back import as_it_was
from keras_transfer.study.smoothing import smooth, width
from keras_transfer.training.calibration import calibrate

both_backends = pytest.mark.both_backends


def _texts():
    import keras_hub

    tokenizer = word_pieces()
    body = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(), num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16, dropout=0.3,
        max_sequence_length=24,
    )  # fmt: skip
    reader = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=24)
    words = np.array(["good", "bad", "film", "the", "was", "very"])
    generator = np.random.default_rng(0)
    texts = [" ".join(words[generator.integers(0, 6, length)]) for length in generator.integers(2, 20, 40)]
    labels = ["good" if "good" in text else "bad" for text in texts]
    data = kt.data.texts((texts, labels), batch_size=8, buckets=(12, 24))
    return kt.text_classifier(body, data.classes, preprocessor=reader, dropout=0.4), data


def _pictures(dropout=0.3):
    """A stem and one block under a head that is not at zero; 32 pictures to train on, and no smaller batch."""
    return classifier(depth=1, dropout=dropout), dark_and_light(40)


def _find(model, data, **options):
    return kt.find_learning_rate(model, data, **{"steps": 12, "verbose": False, **options})


def test_a_sharpness_aware_stage_is_tried_by_its_own_steps():
    losses = []
    for sam in (0.0, 5.0):
        keras.utils.set_random_seed(0)
        losses.append(_find(*_pictures(0.0), plan=kt.Plan([kt.Stage("all", 2, sam=sam)]), steps=10).losses)
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)  # both are of the weights that the model has
    assert losses[0][-1] != pytest.approx(losses[1][-1], rel=1e-3)


@pytest.mark.parametrize(
    "make", [pytest.param(_pictures, id="pictures", marks=both_backends), pytest.param(_texts, id="texts")]
)
def test_training_goes_on_as_if_nothing_had_been_tried(make):
    """Weights, seeds, flags, optimizer and predictions; then a `fit` with dropout, from the same generators."""
    found = []
    for tries in (False, True):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        model, data = make()
        flags = [variable.trainable for _, variable in state.walk(model)]
        optimizer, steps = model.optimizer, model.train_function
        if tries:
            rates = _find(model, data, seed=3)
            assert len(set(rates.losses)) > 6
        assert [variable.trainable for _, variable in state.walk(model)] == flags
        assert model.optimizer is optimizer
        assert model.train_function is steps
        values = state.values(model)
        run = kt.fit(model, data, kt.Plan([kt.Stage("head", 2, learning_rate=0.01)]), verbose=False)
        found.append([*values, *state.values(model), run.probabilities])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@both_backends
def test_an_error_in_the_middle_leaves_nothing_behind(monkeypatch):
    model, data = _pictures()
    before, optimizer = state.values(model), model.optimizer
    predicted = model.predict(pictures(), verbose=0)

    def broken(self, epoch, logs=None):
        if epoch == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(learning_rate._UntilDiverged, "on_epoch_end", broken)
    with pytest.raises(KeyboardInterrupt):
        _find(model, data)
    for value, old in zip(state.values(model), before, strict=True):
        np.testing.assert_array_equal(value, old)
    assert model.optimizer is optimizer
    np.testing.assert_array_equal(model.predict(pictures(), verbose=0), predicted)


def test_the_losses_are_those_of_gradient_descent_at_rising_rates():
    """A head alone, without dropout, by plain gradient descent with momentum: NumPy does the same."""
    model, data = _pictures(dropout=0.0)
    stage = kt.Stage("head", 1, optimizer="sgd")
    found = _find(model, data, stage=stage, lowest=1e-3, highest=0.3)
    features = keras.Model(model.input, model.get_layer("pool").output)
    weights = [np.array(v.numpy(), "float64") for v in model.get_layer("head").trainable_variables]
    speeds = [np.zeros_like(w) for w in weights]
    batches = iter(data.training_batches(model, seed=0))
    for rate, loss in zip(np.geomspace(1e-3, 0.3, 12), found.losses, strict=True):
        x, y = next(batches)
        x, y = features.predict(np.asarray(x), verbose=0).astype("float64"), np.asarray(y)
        logits = x @ weights[0] + weights[1]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        assert loss == pytest.approx(-np.mean(np.log(odds[np.arange(len(y)), y])), rel=1e-4)
        error = (odds - np.eye(2)[y]) / len(y)
        for index, gradient in enumerate((x.T @ error, error.sum(axis=0))):
            speeds[index] = 0.9 * speeds[index] - rate * gradient
            weights[index] = weights[index] + speeds[index]


def test_kept_features_come_to_the_same_losses():
    model, data = _pictures()
    found = [_find(model, data, stage=kt.Stage("top:1", 1), cache=cache, highest=1e-2) for cache in ("memory", "off")]
    np.testing.assert_allclose(found[0].losses, found[1].losses, rtol=1e-3)


def test_by_default_it_is_the_last_stage_of_staged_fine_tuning_from_a_probe(monkeypatch):
    model, data = _pictures()
    seen = []
    whole = learning_rate.prepare
    monkeypatch.setattr(
        learning_rate, "prepare", lambda m, stage, *a, **o: seen.append(stage) or whole(m, stage, *a, **o)
    )
    assert _find(model, data).stage == "all"
    plan = kt.Plan([kt.Stage("head", 1), kt.Stage("top:1", 1, ema=0.9), kt.Stage("all", 1)])
    assert _find(model, data, plan=plan, stage="top:1").stage == "top:1"
    assert [(stage.train, stage.start, stage.ema) for stage in seen] == [
        ("all", "probe", None),
        ("top:1", "pretrained", None),
    ]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param({"start": "probe", "statistics": "calibrated"}, {}, id="before the default's last stage"),
        pytest.param({"statistics": "calibrated"}, {"adapters": kt.LoRA(rank=2, targets="block1_conv")}, id="adapters"),
    ],
)
def test_statistics_are_calibrated_where_an_earlier_stage_does(earlier, later, monkeypatch):
    """Random weights normalise by the statistics of nothing, so that any data are another domain to them."""
    model, data = _pictures()
    own = state.values_of([layer.moving_variance for layer in batch_norms(model)])
    with as_it_was(model):
        calibrate(model, data, seed=3)
        expected = state.values_of([layer.moving_variance for layer in batch_norms(model)])
    assert not np.allclose(expected[0], own[0])
    seen = []
    whole = learning_rate.compilation.optimizer

    def look(*args, **options):
        seen.append(state.values_of([layer.moving_variance for layer in batch_norms(model)]))
        return whole(*args, **options)

    monkeypatch.setattr(learning_rate.compilation, "optimizer", look)
    plan = kt.Plan([kt.Stage("head", 1, **earlier), kt.Stage("all" if not later else "head", 1, name="next", **later)])
    _find(model, data, plan=plan, seed=3)
    for found, value in zip(seen[0], expected, strict=True):
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize(
    ("starts", "begins", "is_drawn"),
    [
        (("probe", "pretrained"), "probe", False),
        (("random", "pretrained"), "pretrained", True),
        (("random", "probe", "pretrained"), "probe", True),
        (("probe", "random", "pretrained"), "pretrained", True),
        (("probe", "random"), "random", True),
    ],
)
def test_a_stage_begins_with_what_its_plan_has_made_of_the_weights(starts, begins, is_drawn, monkeypatch):
    model, data = _pictures()
    body = model.get_layer("residual").get_layer("block1_conv").kernel
    own, seen = np.asarray(body), []
    whole = learning_rate.prepare

    def look(of, stage, *args, **options):
        found = whole(of, stage, *args, **options)
        seen.append((stage.start, not np.array_equal(np.asarray(body), own)))
        return found

    monkeypatch.setattr(learning_rate, "prepare", look)
    plan = kt.Plan([kt.Stage("all", 1, name=str(number), start=start) for number, start in enumerate(starts)])
    _find(model, data, plan=plan, seed=3)
    assert seen == [(begins, is_drawn)]


@both_backends
def test_adapters_are_tried_and_taken_off_again():
    model, data = _pictures()
    classes = [type(layer) for layer in state.sublayers(model)]
    found = _find(model, data, plan=kt.lora(model, rank=2, targets="block1_conv"), highest=10.0, lowest=1e-3)
    assert found.stage == "lora head"
    assert [type(layer) for layer in state.sublayers(model)] == classes


@both_backends
def test_it_ends_where_the_loss_diverges():
    model, data = _pictures()
    found = _find(model, data, stage=kt.Stage("all", 1, optimizer="sgd"), steps=40, lowest=1e-4, highest=1e6)
    assert found.diverged
    assert len(found.losses) < 40
    assert len(found.rates) == len(found.smoothed) == len(found.losses)
    assert found.suggestion < found.rates[-1] / 3
    assert "where the loss had diverged" in str(found)


# --- what the losses say ---------------------------------------------------------------------------------------------

RATES = np.geomspace(1e-6, 1.0, 100).tolist()
HEAD, ALL = kt.Stage("head", 1, learning_rate=1e-3), kt.Stage("all", 1)


def _curve(falls_at=None, rises_at=0.3, noise=0.02, depth=0.6):
    """A loss that falls around one rate and rises from another on."""
    x = np.log10(RATES)
    fall = 0 if falls_at is None else depth / (1 + np.exp(-4 * (x - np.log10(falls_at))))
    rise = 3 * np.clip(x - np.log10(rises_at), 0, None) ** 2
    return (0.7 - fall + rise + np.random.default_rng(0).normal(0, noise, 100)).tolist()


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.06])
def test_the_suggestion_is_where_the_loss_falls_fastest(rate, noise):
    found = learning_rate._judged(HEAD, RATES, _curve(rate, noise=noise), diverged=False)
    assert found.clear
    assert abs(np.log10(found.suggestion / rate)) < 0.5
    assert found.suggestion == found.steepest < 10 * found.tenth


def test_a_loss_that_never_falls_gives_a_tenth_of_where_it_rises():
    found = learning_rate._judged(ALL, RATES, _curve(None, rises_at=1e-3, noise=0.05), diverged=True)
    assert not found.clear
    assert 5e-5 <= found.suggestion <= 2e-4
    assert "never falls beyond noise" in str(found)


@pytest.mark.parametrize("noise", ["normal", "skewed"])
@pytest.mark.parametrize("steps", [10, 20, 40, 100, 200])
def test_mere_noise_is_rarely_taken_for_a_fall(noise, steps):
    generator, rates = np.random.default_rng(0), Rise(1e-7, 1.0, steps=steps).rates
    draws = generator.normal(size=(400, steps)) if noise == "normal" else generator.gamma(1.5, size=(400, steps))
    clear = [learning_rate._judged(HEAD, rates, (0.6 + 0.1 * draw).tolist(), False).clear for draw in draws]
    assert np.mean(clear) < 0.075  # one in twenty, and what chance does to 400 draws


def test_a_loss_that_does_nothing_is_said_to_say_nothing():
    losses = (0.7 + 0.05 * np.random.default_rng(1).normal(size=100)).tolist()
    found = learning_rate._judged(HEAD, RATES, losses, False)
    assert not found.clear
    assert "neither falls nor rises beyond noise, so this says nothing" in str(found)


def test_a_rounding_is_no_fall_where_there_is_no_noise():
    losses = (1.6 - 1e-7 * np.arange(100)).tolist()
    assert not learning_rate._judged(HEAD, RATES, losses, False).clear


@pytest.mark.parametrize("slope", [-0.02, -0.002])
def test_the_steepest_place_is_not_at_an_end(slope):
    # It falls faster and faster up to the last step. The other way round it rises from the first on.
    accelerating = 0.7 + slope * np.linspace(0, 5, 100) ** 2
    edge = width(100)
    found = learning_rate._judged(HEAD, RATES, accelerating.tolist(), False)
    assert found.clear
    assert found.suggestion <= RATES[int(99 - edge)]
    found = learning_rate._judged(HEAD, RATES, accelerating[::-1].tolist(), False)
    assert found.steepest >= RATES[int(edge)]


def test_an_explosion_does_not_hide_what_came_before():
    losses = _curve(1e-3)
    losses[-3:] = [1e3, 1e6, 1e9]
    assert learning_rate._judged(HEAD, RATES, losses, True).suggestion == pytest.approx(1e-3, rel=2)
    assert max(smooth(losses)) < 10


@pytest.mark.parametrize(("own", "said"), [(1e-4, "where the smoothed loss was 0.7"), (2.0, "which was not tried")])
def test_what_is_suggested_stands_beside_the_rate_that_the_stage_has(own, said):
    losses = [0.7] * 100
    losses[90:] = [5.0] * 10
    found = learning_rate._judged(kt.Stage("head", 1, learning_rate=own), RATES, losses, diverged=True)
    assert found.own == own
    assert f"the stage's own rate is {own:g}, {said}" in str(found)


def test_it_says_what_it_suggests_and_draws_it(tmp_path, drawn):
    found = learning_rate._judged(HEAD, RATES, _curve(1e-3), diverged=False)
    assert f"learning rate of stage 'head': {found.suggestion:.2g}, where the loss falls fastest" in str(found)
    path = found.plot(tmp_path / "rates.png")
    assert path.stat().st_size > 10_000
    assert "the stage's own 0.001" in words(drawn[0])


def test_the_rates_rise_by_the_same_factor():
    rise = Rise(1e-5, 1e-1, steps=9)
    assert [float(rise(step)) for step in range(9)] == pytest.approx(rise.rates, rel=1e-5)
    ratios = np.divide(rise.rates[1:], rise.rates[:-1])
    np.testing.assert_allclose(ratios, np.sqrt(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0}, "above 0"),
        ({"lowest": 1.0, "highest": 0.1}, "above the lowest"),
        ({"steps": 5}, r"(?s)from 10 up.*mend:\s+steps=100"),
        ({"lowest": "a"}, r"(?s)`lowest`.*'a'.*mend:\s+lowest=1e-7"),
        ({"highest": None}, r"(?s)`highest`.*mend:\s+highest=1.0"),
        ({"lowest": True}, "`lowest`"),
        ({"plan": kt.feature_extraction}, r"(?s)`plan`.*function.*a kt.Plan"),
        ({"seed": "a"}, "`seed` is no seed"),
        ({"stage": "hed"}, "nearest: +head"),
        ({"stage": kt.Stage("head", 1), "plan": kt.Plan([kt.Stage("head", 1)])}, "holds others"),
        ({"stage": kt.Stage("blok1", 1)}, "nearest: +'?block1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    model, data = _pictures()
    with pytest.raises(ValueError, match=message):
        _find(model, data, **options)


def test_model_and_data_in_each_others_place_are_refused():
    model, data = _pictures()
    with pytest.raises(ValueError, match=r"(?s)`model` is out of place.*given: +ImageSplits"):
        _find(data, model)
    with pytest.raises(ValueError, match=r"(?s)`splits` is out of place.*given: +ndarray"):
        _find(model, np.zeros((4, 16, 16, 3)))


@pytest.mark.parametrize("cache", ["memory", "off"])
def test_a_later_stage_meets_the_batches_that_it_meets_under_fit(cache, monkeypatch):
    """The order of an epoch is a function of its number, counted over the plan."""
    model, data = _pictures()
    plan = kt.Plan([kt.Stage("head", 3), kt.Stage("top:1", 2)])
    seen, fit = [], keras.Model.fit

    def noted(self, batches, **options):
        seen.append([y for _, (_, y) in zip(range(6), iter(batches), strict=False)])
        return fit(self, batches, **options)

    monkeypatch.setattr(keras.Model, "fit", noted)
    _find(model, data, plan=plan, cache=cache)
    kt.fit(model, data, plan, seed=0, cache=cache, verbose=False)
    tried, (_, later) = seen[0], seen[1:]
    assert len(later) == 6
    for one, other in zip(tried, later, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))

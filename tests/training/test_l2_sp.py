"""The pull towards the pretrained weights, held against its formula."""

import keras
import numpy as np
import pytest
from bodies import classifier, dark_and_light

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.plans.fates import fates
from keras_transfer.training import compilation
from keras_transfer.training.l2_sp import PullingOptimizer, pretrained

both_backends = pytest.mark.both_backends


def _body_kernel(model):
    return model.get_layer("residual").get_layer("block3_conv").kernel


def _fitted(plan, model=None, data=None, **options):
    model = model or classifier()
    return kt.fit(model, data or dark_and_light(24), plan, verbose=False, **options), model


def _distance(model, before, only="block3"):
    rows = [(i, v) for i, v in enumerate(state.walk(model)) if v[0].path.startswith(only)]
    return sum(float(np.sum((np.asarray(v.numpy()) - before[i]) ** 2)) for i, (_, v) in rows)


# --- against NumPy ---------------------------------------------------------------------------------------------------

RATE, STRENGTH, DECAY, RATIO = 0.05, 4.0, 0.3, 0.25


def _numpy_sgd(weights, starts, gradients, ratios):
    """Momentum 0.9; pulled is what has a start, decayed what has none."""
    velocities = [np.zeros_like(w) for w in weights]
    for step in gradients:
        for index, gradient in enumerate(step):
            rate = RATE * ratios[index]
            if starts[index] is None:
                weights[index] = weights[index] - rate * DECAY * weights[index]
            else:
                weights[index] = weights[index] - rate * STRENGTH * (weights[index] - starts[index])
            velocities[index] = 0.9 * velocities[index] - rate * gradient
            weights[index] = weights[index] + velocities[index]
    return weights


def _numpy_adamw(weights, starts, gradients, ratios):
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    for number, step in enumerate(gradients, 1):
        for index, gradient in enumerate(step):
            rate = RATE * ratios[index]
            if starts[index] is None:
                weights[index] = weights[index] - rate * DECAY * weights[index]
            else:
                weights[index] = weights[index] - rate * STRENGTH * (weights[index] - starts[index])
            first, second = moments[index]
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            moments[index] = first, second
            corrected = rate * np.sqrt(1 - 0.999**number) / (1 - 0.9**number)
            weights[index] = weights[index] - corrected * first / (np.sqrt(second) + 1e-7)
    return weights


@both_backends
@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (lambda: keras.optimizers.SGD(RATE, momentum=0.9, weight_decay=DECAY), _numpy_sgd),
        (lambda: keras.optimizers.AdamW(RATE, weight_decay=DECAY), _numpy_adamw),
    ],
    ids=["sgd", "adamw"],
)
def test_thirty_steps_are_those_of_the_formula(rule, reference):
    generator = np.random.default_rng(0)
    low, head = keras.layers.Dense(3, name="low"), keras.layers.Dense(2, name="head")
    model = keras.Sequential([keras.Input((4,)), low, head])
    variables = model.trainable_variables
    starts = [generator.normal(size=v.shape).astype("float32") if "low" in v.path else None for v in variables]
    weights = [np.array(v.numpy(), "float64") for v in variables]
    gradients = [[generator.normal(size=v.shape).astype("float32") for v in variables] for _ in range(30)]
    inner = rule()
    inner.exclude_from_weight_decay(var_list=low.trainable_variables)
    towards = {id(v): start for v, start in zip(variables, starts, strict=True) if start is not None}
    optimizer = PullingOptimizer(inner, {low: RATIO, head: 1.0}, strength=STRENGTH, towards=towards)
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in step], variables)
    expected = reference(weights, starts, gradients, [RATIO, RATIO, 1.0, 1.0])
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=2e-5, atol=2e-6, err_msg=variable.path)


def test_a_weight_that_is_driven_one_way_goes_no_further_than_one_over_the_strength():
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    layer.build((None, 1))
    towards = {id(layer.kernel): np.zeros((1, 1))}
    optimizer = PullingOptimizer(
        keras.optimizers.AdamW(0.01, weight_decay=0), {layer: 1.0}, strength=20, towards=towards
    )
    for _ in range(200):
        optimizer.apply([keras.ops.ones((1, 1))], [layer.kernel])
    assert float(layer.kernel.numpy()[0, 0]) == pytest.approx(-1 / 20, rel=1e-3)


def test_it_comes_back_from_a_file_with_what_it_pulls_to(tmp_path):
    generator = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="low"), keras.layers.Dense(1, name="head")])
    towards = {id(v): np.full(v.shape, 7.0) for v in model.get_layer("low").trainable_variables}
    rule = keras.optimizers.AdamW(0.01)
    model.compile(PullingOptimizer(rule, {"low": 0.5, "head": 1.0}, strength=3.0, towards=towards), "mse")
    x, y = generator.normal(size=(8, 3)).astype("float32"), np.ones((8, 1), "float32")
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "pulled.keras")
    again = keras.models.load_model(tmp_path / "pulled.keras")
    assert again.optimizer.strength == 3.0
    assert [start is not None for start in again.optimizer.starts] == [True, True, False, False]
    for one in (model, again):
        one.fit(x, y, epochs=3, shuffle=False, verbose=0)
    for here, there in zip(again.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(here.numpy(), there.numpy())


# --- within fit ------------------------------------------------------------------------------------------------------


def test_the_stronger_the_pull_the_nearer_the_body_stays():
    distances, optimizers = [], []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            optimizers.append(type(self.model.optimizer))

    for strength in (0.0, 10.0, 100.0):
        keras.utils.set_random_seed(0)
        model = classifier()
        before = state.values(model)
        _fitted(kt.Plan([kt.Stage("top:1", 3, learning_rate=0.01, l2_sp=strength)]), model, callbacks=[Watch()])
        distances.append(_distance(model, before))
    assert distances[0] > 1.2 * distances[1]
    assert distances[1] > 3 * distances[2] > 0
    assert optimizers == [kt.LayerwiseOptimizer, PullingOptimizer, PullingOptimizer]
    assert kt.Stage("top:1", 1).l2_sp == 0


def test_a_later_stage_pulls_to_what_was_there_before_the_first():
    """Stage 1 moves block3; a long stage 2 with the strongest pull brings it back to the pretrained weights."""
    model = classifier()
    before, moved = state.values(model), []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            moved.append(_distance(model, before))

    away = kt.Stage("top:1", 2, "away", learning_rate=0.01, schedule="constant")
    back = kt.Stage("top:1", 4, "back", learning_rate=1e-3, schedule="constant", l2_sp=1000.0, warmup=0.0)
    _fitted(kt.Plan([away, back]), model, callbacks=[Watch()])
    assert _distance(model, before) < 0.02 * moved[1]


def test_the_head_is_decayed_and_not_pulled_and_the_body_is_pulled_and_not_decayed():
    model = classifier()
    stage = kt.Stage("top:1", 1, l2_sp=1.0, weight_decay=0.1)
    kt.fit(model, dark_and_light(24), kt.Plan([kt.Stage("top:1", 1)]), verbose=False)  # awake as the stage has it
    optimizer = compilation.optimizer(stage, fates(model, stage), 10, pretrained=pretrained(model))
    optimizer.build(model.trainable_variables)
    pulled = {v.path for v, start in zip(model.trainable_variables, optimizer.starts, strict=True) if start is not None}
    rows = optimizer.get_config()["ratios"]
    assert pulled == {"block3_conv/kernel", "block3_conv/bias"}
    assert [path for path, _, _, decays in rows if decays] == ["head/kernel"]


def test_validation_loss_is_the_loss_without_a_penalty():
    data = dark_and_light(24)
    run, model = _fitted(kt.Plan([kt.Stage("top:1", 2, learning_rate=0.01, l2_sp=50.0)]), data=data)
    found = model.evaluate(data.evaluation_batches(data.validation, model), verbose=0, return_dict=True)
    assert run.history[-1]["val_loss"] == pytest.approx(found["loss"], rel=1e-5)


def test_kept_features_come_to_the_same():
    plan = kt.Plan([kt.Stage("top:1", 3, learning_rate=0.1, optimizer="sgd", l2_sp=5.0, ema=0.8)])
    found = []
    for cache in ("memory", "off"):
        keras.utils.set_random_seed(0)
        run, model = _fitted(plan, classifier(dropout=0.4), dark_and_light(30), cache=cache)
        found.append((state.values(model), run.history[-1]["val_loss"]))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4)


def test_half_precision_pulls_as_well():
    model = classifier()
    before = state.values(model)
    stage = kt.Stage("top:1", 3, learning_rate=0.01, l2_sp=100.0)
    _fitted(kt.Plan([stage]), model, precision="mixed_float16")
    assert 0 < _distance(model, before) ** 0.5 < 1.1 / 100 * np.prod(_body_kernel(model).shape) ** 0.5


# --- what makes no sense ---------------------------------------------------------------------------------------------


def test_a_stage_that_trains_nothing_pretrained_has_nothing_to_pull():
    model = classifier()
    for stage in (
        kt.Stage("head", 1, l2_sp=1.0),
        kt.Stage("head", 1, l2_sp=1.0, adapters=kt.LoRA(rank=2, targets="block3_conv")),
    ):
        with pytest.raises(ValueError, match="trains none of those"):
            kt.fit(model, dark_and_light(24), kt.Plan([stage]), verbose=False)


def test_weights_drawn_anew_are_not_pulled_back():
    with pytest.raises(ValueError, match="draw its weights anew"):
        kt.Stage("all", 1, start="random", l2_sp=0.1)
    with pytest.raises(ValueError, match="draws its weights anew"):
        kt.Plan([kt.Stage("all", 1, "one", start="random"), kt.Stage("all", 1, "two", l2_sp=0.1)])


@pytest.mark.parametrize("options", [{"l2_sp": 1001.0}, {"l2_sp": 501.0, "ratios": {"stem": 2.0, "head": 9.0}}])
def test_a_pull_that_would_overshoot_is_refused(options):
    with pytest.raises(ValueError, match="overshoot"):
        kt.Stage("all", 1, learning_rate=1e-3, **options)

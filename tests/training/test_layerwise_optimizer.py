"""The optimizer wrapper: exact against the bare optimizer and NumPy, and one optimizer to everything around it."""

import inspect
import json
import os
import re
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from keras_transfer.training import layerwise_optimizer
from keras_transfer.training.layerwise_optimizer import LayerwiseOptimizer

BACKEND = keras.backend.backend()
RATE = 0.0625
RATIOS = (0.25, 0.25, 0.5, 0.5, 1.0, 1.0)  # powers of two, so that a product with the rate is exact

# Every optimizer of Keras enters here by itself, so that a new one is tested on the day it appears.
STOCK = sorted(
    name
    for name, value in vars(keras.optimizers).items()
    if inspect.isclass(value)
    and issubclass(value, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
)
SETTINGS = {name: (name, {}) for name in STOCK} | {
    "SGD, momentum": ("SGD", {"momentum": 0.9}),
    "SGD, nesterov, decay": ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.5}),
    "Adam, amsgrad": ("Adam", {"amsgrad": True}),
    "Adam, decay": ("Adam", {"weight_decay": 0.5}),
    "RMSprop, centered, momentum": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "Lion, decay": ("Lion", {"weight_decay": 0.5}),
    "Muon, two decays": ("Muon", {"weight_decay": 0.5, "adam_weight_decay": 0.25}),
    "AdamW, clipnorm": ("AdamW", {"weight_decay": 0.5, "clipnorm": 0.5}),
    "AdamW, clipvalue": ("AdamW", {"weight_decay": 0.5, "clipvalue": 0.5}),
    "AdamW, moving average": ("AdamW", {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7}),
    "AdamW, accumulation": ("AdamW", {"weight_decay": 0.5, "gradient_accumulation_steps": 3}),
    "AdamW, all": (
        "AdamW",
        {"use_ema": True, "ema_overwrite_frequency": 2, "gradient_accumulation_steps": 3, "clipnorm": 0.5},
    ),
}


def rule(setting, rate=RATE):
    name, options = SETTINGS[setting]
    return getattr(keras.optimizers, name)(rate, **options)


def make_model(seed=0):
    """Two layers in a body, a head: six trainable variables, whose paths do not name the body."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((4,))
    features = keras.layers.Dense(5, name="upper")(keras.layers.Dense(5, "relu", name="lower")(pixels))
    body = keras.Model(pixels, features, name="body")
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(body(inputs)))


def data(batches=5):
    random = np.random.default_rng(1)
    return random.normal(size=(8 * batches, 4)).astype("float32"), random.normal(size=(8 * batches, 3)).astype(
        "float32"
    )


def fit(model, epochs=1, callbacks=(), batches=5):
    return model.fit(*data(batches), batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def gradients(shapes, steps=25):
    random = np.random.default_rng(2)
    return [[random.normal(size=shape).astype("float32") for shape in shapes] for _ in range(steps)]


def weights_after(optimizer, steps=25):
    """The weights of the model after `steps` steps with made-up gradients, as NumPy arrays."""
    model = make_model()
    variables = model.trainable_variables
    optimizer.build(variables)
    rows = gradients([variable.shape for variable in variables], steps)
    if BACKEND == "jax":  # as in its `fit`: by `apply`, every step would compile its branches again
        import jax

        step = jax.jit(optimizer.stateless_apply)
        weights, slots = [[variable.value for variable in each] for each in (variables, optimizer.variables)]
        for row in rows:
            weights, slots = step(slots, row, weights)
        for variable, value in zip(variables + optimizer.variables, weights + slots, strict=True):
            variable.assign(value)
    else:
        for row in rows:
            optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in row], variables)
    return model.get_weights()


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


# --- exact against the bare optimizer --------------------------------------------------------------------------------


@pytest.mark.both_backends
@pytest.mark.parametrize("setting", SETTINGS)
def test_at_ratio_one_it_is_the_bare_optimizer_at_half_it_has_half_the_rate_and_at_zero_nothing_moves(setting):
    """To the last bit, and each variable for itself: of every ratio a kernel and a bias."""
    before = make_model().get_weights()
    mixed = weights_after(LayerwiseOptimizer(rule(setting), [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]), steps=10)
    whole, half = (weights_after(rule(setting, rate), steps=10) for rate in (RATE, RATE / 2))
    assert_same(mixed, [half[0], whole[1], whole[2], half[3], before[4], before[5]])
    assert all(np.abs(one - other).max() > 1e-4 for one, other in zip(mixed[:4], before[:4], strict=True))


@pytest.mark.both_backends
@pytest.mark.parametrize("jit_compile", [True] if BACKEND == "jax" else [False, True])
def test_in_fit_at_ratio_one_it_is_the_bare_optimizer_bit_for_bit(jit_compile):
    trained, setting = [], "AdamW, accumulation"
    for optimizer in (LayerwiseOptimizer(rule(setting), [1.0] * 6), rule(setting)):
        model = make_model()
        model.compile(optimizer, "mse", jit_compile=jit_compile)
        fit(model, epochs=5)
        trained.append(model.get_weights())
    assert_same(*trained)


@pytest.mark.both_backends
def test_in_fit_jit_compile_gives_the_same_weights():
    trained = []
    for jit_compile in (False, True):
        model = make_model()
        model.compile(LayerwiseOptimizer(rule("AdamW"), RATIOS), "mse", jit_compile=jit_compile)
        fit(model, epochs=5)
        trained.append(model.get_weights())
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


# --- exact against NumPy ---------------------------------------------------------------------------------------------


def by_hand_sgd(nesterov):
    def step(weight, gradient, rate, _, state):
        state["m"] = 0.9 * state.get("m", 0) - rate * gradient
        return weight + (0.9 * state["m"] - rate * gradient if nesterov else state["m"])

    return step


def by_hand_adam(amsgrad=False, decay=0.0):
    def step(weight, gradient, rate, count, state):
        weight = weight - rate * decay * weight
        state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
        state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
        state["largest"] = np.maximum(state.get("largest", 0), state["v"]) if amsgrad else state["v"]
        # As Keras has it (and the paper's section 2): epsilon is added before the bias is corrected.
        corrected = rate * np.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        return weight - corrected * state["m"] / (np.sqrt(state["largest"]) + 1e-7)

    return step


def by_hand_lion(weight, gradient, rate, _, state):
    momentum = state.get("m", 0)
    state["m"] = 0.99 * momentum + 0.01 * gradient
    return weight - rate * 0.1 * weight - rate * np.sign(0.9 * momentum + 0.1 * gradient)


BY_HAND = {
    "SGD with momentum": (by_hand_sgd(False), lambda: keras.optimizers.SGD(0.01, momentum=0.9)),
    "SGD with Nesterov's momentum": (
        by_hand_sgd(True),
        lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    ),
    "Adam": (by_hand_adam(), lambda: keras.optimizers.Adam(0.01)),
    "Adam, amsgrad": (by_hand_adam(amsgrad=True), lambda: keras.optimizers.Adam(0.01, amsgrad=True)),
    "AdamW": (by_hand_adam(decay=0.1), lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)),
    "Lion": (by_hand_lion, lambda: keras.optimizers.Lion(0.01, weight_decay=0.1)),
}


@pytest.mark.both_backends
@pytest.mark.parametrize("name", BY_HAND)
def test_it_does_what_the_papers_say_at_the_rate_of_each_variable(name):
    step, optimizer = BY_HAND[name]
    ratios = (0.03, 0.1, 0.3, 0.7, 1.0, 3.0)
    expected = [weight.astype("float64") for weight in make_model().get_weights()]
    states = [{} for _ in expected]
    for count, row in enumerate(gradients([weight.shape for weight in expected]), start=1):
        for position, gradient in enumerate(row):
            rate = 0.01 * ratios[position]
            expected[position] = step(expected[position], gradient.astype("float64"), rate, count, states[position])
    for ours, reference in zip(weights_after(LayerwiseOptimizer(optimizer(), ratios)), expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=2e-6, atol=2e-6)


@pytest.mark.both_backends
def test_global_clipnorm_is_the_norm_over_all_variables():
    before = make_model().get_weights()
    shapes = [weight.shape for weight in before]
    (row,) = gradients(shapes, steps=1)
    norm = np.sqrt(sum(np.sum(gradient.astype("float64") ** 2) for gradient in row))
    after = weights_after(LayerwiseOptimizer(keras.optimizers.SGD(0.1, global_clipnorm=0.5), RATIOS), steps=1)
    for old, new, gradient, ratio in zip(before, after, row, RATIOS, strict=True):
        np.testing.assert_allclose(new, old - 0.1 * ratio * gradient * 0.5 / norm, rtol=1e-5, atol=1e-7)


# --- one optimizer to all around it ----------------------------------------------------------------------------------


@pytest.mark.both_backends
def test_the_learning_rate_is_one_number_to_read_and_to_set():
    optimizer = LayerwiseOptimizer(keras.optimizers.SGD(0.5), RATIOS)
    assert float(optimizer.learning_rate) == 0.5
    optimizer.learning_rate = 0.125
    assert_same(weights_after(optimizer, 3), weights_after(LayerwiseOptimizer(keras.optimizers.SGD(0.125), RATIOS), 3))
    assert not hasattr(optimizer, "optimizers"), "Keras' callbacks would take it for several"
    assert not hasattr(optimizer, "inner_optimizer"), "Keras' callbacks would take it for a LossScaleOptimizer"


@pytest.mark.both_backends
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_a_schedule_is_followed_in_steps_and_in_decay(name):
    def schedule(factor=1.0):
        return keras.optimizers.schedules.CosineDecay(0.125 * factor, 8, warmup_target=0.25 * factor, warmup_steps=3)

    kind = getattr(keras.optimizers, name)
    mixed = weights_after(LayerwiseOptimizer(kind(schedule(), weight_decay=0.5), RATIOS), steps=10)
    alone = {ratio: weights_after(kind(schedule(ratio), weight_decay=0.5), steps=10) for ratio in set(RATIOS)}
    assert_same(mixed, [alone[ratio][position] for position, ratio in enumerate(RATIOS)])


@pytest.mark.both_backends
def test_a_learning_rate_can_be_a_callable():
    optimizer = LayerwiseOptimizer(keras.optimizers.AdamW(lambda: RATE, weight_decay=0.5), RATIOS)
    constant = LayerwiseOptimizer(keras.optimizers.AdamW(RATE, weight_decay=0.5), RATIOS)
    for one, other in zip(weights_after(optimizer, 8), weights_after(constant, 8), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.both_backends
def test_callbacks_that_set_the_rate_find_one_rate():
    model = make_model()
    model.compile(LayerwiseOptimizer(keras.optimizers.AdamW(0.5, weight_decay=0.1), RATIOS), "mse")
    history = fit(model, 2, [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 4)]).history
    assert history["learning_rate"] == [0.125, 0.03125]
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    history = fit(model, 3, [plateau]).history
    assert history["learning_rate"] == [0.03125, 0.03125, 0.015625]


@pytest.mark.both_backends
def test_tensorboard_finds_the_base_rate(tmp_path):
    model = make_model()
    model.compile(LayerwiseOptimizer(keras.optimizers.Adam(0.125), RATIOS), "mse")
    callback = keras.callbacks.TensorBoard(tmp_path)
    callback.set_model(model)
    assert float(callback._collect_learning_rate({})["learning_rate"]) == 0.125


@pytest.mark.both_backends
def test_excluded_variables_do_not_decay_and_the_others_decay_at_their_rate():
    optimizer = LayerwiseOptimizer(keras.optimizers.SGD(0.5, weight_decay=0.5), RATIOS)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = make_model()
    before = [np.ones_like(weight) for weight in model.get_weights()]
    model.set_weights(before)
    optimizer.apply([keras.ops.zeros(weight.shape) for weight in before], model.trainable_variables)
    decayed = [float(weight.ravel()[0]) for weight in model.get_weights()]
    assert decayed == [1 - 0.25 * ratio if position % 2 == 0 else 1.0 for position, ratio in enumerate(RATIOS)]


@pytest.mark.both_backends
def test_a_decay_that_is_set_later_counts():
    optimizer = LayerwiseOptimizer(keras.optimizers.SGD(0.5), [1.0] * 6)
    optimizer.weight_decay = 0.25
    assert_same(weights_after(optimizer, 3), weights_after(keras.optimizers.SGD(0.5, weight_decay=0.25), 3))


@pytest.mark.both_backends
def test_the_moving_average_is_in_the_model_after_fit_and_under_the_swapping_callback():
    trained = []
    for swaps in (False, True):
        for wrap in (lambda bare: bare, lambda bare: LayerwiseOptimizer(bare, [1.0] * 6)):
            model = make_model()
            model.compile(wrap(keras.optimizers.AdamW(RATE, use_ema=True, ema_momentum=0.5)), "mse")
            fit(model, 2, [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if swaps else [])
            trained.append(model.get_weights())
    assert_same(trained[1], trained[0])
    assert_same(trained[3], trained[2])


@pytest.mark.both_backends
def test_loss_scaling_goes_around_it():
    trained = []
    for wrap in (lambda bare: bare, lambda bare: LayerwiseOptimizer(bare, [1.0] * 6)):
        model = make_model()
        inner = wrap(keras.optimizers.AdamW(RATE, clipnorm=1.0))
        model.compile(keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=3), "mse")
        fit(model, 2)
        trained.append(model.get_weights())
        assert int(model.optimizer.iterations) == int(inner.iterations) == 10
        assert float(model.optimizer.dynamic_scale) > 2.0**15
    assert_same(*trained)


@pytest.mark.both_backends
def test_mixed_float16_wraps_it_by_itself_and_skips_steps_that_overflow():
    keras.config.set_dtype_policy("mixed_float16")
    model = make_model()
    model.compile(LayerwiseOptimizer(keras.optimizers.AdamW(RATE), RATIOS), "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    fit(model)
    before, steps = model.get_weights(), int(model.optimizer.iterations)
    x, y = data(1)
    model.fit(x * np.float32(np.inf), y, batch_size=8, verbose=0)
    assert_same(model.get_weights(), before)
    assert int(model.optimizer.iterations) == steps
    assert all(np.isfinite(weight).all() for weight in before)


@pytest.mark.both_backends
@pytest.mark.parametrize("scaled", [False, True])
def test_every_variable_is_in_the_optimizer_once_and_the_steps_are_shared(scaled):
    around = keras.optimizers.LossScaleOptimizer if scaled else lambda optimizer: optimizer
    bare, wrapped = rule("AdamW, all"), LayerwiseOptimizer(rule("AdamW, all"), RATIOS)
    weights_after(around(bare), 6)
    weights_after(around(wrapped), 6)
    assert len(wrapped.variables) == len({id(variable) for variable in wrapped.variables}) == len(bare.variables)
    assert len({variable.path for variable in wrapped.variables}) == len(wrapped.variables)
    shapes = [sorted(str(variable.shape) for variable in each.variables) for each in (wrapped, bare)]
    assert shapes[0] == shapes[1]
    assert int(wrapped.iterations) == int(wrapped.optimizer.iterations) == int(bare.iterations) == 2


@pytest.mark.both_backends
def test_a_sparse_gradient_moves_the_rows_it_names():
    trained = []
    for wrap in (lambda bare: bare, lambda bare: LayerwiseOptimizer(bare, {"embedding": 1.0, "dense": 1.0})):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((2,), dtype="int32"),
                keras.layers.Embedding(9, 3, name="embedding"),
                keras.layers.Dense(1, name="dense"),
            ]
        )
        model.compile(wrap(keras.optimizers.SGD(RATE, momentum=0.9, clipnorm=0.5)), "mse")
        model.fit(np.array([[1, 2], [2, 3]]), np.ones((2, 2, 1)), verbose=0, epochs=3)
        trained.append(model.get_weights())
    assert_same(*trained)


# --- saving ----------------------------------------------------------------------------------------------------------


def test_the_config_holds_every_number_once():
    optimizer = LayerwiseOptimizer(rule("AdamW, all"), {"lower": 0.5, "upper": 0.5, "head": 1.0}, name="mine")
    optimizer.learning_rate = 0.25
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))
    assert set(config["config"]) == {"name", "optimizer", "ratios"}
    again = keras.saving.deserialize_keras_object(config)
    assert type(again.optimizer) is keras.optimizers.AdamW
    taken = [getattr(each, name) for each in (again, optimizer) for name in layerwise_optimizer._TAKEN_OVER]
    assert taken[: len(taken) // 2] == taken[len(taken) // 2 :]
    assert (again.name, again.clipnorm, again.use_ema, float(again.learning_rate)) == ("mine", 0.5, True, 0.25)
    assert again.ratios == {"lower": 0.5, "upper": 0.5, "head": 1.0}


def test_layers_as_keys_can_be_saved_once_it_is_built():
    model = make_model()
    optimizer = LayerwiseOptimizer("adam", {model: 0.5})
    with pytest.raises(ValueError, match=r"call `optimizer.build\(model.trainable_variables\)` first"):
        optimizer.get_config()
    optimizer.build(model.trainable_variables)
    assert [row[2] for row in optimizer.get_config()["ratios"]] == [0.5] * 6


@pytest.mark.both_backends
def test_a_model_loaded_in_a_fresh_process_goes_on_as_if_it_had_not_stopped(tmp_path):
    model = make_model()
    schedule = keras.optimizers.schedules.CosineDecay(RATE, 40)
    # On JAX, Keras cannot `fit` twice with a moving average: it shares buffers, and then donates them twice.
    averaged = {"use_ema": True, "ema_overwrite_frequency": 4} if BACKEND == "tensorflow" else {}
    inner = keras.optimizers.AdamW(schedule, 0.5, global_clipnorm=1.0, **averaged)
    inner.exclude_from_weight_decay(var_names=["bias"])
    model.compile(LayerwiseOptimizer(inner, {model.get_layer("body"): 0.3, "upper": 0.7, "head": 1.1}), "mse")
    fit(model, 2)
    model.save(tmp_path / "model.keras")
    x, y = data()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    script = """
        import sys, numpy, keras, keras_transfer.training.layerwise_optimizer
        folder = sys.argv[1]
        model = keras.saving.load_model(folder + "/model.keras")
        optimizer = model.optimizer
        numpy.savez(folder + "/loaded.npz", *[keras.ops.convert_to_numpy(v) for v in optimizer.variables])
        given = numpy.load(folder + "/data.npz")
        model.fit(given["x"], given["y"], batch_size=8, epochs=2, shuffle=False, verbose=0)
        numpy.savez(folder + "/trained.npz", *model.get_weights())
        print(type(optimizer).__name__, optimizer.ratios)
    """
    output = run_fresh(script, tmp_path)
    assert output.splitlines()[-1] == "LayerwiseOptimizer (0.3, 0.3, 0.7, 0.7, 1.1, 1.1)"
    saved = [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables]
    assert_same(np.load(tmp_path / "loaded.npz").values(), saved)
    fit(model, 2)
    assert_same(np.load(tmp_path / "trained.npz").values(), model.get_weights())


@pytest.mark.both_backends
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_state_and_ratios_come_back_though_keras_renames_what_it_loads(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    layers = [keras.layers.Dense(4), keras.layers.Dense(4, use_bias=False), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *layers], name="outer")
    model.compile(LayerwiseOptimizer(rule("AdamW"), {layer: 0.3 * i for i, layer in enumerate(layers)}), "mse")
    fit(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    ours, theirs = [getattr(each.optimizer, "inner_optimizer", each.optimizer) for each in (model, again)]
    assert theirs.ratios == ours.ratios == (0.0, 0.0, 0.3, 0.6, 0.6)
    values = [[keras.ops.convert_to_numpy(each) for each in optimizer.variables] for optimizer in (ours, theirs)]
    assert_same(*values)
    assert int(theirs.iterations) == int(theirs.optimizer.iterations) == int(ours.iterations) > 0


def test_slots_are_written_once(tmp_path):
    sizes = []
    for optimizer in (keras.optimizers.Adam(), LayerwiseOptimizer("adam", [1.0] * 6)):
        model = make_model()
        model.compile(optimizer, "mse")
        fit(model)
        model.save_weights(tmp_path / "model.weights.h5")
        import h5py

        with h5py.File(tmp_path / "model.weights.h5") as file:
            written = []
            file.visititems(
                lambda path, item, written=written: written.append(path) if hasattr(item, "shape") else None
            )
        sizes.append(len(written))
    assert sizes[0] == sizes[1]


def test_a_saved_optimizer_is_not_taken_for_that_of_another_model():
    model = make_model()
    optimizer = LayerwiseOptimizer("adam", {model: 0.5})
    optimizer.build(model.trainable_variables)
    config = optimizer.get_config()
    other = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, name="first"), keras.layers.Dense(5), keras.layers.Dense(3)]
    )
    with pytest.raises(ValueError, match="Trainable variable 0 is not the one whose ratio was saved"):
        LayerwiseOptimizer.from_config(config).build(other.trainable_variables)
    LayerwiseOptimizer.from_config(config).build(make_model().trainable_variables)


# --- who gets which ratio --------------------------------------------------------------------------------------------


class Block:
    def __init__(self, name, layers):
        self.name, self.layers = name, layers

    @property
    def variables(self):
        return [variable for layer in self.layers for variable in layer.variables]


def stated(keys, model=None):
    model = model or make_model()
    optimizer = LayerwiseOptimizer("sgd", keys(model) if callable(keys) else keys)
    optimizer.build(model.trainable_variables)
    return optimizer.ratios[::2]


GIVEN = {
    "the whole model": (lambda model: {model: 0.5}, (0.5, 0.5, 0.5)),
    "a layer before the models around it": (
        lambda model: {
            model: 1.0,
            model.get_layer("body"): 0.5,
            model.get_layer("body").get_layer("lower"): 0.25,
        },
        (0.25, 0.5, 1.0),
    ),
    "names": ({"lower": 0.1, "upper": 0.2, "head": 1}, (0.1, 0.2, 1.0)),
    "a name before the model": (lambda model: {model: 1.0, "lower": 0.0}, (0.0, 1.0, 1.0)),
    "blocks": (
        lambda model: {
            Block("body", model.get_layer("body").layers): 0.5,
            Block("head", [model.get_layer("head")]): 1.0,
        },
        (0.5, 0.5, 1.0),
    ),
    "keys that agree": (
        lambda model: {model.get_layer("body"): 0.5, "lower": 0.5, "upper": 0.5, "head": 1.0},
        (0.5, 0.5, 1.0),
    ),
    "numbers of NumPy": ({"lower": np.float32(0.5), "upper": np.int64(2), "head": 1}, (0.5, 2.0, 1.0)),
    "a sequence": ([0.1, 0.1, 0.2, 0.2, 0.3, 0.3], (0.1, 0.2, 0.3)),
}


@pytest.mark.parametrize("case", GIVEN)
def test_every_variable_gets_the_ratio_of_the_key_that_covers_least(case):
    keys, expected = GIVEN[case]
    assert stated(keys) == expected


def test_the_deeper_of_two_names_wins():
    keras.utils.set_random_seed(0)
    inner = keras.layers.Dense(2, name="query")
    inputs = keras.Input((4, 3))
    attention = keras.layers.MultiHeadAttention(1, 2, name="attention")
    model = keras.Model(inputs, inner(attention(inputs, inputs)))
    optimizer = LayerwiseOptimizer("sgd", {"attention": 0.5, "query": 0.25})
    optimizer.build(model.trainable_variables)
    by_path = {
        variable.path: ratio for variable, ratio in zip(model.trainable_variables, optimizer.ratios, strict=True)
    }
    assert by_path["attention/query/kernel"] == by_path["query/kernel"] == 0.25
    assert by_path["attention/key/kernel"] == 0.5


def test_a_frozen_layer_needs_no_ratio():
    model = make_model()
    model.get_layer("body").get_layer("lower").trainable = False
    assert stated(lambda model: {model.get_layer("body"): 0.5, "head": 1.0}, model) == (0.5, 1.0)


WRONG_RATIOS = {
    "a misspelt name": (
        {"lowr": 0.5, "upper": 1.0},
        ["fits no trainable variable", "'lowr'", "nearest:   lower"],
    ),
    "no key for the head": ({"lower": 0.5, "upper": 0.5}, ["has no ratio", "head/kernel", "lower, upper"]),
    "no key for a layer, though one comes near": (
        lambda model: {Block("heads", model.get_layer("body").layers): 0.5},
        ["has no ratio", "head/kernel", "nearest:   heads"],
    ),
    "the name of the body, which its variables do not carry": (
        {"body": 0.5, "head": 1.0},
        ["fits no trainable variable", "'body'", "give the layer itself"],
    ),
    "a layer of another model": (
        lambda model: {model: 1.0, make_model().get_layer("head"): 0.5},
        ["fits no trainable variable", "'head'"],
    ),
    "a layer and its name": (
        lambda model: {model.get_layer("body"): 0.5, "head": 1.0, model.get_layer("head"): 0.5},
        ["disagree", "'head': 1.0, 'head': 0.5", "head/kernel"],
    ),
    "nothing": ({}, ["has no ratio", "there are: none"]),
    "too short a sequence": ([1.0] * 5, ["5 ratios", "expected:  6"]),
    "a negative ratio": ({"head": -1.0}, ["The ratio of 'head'", "-1.0", "finite number of at least 0"]),
    "no number": ({"head": "1"}, ["The ratio of 'head'", "'1'"]),
    "not a number": ({"head": float("nan")}, ["nan", "finite"]),
    "an infinite ratio": ([float("inf")] * 6, ["inf", "finite"]),
    "a flag": ({"head": True}, ["True"]),
    "one number for all": (0.5, ["says nothing of any layer", "0.5"]),
    "a name alone": ("head", ["says nothing of any layer", "'head'"]),
    "a key that covers nothing": ({3: 1.0}, ["covers no variables", "given:     3"]),
}


@pytest.mark.parametrize("case", WRONG_RATIOS)
def test_wrong_ratios_are_an_error_that_says_which(case):
    keys, words = WRONG_RATIOS[case]
    with pytest.raises(ValueError) as caught:
        stated(keys)
    for word in words:
        assert word in str(caught.value)


def test_blocks_that_overlap_must_agree():
    model = make_model()
    lower, upper = model.get_layer("body").layers[-2:]
    one, two = Block("one", [lower, upper]), Block("two", [upper, model.get_layer("head")])
    with pytest.raises(ValueError, match=r"'one': 0.5, 'two': 1.0(.|\n)*upper/kernel"):
        stated({one: 0.5, two: 1.0}, model)
    assert stated({one: 0.5, two: 0.5}, model) == (0.5, 0.5, 0.5)


def test_a_constraint_on_a_variable_that_stands_still_is_refused():
    layer = keras.layers.Dense(2, kernel_constraint="max_norm", name="still")
    model = keras.Sequential([keras.Input((3,)), layer])
    with pytest.raises(ValueError, match=r"constraint would move it(.|\n)*still/kernel"):
        LayerwiseOptimizer("sgd", {layer: 0}).build(model.trainable_variables)


# --- what it refuses -------------------------------------------------------------------------------------------------


class OwnWay(keras.optimizers.SGD):
    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        super()._backend_update_step([sum(map(keras.ops.sum, grads))] * len(grads), trainable_variables, learning_rate)


def built():
    optimizer = keras.optimizers.Adam()
    optimizer.build(make_model().trainable_variables)
    return optimizer


def wrapped_twice():
    optimizer = keras.optimizers.Adam()
    LayerwiseOptimizer(optimizer, [1.0])
    return optimizer


REFUSED = {
    "belongs around": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    "cannot hold another": lambda: LayerwiseOptimizer("adam", [1.0]),
    "a way of its own": lambda: OwnWay(),
    "a way of its own(.|\n)*MultiOptimizer": lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam())
    ),
    "in use already(.|\n)*Adam": built,
    "in use already": wrapped_twice,
    "not a Keras optimizer": lambda: None,
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_optimizer_under_which_ratios_would_not_be_exact_is_refused(message):
    with pytest.raises(ValueError, match=message):
        LayerwiseOptimizer(REFUSED[message](), [1.0] * 6)


def test_stepping_for_other_variables_is_an_error_as_on_every_optimizer():
    optimizer = LayerwiseOptimizer("adam", [1.0] * 6)
    optimizer.build(make_model().trainable_variables)
    others = make_model().trainable_variables
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([keras.ops.zeros(variable.shape) for variable in others], others)


# --- what it needs of Keras ------------------------------------------------------------------------------------------


def test_the_private_names_of_keras_are_all_listed_and_all_there():
    source = inspect.getsource(layerwise_optimizer)
    code = source.replace(source[source.index("PRIVATE = {") : source.index("_TAKEN_OVER")], "")
    ours = {"_decays_at", "_rate_of_decay", "_scaled", "_check_optimizer", "_TAKEN_OVER"}
    used = set(re.findall(r"(?:[\w)\]]\.|\")(_[a-z]\w+)", code)) - ours
    assert used == set(layerwise_optimizer.PRIVATE)
    optimizer = keras.optimizers.Adam(use_ema=True)
    optimizer.build(make_model().trainable_variables)
    tensorflow_only = {"_distribution_strategy"} if BACKEND != "tensorflow" else set()
    missing = {name for name in layerwise_optimizer.PRIVATE if not hasattr(optimizer, name)}
    assert missing == tensorflow_only


def test_keras_calls_the_methods_that_are_overridden_once_a_step(monkeypatch):
    called = []
    for name in ("_apply_weight_decay", "_backend_update_step", "_update_model_variables_moving_average"):
        method = getattr(LayerwiseOptimizer, name)
        monkeypatch.setattr(
            LayerwiseOptimizer, name, lambda *args, name=name, method=method: (called.append(name), method(*args))[1]
        )
    optimizer, variables = (
        LayerwiseOptimizer(keras.optimizers.AdamW(use_ema=True), RATIOS),
        make_model().trainable_variables,
    )
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables], variables)
    assert called == ["_apply_weight_decay", "_backend_update_step", "_update_model_variables_moving_average"]


# --- several devices -------------------------------------------------------------------------------------------------


def run_fresh(script, *arguments):
    environment = os.environ | {"KERAS_BACKEND": BACKEND, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


MIRRORED = """
    import json, sys
    import numpy as np
    import keras
    import tensorflow as tf
    from keras_transfer.training.layerwise_optimizer import LayerwiseOptimizer

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.HierarchicalCopyAllReduce())
    one = tf.distribute.get_strategy()
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 4)).astype("float32"), random.normal(size=(40, 3)).astype("float32")

    def weights(strategy, make, scaled=False):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(5, "relu", name="lower"), keras.layers.Dense(3, name="head")])
            optimizer = LayerwiseOptimizer(make(), {"lower": 0.3, "head": 1.0})
            model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, "mse")
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()

    found = {}
    for name, make, scaled in [
        ("decay", lambda: keras.optimizers.AdamW(0.03, weight_decay=0.5), False),
        ("moving average, loss scaling", lambda: keras.optimizers.AdamW(0.03, use_ema=True, ema_momentum=0.9), True),
    ]:
        pairs = zip(weights(one, make, scaled), weights(two, make, scaled))
        found[name] = max(float(np.abs(a - b).max()) for a, b in pairs)
    with two.scope():
        variable = keras.Variable(np.ones(3))
    for name in json.loads(sys.argv[1]):
        with two.scope():
            optimizer = LayerwiseOptimizer(keras.optimizers.Adam(0.03, use_ema=True, **{name: 2}), [1.0])
            optimizer.build([variable])
        try:
            two.run(lambda: optimizer.apply([tf.ones(3)], [variable]))
        except ValueError as error:
            found[name] = str(error)
    outside = keras.optimizers.Adam()
    try:
        with two.scope():
            LayerwiseOptimizer(outside, [1.0])
    except ValueError as error:
        found["outside"] = str(error)
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def mirrored():
    if BACKEND != "tensorflow":
        pytest.skip("MirroredStrategy is TensorFlow's; on JAX gradients are global, and clipping is right")
    return json.loads(run_fresh(MIRRORED, json.dumps(layerwise_optimizer._WRONG_ON_REPLICAS)).splitlines()[-1])


@pytest.mark.parametrize("case", ["decay", "moving average, loss scaling"])
def test_two_replicas_match_one_device(mirrored, case):
    assert mirrored[case] < 1e-6


@pytest.mark.parametrize("name", layerwise_optimizer._WRONG_ON_REPLICAS)
def test_two_replicas_refuse_what_keras_does_not_do_there(mirrored, name):
    assert f"`{name}` does not work on several replicas" in mirrored[name]


def test_an_optimizer_made_outside_of_the_strategy_is_refused(mirrored):
    assert "make both within `strategy.scope()`" in mirrored["outside"]


@pytest.mark.both_backends
def test_it_tells_the_ratio_of_what_it_trains_and_of_nothing_else():
    dense = keras.layers.Dense(2, name="dense")
    stranger = keras.Variable(1.0)
    dense.build((None, 3))
    optimizer = LayerwiseOptimizer("sgd", {"dense": 0.25})
    assert optimizer.ratio_of(dense.kernel) is None
    optimizer.build(dense.trainable_variables)
    assert optimizer.ratio_of(dense.kernel) == 0.25
    assert optimizer.ratio_of(stranger) is None

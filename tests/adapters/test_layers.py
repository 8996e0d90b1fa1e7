"""The numbers: against NumPy, against a dense reference, under every precision, and without the full matrix."""

import keras
import numpy as np
import pytest
from adapters import small

from keras_transfer.adapters import layers
from keras_transfer.adapters.attach import add_lora


def _dense(units=5, width=6, **options):
    model = keras.Sequential([keras.Input((width,)), keras.layers.Dense(units, name="query", **options)])
    model.layers[0].bias.assign(np.random.default_rng(3).normal(size=units))
    return model


def _inputs(count=4, width=6):
    return np.random.default_rng(1).normal(size=(count, width)).astype("float32")


def _parts(model):
    layer = model.layers[0]
    factors = layers.adapters_of(layer)["default"]
    kernel = layers.keras_internals.kernel(layer)
    return [small.array(part) for part in (kernel, layer.bias, factors.a, factors.b)] + [factors]


@pytest.mark.both_backends
@pytest.mark.parametrize(("scaling", "scale"), [("lora", 16 / 4), ("rslora", 16 / 2)])
def test_lora_is_the_formula_of_the_paper(scaling, scale):
    model = _dense(activation="tanh")
    add_lora(model, rank=4, alpha=16, targets="query", scaling=scaling)
    small.stir(model)
    kernel, bias, a, b, _ = _parts(model)
    expected = np.tanh(_inputs() @ kernel + bias + scale * (_inputs() @ a) @ b)
    np.testing.assert_allclose(small.outputs(model, _inputs()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.both_backends
def test_dora_is_the_formula_of_the_paper():
    model = _dense()
    add_lora(model, rank=2, alpha=4, targets="query", dora=True)
    small.stir(model)
    kernel, bias, a, b, factors = _parts(model)
    magnitude = np.linalg.norm(kernel, axis=0) + small.array(factors.magnitude)
    direction = kernel + 2 * a @ b
    expected = _inputs() @ (magnitude * direction / np.linalg.norm(direction, axis=0)) + bias
    np.testing.assert_allclose(small.outputs(model, _inputs()), expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(
        small.array(model.layers[0].kernel),
        magnitude * direction / np.linalg.norm(direction, axis=0),
        rtol=2e-5,
        atol=1e-5,
    )


def _gradients(function, values):
    if keras.backend.backend() == "jax":
        import jax

        return [np.array(g) for g in jax.grad(function)([jax.numpy.asarray(value) for value in values])]
    import tensorflow as tf

    tensors = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = function(tensors)
    return [g.numpy() for g in tape.gradient(loss, tensors)]


@pytest.mark.both_backends
@pytest.mark.parametrize("dora", [False, True])
def test_gradients_are_those_of_the_dense_reference(dora):
    """Three steps of plain gradient descent on the factors, against the same on W + s A B written out."""
    model = _dense()
    add_lora(model, rank=2, alpha=4, targets="query", dora=dora)
    small.stir(model)
    kernel, bias, a, b, factors = _parts(model)
    values = [a, b] + ([small.array(factors.magnitude)] if dora else [])
    inputs, wanted = _inputs(), np.ones((4, 5), "float32")

    def loss(values):
        ops = keras.ops
        weight = kernel + 2.0 * ops.matmul(values[0], values[1])
        if dora:
            # the norm takes no gradient, as in section 4.3 of the paper
            norm = ops.stop_gradient(ops.sqrt(ops.sum(weight * weight, axis=0)))
            weight = weight * (np.linalg.norm(kernel, axis=0) + values[2]) / norm
        return ops.mean(ops.square(ops.matmul(inputs, weight) + bias - wanted))

    model.compile(keras.optimizers.SGD(0.1), "mse")
    for _ in range(3):
        model.train_on_batch(inputs, wanted)
        values = [value - 0.1 * gradient for value, gradient in zip(values, _gradients(loss, values), strict=True)]
    for variable, value in zip(factors.trained.values(), values, strict=True):
        np.testing.assert_allclose(small.array(variable), value, rtol=1e-4, atol=1e-6)


def test_no_product_of_the_factors_is_ever_made():
    """Keras adds alpha/r · A B into the kernel at every call; here nothing of the kernel's shape is computed at all."""
    model = keras.Sequential([keras.Input((31,)), keras.layers.Dense(37, use_bias=False, name="query")])
    add_lora(model, rank=2, targets="query")
    inputs = np.ones((3, 31), "float32")
    assert not [shape for shape in _computed(model, inputs) if sorted(shape) == [31, 37]]


def _computed(model, inputs):
    """The shapes of all that a training step computes of the loss and its gradients."""
    if keras.backend.backend() == "jax":
        import jax

        def loss(trained, others):
            outputs, _ = model.stateless_call(trained, others, inputs)
            return (outputs**2).sum()

        trained = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        jaxpr = jax.make_jaxpr(jax.grad(loss))(trained, others)
        return [tuple(variable.aval.shape) for equation in jaxpr.eqns for variable in equation.outvars]
    import tensorflow as tf

    @tf.function
    def step(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(inputs) ** 2)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    graph = step.get_concrete_function(tf.constant(inputs)).graph
    needed, waiting = {}, [tensor.op for tensor in graph.outputs]
    while waiting:  # TensorFlow prunes what no result needs
        operation = waiting.pop()
        if operation.name not in needed:
            needed[operation.name] = operation
            waiting += [tensor.op for tensor in operation.inputs]
    read = ("ReadVariableOp", "Placeholder", "Identity", "Cast")
    return [
        tuple(tensor.shape)
        for operation in needed.values()
        if operation.type not in read
        for tensor in operation.outputs
        if tensor.shape.rank == 2
    ]


@pytest.mark.both_backends
@pytest.mark.parametrize("kind", ["Dense", "Conv2D"])
def test_dropout_falls_on_the_adapters_input_and_only_in_training(kind):
    if kind == "Dense":
        model, inputs = _dense(), np.ones((400, 6), "float32")
    else:
        model, inputs = small.convolutional(), np.ones((60, 8, 8, 4), "float32")
    add_lora(model, rank=2, targets="query" if kind == "Dense" else "stem", dropout=0.5)
    without = small.outputs(model, inputs)
    small.stir(model)
    steady = small.outputs(model, inputs)
    np.testing.assert_array_equal(steady, small.outputs(model, inputs))
    dropped = small.array(model(inputs, training=True))
    assert np.abs(dropped - steady).max() > 1e-3
    if kind == "Dense":
        # The base sees every input, and on average so does the adapter.
        np.testing.assert_allclose(dropped.mean(0) - without[0], steady[0] - without[0], rtol=0.2, atol=0.15)
        zero = np.all(np.isclose(dropped, without), axis=1).mean()
        np.testing.assert_allclose(zero, 0.5**6, atol=0.02)


@pytest.mark.both_backends
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_factors_are_float32_under_every_policy(policy):
    if "float16" in policy.split("_") and keras.backend.backend() == "jax":
        pytest.skip("NOT TESTED: JAX has no float16 products on a CPU")
    keras.config.set_dtype_policy(policy)
    model = small.transformer()
    before = small.outputs(model)
    add_lora(model, rank=2, targets=["query", "wide", "words"])
    np.testing.assert_array_equal(small.outputs(model), before)
    assert small.outputs(model).dtype == before.dtype
    assert {str(variable.dtype) for variable in layers.factor_variables(model)} == {"float32"}
    losses = small.train(small.compiled(model, rate=0.05, eagerly=True), epochs=3)
    assert losses[-1] < losses[0]


def test_code_that_reads_the_kernel_finds_the_adapter_in_it():
    """KerasHub's Gemma 4 multiplies by `layer.kernel` itself."""
    model = _dense()
    add_lora(model, rank=2, targets="query")
    small.stir(model)
    expected = _inputs() @ small.array(model.layers[0].kernel) + small.array(model.layers[0].bias)
    np.testing.assert_allclose(small.outputs(model, _inputs()), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_called_twice_has_one_adapter():
    shared = keras.layers.Dense(4, name="query")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(shared(inputs)))
    add_lora(model, rank=2, targets="query")
    small.stir(model)
    _, bias, a, b, _ = (
        small.array(v) for v in (0, shared.bias, *layers.adapters_of(shared)["default"].trained.values(), 0)
    )
    weight = small.array(layers.keras_internals.kernel(shared)) + 4 * a @ b
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(small.outputs(model, x), (x @ weight + bias) @ weight + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrapper", ["TimeDistributed", "Bidirectional head"])
def test_layers_inside_wrappers(wrapper):
    dense = keras.layers.Dense(3, name="query")
    inputs = keras.Input((5, 4))
    layer = keras.layers.TimeDistributed(dense, name="wrapped") if wrapper == "TimeDistributed" else dense
    model = keras.Model(inputs, layer(inputs))
    table = add_lora(model, rank=2, targets="query")
    assert len(table) == 1
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    before = small.outputs(model, x)
    small.stir(model)
    assert np.abs(small.outputs(model, x) - before).max() > 1e-3


@pytest.mark.both_backends
def test_jit_computes_the_same():
    model = small.transformer()
    add_lora(model, rank=2, targets="all-linear", dora=True)
    small.stir(model)
    model.compile(loss="mse", jit_compile=True)
    np.testing.assert_allclose(model.predict(small.words(), verbose=0), small.outputs(model), rtol=1e-4, atol=1e-5)

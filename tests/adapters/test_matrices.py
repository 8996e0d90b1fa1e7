"""Each kind of kernel as a matrix: shapes, counts, and (x A) B against the dense product."""

import keras
import numpy as np
import pytest

from keras_transfer.adapters import layers
from keras_transfer.adapters.matrices import matrix, unsuitable


def _array(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


CASES = {
    "Dense": (lambda: keras.layers.Dense(6, activation="relu"), (4,)),
    "Dense of sequences": (lambda: keras.layers.Dense(6), (3, 4)),
    "heads out": (lambda: keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), (5, 4)),
    "heads first": (lambda: keras.layers.EinsumDense("btd,ndh->btnh", (None, 2, 3)), (5, 4)),
    "heads in": (lambda: keras.layers.EinsumDense("abde,def->abf", (None, 6), bias_axes="f"), (5, 2, 4)),
    "any leading axes": (lambda: keras.layers.EinsumDense("...x,xy->...y", 6), (5, 4)),
    "transposed": (lambda: keras.layers.EinsumDense("abc,dc->abd", (None, 6)), (5, 4)),
    "Conv1D causal": (lambda: keras.layers.Conv1D(6, 3, padding="causal"), (5, 4)),
    "Conv2D strides": (lambda: keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"), (6, 6, 4)),
    "Conv2D dilated": (lambda: keras.layers.Conv2D(6, 3, dilation_rate=2), (7, 7, 4)),
    "Conv2D groups": (lambda: keras.layers.Conv2D(6, 3, groups=2), (6, 6, 4)),
    "Conv3D": (lambda: keras.layers.Conv3D(6, 2), (3, 3, 3, 4)),
}


def _built(name):
    make, shape = CASES[name]
    layer = make()
    inputs = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    layer(inputs)
    if layer.bias is not None:
        layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape))
    return layer, inputs


def _adapted(layer, rank=2, **spec):
    factors = layers.attach(layer, "default", layers.FactorsSpec(rank, 4.0, **spec), {"gate": 1.0})
    generator = np.random.default_rng(2)
    for variable in factors.trained.values():
        variable.assign(generator.normal(size=variable.shape))
    layers.exchange(layer)
    return factors


@pytest.mark.both_backends
@pytest.mark.parametrize("layout", ["paper", "keras"])
@pytest.mark.parametrize("name", CASES)
def test_the_product_beside_is_that_of_the_changed_kernel(name, layout):
    layer, inputs = _built(name)
    plain, _ = _built(name)
    plain.set_weights(layer.get_weights())
    factors = _adapted(layer, layout=layout)
    a, b = (_array(factor) for factor in (factors.a, factors.b))
    assert _array(factors.matrix.update(a, b)).shape == tuple(plain.kernel.shape)
    plain.kernel.assign(plain.kernel + 2.0 * factors.matrix.update(a, b))
    np.testing.assert_allclose(_array(layer(inputs)), _array(plain(inputs)), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(_array(layer.kernel), _array(plain.kernel), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_flat_factors_give_the_update_of_the_flat_kernel(name):
    layer, _ = _built(name)
    found = matrix(layer)
    a, b = (np.random.default_rng(0).normal(size=shape).astype("float32") for shape in found.shapes(3))
    flat = np.matmul(*(_array(factor) for factor in found.flat_factors(a, b)))
    assert flat.shape == (found.d_in, found.d_out)
    np.testing.assert_allclose(_array(found.flat(found.update(a, b))), flat, rtol=1e-5, atol=1e-6)
    kernel = _array(layer.kernel)
    np.testing.assert_array_equal(_array(found.nested(found.flat(kernel))), kernel)


def test_rows_and_columns_are_those_of_the_paper_also_with_heads():
    """y = x W over (d, heads, head_dim) is x times the (d, heads · head_dim) matrix, columns in the kernel's order."""
    layer, inputs = _built("heads out")
    flat = _array(layer.kernel).reshape(4, 6)
    expected = (inputs.reshape(-1, 4) @ flat).reshape(2, 5, 2, 3) + _array(layer.bias)
    np.testing.assert_allclose(_array(layer(inputs)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(_array(matrix(layer).flat(layer.kernel)), flat)


def test_a_table_is_a_matrix_in_both_directions():
    table = keras.layers.ReversibleEmbedding(7, 4, logit_soft_cap=3.0)
    rows, hidden = np.array([[1, 6]]), np.random.default_rng(0).normal(size=(1, 2, 4)).astype("float32")
    table(rows)
    factors = _adapted(table)
    changed = _array(table.embeddings)
    expected = _array(layers.keras_internals.kernel(table)) + 2.0 * _array(factors.a) @ _array(factors.b)
    np.testing.assert_allclose(changed, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(_array(table(rows)), changed[rows], rtol=1e-5, atol=1e-5)
    logits = 3.0 * np.tanh(hidden @ changed.T / 3.0)
    np.testing.assert_allclose(_array(table(hidden, reverse=True)), logits, rtol=1e-5, atol=1e-5)


def test_an_untied_table_has_no_adapter_in_its_logits():
    table = keras.layers.ReversibleEmbedding(7, 4, tie_weights=False)
    hidden = np.ones((1, 2, 4), "float32")
    table(np.array([[1]]))
    before = _array(table(hidden, reverse=True))
    _adapted(table)
    np.testing.assert_array_equal(_array(table(hidden, reverse=True)), before)


def test_a_table_keeps_its_mask():
    tokens = keras.Input((4,), dtype="int32")
    for kind in (keras.layers.Embedding, keras.layers.ReversibleEmbedding):
        table = kind(7, 4, mask_zero=True)
        model = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(table(tokens)))
        words = np.array([[3, 5, 0, 0]])
        before = _array(model(words))
        factors = _adapted(table)
        factors.a.assign(np.zeros(factors.a.shape))
        layers.exchange(model)
        np.testing.assert_array_equal(_array(model(words)), before)


@pytest.mark.parametrize(("rank", "paper", "keras_own"), [(4, 6144, 37120), (8, 12288, 74240), (16, 24576, 148480)])
def test_an_attention_kernel_has_the_papers_numbers(rank, paper, keras_own):
    layer = keras.layers.EinsumDense("abc,cde->abde", (None, 12, 64))
    layer.build((None, None, 768))
    assert matrix(layer).count(rank) == rank * (768 + 768) == paper
    assert matrix(layer, "keras").count(rank) == rank * (768 * 12 + 64) == keras_own


@pytest.mark.parametrize(
    ("layer", "shape", "a", "b"),
    [
        (keras.layers.Embedding(30522, 768), None, (30522, 8), (8, 768)),
        (keras.layers.Conv2D(64, 3), (None, 8, 8, 16), (3, 3, 16, 8), (8, 64)),
        (keras.layers.Conv2D(64, 3, groups=4), (None, 8, 8, 16), (3, 3, 4, 8), (8, 64)),
    ],
)
def test_tables_and_convolutions_have_the_shapes_of_peft(layer, shape, a, b):
    layer.build(shape)
    assert matrix(layer).shapes(8) == (a, b)


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (keras.layers.DepthwiseConv2D(3), (None, 8, 8, 4), "DepthwiseConv2D has no matrix"),
        (keras.layers.LayerNormalization(), (None, 4), "LayerNormalization has no matrix"),
        (keras.layers.Dense(3), None, "not built"),
        (keras.layers.Dense(3, kernel_constraint="non_neg"), (None, 4), "constraint"),
        (keras.layers.EinsumDense("eab,ebc->eac", (None, 3)), (2, 5, 4), "many matrices"),
    ],
)
def test_what_can_carry_no_adapter_says_why(layer, shape, reason):
    if shape is not None:
        layer.build(shape)
    assert reason in unsuitable(layer)


def test_a_dense_with_a_call_of_its_own_is_left_alone():
    class Doubled(keras.layers.Dense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs)

    layer = Doubled(3)
    layer.build((None, 4))
    assert "`call` of its own" in unsuitable(layer)

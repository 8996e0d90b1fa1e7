"""The private side of Keras that adapters use: this fails when Keras changes it, before anything else does."""

import ast
import pathlib

import keras
import numpy as np
import pytest

from keras_transfer import adapters
from keras_transfer.adapters import keras_internals

pytestmark = pytest.mark.both_backends

FOLDER = pathlib.Path(adapters.__file__).parent


def _built(kind):
    layer = {
        keras.Layer: lambda: keras.layers.Dense(3),
        keras.layers.Dense: lambda: keras.layers.Dense(3),
        keras.layers.EinsumDense: lambda: keras.layers.EinsumDense("ab,bc->ac", 3),
        keras.layers.Embedding: lambda: keras.layers.Embedding(5, 3),
        keras.layers.Conv2D: lambda: keras.layers.Conv2D(3, 1),
    }[kind]()
    layer.build((None, 4) if kind is not keras.layers.Conv2D else (None, 2, 2, 4))
    return layer


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, names in keras_internals.PRIVATE.items() for name in names],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_keras_has_it(kind, name):
    assert hasattr(_built(kind), name)


def test_nothing_private_of_keras_is_used_elsewhere():
    """Names of ours begin with an underscore as well; those that a Keras layer has are meant."""
    private = {name for names in keras_internals.PRIVATE.values() for name in names}
    overridden = {"layers.py": {"_int8_call", "_int4_call"}}
    for path in FOLDER.glob("*.py"):
        if path.name == "keras_internals.py":
            continue
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert used.isdisjoint(private - overridden.get(path.name, set())), path.name


def test_the_kernel_is_the_variable_itself():
    for kind in (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding, keras.layers.Conv2D):
        layer = _built(kind)
        assert isinstance(keras_internals.kernel(layer), keras.Variable)
        assert keras_internals.kernel(layer) is layer.weights[0]


def test_a_built_layer_grows_and_shrinks():
    layer = _built(keras.layers.Dense)
    with pytest.raises(ValueError, match="You cannot add new elements of state"):
        layer.add_weight(shape=(2,), name="more")
    with keras_internals.growing(layer):
        added = layer.add_weight(shape=(2,), name="more")
        layer.below = keras.layers.Dropout(0.5)
    assert any(variable is added for variable in layer.variables)
    assert keras_internals.children(layer) == [layer.below]
    with pytest.raises(ValueError, match="You cannot add new elements of state"):
        layer.add_weight(shape=(2,), name="more")
    keras_internals.drop_variable(layer, added)
    keras_internals.drop_layer(layer, "below")
    assert len(layer.variables) == 2
    assert keras_internals.children(layer) == []


def test_the_flag_alone():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    keras_internals.set_flag(model, False)
    assert not model.trainable
    assert model.layers[0].trainable
    assert all(variable.trainable for variable in model.variables)


def test_a_view_computes_as_the_stock_layer_without_touching_it():
    layer = keras.layers.Dense(3, activation="relu")
    inputs = -np.ones((1, 4), "float32")
    layer.build((None, 4))
    layer.kernel.assign(np.ones((4, 3)))
    seen = keras_internals.view(layer, keras.layers.Dense, activation=None)
    assert keras.ops.convert_to_numpy(seen.call(inputs)).tolist() == [[-4.0] * 3]
    assert keras.ops.convert_to_numpy(layer(inputs)).tolist() == [[0.0] * 3]


def test_a_class_is_exchanged_in_place():
    class Other(keras.layers.Dense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs)

    layer = _built(keras.layers.Dense)
    inputs = np.ones((1, 4), "float32")
    before = keras.ops.convert_to_numpy(layer(inputs))
    keras_internals.set_class(layer, Other)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(inputs)), 2 * before)

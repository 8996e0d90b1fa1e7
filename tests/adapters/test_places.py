"""Paths: readable, unique, the same in another instance."""

import keras
import pytest
from adapters import families

from keras_transfer.adapters.places import places
from keras_transfer.adapters.targets import attention


class Attention(keras.layers.Layer):
    """Layers without names of their own, as in SAM, MiT and Flux."""

    def __init__(self, **options):
        super().__init__(**options)
        self.q = keras.layers.Dense(4)
        self.v = keras.layers.Dense(4)
        self.mlp = [keras.layers.Dense(4), keras.layers.Dense(4)]

    def build(self, shape):
        for layer in (self.q, self.v, *self.mlp):
            layer.build(shape)

    def call(self, inputs):
        outputs = self.q(inputs) + self.v(inputs)
        for layer in self.mlp:
            outputs = layer(outputs)
        return outputs


def _model():
    return keras.Sequential([keras.Input((4,)), Attention(name="first"), Attention(name="second")])


def test_layers_without_names_are_called_by_what_holds_them():
    paths = [place.path for place in places(_model())]
    assert paths == [
        *("first", "first/q", "first/v", "first/mlp.0", "first/mlp.1"),
        *("second", "second/q", "second/v", "second/mlp.0", "second/mlp.1"),
    ]
    assert paths == [place.path for place in places(_model())]


def test_a_shared_layer_has_one_place():
    shared = keras.layers.Dense(4, name="shared")
    inside = keras.Sequential([keras.Input((4,)), shared], name="inside")
    model = keras.Sequential([keras.Input((4,)), inside, shared])
    assert [place.path for place in places(model) if place.layer is shared] == ["inside/shared"]


def test_what_repeats_is_numbered():
    inputs = keras.Input((4,))
    branches = []
    for _ in range(2):
        branch = keras.Sequential([keras.layers.Dense(2, name="query")], name="branch")
        branches.append(branch)

    class Both(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="both")
            self.one, self.other = branches

        def call(self, inputs):
            return self.one(inputs) + self.other(inputs)

    model = keras.Model(inputs, Both()(inputs))
    paths = [place.path for place in places(model)]
    assert paths == ["both", "both/branch", "both/branch/query", "both/branch#1", "both/branch/query#1"]


@pytest.mark.parametrize("family", ["t5", "smollm3", "mit", "flux", "mixtral"])
def test_paths_are_unique_and_stable_where_keras_repeats_or_changes_them(family):
    first, second = (places(getattr(families, family)()) for _ in range(2))
    paths = [place.path for place in first]
    assert len(set(paths)) == len(paths)
    assert [place.path for place in attention(first)] == [place.path for place in attention(second)]

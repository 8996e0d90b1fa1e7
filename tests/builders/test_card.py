import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_transfer.builders import card

pytestmark = pytest.mark.both_backends


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=2, max_size=20))
def test_any_names_come_back_from_a_layers_configuration(names):
    layer = keras.layers.Activation("linear", dtype=card.policy({"classes": names}))
    again = keras.layers.Activation.from_config(layer.get_config())
    assert card.read(keras.Sequential([keras.Input((2,)), again])) == {"classes": names}


def test_the_card_survives_saving_loading_cloning_and_compiling(tmp_path):
    names = ["c++", "a.*", 'quote "', "naïve", "back\\slash", "{brace}", "line\nbreak"]
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Activation("linear", dtype=card.policy({"classes": names}))]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.compile("sgd", "mse")
    assert card.class_names(loaded) == tuple(names)
    assert card.class_names(keras.models.clone_model(loaded)) == tuple(names)


def test_the_card_changes_no_dtype():
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        layer = keras.layers.Activation("linear", dtype=card.policy({"classes": [".*", "a"]}))
        assert layer(keras.ops.ones((1, 2), "float16")).dtype in ("float32", keras.ops.ones(1).dtype)
        assert layer.compute_dtype == "float32"


def test_a_model_without_a_card_has_no_names():
    assert card.class_names(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])) is None

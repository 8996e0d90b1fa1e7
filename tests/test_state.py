import keras
import numpy as np
import pytest

from keras_transfer import state


def _model():
    """A model whose variables' paths collide: two layers of one name in two nested models."""
    inner = [keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="same")], name=f"n{i}") for i in (1, 2)]
    pixels = keras.Input((3,))
    x = inner[1](keras.layers.Dropout(0.5)(inner[0](pixels)))
    return keras.Model(pixels, keras.layers.BatchNormalization()(x))


def test_every_variable_has_a_position_of_its_own_even_where_paths_collide():
    found = state.identities(_model())
    assert [identity.position for identity in found] == list(range(len(found)))
    # 2 Dense of 2, a dropout seed, 4 of batch norm
    assert len(found) == 9


def test_the_walk_is_the_same_after_saving_and_loading(tmp_path):
    model = _model()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    shapes = [(identity.position, identity.shape, identity.dtype) for identity in state.identities(model)]
    assert shapes == [(identity.position, identity.shape, identity.dtype) for identity in state.identities(loaded)]
    for (_, ours), (_, theirs) in zip(state.walk(model), state.walk(loaded), strict=True):
        if not state.is_seed(ours):  # Keras starts dropout anew in a loaded model
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_the_walk_does_not_change_with_what_is_trainable():
    model = _model()
    before = [id(variable) for _, variable in state.walk(model)]
    model.trainable = False
    assert before == [id(variable) for _, variable in state.walk(model)]


def test_values_come_back_bit_for_bit():
    model = _model()
    before = state.values(model)
    state.assign(model, [value + 1 for value in before])
    assert not np.array_equal(before[0], state.values(model)[0])
    state.assign(model, before)
    for ours, theirs in zip(before, state.values(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_values_are_copies():
    model = _model()
    values = state.values(model)
    values[0][:] = 7
    assert not np.any(state.values(model)[0] == 7)


def test_values_of_another_model_are_refused_and_nothing_is_assigned():
    model = _model()
    before = state.values(model)
    with pytest.raises(ValueError, match="do not belong"):
        state.assign(model, before[:-1])
    wrong = [value + 1 for value in before]
    wrong[-1] = np.zeros((7, 7))
    with pytest.raises(ValueError, match="another shape"):
        state.assign(model, wrong)
    np.testing.assert_array_equal(before[0], state.values(model)[0])


def test_seeds_follow_from_the_seed_and_the_position():
    model = _model()
    state.seed(model, 1)
    first = [np.asarray(v.numpy()) for _, v in state.walk(model) if state.is_seed(v)]
    state.seed(model, 1)
    again = [np.asarray(v.numpy()) for _, v in state.walk(model) if state.is_seed(v)]
    state.seed(model, 2)
    other = [np.asarray(v.numpy()) for _, v in state.walk(model) if state.is_seed(v)]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_is_private_in_keras_is_still_there():
    """Fails when Keras moves what `state.py` uses; the module's import then says so too."""
    attention = keras.layers.MultiHeadAttention(2, 2)
    attention.build((None, 3, 4), (None, 3, 4))
    names = {layer.name for layer in state.sublayers(attention)}
    assert {"query", "key", "value", "attention_output"} <= names
    norm = keras.layers.BatchNormalization()
    norm.build((None, 3))
    norm.trainable = False
    assert [v.name for v in state.own_trainable_variables(norm)] == ["gamma", "beta"]
    assert [v.name for v in state.own_variables(norm)] == ["gamma", "beta", "moving_mean", "moving_variance"]

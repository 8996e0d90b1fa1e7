import keras
import numpy as np
import pytest
from bodies import pictures, residual_body

from keras_transfer import state
from keras_transfer.backbones import freezing

pytestmark = pytest.mark.both_backends


def _differs_in_training(model, x) -> bool:
    return not np.array_equal(np.asarray(model(x, training=True)), np.asarray(model(x, training=False)))


def test_stock_keras_drops_in_a_frozen_body():
    """The trap that this module is for; when this fails, Keras has mended it."""
    body = residual_body()
    body.trainable = False
    pixels = keras.Input((16, 16, 3))
    model = keras.Model(pixels, body(pixels, training=False))
    assert _differs_in_training(model, pictures())


def test_a_frozen_body_is_a_pure_function_of_its_input():
    body = residual_body()
    freezing.freeze(body)
    pixels = keras.Input((16, 16, 3))
    assert not _differs_in_training(keras.Model(pixels, body(pixels)), pictures())


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dropout(0.5),
        keras.layers.SpatialDropout2D(0.5),
        keras.layers.GaussianNoise(1.0),
        keras.layers.GaussianDropout(0.5),
        keras.layers.AlphaDropout(0.5),
        keras.layers.RandomFlip(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_random_layer_falls_silent_and_wakes_again(layer):
    x = np.random.default_rng(0).uniform(1, 2, (8, 8, 8, 3)).astype("float32")
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, layer(pixels))
    freezing.set_inference(layer, True)
    assert not _differs_in_training(model, x)
    freezing.set_inference(layer, False)
    assert _differs_in_training(model, x)


def test_dropout_inside_a_composite_layer_falls_silent():
    attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.5)
    x = keras.Input((5, 8))
    model = keras.Model(x, attention(x, x))
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    assert _differs_in_training(model, tokens)
    freezing.freeze(model)
    assert not _differs_in_training(model, tokens)


def test_waking_trains_exactly_the_named_layers():
    body = residual_body()
    freezing.freeze(body)
    freezing.wake(body, [body.get_layer("block2_conv"), body.get_layer("block2_bn")])
    assert [variable.path for variable in body.trainable_variables] == ["block2_conv/kernel", "block2_conv/bias"]
    freezing.wake(body, [body.get_layer("block2_conv"), body.get_layer("block2_bn")], batch_norm="adapt")
    assert [variable.path for variable in body.trainable_variables] == [
        "block2_conv/kernel",
        "block2_conv/bias",
        "block2_bn/gamma",
        "block2_bn/beta",
    ]


def test_waking_again_and_again_ends_where_the_last_one_says():
    """On TensorFlow a flag set to what it is already does nothing, which can leave variables behind."""
    body = residual_body()
    everything = state.sublayers(body)
    for _ in range(3):
        freezing.wake(body, everything, batch_norm="adapt")
        # stem and three blocks, each of kernel, bias, gamma and beta
        assert len(body.trainable_variables) == 16
        freezing.freeze(body)
        assert len(body.trainable_variables) == 0
        freezing.wake(body, [body.get_layer("stem_conv")])
        assert len(body.trainable_variables) == 2


def test_an_awake_layer_inside_a_frozen_composite_trains_alone():
    attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
    x = keras.Input((5, 8))
    model = keras.Model(x, attention(x, x))
    query = next(layer for layer in state.sublayers(attention) if layer.name == "query")
    freezing.freeze(model)
    freezing.wake(model, [query])
    assert [variable.path.split("/")[-2] for variable in model.trainable_variables] == ["query", "query"]


def test_a_layer_of_another_model_is_refused():
    with pytest.raises(ValueError, match="stem_conv"):
        freezing.wake(residual_body(), [residual_body().get_layer("stem_conv")])


def test_a_misspelt_policy_is_refused():
    with pytest.raises(ValueError, match="'frozen' or 'adapt'"):
        freezing.wake(residual_body(), [], batch_norm="adopt")


def test_a_frozen_layer_saves_the_rate_it_will_wake_with():
    dropout = keras.layers.Dropout(0.5)
    freezing.set_inference(dropout, True)
    assert dropout.get_config()["rate"] == 0.5

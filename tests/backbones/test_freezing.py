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
    for batch_norm in ("affine", "adapt"):
        freezing.wake(body, [body.get_layer("block2_conv"), body.get_layer("block2_bn")], batch_norm=batch_norm)
        assert [variable.path for variable in body.trainable_variables] == [
            "block2_conv/kernel",
            "block2_conv/bias",
            "block2_bn/gamma",
            "block2_bn/beta",
        ]


def test_scale_and_offset_train_on_the_statistics_that_were_pretrained():
    body = residual_body()
    layers = [layer for layer in state.sublayers(body) if not isinstance(layer, keras.layers.Dropout)]
    freezing.wake(body, layers, batch_norm="affine")
    assert not _differs_in_training(body, pictures())
    assert len(body.trainable_variables) == 16
    freezing.wake(body, layers, batch_norm="adapt")
    assert _differs_in_training(body, pictures())


class Scaled(keras.layers.Layer):
    """What a batch norm is whose statistics stay: their formula, with its scale and offset as weights."""

    def __init__(self, norm, **options):
        super().__init__(**options)
        self.mean, self.variance, self.epsilon = norm.moving_mean.numpy(), norm.moving_variance.numpy(), norm.epsilon
        self.gamma = self.add_weight(shape=self.mean.shape, initializer="ones")
        self.beta = self.add_weight(shape=self.mean.shape, initializer="zeros")

    def call(self, x):
        return self.gamma * (x - self.mean) / (self.variance + self.epsilon) ** 0.5 + self.beta


def test_affine_batch_norms_learn_as_their_formula_does():
    generator = np.random.default_rng(0)
    norm, dense = keras.layers.BatchNormalization(), keras.layers.Dense(3, name="dense")
    norm.build((None, 4))
    norm.moving_mean.assign(generator.normal(size=4))
    norm.moving_variance.assign(generator.uniform(0.5, 2, 4))
    features = keras.Input((4,))
    ours = keras.Model(features, dense(norm(features)))
    scaled, copy = Scaled(norm), keras.layers.Dense(3)
    theirs = keras.Model(features, copy(scaled(features)))
    copy.set_weights(dense.get_weights())
    freezing.wake(ours, ours.layers, batch_norm="affine")
    x, y = generator.normal(size=(8, 4)), generator.normal(size=(8, 3))
    statistics = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    for model in (ours, theirs):
        model.compile(keras.optimizers.SGD(0.5), "mean_squared_error")
        for _ in range(3):
            model.train_on_batch(x, y)
    for one, other in ((norm.gamma, scaled.gamma), (norm.beta, scaled.beta), (dense.kernel, copy.kernel)):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6)
    assert np.abs(norm.gamma.numpy() - 1).min() > 1e-3
    np.testing.assert_array_equal((norm.moving_mean.numpy(), norm.moving_variance.numpy()), statistics)


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
    with pytest.raises(ValueError, match=r"'frozen', 'affine', 'adapt'\n  nearest: +adapt"):
        freezing.wake(residual_body(), [], batch_norm="adopt")


def test_a_frozen_layer_saves_the_rate_it_will_wake_with():
    dropout = keras.layers.Dropout(0.5)
    freezing.set_inference(dropout, True)
    assert dropout.get_config()["rate"] == 0.5

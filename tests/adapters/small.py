"""Small models for the tests of adapters: every kind of layer that can carry one, in milliseconds."""

import keras
import numpy as np

WORDS, LENGTH, WIDTH, CLASSES = 20, 5, 8, 3


def words(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, WORDS, (count, LENGTH)).astype("int32")


def labels(count: int = 6) -> np.ndarray:
    return np.arange(count) % CLASSES


def transformer(dropout: float = 0.0) -> keras.Model:
    """Embedding, attention projections with heads, a feed-forward part with an activation, a head; always the same."""
    keras.utils.set_random_seed(11)
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(WORDS, WIDTH, name="words")(tokens)
    y = keras.layers.MultiHeadAttention(2, 4, dropout=dropout, name="attention")(x, x)
    x = keras.layers.LayerNormalization(name="norm")(x + y)
    x = keras.layers.Dense(2 * WIDTH, activation="gelu", name="wide")(x)
    x = keras.layers.Dense(WIDTH, name="narrow")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(tokens, keras.layers.Dense(CLASSES, name="head")(x), name="small")


def pictures(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (count, 8, 8, 4)).astype("float32")


def convolutional() -> keras.Model:
    """Convolutions with and without groups, batch norm, a depthwise one."""
    pixels = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(pixels)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(8, 3, groups=2, padding="same", name="grouped")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(pixels, keras.layers.Dense(CLASSES, name="head")(x), name="pictures")


def compiled(model: keras.Model, rate: float = 0.01, *, eagerly: bool = False, **options) -> keras.Model:
    """Compiled for training; `eagerly`, where what matters is that something was trained and not how."""
    # To trace a step takes TensorFlow longer than to run a few. JAX would compile each operation by itself.
    options["run_eagerly"] = eagerly and keras.backend.backend() == "tensorflow"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, **options)
    return model


def train(model: keras.Model, epochs: int = 3, inputs=None) -> list[float]:
    inputs = words() if inputs is None else inputs
    return model.fit(inputs, labels(len(inputs)), epochs=epochs, batch_size=3, shuffle=False, verbose=0).history["loss"]


def array(tensor) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(tensor))


def outputs(model: keras.Model, inputs=None) -> np.ndarray:
    """The eager outputs, at inference."""
    return array(model(words() if inputs is None else inputs, training=False))


def stir(model: keras.Model, width: float = 0.3, seed: int = 0) -> None:
    """Gives every factor that trains random numbers, so that the adapter counts."""
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if "lora_" in variable.path:
            variable.assign(variable + width * generator.normal(size=variable.shape))

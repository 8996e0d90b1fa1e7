"""Small models for the tests: everything that makes real ones hard, in milliseconds."""

import keras
import numpy as np

import keras_transfer as kt


def residual_body(size: int = 16, width: int = 8, depth: int = 3) -> keras.Model:
    """Convolutions with batch norm, dropout and residual sums: stem, block1, block2, …"""
    pixels = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(width, 3, strides=2, padding="same", name="stem_conv")(pixels)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = keras.layers.Activation("relu", name="stem_relu")(x)
    for number in range(1, depth + 1):
        name = f"block{number}"
        y = keras.layers.Conv2D(width, 3, padding="same", name=f"{name}_conv")(x)
        y = keras.layers.BatchNormalization(name=f"{name}_bn")(y)
        y = keras.layers.Activation("relu", name=f"{name}_relu")(y)
        y = keras.layers.Dropout(0.5, name=f"{name}_drop")(y)
        x = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.Model(pixels, x, name="residual")


def classifier(classes=("dark", "light"), *, depth: int = 3, **options) -> keras.Model:
    """A classifier on `residual_body`, its head not at zero as it starts, so that its logits tell pictures apart."""
    model = kt.image_classifier(residual_body(depth=depth), classes, preprocessing="tf", **options)
    head = model.get_layer("head")
    head.kernel.assign(np.random.default_rng(2).normal(size=head.kernel.shape))
    return model


def dark_and_light(count: int = 24, size: int = 16, **options) -> kt.data.Splits:
    """Pictures of two classes that anything can tell apart."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pictures = generator.uniform(0, 120, (count, size, size, 3)) + 130 * labels[:, None, None, None]
    options = {"batch_size": 8, "augment": "none"} | options
    return kt.data.images((pictures.astype("uint8"), np.array(["dark", "light"])[labels]), **options)


def pictures(count: int = 4, size: int = 16) -> np.ndarray:
    """Noise as pictures."""
    return np.random.default_rng(1).uniform(0, 255, (count, size, size, 3)).astype("float32")

"""What a learning rate per layer costs: training steps under `LayerwiseOptimizer` against the bare optimizer's.

    python benchmarks/optimizer_step.py
    KERAS_BACKEND=jax python benchmarks/optimizer_step.py

Two copies of MobileNetV2 0.35, every layer at a ratio of its own, take turns on the same batch. Each pair of steps
gives one ratio of times, so that a busy machine slows both sides alike; the median over all pairs is the figure, and
must not exceed 1.03. The order within a pair changes from pair to pair.
"""

import argparse
import statistics
import time

import keras
import numpy as np

from keras_transfer.training.layerwise_optimizer import LayerwiseOptimizer


def compiled(layerwise: bool, image_size: int, jit_compile: bool) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(
        input_shape=(image_size, image_size, 3), alpha=0.35, weights=None, classes=10, classifier_activation=None
    )
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.01)
    if layerwise:
        layers = [layer for layer in model.layers if layer.trainable_variables]
        optimizer = LayerwiseOptimizer(optimizer, {layer: 0.98**depth for depth, layer in enumerate(reversed(layers))})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    return model


def seconds_per_step(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    start = time.perf_counter()
    model.train_on_batch(x, y)
    return time.perf_counter() - start


def main(pairs: int, warm_up: int, image_size: int, batch_size: int, jit_compile: bool) -> float:
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, size=(batch_size, image_size, image_size, 3)).astype("float32")
    y = random.integers(0, 10, size=batch_size)
    models = [compiled(layerwise, image_size, jit_compile) for layerwise in (False, True)]
    times: list[tuple[float, float]] = []
    for pair in range(warm_up + pairs):
        order = (0, 1) if pair % 2 else (1, 0)
        taken = {which: seconds_per_step(models[which], x, y) for which in order}
        if pair >= warm_up:
            times.append((taken[0], taken[1]))
    bare, layerwise = (statistics.median(side) for side in zip(*times, strict=True))
    low, ratio, high = statistics.quantiles([ours / theirs for theirs, ours in times], n=4)
    print(
        f"Keras {keras.__version__}, {keras.backend.backend()}, MobileNetV2 0.35 at {image_size}, batch {batch_size}, "
        f"{len(models[1].trainable_variables)} variables at {len(set(models[1].optimizer.ratios))} ratios, AdamW"
    )
    print(f"median step: bare {1000 * bare:.1f} ms, layer-wise {1000 * layerwise:.1f} ms")
    print(f"layer-wise / bare, median of {pairs} pairs: {ratio:.3f} (quartiles {low:.3f}, {high:.3f}); bound 1.03")
    return ratio


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="pairs of steps that are timed")
    parser.add_argument("--warm-up", type=int, default=20, help="pairs of steps before those")
    parser.add_argument("--image-size", type=int, default=96, help="side of the square pictures, in pixels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--jit-compile", action="store_true", default=keras.backend.backend() == "jax")
    raise SystemExit(main(**vars(parser.parse_args())) > 1.03)

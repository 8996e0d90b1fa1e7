"""Trains a new head on a frozen pretrained body: the cheapest way to a classifier.

    python recipes/image_feature_extraction.py

Needs no download: a small MobileNet learns seven of the ten handwritten digits, then stays frozen while a new head
learns the other three from ten labelled pictures of each, beside a head on the same body with random weights. (Of five
digits it learns too little to beat random features at the other five: what the source is decides what transfers.)

    python recipes/image_feature_extraction.py --data tf_flowers --backbone EfficientNetV2B0

is the real thing: ImageNet weights, any TFDS name or folder of pictures.

Changes from image_fine_tuning.py: one stage, and the body never wakes.
"""

import statistics

import keras
import tyro

import keras_transfer as kt

SIZE = 64  # pixels; the digits have 8 by 8, which a MobileNet halves five times
CROPPED = kt.data.Augmentation(crop_area=(0.6, 1.0), brightness=0.1)  # no flips: a mirrored digit is another sign


def main(
    data: str = "digits",
    backbone: str = "MobileNetV2",
    epochs: int = 20,
    learning_rate: float = 3e-3,
    batch_size: int = 32,
    augment: str = "light",
    seeds: int = 3,
    workdir: str | None = None,
) -> None:
    """Trains a head on the features of a frozen `backbone`.

    Args:
        data: "digits", a TFDS name or a folder of pictures.
        backbone: a model of keras.applications.
        epochs: passes over the data.
        learning_rate: peak rate of the head.
        batch_size: pictures per step.
        augment: "none", "light" or "strong"; the digits have crops of their own.
        seeds: runs, each with its own seed.
        workdir: where the runs' files go.
    """
    if data == "digits":
        digits(epochs, learning_rate, seeds)
        return
    for seed in range(seeds):
        splits = kt.data.images(data, batch_size=batch_size, augment=augment, seed=seed)
        print(splits)
        model = kt.image_classifier(backbone, splits.classes)
        plan = kt.feature_extraction(model, epochs=epochs, learning_rate=learning_rate)
        run = kt.fit(model, splits, plan, workdir=workdir and f"{workdir}/seed_{seed}", seed=seed)
        if workdir:
            print("pictures:", *run.plot())


def digits(epochs: int, learning_rate: float, seeds: int) -> None:
    """A head on what seven digits taught, beside a head on random features."""
    accuracies = {"random features": [], "learned features": []}
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        source = kt.data.digits(classes=range(7), augment=CROPPED, seed=seed)
        target = kt.data.digits(classes=range(7, 10), per_class=10, batch_size=10, augment=CROPPED, seed=seed)
        teacher = kt.image_classifier("MobileNet", source.classes, weights=None, image_size=SIZE, alpha=0.25)
        body = teacher.get_layer("MobileNet")
        for name, values in accuracies.items():
            if name == "learned features":
                plan = kt.from_scratch(teacher, epochs=12, learning_rate=3e-3)
                learned = kt.fit(teacher, source, plan, seed=seed, verbose=False)
                print(f"seed {seed}: the body learned digits 0-6, accuracy {learned.report.accuracy:.3f}")
            model = kt.image_classifier(body, target.classes, preprocessing="tf")
            plan = kt.feature_extraction(model, epochs=epochs, learning_rate=learning_rate)
            values.append(kt.fit(model, target, plan, seed=seed, verbose=False).report.accuracy)
    print(f"\ndigits 7-9 from 10 labels each, head only: test accuracy over {seeds} seeds")
    for name, values in accuracies.items():
        print(f"  {name:<16} mean {statistics.mean(values):.3f}   from {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    tyro.cli(main)

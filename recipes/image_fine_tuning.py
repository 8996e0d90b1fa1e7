"""Fine-tunes a pretrained image model, and shows what the pretraining was worth.

    python recipes/image_fine_tuning.py

Needs no download: a small MobileNet learns five of the ten handwritten digits from scratch (the source task), then is
carried to the other five with ten labelled pictures of each: by a new head alone and by fine-tuning, beside the same
model trained on them from scratch.

    python recipes/image_fine_tuning.py --data tf_flowers --backbone EfficientNetV2B0

is the real thing (a Colab GPU does it in minutes): ImageNet weights, any TFDS name or folder of pictures.
"""

import statistics

import keras
import tyro

import keras_transfer as kt

SIZE = 48  # pixels; the digits have 8 by 8, which a MobileNet halves five times
CROPPED = kt.data.Augmentation(crop_area=(0.6, 1.0), brightness=0.1)  # no flips: a mirrored digit is another sign


def main(
    data: str = "digits",
    backbone: str = "MobileNetV2",
    epochs: tuple[int, int] = (3, 10),
    learning_rate: float = 1e-3,
    layer_decay: float = 0.75,
    unfreeze: str = "all",
    batch_size: int = 32,
    augment: str = "light",
    seeds: int = 3,
    workdir: str | None = None,
) -> None:
    """Fine-tunes `backbone` on `data`.

    Args:
        data: "digits", a TFDS name or a folder of pictures. The digits have settings of their own: of the other
            arguments only `seeds` is theirs.
        backbone: a model of keras.applications.
        epochs: of the head alone, then of the rest.
        learning_rate: peak rate.
        layer_decay: ratio of each block's rate to that of the block above.
        unfreeze: what the second stage wakes: "all", "top:2", "gradual".
        batch_size: pictures per step.
        augment: "none", "light" or "strong".
        seeds: runs, each with its own seed.
        workdir: where the runs' files go.
    """
    if data == "digits":
        digits(seeds)
        return
    for seed in range(seeds):
        splits = kt.data.images(data, batch_size=batch_size, augment=augment, seed=seed)
        print(splits)
        model = kt.image_classifier(backbone, splits.classes)
        plan = kt.staged_fine_tuning(
            model, epochs=epochs, learning_rate=learning_rate, layer_decay=layer_decay, unfreeze=unfreeze
        )
        run = kt.fit(model, splits, plan, workdir=workdir and f"{workdir}/seed_{seed}", seed=seed)
        if workdir:
            print("pictures:", *run.plot())


def digits(seeds: int) -> None:
    """Half of the digits teach a body, the other half show what it learned."""
    # A body that has seen a few hundred small pictures is no ImageNet body: all of it has much to learn.
    thorough = {"learning_rate": 3e-3, "layer_decay": 1.0, "batch_norm": "adapt", "safeguard": False}
    methods = {
        "from scratch": lambda model: kt.from_scratch(model, epochs=18, learning_rate=3e-3),
        "head only": lambda model: kt.feature_extraction(model, epochs=18),
        "fine-tuned": lambda model: kt.staged_fine_tuning(model, epochs=(3, 15), **thorough),
    }
    accuracies: dict[str, list[float]] = {name: [] for name in methods}
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        source = kt.data.digits(classes=range(5), augment=CROPPED, seed=seed)
        target = kt.data.digits(classes=range(5, 10), per_class=10, batch_size=10, augment=CROPPED, seed=seed)
        teacher = kt.image_classifier("MobileNet", source.classes, weights=None, image_size=SIZE, alpha=0.25)
        learned = kt.fit(
            teacher, source, kt.from_scratch(teacher, epochs=12, learning_rate=3e-3), seed=seed, verbose=False
        )
        print(f"seed {seed}: source task (digits 0-4) learned from scratch, accuracy {learned.report.accuracy:.3f}")
        body = teacher.get_layer("MobileNet")
        pretrained = body.get_weights()
        for name, method in methods.items():
            body.set_weights(pretrained)
            model = kt.image_classifier(body, target.classes, preprocessing="tf")
            run = kt.fit(model, target, method(model), seed=seed, verbose=False)
            accuracies[name].append(run.report.accuracy)
            print(f"  {name:<13} {run.report.accuracy:.3f} on {run.report.split}", flush=True)
    print(f"\ndigits 5-9 from 10 labels each: test accuracy over {seeds} seeds")
    for name, values in accuracies.items():
        print(f"  {name:<13} mean {statistics.mean(values):.3f}   from {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    tyro.cli(main)

"""Fine-tunes a pretrained image model, and shows what the pretraining was worth.

    python recipes/image_fine_tuning.py

Needs no download: a small MobileNet learns five of the ten handwritten digits from scratch (the source task), then is
carried to the other five with ten labelled pictures of each, beside the same model trained on them from scratch.

    python recipes/image_fine_tuning.py --data tf_flowers --backbone EfficientNetV2B0

is the real thing (a Colab GPU does it in minutes): ImageNet weights, any TFDS name or folder of pictures.
"""

import statistics

import keras
import tyro

import keras_transfer as kt


def main(
    data: str = "digits",
    backbone: str = "MobileNetV2",
    epochs: tuple[int, int] = (5, 15),
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
        data: "digits", a TFDS name or a folder of pictures.
        backbone: a model of keras.applications.
        epochs: of the head alone, then of the rest.
        learning_rate: peak rate.
        layer_decay: ratio of each block's rate to that of the block above.
        unfreeze: what the second stage wakes: "all", "top:2", "gradual".
        batch_size: pictures per step.
        augment: "none", "light" or "strong"; the digits take none.
        seeds: runs, each with its own seed.
        workdir: where the runs' files go.
    """
    if data == "digits":
        digits(epochs, learning_rate, layer_decay, unfreeze, seeds)
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


def digits(epochs: tuple[int, int], learning_rate: float, layer_decay: float, unfreeze: str, seeds: int) -> None:
    """Half of the digits teach a body, the other half show what it learned."""
    accuracies = {"from scratch": [], "head only": [], "fine-tuned": []}
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        source = kt.data.digits(classes=range(5), batch_size=32, seed=seed)
        target = kt.data.digits(classes=range(5, 10), per_class=10, batch_size=10, seed=seed)
        teacher = kt.image_classifier("MobileNet", source.classes, weights=None, image_size=32, alpha=0.25)
        learned = kt.fit(
            teacher, source, kt.from_scratch(teacher, epochs=30, learning_rate=3e-3), seed=seed, verbose=False
        )
        print(f"seed {seed}: source task (digits 0-4) learned from scratch, accuracy {learned.report.accuracy:.3f}")
        body = teacher.get_layer("MobileNet")
        pretrained = body.get_weights()
        for name, values in accuracies.items():
            body.set_weights(pretrained)
            model = kt.image_classifier(body, target.classes, preprocessing="tf")
            if name == "from scratch":
                plan = kt.from_scratch(model, epochs=sum(epochs))
            elif name == "head only":
                plan = kt.feature_extraction(model, epochs=sum(epochs))
            else:
                plan = kt.staged_fine_tuning(
                    model, epochs=epochs, learning_rate=learning_rate, layer_decay=layer_decay, unfreeze=unfreeze
                )
            run = kt.fit(model, target, plan, seed=seed, verbose=False)
            values.append(run.report.accuracy)
            print(f"  {name:<13} {run.report.accuracy:.3f} on {run.report.split}")
    print(f"\ndigits 5-9 from 10 labels each: test accuracy over {seeds} seeds")
    for name, values in accuracies.items():
        print(f"  {name:<13} mean {statistics.mean(values):.3f}   from {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    tyro.cli(main)

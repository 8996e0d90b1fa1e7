"""Compares the ways to adapt a pretrained body, on your own data, and writes a page about it.

    python recipes/compare_methods.py

Needs no download: a small MobileNet learns five of the ten handwritten digits (the source task), then four methods
carry it to the other five with ten labelled pictures of each. Beside accuracy and cost the page says whether transfer
helped at all, and how much each method forgets of the source task.

    python recipes/compare_methods.py --data tf_flowers --backbone EfficientNetV2B0 --workdir runs/flowers

is the real thing: ImageNet weights, any TFDS name or folder of pictures. Killed? The same line goes on.

Changes from image_fine_tuning.py: the runs are `kt.compare`'s.
"""

import keras
import tyro

import keras_transfer as kt

SIZE = 48  # pixels; the digits have 8 by 8, which a MobileNet halves five times
CROPPED = kt.data.Augmentation(crop_area=(0.6, 1.0), brightness=0.1)  # no flips: a mirrored digit is another sign


def main(
    data: str = "digits",
    backbone: str = "MobileNetV2",
    epochs: int = 18,
    seeds: int = 5,
    minutes: float | None = None,
    augment: str = "light",
    workdir: str | None = None,
    page: str = "compare_methods.html",
) -> None:
    """Compares methods that carry `backbone` to `data`.

    Args:
        data: "digits", a TFDS name or a folder of pictures.
        backbone: a model of keras.applications; the digits have their own.
        epochs: of each method in all.
        seeds: runs of each method.
        minutes: of training in all instead, the same share for each run.
        augment: "none", "light" or "strong"; the digits have crops of their own.
        workdir: where the runs' files go.
        page: where the page goes.
    """
    budget = {"epochs": epochs} if minutes is None else {"minutes": minutes}
    options = {"seeds": seeds, "workdir": workdir, **budget}
    if data == "digits":
        comparison = digits(options)
    else:
        splits = kt.data.images(data, augment=augment)
        plans = {
            "from scratch": kt.from_scratch,
            "head only": kt.feature_extraction,
            "fine-tuned": kt.staged_fine_tuning,
            "unfrozen step by step": lambda model: kt.staged_fine_tuning(model, unfreeze="gradual"),
            "top two blocks": lambda model: kt.staged_fine_tuning(model, unfreeze="top:2"),
        }
        comparison = kt.compare(lambda: kt.image_classifier(backbone, splits.classes), splits, plans, **options)
    print(f"\n{comparison}")
    comparison.to_html(page, title=f"{data}: which method?")
    print(f"\npage: {page}")


def digits(options: dict) -> kt.Comparison:
    """Half of the digits teach a body, the other half show what it learned."""
    keras.utils.set_random_seed(0)
    source = kt.data.digits(classes=range(5), augment=CROPPED)
    teacher = kt.image_classifier("MobileNet", source.classes, weights=None, image_size=SIZE, alpha=0.25)
    plan = kt.from_scratch(teacher, epochs=12, learning_rate=3e-3)
    learned = kt.fit(teacher, source, plan, verbose=False)
    print(f"source task (digits 0-4) learned from scratch, accuracy {learned.report.accuracy:.3f}", flush=True)
    body = teacher.get_layer("MobileNet")
    pretrained = body.get_weights()
    target = kt.data.digits(classes=range(5, 10), per_class=10, batch_size=10, augment=CROPPED)

    def build() -> keras.Model:
        fresh = keras.models.clone_model(body)
        fresh.set_weights(pretrained)
        return kt.image_classifier(fresh, target.classes, preprocessing="tf")

    # A body that has seen a few hundred small pictures is no ImageNet body: all of it has much to learn.
    thorough = {"learning_rate": 3e-3, "layer_decay": 1.0, "batch_norm": "adapt", "safeguard": False}
    plans = {
        "from scratch": lambda model: kt.from_scratch(model, learning_rate=3e-3),
        "head only": kt.feature_extraction,
        "fine-tuned": lambda model: kt.staged_fine_tuning(model, epochs=(3, 15), **thorough),
        "LoRA": lambda model: kt.lora(model, rank=8, targets="conv_pw_*", learning_rate=3e-3),
    }
    return kt.compare(build, target, plans, source=kt.Source(source, teacher), **options)


if __name__ == "__main__":
    tyro.cli(main)

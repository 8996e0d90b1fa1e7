"""Carries a classifier from a domain with labels to one that has none, and looks at what is in pictures nobody named.

    python recipes/domain_adaptation.py

Needs no download: a small network learns 900 handwritten digits, dark on light. The other 897 come faint, noisy or
as negatives, without labels. What is it worth to have seen 600 of them? The table is measured on the last 297,
beside an oracle that has the labels of the 600. Faint and noisy ones come back; of negatives no method makes anything.

    python recipes/domain_adaptation.py --source photos --target sketches --backbone MobileNetV2

is the real thing: `photos` has one folder per class (or `train`, `val` and `test` with one each), `sketches` is any
folder with pictures. No label of the target is read, so nobody can say how good the result is: look at the pictures.
Both commands draw two into `--out`: `domains.png`, both domains on one map before and after, and `clusters.png`, what
the adapted features make of the target when they are divided without any label, its most typical pictures beside each
group.
"""

import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tyro
from sklearn.datasets import load_digits

import keras_transfer as kt

SIZE = 32  # pixels; the digits have 8 by 8
METHODS = ("statistics", "coral", "adversarial")


def main(
    source: str = "digits",
    target: str | None = None,
    backbone: str = "MobileNetV2",
    method: str = "statistics",
    clusters: int | None = None,
    seed: int = 0,
    out: pathlib.Path = pathlib.Path("runs/domain_adaptation"),
) -> None:
    """Adapts a classifier of `source` to `target`.

    Args:
        source: "digits", a TFDS name or a folder of pictures, with labels.
        target: a folder of pictures; what folders it has inside says nothing.
        backbone: a model of keras.applications.
        method: "statistics", "coral" or "adversarial"; the digits go through all three.
        clusters: groups that the target is divided into; as many as there are classes if not given.
        seed: of everything random.
        out: where the pictures go.
    """
    out.mkdir(parents=True, exist_ok=True)
    if source == "digits":
        digits(seed, out)
        return
    if target is None:
        raise SystemExit("--target: a folder of pictures without labels")
    splits = kt.data.images(source, seed=seed)
    files = sorted(path for path in pathlib.Path(target).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    model = kt.image_classifier(backbone, splits.classes)
    found = kt.adapt(model, splits, files, method, seed=seed)
    print(found)
    print("pictures:", found.plot(out / "domains.png"))
    groups = kt.clusters(kt.embed(model, files), clusters or len(splits.classes), seed=seed)
    small = [np.asarray(keras.utils.load_img(file, target_size=(96, 96))) for file in files]
    print("         ", groups.plot(out / "clusters.png", pictures=small))


def digits(seed: int, out: pathlib.Path) -> None:
    """Every method on every change, beside no adaptation and an oracle."""
    held = load_digits()
    order = np.random.default_rng(seed).permutation(len(held.target))
    pictures = np.repeat(255 - held.images[order, ..., None] * (255 / 16), 3, axis=-1)
    labels = held.target[order]
    source = kt.data.images((pictures[:900].astype("uint8"), labels[:900]), augment="none", seed=seed)
    keras.utils.set_random_seed(seed)
    model = kt.image_classifier(small_body(), source.classes, preprocessing="tf")
    learned = kt.fit(model, source, kt.from_scratch(model, epochs=10, learning_rate=3e-3), seed=seed, verbose=False)
    weights = model.get_weights()
    print(f"digits as they were learned: accuracy {learned.report.accuracy:.3f}\n")
    print("changed      no adaptation  " + "  ".join(f"{name:>11}" for name in (*METHODS, "oracle")))
    in_vain = []
    for name, change in CHANGES.items():
        x = change(pictures[900:], np.random.default_rng(seed)).clip(0, 255).astype("uint8")
        parts = {"train": (x[:600], labels[900:1500]), "test": (x[600:], labels[1500:])}
        unseen = kt.data.images(parts, augment="none", seed=seed)
        accuracies = []
        for method in (None, *METHODS, "oracle"):
            model.set_weights(weights)
            if method == "oracle":
                kt.fit(model, unseen, kt.Plan([kt.Stage("all", 10, batch_norm="adapt")]), seed=seed, verbose=False)
            elif method:
                found = kt.adapt(model, source, x[:600], method, head="kept", seed=seed, verbose=False)
            if name == "faint" and method == "statistics":
                look(found, model, x[:600], labels[900:1500], out)
            accuracies.append(kt.evaluate(model, unseen, "test").accuracy)
        adapted = "  ".join(f"{accuracy:>11.3f}" for accuracy in accuracies[1:])
        print(f"{name:<13}{accuracies[0]:>13.3f}  {adapted}", flush=True)
        if max(accuracies[1:-1]) <= accuracies[0]:
            in_vain.append(name)
    if in_vain:
        print(f"\nNo method helps with: {', '.join(in_vain)}.")
        print("Domains can be brought together with the wrong classes on one another, and without labels nothing")
        print("says so: look at some of the predictions.")
    print(f"\npictures of the faint ones: {out / 'domains.png'}, {out / 'clusters.png'}")


def look(found: kt.Adaptation, model: keras.Model, x: np.ndarray, labels: np.ndarray, out: pathlib.Path) -> None:
    """What can be seen of one adaptation."""
    found.plot(out / "domains.png", target_labels=labels)
    groups = kt.clusters(kt.embed(model, x), 10)
    groups.plot(out / "clusters.png", pictures=x, labels=labels)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "faint": lambda x, draw: 180 + 0.2 * x,
    "noisy": lambda x, draw: x + draw.normal(0, 60, x.shape),
    "negative": lambda x, draw: 255 - x,
}


def small_body() -> keras.Model:
    """Four convolutions, each with the batch norm that knows the domain."""
    pixels = x = keras.Input((SIZE, SIZE, 3))
    for width in (16, 32, 64, 128):
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
    return keras.Model(pixels, x, name="small_body")


if __name__ == "__main__":
    tyro.cli(main)

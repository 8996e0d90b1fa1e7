"""What augmented versions of the features buy: feature extraction on k kept versions of each picture.

    python benchmarks/cache_views.py --shared ../shared

MobileNetV2 0.35 at 224, ImageNet weights, light augmentation, 20 epochs of the head, on the four shared sets. Loss and
accuracy are on validation (a fifth of train, by the seed), so that the choice of a default costs no test picture. k = 20
is training without a cache: every epoch has a version of its own. The linear probe that training starts from is given
as well.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

from image_fine_tuning import SETS, lend_weights

VIEWS = (0, 1, 2, 4, 8, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", default="probe", choices=["probe", "pretrained"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lend_weights(options.shared, pathlib.Path(folder) / "keras")
        os.environ["KERAS_TRANSFER_CACHE"] = str(pathlib.Path(folder) / "features")
        found = {}
        for name in SETS:
            for seed in range(options.seeds):
                for views, figures in measure(options.shared / "images" / name / "train", seed, options.start):
                    found.setdefault((name, views), []).append(figures)
            print(name, *(line(views, found[name, views]) for views in ("probe", *VIEWS)), sep="\n  ", flush=True)
    print("mean of all")
    for views in ("probe", *VIEWS):
        print(" ", line(views, [figures for name in SETS for figures in found[name, views]]))


def measure(folder: pathlib.Path, seed: int, start: str):
    """(views, (validation loss, validation accuracy)) for the probe and every number of views."""
    import dataclasses

    import keras

    import keras_transfer as kt

    splits = kt.data.images(folder, seed=seed)
    for views in ("probe", *VIEWS):
        keras.utils.set_random_seed(seed)
        model = kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35)
        plan = kt.feature_extraction(model, epochs=1 if views == "probe" else 20)
        rate = 1e-12 if views == "probe" else plan.stages[0].learning_rate
        plan = kt.Plan([dataclasses.replace(plan.stages[0], start="probe" if views == "probe" else start,
                                            learning_rate=rate)])  # fmt: skip
        options = {"cache": "disk", "cache_views": 0 if views == "probe" else views}
        row = kt.fit(model, splits, plan, seed=seed, verbose=False, **options).history[-1]
        yield views, (row["val_loss"], row["val_accuracy"])


def line(views, figures) -> str:
    losses, accuracies = zip(*figures, strict=True)
    spread = f"{min(accuracies):.3f}–{max(accuracies):.3f}"
    return (
        f"{views!s:>5} views: loss {statistics.mean(losses):.4f}, accuracy {statistics.mean(accuracies):.3f} ({spread})"
    )


if __name__ == "__main__":
    main()

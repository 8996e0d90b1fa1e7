"""What augmented versions of the features buy: training on k kept versions of each picture.

    python benchmarks/cache_views.py --shared ../shared
    python benchmarks/cache_views.py --shared ../shared --train top:2 --epochs 10 --views 0 1 4 10

MobileNetV2 0.35 at 224, ImageNet weights, light augmentation, on the four shared sets, from a linear probe on. Loss and
accuracy are on validation (a fifth of train, by the seed), so that the choice of a default costs no test picture. As
many versions as epochs is training without a cache; 0 is every picture as it is. The probe itself is given as well.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

from image_fine_tuning import SETS, lend_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", default="head", help="what of the model trains")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--views", type=int, nargs="+", default=[0, 1, 2, 4, 8, 20])
    options = parser.parse_args()
    rows = ["probe", *options.views]
    with tempfile.TemporaryDirectory() as folder:
        lend_weights(options.shared, pathlib.Path(folder) / "keras")
        os.environ["KERAS_TRANSFER_CACHE"] = str(pathlib.Path(folder) / "features")
        found = {}
        for name in SETS:
            for seed in range(options.seeds):
                for row in rows:
                    figures = measure(options.shared / "images" / name / "train", row, seed, options)
                    found.setdefault((name, row), []).append(figures)
            print(name, *(line(row, found[name, row]) for row in rows), sep="\n  ", flush=True)
    print("mean of all", *(line(row, [one for name in SETS for one in found[name, row]]) for row in rows), sep="\n  ")


def measure(folder: pathlib.Path, row: str | int, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Validation loss and accuracy of the probe, or of training from it on so many versions."""
    import keras

    import keras_transfer as kt

    splits = kt.data.images(folder, seed=seed)
    keras.utils.set_random_seed(seed)
    model = kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35)
    stages = [kt.Stage("head", 1, learning_rate=1e-12, start="probe")]  # a rate that leaves the probe as it is
    if row != "probe":
        stages.append(kt.Stage(options.train, options.epochs, learning_rate=1e-3, layer_decay=0.75))
    views = 0 if row == "probe" else row
    run = kt.fit(model, splits, kt.Plan(stages), seed=seed, verbose=False, cache="disk", cache_views=views)
    return run.history[-1]["val_loss"], run.history[-1]["val_accuracy"]


def line(views, figures) -> str:
    losses, accuracies = zip(*figures, strict=True)
    spread = f"{min(accuracies):.3f}–{max(accuracies):.3f}"
    return (
        f"{views!s:>5} views: loss {statistics.mean(losses):.4f}, accuracy {statistics.mean(accuracies):.3f} ({spread})"
    )


if __name__ == "__main__":
    main()

"""What the pass over the data costs that features are made in, and how cost grows with the number of pictures.

    python benchmarks/feature_pass.py --shared ../shared --plot runs/feature_pass.png

First the pass on pictures that are decoded already, against `predict` of the bare body on the same array, in turns, and
on JPEG files, with the time that reading and decoding take alone. MobileNetV2 0.35 at 224, ImageNet weights.

Then time and memory of the pass, and of ten epochs of a head on what it kept, for 1,000, 10,000 and 100,000 pictures of
32 pixels that are made as they are needed, each in a process of its own. Memory is the most that the process held, and
what it held before the pass.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from image_fine_tuning import arrays, lend_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=pathlib.Path, default=pathlib.Path("runs/feature_pass.png"))
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.grow:
        print(json.dumps(grow(options.grow)))
        return
    with tempfile.TemporaryDirectory() as folder:
        lend_weights(options.shared, pathlib.Path(folder) / "keras")
        against_predict(options.shared / "images" / "flowers", options.rounds)
    rows = []
    for count in options.counts:
        command = [sys.executable, __file__, "--grow", str(count)]
        rows.append(
            json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\n")[-2])
        )
        print("{count:>7} pictures: pass {pass:.1f} s, ten epochs {epochs:.1f} s, {bytes:.1f} MB kept, "
              "memory {before:.0f} MB before and {peak:.0f} MB at most".format(**rows[-1]), flush=True)  # fmt: skip
    plot(rows, options.plot)


def store_of(model, splits, folder: pathlib.Path | None):
    """The features below the head, none computed yet."""
    from keras_transfer.backbones import freezing
    from keras_transfer.backbones.cut import deepest_cut
    from keras_transfer.training.features import Store

    freezing.wake(model, [model.get_layer("head")])
    return Store(splits, model, deepest_cut(model), seed=0, folder=folder)


def against_predict(folder: pathlib.Path, rounds: int) -> None:
    import keras
    import numpy as np

    import keras_transfer as kt

    files = kt.data.images({"train": folder / "train"}, validation=0)
    model = kt.image_classifier("MobileNetV2", files.classes, alpha=0.35)
    body = keras.Model(model.input, model.get_layer("pool").output)
    pictures, labels = arrays(files, files.train, model)
    pictures = np.concatenate([pictures + shift for shift in range(4)]).clip(0, 255).astype("uint8")
    decoded = kt.data.images((pictures, np.tile(labels, 4)), validation=0)

    def predict():
        body.predict(pictures, verbose=0)

    stores = {splits: store_of(model, splits, None) for splits in (decoded, files)}

    def passed(splits):
        for _ in stores[splits].computed(splits.train, None):
            pass

    def of_pictures():
        passed(decoded)

    def of_files():
        passed(files)

    def decoding():
        for _ in files.view(files.train, model, epoch=None, batch_size=32):
            pass

    ways = {"predict": predict, "pass over arrays": of_pictures, "pass over files": of_files, "decoding": decoding}
    seconds = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    best = {name: min(taken[1:]) for name, taken in seconds.items()}  # in the first round all are traced
    for name, taken in best.items():
        count = len(pictures) if name in ("predict", "pass over arrays") else len(labels)
        print(f"{name}: {count / taken:.0f} pictures/s (best of {rounds})")
    print(f"pass over arrays: {best['predict'] / best['pass over arrays']:.1%} of the speed of predict")
    print(f"decoding alone takes {best['decoding'] / best['pass over files']:.1%} of the time of the pass over files")


def grow(count: int) -> dict[str, float]:
    import numpy as np

    import keras_transfer as kt
    from keras_transfer.data.examples import PictureExamples
    from keras_transfer.data.images import ImageSplits
    from keras_transfer.data.splits import Divided, Split
    from keras_transfer.evaluation.cost import peak_memory

    class Made(PictureExamples):
        """Noise, each picture a function of its number."""

        def __init__(self, size: int) -> None:
            self.size = size
            self.class_names = ["even", "odd"] * (size // 2)

        def __len__(self):
            return self.size

        def picture(self, number, at_least=None):
            return np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)

        def describe(self, number):
            return f"made {number}"

        def inspect(self, number):
            return number.to_bytes(8, "big"), None

        def select(self, numbers):
            raise NotImplementedError

    digests = [number.to_bytes(8, "big") for number in range(count)]
    train = Split("train", Made(count), ["even", "odd"], digests)
    splits = ImageSplits(Divided(train, None, None), image_size=32, batch_size=256, augment="none", seed=0)
    model = kt.image_classifier("MobileNetV2", splits.classes, weights=None, image_size=32, alpha=0.35)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KERAS_TRANSFER_CACHE"] = folder
        noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), "uint8")
        few = kt.data.images((noise, ["even", "odd"] * 32), augment="none", batch_size=32)
        kt.fit(model, few, kt.feature_extraction(model, epochs=2), verbose=False)  # all that is traced once
        before = peak_memory() / 2**20
        started = time.perf_counter()
        kept = store_of(model, splits, pathlib.Path(folder)).rows(splits.train, None)
        made = time.perf_counter() - started
        plan = kt.Plan([kt.Stage("head", 10)])
        started = time.perf_counter()
        kt.fit(model, splits, plan, cache="disk", verbose=False)
        trained = time.perf_counter() - started
        peak = peak_memory() / 2**20
        return {"count": count, "pass": made, "epochs": trained, "bytes": kept.manifest["bytes"] / 1e6,
                "before": before, "peak": peak}  # fmt: skip


def plot(rows: list[dict[str, float]], path: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    figure, (time_of, memory_of) = plt.subplots(1, 2, figsize=(9, 3.5))
    counts = [row["count"] for row in rows]
    for key, label in (("pass", "the pass"), ("epochs", "ten epochs of the head")):
        time_of.loglog(counts, [row[key] for row in rows], marker="o", label=label)
    time_of.set(xlabel="pictures", ylabel="seconds")
    time_of.legend()
    for key, label in (("peak", "at most"), ("before", "before the pass")):
        memory_of.semilogx(counts, [row[key] for row in rows], marker="o", label=label)
    memory_of.semilogx(counts, [row["bytes"] for row in rows], marker="o", linestyle=":", label="features on disk")
    memory_of.set(xlabel="pictures", ylabel="MB", ylim=(0, None))
    memory_of.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

"""What it saves to compute the frozen part once: `kt.fit` against the frozen `fit` of the keras.io guide.

    python benchmarks/feature_cache.py --shared ../shared

MobileNetV2 0.35 at 224 with ImageNet weights, a head trained for 20 epochs, validation in every epoch: on hymenoptera
as it is divided (244 pictures for training, 153 for validation), and on 5,000 pictures, a fifth of them for validation.
Everything from the call of `fit` counts: in the guide tracing and training on pictures that are decoded already; in
`kt.fit` decoding, tracing, the linear probe, the features of both splits, the report on validation. "Warm" is the same
again, the features found on disk. Then a stage of the top two blocks on 320 pictures of flowers (80 for validation),
10 epochs, with and without the features kept. Ratios are of one run.
"""

import argparse
import contextlib
import io
import pathlib
import tempfile
import time

from image_fine_tuning import arrays, guide_compile, guide_model, lend_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--what", nargs="+", default=["small", "large", "top"], choices=["small", "large", "top"])
    parser.add_argument("--pictures", type=int, default=5000, help="of the large set")
    parser.add_argument("--cache-views", type=int, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lend_weights(options.shared, pathlib.Path(folder) / "keras")
        import keras_transfer as kt

        if "small" in options.what:
            pictures = options.shared / "images" / "hymenoptera"
            splits = kt.data.images({"train": pictures / "train", "validation": pictures / "val"})
            head("hymenoptera", splits, pathlib.Path(folder), options.cache_views)
        if "top" in options.what:
            top(kt.data.images({"train": options.shared / "images" / "flowers" / "train"}), pathlib.Path(folder))
        if "large" in options.what:
            repeated = repeat(options.shared / "images" / "flowers", pathlib.Path(folder) / "large", options.pictures)
            splits = kt.data.images({"train": repeated})
            head(f"{options.pictures} pictures", splits, pathlib.Path(folder), options.cache_views)


def repeat(source: pathlib.Path, target: pathlib.Path, count: int) -> pathlib.Path:
    """So many pictures: those that a set has for training, again and again under new names."""
    pictures = sorted((source / "train").glob("*/*"))
    for number in range(count):
        picture = pictures[number % len(pictures)]
        copy = target / picture.parent.name / f"{number}{picture.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Every copy is another file: bytes after the end of a JPEG change nothing but its checksum.
        copy.write_bytes(picture.read_bytes() + number.to_bytes(4, "big"))
    return target


def head(name: str, splits, folder: pathlib.Path, views: int | None, epochs: int = 20) -> None:
    import keras_transfer as kt

    guide = guide_seconds(splits, epochs)
    print(f"{name}: the guide {guide:.1f} s ({len(splits.train)} pictures, {epochs} epochs)", flush=True)
    store = folder / f"features of {name}"
    for state in ("cold", "warm"):
        model = kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35)
        seconds = fit_seconds(model, splits, kt.feature_extraction(model, epochs=epochs), store, views)
        print(f"{name}: kt.fit {state} {seconds:.1f} s, {guide / seconds:.1f} times as fast", flush=True)


def guide_seconds(splits, epochs: int) -> float:
    """Seconds of the frozen `fit` of https://keras.io/guides/transfer_learning, on decoded pictures."""
    model, _ = guide_model(len(splits.classes))
    guide_compile(model, 1e-3)
    x, y = (part.astype("uint8") if part.ndim == 4 else part for part in arrays(splits, splits.train, model))
    validation = tuple(arrays(splits, splits.validation, model))
    started = time.perf_counter()
    model.fit(x, y, batch_size=32, epochs=epochs, validation_data=validation, verbose=0)
    return time.perf_counter() - started


def fit_seconds(model, splits, plan, store: pathlib.Path, views: int | None, cache: str = "auto") -> float:
    """Seconds of `kt.fit` with the features in a folder of their own."""
    import os

    import keras_transfer as kt

    os.environ["KERAS_TRANSFER_CACHE"] = str(store)
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        kt.fit(model, splits, plan, cache=cache, cache_views=views)
    return time.perf_counter() - started


def top(splits, folder: pathlib.Path) -> None:
    import keras_transfer as kt

    seconds = {}
    for cache in ("off", "disk"):
        model = kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35)
        plan = kt.Plan([kt.Stage("top:2", epochs=10, learning_rate=1e-3)])
        seconds[cache] = fit_seconds(model, splits, plan, folder / "features of top", 1, cache)
    print(
        f"top:2, 10 epochs, flowers: {seconds['off']:.1f} s without, {seconds['disk']:.1f} s with features kept, "
        f"{seconds['off'] / seconds['disk']:.1f} times as fast",
        flush=True,
    )


if __name__ == "__main__":
    main()

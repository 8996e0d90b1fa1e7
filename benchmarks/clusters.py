"""Do groups that were found without labels fit the labels? k-means and neighbours on the shared picture sets.

    python benchmarks/clusters.py --shared ../shared

prints a table for MobileNetV2 0.35 and for the same body with random weights: as many clusters as there are
classes, on the training pictures, mean over three seeds of k-means. A map of each set goes to `--pictures`.
"""

import argparse
import pathlib
import statistics
import tempfile

SETS = ("hymenoptera", "flowers", "pacs_photo", "pacs_sketch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--pictures", type=pathlib.Path, default=pathlib.Path("runs/clusters"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("| set | body | purity | mutual information | adjusted Rand | alike, of five neighbours | by chance |")
    print("|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as keras_home:
        from image_fine_tuning import lend_weights

        lend_weights(options.shared, pathlib.Path(keras_home))
        for name in SETS:
            for weights in ("imagenet", None):
                print(row(options, name, weights), flush=True)


def row(options: argparse.Namespace, name: str, weights: str | None) -> str:
    """One set, one body, as Markdown."""
    import keras

    import keras_transfer as kt

    keras.utils.set_random_seed(0)
    splits = kt.data.images(options.shared / "images" / name / "train", validation=0)
    model = kt.image_classifier("MobileNetV2", splits.classes, weights=weights, image_size=224, alpha=0.35)
    features = kt.embed(model, splits)
    found = [kt.clusters(features, len(splits.classes), seed=seed) for seed in range(options.seeds)]
    agreements = [each.agreement(splits.train.labels, splits.classes) for each in found]
    if weights:
        pictures = splits.peek(splits.train, range(len(splits.train)), model)
        path = options.pictures / f"{name}.png"
        found[0].plot(path, pictures=pictures, labels=splits.train.labels, classes=splits.classes)
    measures = ("purity", "mutual_information", "adjusted_rand", "neighbours", "by_chance")
    means = [statistics.mean(getattr(each, measure) for each in agreements) for measure in measures]
    return f"| {name} | {weights or 'random'} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |"


if __name__ == "__main__":
    main()

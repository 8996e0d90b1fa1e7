"""Planted leaks and planted wrong labels in the shared picture sets: how many are found, and what else is.

    python benchmarks/pitfalls.py --shared ../shared

Ten test pictures are mirrored, re-encoded (JPEG, quality 75) and put into train, and ten training pictures into the
folder of another class. Then `kt.pitfalls` looks for them with the features of MobileNetV2 0.35. What else it finds is
counted as false alarms and listed, since a set may hold doubles and wrong labels of its own.
"""

import argparse
import pathlib
import random
import shutil
import tempfile

from image_fine_tuning import SETS, lend_weights

COUNT, QUALITY = 10, 75


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--plots", type=pathlib.Path, help="where the contact sheets go")
    options = parser.parse_args()
    print("| set | seed | leaks found | false pairs | wrong labels found | other suspects |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        lend_weights(options.shared, pathlib.Path(scratch) / "keras")
        for name in options.sets:
            for seed in range(options.seeds):
                folder = pathlib.Path(scratch) / f"{name}_{seed}"
                leaks, wrong = plant(options.shared / "images" / name, folder, seed)
                measure(name, folder, seed, leaks, wrong, options.plots)


def plant(source: pathlib.Path, folder: pathlib.Path, seed: int) -> tuple[dict[str, str], set[str]]:
    """A copy of a set with leaks and wrong labels.

    Returns:
        From each leaked picture of train to that of test, and the training pictures with a wrong label, by file name.
    """
    from keras_transfer.data.decoding import decode, encode

    draw = random.Random(seed)
    shutil.copytree(source / "train", folder / "train")
    shutil.copytree(source / ("val" if (source / "val").is_dir() else "test"), folder / "test")
    # What lies in shared cannot be written to, and copies take that over.
    for path in folder.rglob("*"):
        path.chmod(0o755)
    wrong = set()
    for path in draw.sample(sorted((folder / "train").glob("*/*")), COUNT):
        others = [other for other in sorted((folder / "train").iterdir()) if other != path.parent]
        moved = draw.choice(others) / f"wrong_{path.parent.name}_{path.name}"
        path.rename(moved)
        wrong.add(moved.name)
    leaks = {}
    for path in draw.sample(sorted((folder / "test").glob("*/*")), COUNT):
        mirrored = decode(path.read_bytes())[:, ::-1]
        leaked = folder / "train" / path.parent.name / f"leak_{path.stem}.jpg"
        leaked.write_bytes(encode(mirrored, "JPEG", quality=QUALITY))
        leaks[leaked.name] = path.name
    return leaks, wrong


def measure(name: str, folder: pathlib.Path, seed: int, leaks: dict[str, str], wrong: set[str], plots) -> None:
    """One row of the table, and what was found beside what was planted."""
    import keras

    import keras_transfer as kt

    keras.utils.set_random_seed(seed)
    splits = kt.data.images(folder, seed=seed)
    model = kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35)
    found = kt.pitfalls(splits, model, seed=seed)

    def file(place: tuple[str, int]) -> pathlib.Path:
        return pathlib.Path(next(split for split in splits.all if split.name == place[0]).describe(place[1]))

    pairs = [tuple(sorted((file(pair.one).name, file(pair.other).name))) for pair in found.pairs]
    planted = {tuple(sorted(pair)) for pair in leaks.items()}
    suspects = [file(suspect.place).name for suspect in found.suspects]
    false_pairs = [pair for pair in pairs if pair not in planted]
    others = [suspect for suspect in suspects if suspect not in wrong]
    leaked = f"{len(planted & set(pairs))} of {COUNT}"
    mislabelled = f"{len(wrong & set(suspects))} of {COUNT}"
    print(f"| {name} | {seed} | {leaked} | {len(false_pairs)} | {mislabelled} | {len(others)} |", flush=True)
    for pair in false_pairs:
        print(f"    also a pair: {pair[0]} and {pair[1]}")
    for rank, suspect in enumerate(suspects):
        if suspect not in wrong:
            print(f"    also suspect, at place {rank + 1}: {suspect}")
    print("    " + str(found).replace("\n", "\n    "), flush=True)
    if plots:
        found.plot(plots / f"{name}_{seed}")


if __name__ == "__main__":
    main()

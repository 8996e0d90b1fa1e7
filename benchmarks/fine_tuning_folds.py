"""Settings of `kt.staged_fine_tuning` tried on folds of the training pictures: what defaults are chosen by.

    python benchmarks/fine_tuning_folds.py --shared ../shared
    python benchmarks/fine_tuning_folds.py --options '{}' '{"least_steps": 800}' '{"learning_rate": 0.002}'

For each set of options a table: accuracy on held-out folds of train, and log loss at its best temperature, at several
places of the way from the fitted head on the frozen body (0) to the tuned weights (1), mean over the folds of each
shared picture set, and over the sets. The test splits are not read. Every (options, set, fold) is one line of
`--results`, so that the command can be stopped and started again. Differences of a point between two sets of options
are noise: a fold has 47 to 134 pictures.
"""

import argparse
import itertools
import json
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
from backbone_ranking import add, is_there, lines_of
from image_fine_tuning import SETS, lend_weights

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def main() -> None:
    parser = parser_over_folds(__doc__, results="runs/fine_tuning_folds.jsonl")
    parser.add_argument("--options", nargs="+", default=["{}"], help="JSON, arguments of kt.staged_fine_tuning")
    options = parser.parse_args()
    measure_missing([{"options": given} for given in options.options], measure, options)
    for given in options.options:
        print(f"\n{given}\n{table(lines_of(options.results), given, options)}")


def parser_over_folds(description: str, *, results: str) -> argparse.ArgumentParser:
    """The arguments of a command that measures on folds of the shared picture sets."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path(results))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2], choices=[0, 1, 2])
    return parser


def measure_missing(settings: list[dict], measure: Callable, options: argparse.Namespace) -> None:
    """Measures each setting on each fold of each set, but for what has been measured, and writes down a line of each.

    Args:
        settings: fields by which their lines are known, `"options"` of `kt.staged_fine_tuning` among them, as JSON.
        measure: from the folder of a set, the number of a fold, and a setting with its options read, to more fields.
        options: which sets and folds, and where the lines go.
    """
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as keras_home:
        lend_weights(options.shared, pathlib.Path(keras_home))
        for fold, name, setting in itertools.product(options.folds, options.sets, settings):
            key = setting | {"set": name, "fold": fold}
            if not is_there(key, options.results):
                read = setting | {"options": json.loads(setting["options"])}
                add(key | measure(options.shared / "images" / name, fold, **read), options.results)


def measure(folder: pathlib.Path, fold: int, *, options: dict) -> dict[str, tuple[float, float]]:
    """Accuracy and log loss on one fold at each place of the way, of a model that is tuned on the others."""
    import keras

    import keras_transfer as kt

    splits = held_out(folder, fold)
    keras.utils.set_random_seed(fold)
    model = kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35)
    run = kt.fit(model, splits, kt.staged_fine_tuning(model, **options), seed=fold, verbose=False)
    path = run.audits[-1].interpolation.path
    return {f"{point.share:g}": (point.accuracy, point.loss) for point in path if point.share in SHARES}


def held_out(folder: pathlib.Path, fold: int):
    """The training pictures of a set, a third of them as validation: the safeguard measures them along its way."""
    from sklearn.model_selection import StratifiedKFold

    import keras_transfer as kt

    files = np.array(sorted(path for path in (folder / "train").rglob("*") if path.is_file()))
    labels = np.array([path.parent.name for path in files])
    divided = list(StratifiedKFold(3, shuffle=True, random_state=0).split(files, labels))[fold]
    parts = {
        name: (list(files[of]), list(labels[of])) for name, of in zip(("train", "validation"), divided, strict=True)
    }
    return kt.data.images(parts)


def table(lines: list[dict], given: str, options: argparse.Namespace) -> str:
    """As Markdown."""
    return mean_over_folds("share of the way", [f"{share:g}" for share in SHARES], lines, {"options": given}, options)


def mean_over_folds(heading: str, fields: list[str], lines: list[dict], key: dict, options: argparse.Namespace) -> str:
    """Accuracy and log loss as Markdown: the mean over the folds of each set, and over the sets.

    Args:
        heading: what the rows are.
        fields: those of a line that have a row.
        lines: what has been measured.
        key: fields by which the lines of this table are known.
        options: which sets and folds.
    """
    table = [f"| {heading} | " + " | ".join(options.sets) + " | mean |", "|---" * (len(options.sets) + 2) + "|"]
    own = [line for line in lines if key.items() <= line.items() and line["fold"] in options.folds]
    for field in fields:
        means = [np.mean([line[field] for line in own if line["set"] == name], axis=0) for name in options.sets]
        cells = [f"{accuracy:.3f} ({loss:.3f})" for accuracy, loss in [*means, np.mean(means, axis=0)]]
        table.append(f"| {field} | {' | '.join(cells)} |")
    return "\n".join(table)


if __name__ == "__main__":
    main()

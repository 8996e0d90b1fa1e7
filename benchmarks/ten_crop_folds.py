"""Ten looks at one picture instead of one: what that is worth on folds of train, and how large the parts should be.

    python benchmarks/ten_crop_folds.py --shared ../shared
    python benchmarks/ten_crop_folds.py --folds 0 --sets hymenoptera --options '{"epochs": [1, 1]}'

For the head that is fitted on the frozen body and for the tuned body, as far as the safeguard takes it without a
validation split: accuracy on the held-out fold, and log loss at its best temperature, of whole pictures and of ten
crops by their part of each side. 7/8 is what Krizhevsky et al. 2012 have, 15/16 what `ten_crop=True` has. The test
splits are not read. Every (options, set, fold) is one line of `--results`, so that the command can be stopped and
started again.
"""

import pathlib

import numpy as np
from backbone_ranking import lines_of
from fine_tuning_folds import held_out, mean_over_folds, measure_missing, parser_over_folds
from model_soups import SHARES, between, judged, one_run, probabilities
from scipy.special import softmax

WAYS = {"fitted head": 0.0, "fine-tuned": SHARES[0]}
PARTS = {"4/5": 4 / 5, "7/8": 7 / 8, "15/16": 15 / 16}
WHOLE = "whole"
# The part that the package takes beside the paper's, and each beside whole pictures.
PAIRS = [("15/16", "7/8"), *((part, WHOLE) for part in PARTS)]


def main() -> None:
    parser = parser_over_folds(__doc__, results="runs/ten_crop_folds.jsonl")
    parser.add_argument("--options", default="{}", help="JSON, arguments of kt.staged_fine_tuning")
    options = parser.parse_args()
    key = {"options": options.options}
    measure_missing([key], measure, options)
    lines = lines_of(options.results)
    fields = [f"{way}, {part}" for way in WAYS for part in (WHOLE, *PARTS)]
    print(mean_over_folds("what, part of each side", fields, lines, key, options))
    print(leads(lines, key, options))


def measure(folder: pathlib.Path, fold: int, *, options: dict) -> dict[str, tuple[float, float]]:
    """Accuracy and log loss on one fold, by each way to look, of a model that is tuned on the others."""
    from keras_transfer.data.ten_crop import ten_crops

    splits = held_out(folder, fold)
    model, start, end = one_run(splits, fold, seed=fold, options=options)
    held, size, found = splits.validation, model.input_shape[1:3], {}
    for way, share in WAYS.items():
        found[f"{way}, {WHOLE}"] = judged(probabilities(model, splits, between(start, end, share)), held.labels)
        for name, part in PARTS.items():
            said = [
                model.predict(ten_crops(held.examples.picture(number), size, part), verbose=0)
                for number in range(len(held))
            ]
            found[f"{way}, {name}"] = judged(
                softmax(np.stack(said).astype("float64"), axis=-1).mean(axis=1), held.labels
            )
    return found


def leads(lines: list[dict], key: dict, options) -> str:
    """How one way to look differs from another: mean over the folds, and its standard error."""
    own = [
        line
        for line in lines
        if key.items() <= line.items() and line["set"] in options.sets and line["fold"] in options.folds
    ]
    found = [f"Differences, mean of {len(own)} folds (standard error); of log loss, less is better:"]
    for way in WAYS:
        for one, other in PAIRS:
            more = np.array([np.subtract(line[f"{way}, {one}"], line[f"{way}, {other}"]) for line in own])
            errors = more.std(axis=0, ddof=1) / np.sqrt(len(own)) if len(own) > 1 else [np.nan] * 2
            accuracy, loss = (
                f"{mean:+.3f} ({error:.3f})" for mean, error in zip(more.mean(axis=0), errors, strict=True)
            )
            found.append(f"{way}, {one} beside {other}: accuracy {accuracy}, log loss {loss}")
    return "\n".join(found)


if __name__ == "__main__":
    main()

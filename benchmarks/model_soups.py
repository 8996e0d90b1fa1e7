"""Several fine-tunings from one fitted head, their weights averaged: what that is worth on folds of train.

    python benchmarks/model_soups.py --shared ../shared
    python benchmarks/model_soups.py --folds 0 --sets hymenoptera --runs 2 --options '{"epochs": [1, 1]}'

Model soups (Wortsman et al. 2022, arXiv:2203.05482), uniform, of runs that differ by the seed alone: order,
augmentation, dropout. For each place on the way from the fitted head (0) to the tuned weights (1), accuracy on the
held-out fold and log loss at its best temperature: of one run (the mean over the runs), of the mean of their
probabilities (`ensemble`), and of the model with the mean of their weights (`soup`). The test splits are not read.
Every (options, runs, set, fold) is one line of `--results`, so that the command can be stopped and started again.
"""

import pathlib

import numpy as np
from backbone_ranking import lines_of
from fine_tuning_folds import held_out, mean_over_folds, measure_missing, parser_over_folds

# About what the safeguard takes without a validation split, and the tuned weights themselves.
SHARES = (0.74, 1.0)
WHAT = ("one run", "ensemble", "soup")


def main() -> None:
    parser = parser_over_folds(__doc__, results="runs/model_soups.jsonl")
    parser.add_argument("--runs", type=int, default=3, help="fine-tunings that are averaged")
    parser.add_argument("--options", default="{}", help="JSON, arguments of kt.staged_fine_tuning")
    options = parser.parse_args()
    key = {"options": options.options, "runs": options.runs}
    measure_missing([key], measure, options)
    fields = [f"{name}, {share:g}" for share in SHARES for name in WHAT]
    print(mean_over_folds("what, share of the way", fields, lines_of(options.results), key, options))


def measure(folder: pathlib.Path, fold: int, *, runs: int, options: dict) -> dict[str, tuple[float, float]]:
    """Accuracy and log loss on one fold of models that were tuned on the others, and of their averages."""
    from keras_transfer.study.soup import mean

    splits = held_out(folder, fold)
    tuned = []
    for run in range(runs):
        model, start, end = one_run(splits, fold, seed=fold + 10 * run, options=options)
        tuned.append((start, end))
    labels, found = splits.validation.labels, {}
    for share in SHARES:
        members = [between(start, end, share) for start, end in tuned]
        said = [probabilities(model, splits, weights) for weights in members]
        # Runs of a body in another domain may begin with statistics of their own: each is averaged from its beginning.
        together = probabilities(model, splits, mean(members))
        found[f"one run, {share:g}"] = tuple(np.mean([judged(one, labels) for one in said], axis=0).tolist())
        found[f"ensemble, {share:g}"] = judged(np.mean(said, axis=0), labels)
        found[f"soup, {share:g}"] = judged(together, labels)
    return found


def one_run(splits, fold: int, *, seed: int, options: dict):
    """A model that was tuned with a seed, and its weights before and after its last stage."""
    import keras

    import keras_transfer as kt
    from keras_transfer import state

    keras.utils.set_random_seed(fold)
    model = kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35)
    begun, ended = [], []
    look = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: begun.append(state.values(model)),
        on_train_end=lambda logs: ended.append(state.values(model)),
    )
    # What the safeguard makes of the last stage comes after the end of its training, and is not looked at here.
    kt.fit(model, splits, kt.staged_fine_tuning(model, **options), seed=seed, callbacks=[look], verbose=False)
    return model, begun[-1], ended[-1]


def between(start, end, share: float) -> list[np.ndarray]:
    """The weights at that share of the way; what is no float (seeds, counts) as it was at the end."""
    return [
        ((1 - share) * old + share * new).astype(new.dtype) if new.dtype.kind == "f" else new
        for old, new in zip(start, end, strict=True)
    ]


def probabilities(model, splits, weights) -> np.ndarray:
    """Of the classes, for each held-out picture, under these weights."""
    from keras_transfer import state
    from keras_transfer.evaluation.prediction import predict_split

    state.assign(model, weights)
    return predict_split(model, splits, splits.validation)


def judged(said: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy, and log loss at the best temperature."""
    from keras_transfer.training.safeguard import of_classifier

    loss, accuracy = of_classifier(said, labels)
    return accuracy, loss


if __name__ == "__main__":
    main()

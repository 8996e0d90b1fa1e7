"""Test accuracy on the shared picture sets: linear probe, feature extraction, staged fine-tuning, the keras.io guide.

    python benchmarks/image_fine_tuning.py --shared ../shared --validation 0

prints the README's table; with `--methods uncalibrated` its row on that, with `--methods l2_sp ema sam` those of what a
stage may have beside, with `--methods model_soup` that of three runs whose weights are averaged, and of the mean of the
three. Of a run of feature extraction or staged fine-tuning it is also measured what the same model says when each test
picture is looked at in ten crops, and where staged fine-tuning was before the safeguard. Every method has the same body
(MobileNetV2 0.35 at 224, ImageNet weights), the same pictures to train on (but for a fifth of them, held out for
validation by the seed; with `--validation 0` all of them, and the safeguard goes by its prior) and the same test
pictures; nothing is selected on those. Results are kept in `--results` as they come, so that the command can be stopped
and started again.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile

SETS = ("hymenoptera", "flowers", "pacs_photo", "pacs_sketch")
# Staged fine-tuning otherwise than by its defaults: the options of each.
VARIANTS = {
    "uncalibrated": {"calibrate": False},
    "l2_sp": {"safeguard": False, "l2_sp": 30.0},
    "ema": {"safeguard": False, "ema": 0.95},
    "sam": {"sam": 0.05},
}
METHODS = ("probe", "feature_extraction", "staged_fine_tuning", "guide")
# The mean of so many runs of staged fine-tuning, each seed's runs others than those of the seeds before.
SOUP, IN_A_SOUP = "model_soup", 3
# What a table has a row for, and the method that it comes from.
ROWS = {
    "probe": "probe",
    "feature_extraction": "feature_extraction",
    "feature_extraction_in_ten_crops": "feature_extraction",
    "staged_fine_tuning": "staged_fine_tuning",
    "staged_fine_tuning_in_ten_crops": "staged_fine_tuning",
    "before_the_safeguard": "staged_fine_tuning",
    **{name: name for name in VARIANTS},
    SOUP: SOUP,
    "its_runs": SOUP,
    "guide_head": "guide",
    "guide_fine_tuned": "guide",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("runs/image_fine_tuning.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *VARIANTS, SOUP])
    parser.add_argument("--validation", type=float, default=0.2, help="the part of train that is held out")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as keras_home:
        lend_weights(options.shared, pathlib.Path(keras_home))
        results = json.loads(options.results.read_text()) if options.results.exists() else {}
        for seed in range(options.seeds):
            for name in options.sets:
                for method in options.methods:
                    key = key_of(name, method, seed, options)
                    if key not in results:
                        results[key] = measure(options.shared / "images" / name, method, seed, options.validation)
                        print(key, results[key], flush=True)
                        options.results.parent.mkdir(parents=True, exist_ok=True)
                        options.results.write_text(json.dumps(results, indent=2))
    print(table(results, options))


def key_of(name: str, method: str, seed: int, options: argparse.Namespace) -> str:
    """What one measurement is called among the results."""
    return f"{name}/{method}/{seed}/{options.validation:g}"


def lend_weights(shared: pathlib.Path, keras_home: pathlib.Path) -> None:
    """Points Keras at the shared weights through a folder that it may write to; before Keras is imported."""
    os.environ["KERAS_HOME"] = str(keras_home)
    keras_home.mkdir(parents=True, exist_ok=True)
    (keras_home / "models").symlink_to((shared / "keras_home" / "models").resolve())


def measure(folder: pathlib.Path, method: str, seed: int, validation: float) -> dict[str, float]:
    """Test accuracy of one method on one set with one seed, by each way that there is to look at it."""
    import keras

    import keras_transfer as kt
    from keras_transfer import state

    test = "val" if folder.name == "hymenoptera" else "test"
    splits = kt.data.images({"train": folder / "train", "test": folder / test}, validation=validation, seed=seed)
    if method == "guide":
        head, fine_tuned = keras_io_guide(splits, seed)
        return {"guide_head": head, "guide_fine_tuned": fine_tuned}
    keras.utils.set_random_seed(seed)
    model = kt.image_classifier("MobileNetV2", splits.classes, alpha=0.35)
    if method == "probe":
        return {method: linear_probe(model, splits)}
    if method == SOUP:
        plan, seeds = kt.staged_fine_tuning(model), range(IN_A_SOUP * seed, IN_A_SOUP * (seed + 1))
        soup = kt.model_soup(model, splits, plan, seeds=seeds, verbose=False)
        return {SOUP: soup.report.accuracy, "its_runs": statistics.mean(run.report.accuracy for run in soup.runs)}
    plan = kt.staged_fine_tuning(model, **VARIANTS[method]) if method in VARIANTS else getattr(kt, method)(model)
    reached = []
    look = keras.callbacks.LambdaCallback(on_train_end=lambda logs: reached.append(state.values(model)))
    found = {method: kt.fit(model, splits, plan, seed=seed, callbacks=[look], verbose=False).report.accuracy}
    if method in METHODS:
        found[f"{method}_in_ten_crops"] = kt.evaluate(model, splits, "test", ten_crop=True).accuracy
    if method == "staged_fine_tuning":
        state.assign(model, reached[-1])
        found["before_the_safeguard"] = kt.evaluate(model, splits, "test").accuracy
    return found


def arrays(splits, split, model):
    """A split's pictures at the model's size, and their labels."""
    return splits.peek(split, range(len(split)), model), split.labels


def linear_probe(model, splits) -> float:
    """Logistic regression on the frozen, pooled features of the training split."""
    import keras
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = keras.Model(model.input, model.get_layer("pool").output)
    (x, y), (x_test, y_test) = arrays(splits, splits.train, model), arrays(splits, splits.test, model)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.01))
    probe.fit(features.predict(x, verbose=0), y)
    return float(probe.score(features.predict(x_test, verbose=0), y_test))


def guide_model(classes: int):
    """The model of https://keras.io/guides/transfer_learning, and its frozen body."""
    import keras

    base_model = keras.applications.MobileNetV2(alpha=0.35, include_top=False, input_shape=(224, 224, 3))
    base_model.trainable = False
    inputs = keras.Input((224, 224, 3))
    x = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(inputs))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = keras.layers.GlobalAveragePooling2D()(base_model(x, training=False))
    outputs = keras.layers.Dense(classes)(keras.layers.Dropout(0.2)(x))
    return keras.Model(inputs, outputs), base_model


def guide_compile(model, learning_rate: float) -> None:
    import keras

    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def keras_io_guide(splits, seed: int) -> tuple[float, float]:
    """What the transfer-learning guide on keras.io does by hand: 20 epochs of the head, then all at 1e-5 for 10."""
    import keras

    keras.utils.set_random_seed(seed)
    model, base_model = guide_model(len(splits.classes))
    data = {split.name: arrays(splits, split, model) for split in splits.all}

    def train(learning_rate, epochs):
        guide_compile(model, learning_rate)
        model.fit(*data["train"], batch_size=32, epochs=epochs, validation_data=data.get("validation"), verbose=0)
        return model.evaluate(*data["test"], verbose=0)[1]

    head = train(1e-3, 20)
    base_model.trainable = True
    return head, train(1e-5, 10)


def table(results: dict, options: argparse.Namespace) -> str:
    """Mean over the seeds, with the lowest and the highest, as Markdown."""
    sets, seeds = options.sets, range(options.seeds)
    lines = ["| method | " + " | ".join(sets) + " | mean |", "|---" * (len(sets) + 2) + "|"]
    for row, method in ROWS.items():
        if method not in options.methods:
            continue
        found = {name: [results[key_of(name, method, seed, options)] for seed in seeds] for name in sets}
        if not all(row in one for each in found.values() for one in each):
            continue  # of an earlier version of this command, which did not measure that
        cells, means = [], []
        for name in sets:
            values = [one[row] for one in found[name]]
            means.append(statistics.mean(values))
            cells.append(f"{means[-1]:.3f} ({min(values):.3f}–{max(values):.3f})")
        lines.append(f"| {row} | {' | '.join(cells)} | {statistics.mean(means):.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

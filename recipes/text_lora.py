"""Adapts a text model with LoRA, and shows what the pretraining was worth.

    python recipes/text_lora.py

Needs no download: a small BERT learns from scratch to tell from which module of the standard library a docstring is
(the source task), then is carried to modules that it has never seen, with sixteen labelled docstrings of each: by LoRA,
by a new head alone, and beside them the same model trained on them from scratch.

    python recipes/text_lora.py --data imdb_reviews --backbone bert_small_en_uncased

is the real thing (a Colab GPU does it in minutes): a KerasHub preset, or a folder with one; any TFDS name or table of
texts. It leaves the adapter, a few hundred kilobytes, in `--adapter`.
"""

import importlib
import inspect
import statistics
from collections.abc import Sequence

import keras
import keras_hub
import numpy as np
import tensorflow as tf
import tyro

import keras_transfer as kt

SOURCE = [
    "argparse",
    "ast",
    "asyncio",
    "calendar",
    "codecs",
    "collections",
    "concurrent.futures",
    "configparser",
    "contextlib",
    "csv",
    "ctypes",
    "datetime",
    "difflib",
    "email.message",
    "enum",
    "fractions",
    "functools",
    "gettext",
    "heapq",
    "html.parser",
    "http.client",
    "http.cookiejar",
    "imaplib",
    "ipaddress",
    "json",
    "locale",
    "mailbox",
    "multiprocessing",
    "os",
    "pathlib",
    "pickle",
    "random",
    "re",
    "selectors",
    "shelve",
    "shutil",
    "smtplib",
    "socket",
    "sqlite3",
    "ssl",
    "statistics",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "traceback",
    "typing",
    "unittest",
    "urllib.request",
    "uuid",
    "xml.etree.ElementTree",
    "zipfile",
]
TARGET = ("decimal", "inspect", "logging", "tkinter", "turtle")


def main(
    data: str = "docstrings",
    backbone: str = "bert_small_en_uncased",
    rank: int = 8,
    alpha: float | None = 16,
    targets: str = "all-linear",
    epochs: int = 10,
    learning_rate: float = 3e-3,
    batch_size: int = 16,
    seeds: int = 3,
    adapter: str | None = None,
) -> None:
    """Adapts `backbone` to `data` with LoRA.

    Args:
        data: "docstrings", a TFDS name, a TSV or CSV file, or a folder of texts.
        backbone: a KerasHub preset, or a local folder with one or with a Hugging Face model.
        rank: columns of the thin matrices.
        alpha: the update counts alpha / rank times.
        targets: "attention", "all-linear", or a pattern over layer paths.
        epochs: passes over the data.
        learning_rate: peak rate; 1e-3 and less for large bodies.
        batch_size: texts per step.
        seeds: runs, each with its own seed.
        adapter: a folder for the adapter of the last run.
    """
    if data == "docstrings":
        docstrings(rank, alpha, targets, epochs, learning_rate, batch_size, seeds)
        return
    for seed in range(seeds):
        splits = kt.data.texts(data, batch_size=batch_size, seed=seed)
        print(splits)
        model = kt.text_classifier(backbone, splits.classes)
        plan = kt.lora(model, rank, alpha, targets, epochs=epochs, learning_rate=learning_rate)
        kt.fit(model, splits, plan, seed=seed)
    if adapter:
        kt.save_adapter(model, adapter)


def docstrings(rank, alpha, targets, epochs, learning_rate, batch_size, seeds) -> None:
    """Fifty modules teach a body; five others show what it learned."""
    source_texts, source_modules = documented(SOURCE)
    target_texts, target_modules = documented(TARGET)
    preprocessor = tokenizer(source_texts)
    accuracies = {"from scratch": [], "head only": [], "LoRA": []}
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        source = kt.data.texts((source_texts, source_modules), batch_size=32, seed=seed)
        few, rest = sixteen_of_each(target_modules, seed)
        pick = lambda numbers: ([target_texts[n] for n in numbers], [target_modules[n] for n in numbers])  # noqa: E731
        target = kt.data.texts({"train": pick(few), "test": pick(rest)}, batch_size=batch_size, seed=seed)
        body = keras_hub.models.BertBackbone(
            vocabulary_size=preprocessor.tokenizer.vocabulary_size(),
            num_layers=2,
            num_heads=4,
            hidden_dim=96,
            intermediate_dim=192,
            max_sequence_length=64,
        )
        teacher = kt.text_classifier(body, source.classes, preprocessor=preprocessor)
        learned = kt.fit(
            teacher, source, kt.from_scratch(teacher, epochs=12, learning_rate=2e-3), seed=seed, verbose=False
        )
        print(f"seed {seed}: source task ({len(SOURCE)} modules) from scratch, accuracy {learned.report.accuracy:.3f}")
        pretrained = body.get_weights()
        for name, values in accuracies.items():
            body.set_weights(pretrained)
            model = kt.text_classifier(body, target.classes, preprocessor=preprocessor)
            if name == "from scratch":
                plan = kt.from_scratch(model, epochs=3 * epochs, learning_rate=2e-3)
            elif name == "head only":
                plan = kt.feature_extraction(model, epochs=epochs)
            else:
                plan = kt.lora(model, rank, alpha, targets, epochs=epochs, learning_rate=learning_rate)
            run = kt.fit(model, target, plan, seed=seed, verbose=False)
            if name == "LoRA":
                kt.merge_adapter(model)
            values.append(run.report.accuracy)
            print(f"  {name:<13} {run.report.accuracy:.3f} on {run.report.split}")
    print(f"\n{', '.join(TARGET)} from 16 docstrings each: test accuracy over {seeds} seeds")
    for name, values in accuracies.items():
        print(f"  {name:<13} mean {statistics.mean(values):.3f}   from {min(values):.3f} to {max(values):.3f}")


def documented(modules: Sequence[str]) -> tuple[list[str], list[str]]:
    """Docstrings of what each module defines, its own name left out, and the module of each."""
    found = {}
    for name in modules:
        module = importlib.import_module(name)
        top = name.split(".")[0]
        classes = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__.startswith(top)]
        for owner in [module, *classes]:
            for thing in vars(owner).values():
                theirs = str(getattr(thing, "__module__", None) or name).lstrip("_").startswith(top)
                text = " ".join((inspect.getdoc(thing) or "").split()) if theirs and callable(thing) else ""
                if len(text) > 40:
                    found.setdefault(text[:400].lower().replace(top, "it"), name)
    return list(found), list(found.values())


def sixteen_of_each(labels: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Twenty numbers of each class, of which `kt.data.texts` holds back four for validation; and those left over."""
    order = np.random.default_rng(seed).permutation(len(labels))
    few = [number for name in TARGET for number in [n for n in order if labels[n] == name][:20]]
    return few, sorted(set(order) - set(few))


def tokenizer(texts: Sequence[str]) -> keras_hub.models.BertTextClassifierPreprocessor:
    """Words and parts of words that are common in `texts`, as BERT reads them."""
    words = keras_hub.tokenizers.compute_word_piece_vocabulary(
        tf.data.Dataset.from_tensor_slices(list(texts)),
        vocabulary_size=2000,
        lowercase=True,
        reserved_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    )
    return keras_hub.models.BertTextClassifierPreprocessor(
        keras_hub.models.BertTokenizer(words, lowercase=True), sequence_length=64
    )


if __name__ == "__main__":
    tyro.cli(main)

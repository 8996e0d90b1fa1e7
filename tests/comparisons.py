"""Comparisons made of known predictions, so that what follows from them can be reckoned."""

import numpy as np

from keras_transfer.plans.plan import Plan, Stage
from keras_transfer.study.comparison import Comparison, Data, SourceTask
from keras_transfer.study.trial import Method, Trial


def history(accuracy, stages=(("head", 2), ("all", 3)), offset=0.0):
    rows = []
    for stage, epochs in stages:
        for _ in range(epochs):
            value = accuracy * (1 - 0.6 * 0.6 ** (len(rows) + 1)) + offset
            rows.append(
                {"stage": stage, "epoch": len(rows) + 1, "accuracy": value, "val_accuracy": 0.9 * value}
                | {"loss": 1 - value, "val_loss": 1 - value, "learning_rate": 1e-3, "seconds": 1.0}
            )
    return rows


def method(name):
    start = "random" if name.startswith("scratch") else "pretrained"
    return Method(name, Plan([Stage("all", 5, start=start)], name="plan of " + name))


def made(accuracies, *, classes=("ant", "bee"), examples=200, seeds=3, spread=0.0, source=None, **extra):
    """A comparison in which each method is right on the first so many examples, up to `spread` more or less a seed.

    Args:
        accuracies: of each method, by name.
        extra: for some methods, by name, fields of their trials.
    """
    labels = np.arange(examples) % len(classes)
    trials = []
    for seed in range(seeds):
        for name, accuracy in accuracies.items():
            right = np.arange(examples) < round(examples * (accuracy + spread * (seed - (seeds - 1) / 2)))
            facts = {"seconds": 10.0, "trainable_parameters": 1000, "stored_bytes": 4000, "memory_bytes": 2**20 * 50}
            facts["made_features"] = False
            trials.append(
                Trial(
                    name,
                    seed,
                    np.where(right, labels, (labels + 1) % len(classes)),
                    history(accuracy, offset=0.01 * seed),
                    **facts | extra.get(name, {}),
                )
            )
    data = Data("test", tuple(classes), labels, {"train": 50, "test": examples}, "0123456789abcdef", ())
    task = SourceTask(source, 0.001, "test", 100, "its own head") if source else None
    return Comparison([method(name) for name in accuracies], trials, data, task)

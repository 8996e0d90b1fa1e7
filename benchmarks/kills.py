"""Kills a run at random moments and lets it go on: how many end in the weights of an unbroken run, bit for bit.

    python benchmarks/kills.py                                  # 100 kills, about 20 minutes on two cores
    python benchmarks/kills.py --data texts
    python benchmarks/kills.py --data comparison --kills 20
    python benchmarks/kills.py --data pictures comparison --kills 3     # two kills of one and one of the other
    KERAS_BACKEND=jax python benchmarks/kills.py --kills 10

A plan of three stages (a head from a linear probe; the upper blocks with dropout, adapting batch norms, early stopping
and the safeguard; LoRA with dropout) is carried out once in one go, with the checkpoints that `fit` writes by default.
Then, for each kill, in a folder of its own: SIGKILL at a moment drawn evenly from the time that `fit` took; the same
line again until it is done. Checkpoints come every 1, 2 or 5 steps, so that many kills fall into one. Weights, history
and report (without seconds and cost) are compared by their SHA-256. With `--data comparison` it is a `kt.compare` of
two methods with two seeds on the same pictures, and what is compared are the history and predictions of its four runs
and how much they forgot.

Every run has a process of its own, forked before TensorFlow has started any thread: importing it once saves most of the
time. Exits with status 1 unless every run ends in the same bits.
"""

import argparse
import collections
import functools
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_transfer as kt
from keras_transfer import state
from keras_transfer.data import pipeline  # noqa: F401 - imported before the fork, as all that takes long
from keras_transfer.training.keeper import Keeper


def pictures() -> tuple[keras.Model, kt.data.Splits]:
    """A small convolutional body with batch norms and dropout, and pictures that are dark or light."""
    labels = np.arange(60) % 2
    noise = np.random.default_rng(0).uniform(0, 120, (60, 16, 16, 3))
    x = (noise + 60 * labels[:, None, None, None]).astype("uint8")
    splits = kt.data.images((x, np.array(["dark", "light"])[labels]), batch_size=8, augment="light")
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, name="stem_conv")(pixels)
    for number in (1, 2, 3):
        y = keras.layers.Conv2D(8, 3, padding="same", name=f"block{number}_conv")(x)
        y = keras.layers.BatchNormalization(name=f"block{number}_bn")(y)
        y = keras.layers.Dropout(0.3, name=f"block{number}_drop")(keras.layers.ReLU(name=f"block{number}_relu")(y))
        x = keras.layers.Add(name=f"block{number}_add")([x, y])
    body = keras.Model(pixels, x, name="small")
    return kt.image_classifier(body, splits.classes, preprocessing="tf", dropout=0.2), splits


def texts() -> tuple[keras.Model, kt.data.Splits]:
    """A BERT of two layers, and reviews of one to twelve words: several lengths of batches."""
    import keras_hub

    fine, dull = ["fine", "fun", "good", "very"], ["dull", "long", "bad", "not"]
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 13, 60)
    rows = [" ".join(generator.choice([fine, dull][n % 2], length)) for n, length in enumerate(lengths)]
    splits = kt.data.texts((rows, [["good", "bad"][n % 2] for n in range(60)]), batch_size=8)
    tokenizer = keras_hub.models.BertTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *fine, *dull])
    body = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        dropout=0.1,
        max_sequence_length=16,
    )
    reader = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=16)
    return kt.text_classifier(body, splits.classes, preprocessor=reader, dropout=0.2), splits


def plan(targets: str) -> kt.Plan:
    return kt.Plan(
        [
            kt.Stage("head", 2, start="probe"),
            kt.Stage("top:2", 4, learning_rate=3e-3, batch_norm="adapt", patience=2, safeguard=True),
            kt.Stage("head", 3, learning_rate=3e-3, adapters=kt.LoRA(rank=2, targets=targets, dropout=0.2)),
        ],
        name="three stages",
    )


DATA = {"pictures": (pictures, "block[23]_conv"), "texts": (texts, "attention")}


def carry_out(data: str, workdir: pathlib.Path, found: pathlib.Path, **options) -> None:
    """The line that is started again and again, and a digest of what it ends in."""
    spent = collections.Counter()
    for name in ("write", "hold_if_cheap"):
        setattr(Keeper, name, timed(getattr(Keeper, name), spent))
    keras.utils.set_random_seed(0)
    started = time.monotonic()
    ends_in = compared(workdir, options) if data == "comparison" else trained(data, workdir, options)
    seconds = time.monotonic() - started
    digest = hashlib.sha256(ends_in).hexdigest()
    found.write_text(json.dumps({"digest": digest, "seconds": seconds, "kept in": spent["seconds"]}))


def trained(data: str, workdir: pathlib.Path, options: dict) -> bytes:
    """What one run ends in."""
    build, targets = DATA[data]
    model, splits = build()
    run = kt.fit(model, splits, plan(targets), workdir=workdir, verbose=False, **options)
    report = {name: value for name, value in json.loads(run.report.to_json()).items() if name != "cost"}
    weights = b"".join(value.tobytes() for value in state.values(model))
    return weights + json.dumps([untimed(run.history), report, [str(audit) for audit in run.audits]]).encode()


def compared(workdir: pathlib.Path, options: dict) -> bytes:
    """What a comparison ends in."""
    splits = pictures()[1]
    comparison = kt.compare(
        lambda: pictures()[0],
        splits,
        {"head only": kt.feature_extraction, "fine-tuned": kt.staged_fine_tuning},
        seeds=2,
        epochs=4,
        workdir=workdir,
        source=kt.Source(splits),
        verbose=False,
        **options,
    )
    runs = [
        [trial.method, trial.seed, trial.predicted.tolist(), untimed(trial.history), trial.source_accuracy]
        for trial in comparison.trials
    ]
    return json.dumps(runs).encode()


def untimed(history: list[dict]) -> list[dict]:
    """A history without the seconds, which no two runs share."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def timed(method, spent: collections.Counter):
    @functools.wraps(method)
    def measured(*args, **kwargs):
        started = time.monotonic()
        try:
            return method(*args, **kwargs)
        finally:
            spent["seconds"] += time.monotonic() - started

    return measured


def in_a_process(work, *, seconds: float | None = None) -> bool:
    """Whether the work came to its end, in a process that is killed after so many seconds."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    until = time.monotonic() + (seconds if seconds is not None else 1e9)
    while time.monotonic() < until:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a run failed, with status {status}")
            return True
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def where_it_was(workdir: pathlib.Path) -> str:
    """About how far a killed run had come, from what it left."""
    rows = sum(len(path.read_text().splitlines()) - 1 for path in workdir.rglob("history.csv"))
    checkpoints = [path.name for path in workdir.rglob("checkpoints/*")]
    torn = any(name.startswith(".unfinished") for name in checkpoints)
    return f"{rows} epochs, {len(checkpoints)} checkpoints{', in the middle of writing one' if torn else ''}"


def main(kills: int, seed: int, data: list[str]) -> int:
    draw = random.Random(seed)
    same = sum(killed_runs(kills // len(data) + (place < kills % len(data)), draw, of) for place, of in enumerate(data))
    print(f"{same} of {kills} killed runs end bit-identical")
    return 0 if same == kills else 1


def killed_runs(kills: int, draw: random.Random, data: str) -> int:
    """How many of so many killed runs end in the same bits."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        began = time.monotonic()
        in_a_process(lambda: carry_out(data, folder / "unbroken", folder / "unbroken.json"))
        length = time.monotonic() - began
        unbroken = json.loads((folder / "unbroken.json").read_text())
        share = unbroken["kept in"] / unbroken["seconds"]
        print(f"keras {keras.__version__}, {keras.backend.backend()}, {data}: unbroken {length:.1f} s")
        print(f"keeping the run by default took {share:.2%} of fit's time")
        same = killed = 0
        while killed < kills:
            workdir, found = folder / f"run{killed}", folder / f"run{killed}.json"
            options = {"checkpoint_steps": draw.choice((1, 2, 5))}
            seconds = length - draw.uniform(0, unbroken["seconds"])
            if in_a_process(lambda w=workdir, f=found, o=options: carry_out(data, w, f, **o), seconds=seconds):
                found.unlink()  # it was done before it could be killed: another moment
                shutil.rmtree(workdir)
                continue
            left = where_it_was(workdir)
            in_a_process(lambda w=workdir, f=found, o=options: carry_out(data, w, f, **o))
            killed += 1
            is_same = json.loads(found.read_text())["digest"] == unbroken["digest"]
            same += is_same
            print(f"  {killed:3}: killed after {seconds:5.2f} s ({left}): {'the same' if is_same else 'OTHER BITS'}")
    return same


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--data", choices=[*sorted(DATA), "comparison"], nargs="+", default=["pictures"])
    raise SystemExit(main(**vars(parser.parse_args())))

"""What share of a run's time its checkpoints take, as `fit` writes them by default.

    python benchmarks/checkpoint_share.py
    python benchmarks/checkpoint_share.py --checkpoint-seconds 1

MobileNetV2 1.0 at 96 trains from random weights, every layer and both slots of AdamW: as much in a checkpoint as that
model can have. Copying the state to memory counts as well as writing it. The bound is 2 %, also where a checkpoint is
asked for every second.
"""

import argparse
import pathlib
import tempfile
import time

import keras
import numpy as np

import keras_transfer as kt
from keras_transfer.training.keeper import Keeper


class Spent:
    """Adds up the seconds within some methods, but not twice where one calls another."""

    def __init__(self, owner: type, *names: str):
        self.seconds, self.calls, self._within = 0.0, dict.fromkeys(names, 0), False
        for name in names:
            setattr(owner, name, self._measured(name, getattr(owner, name)))

    def _measured(self, name, method):
        def measured(*args, **kwargs):
            self.calls[name] += 1
            if self._within:
                return method(*args, **kwargs)
            self._within, started = True, time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._within = False
                self.seconds += time.perf_counter() - started

        return measured


def main(epochs: int, checkpoint_seconds: float) -> float:
    spent = Spent(Keeper, "write", "keep_if_due", "hold_if_cheap")
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    data = kt.data.images((generator.integers(0, 256, (320, 96, 96, 3), "uint8"), ["ant", "bee"] * 160), augment="none")
    model = kt.image_classifier("MobileNetV2", data.classes, weights=None, image_size=96)
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        started = time.perf_counter()
        kt.fit(
            model,
            data,
            kt.from_scratch(model, epochs=epochs),
            workdir=workdir,
            checkpoint_seconds=checkpoint_seconds,
            verbose=False,
        )
        seconds = time.perf_counter() - started
    share = spent.seconds / seconds
    print(
        f"keras {keras.__version__}, {keras.backend.backend()}, MobileNetV2 at 96, {epochs} epochs in {seconds:.0f} s"
    )
    print(f"a checkpoint every {checkpoint_seconds:g} s or less often: {spent.calls['write']} written")
    print(f"keeping the run took {spent.seconds:.2f} s, {share:.2%} of the time; bound 2 %")
    return share


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--checkpoint-seconds", type=float, default=30.0)
    raise SystemExit(main(**vars(parser.parse_args())) > 0.02)

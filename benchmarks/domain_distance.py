"""How far the shared picture sets lie from bodies, by the statistics of their batch norms, without a label.

    python benchmarks/domain_distance.py --shared ../shared

What tells `Stage(statistics="calibrated")` whether a body meets another domain (`Passes.distance` of
batch_statistics.py), for the bodies of `backbone_ranking.py` and the training pictures of each set. A few minutes.
"""

import argparse
import pathlib
import tempfile

import numpy as np
from backbone_ranking import bodies
from image_fine_tuning import SETS, lend_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    parser.add_argument("--examples", type=int, default=96, help="of each set, drawn at random")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as keras_home:
        lend_weights(options.shared, pathlib.Path(keras_home))
        print("| body | " + " | ".join(SETS) + " |")
        print("|---" * (len(SETS) + 1) + "|")
        for body, build in bodies(options.shared, seed=0).items():
            cells = [measure(options.shared / "images" / name, build, options.examples) for name in SETS]
            print(f"| {body} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |", flush=True)


def measure(folder: pathlib.Path, build, examples: int) -> float:
    """The distance of some training pictures of a set from one body."""
    import keras_transfer as kt
    from keras_transfer.training.batch_statistics import Passes, in_batches, inputs_of

    splits = kt.data.images({"train": folder / "train"}, validation=0)
    model = build(splits)
    rows = np.random.default_rng(0).permutation(len(splits.train))[:examples]
    return Passes(model).distance(inputs_of(model, splits, part) for part in in_batches(rows))


if __name__ == "__main__":
    main()

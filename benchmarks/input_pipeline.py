"""How fast pictures come in, and that memory does not grow with the set.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --folder path/to/pictures --image-size 224

Without a folder it writes its own: smooth random JPEGs of 500 x 375 pixels, the usual size of ImageNet's. Every figure
is for the input alone: nothing is trained. Processor time per picture is what to compare on a machine that others use.
"""

import argparse
import pathlib
import resource
import tempfile
import time

import numpy as np
from PIL import Image

from keras_transfer.data import images


def write_pictures(folder: pathlib.Path, count: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class {number % 5}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=90)


def write_many_more(folder: pathlib.Path, times: int) -> None:
    """Copies every file `times` times; a byte behind the end of each makes its content its own."""
    for path in list(folder.glob("*/*.jpg")):
        content = path.read_bytes()
        for number in range(times):
            (path.parent / f"{path.stem}_{number}.jpg").write_bytes(content + str(number).encode())


def memory() -> float:
    """Resident memory now, in MB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def report(name: str, batches) -> None:
    """Prints what the batches after the first cost."""
    batches = iter(batches)
    next(batches)
    start, worked, count, highest = time.perf_counter(), time.process_time(), 0, 0.0
    for _, labels in batches:
        count += len(labels)
        highest = max(highest, memory())
    rate = count / (time.perf_counter() - start)
    print(f"{name:20}{rate:11.0f}{(time.process_time() - worked) / count * 1000:15.2f}{highest:11.0f}")


def measure(folder: pathlib.Path, image_size: int, epochs: int) -> None:
    start = time.perf_counter()
    splits = images(folder, image_size=image_size)
    total = sum(map(len, splits.all))
    print(f"{total} pictures, looked through at {total / (time.perf_counter() - start):.0f} pictures/s")
    print(f"{'':20} pictures/s  processor ms  highest MB")
    for augment in ("none", "light", "strong"):
        splits = images(folder, image_size=image_size, augment=augment)
        report(f"training, {augment}", splits.training_batches(None, epochs=epochs))
    report("evaluation", splits.evaluation_batches(splits.train, None))
    middle = splits.steps_per_epoch() * epochs - 1
    start = time.perf_counter()
    next(iter(splits.training_batches(None, first_step=middle)))
    print(f"first batch when going on at step {middle}: {time.perf_counter() - start:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.folder:
        measure(arguments.folder, arguments.image_size, arguments.epochs)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        write_pictures(folder, 500)
        measure(folder, arguments.image_size, arguments.epochs)
        write_many_more(folder, 9)
        measure(folder, arguments.image_size, 1)


if __name__ == "__main__":
    main()

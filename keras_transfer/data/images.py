"""`images`: pictures from wherever they are, checked, divided and ready to train on."""

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.data.augmentation import AUGMENTATIONS, Augmentation, augmentation
from keras_transfer.data.decoding import resize
from keras_transfer.data.dividing import check_settings, divided
from keras_transfer.data.reading import read
from keras_transfer.data.splits import Divided, Split, Splits, order
from keras_transfer.errors import explain

if TYPE_CHECKING:
    from keras_transfer.data.pipeline import Dataset


class ImageSplits(Splits):
    """Pictures for training, validation and test.

    Attributes:
        image_size: (height, width) to bring the pictures to, in pixels; `None` leaves it to the model.
        augment: what training does to a picture, as it was given.
        augmentation: its settings, or the function.
    """

    def __init__(
        self,
        parts: Divided,
        *,
        image_size: int | tuple[int, int] | None,
        batch_size: int,
        augment: str | Augmentation | Callable,
        seed: int,
    ) -> None:
        super().__init__(parts, batch_size=batch_size, seed=seed)
        self.image_size = _size(image_size)
        self.augment = augment
        self.augmentation = augmentation(augment)

    def size(self, model: Any = None) -> tuple[int, int]:
        """The (height, width) that pictures are brought to: the model's, or `image_size` where it takes any.

        Raises:
            ValueError: neither says one, or they disagree.
        """
        return picture_size(model, self.image_size, argument_of="kt.data.images")

    def training_batches(
        self, model: Any, *, seed: int | None = None, first_step: int = 0, epochs: int | None = None
    ) -> "Dataset":
        """Augmented batches of the epochs, one after another, from step `first_step` on.

        The order of epoch e is a function of (seed, e), the augmentation of example i in it of (seed, e, i): any step's
        batch is the same whenever and from wherever it is reached.

        Args:
            model: what they are for; its input says the size.
            seed: of order and augmentation; that of the splits if not given.
            first_step: the step to begin with, counted from the first epoch's beginning.
            epochs: how many there are in all; without it there is no end.

        Returns:
            A dataset of (x, y): float32 of shape (batch, height, width, 3), 0..255, and int64 of shape (batch,). The
            last batch of an epoch may be smaller.
        """
        from keras_transfer.data import pipeline

        return pipeline.training_batches(
            self.train.examples,
            self.train.labels,
            self.augmentation,
            size=self.size(model),
            batch_size=self.batch_size,
            seed=self.seed if seed is None else seed,
            first_step=first_step,
            epochs=epochs,
        )

    def evaluation_batches(self, split: Split, model: Any, *, in_order: bool = True) -> "Dataset":
        """Batches of one split, in order whatever `in_order` is, once, without augmentation.

        Returns:
            A dataset of (x, y): float32 of shape (batch, height, width, 3), 0..255, and int64 of shape (batch,).
        """
        from keras_transfer.data import pipeline

        return pipeline.evaluation_batches(
            split.examples, split.labels, size=self.size(model), batch_size=self.batch_size
        )

    @property
    def augments(self) -> bool:
        return self.augmentation != AUGMENTATIONS["none"]

    def more_strongly_augmented(self) -> "ImageSplits":
        if self.augment != "light":
            return self
        stronger = copy.copy(self)
        stronger.augment, stronger.augmentation = "strong", AUGMENTATIONS["strong"]
        return stronger

    def rows_of_step(self, model: Any, *, seed: int | None = None) -> Callable[[int], tuple[int, np.ndarray]]:
        steps, size = self.steps_per_epoch(model), self.batch_size
        seed = self.seed if seed is None else seed

        @functools.lru_cache(maxsize=2)
        def order_of(epoch: int) -> np.ndarray:
            return order(len(self.train), seed=seed, epoch=epoch)

        def rows(step: int) -> tuple[int, np.ndarray]:
            epoch, place = divmod(step, steps)
            return epoch, order_of(epoch)[place * size : (place + 1) * size]

        return rows

    def without_pictures(self, split: Split, model: Any, rows: np.ndarray) -> tuple:
        del model
        return None, split.labels[rows]

    def view(
        self, split: Split, model: Any, *, epoch: int | None, seed: int | None = None, batch_size: int | None = None
    ) -> "Dataset":
        from keras_transfer.data import pipeline

        size, batch_size = self.size(model), batch_size or self.batch_size
        if epoch is None:
            return pipeline.unchanged(split.examples, size=size, batch_size=batch_size)
        seed = self.seed if seed is None else seed
        return pipeline.as_augmented(
            split.examples, self.augmentation, size=size, batch_size=batch_size, seed=seed, epoch=epoch
        )

    def view_identity(
        self, split: Split, model: Any, *, epoch: int | None, seed: int | None = None
    ) -> dict[str, Any] | None:
        facts = {"content": split.content, "size": list(self.size(model))}
        if epoch is None:
            return facts
        if not isinstance(self.augmentation, Augmentation):
            return None
        seed = self.seed if seed is None else seed
        return facts | {"augmentation": dataclasses.asdict(self.augmentation), "seed": seed, "epoch": epoch}

    def peek(self, split: Split, numbers: Sequence[int], model: Any = None) -> np.ndarray:
        """Some examples as the model is evaluated on them: float32 of shape (numbers, height, width, 3), 0..255."""
        size = self.size(model)
        pictures = [resize(split.examples.picture(int(number), at_least=size), size) for number in numbers]
        return np.array(pictures, "float32").reshape(-1, *size, 3)

    @property
    def settings(self) -> dict[str, Any]:
        """Size of the batches and of the pictures, and the augmentation; a function is known by its name only."""
        how = self.augmentation
        is_data = isinstance(how, Augmentation)
        described = dataclasses.asdict(how) if is_data else getattr(how, "__qualname__", type(how).__qualname__)
        return {**super().settings, "image_size": self.image_size, "augment": described}

    def _settings(self) -> str:
        size = "the model's size" if self.image_size is None else "{} x {} pixels".format(*self.image_size)
        return f"{size}, {super()._settings()}, augmentation {self.augment!r}"


def _size(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(
            explain("`image_size` is no size.", given=repr(image_size), expected="pixels: a number, or (height, width)")
        )
    return size


def picture_size(model: Any, image_size: int | tuple[int, int] | None, *, argument_of: str) -> tuple[int, int]:
    """The (height, width) that pictures are brought to: the model's, or `image_size` where it takes any.

    Args:
        model: which takes pictures, or `None`.
        image_size: what somebody wishes.
        argument_of: the function that was told, for the message.

    Raises:
        ValueError: neither says one, or they disagree.

    Example:

    >>> picture_size(None, 224, argument_of="kt.data.images")
    (224, 224)
    """
    wanted, given = _input_size(model), _size(image_size)
    if wanted is None and given is None:
        raise ValueError(
            explain(
                "Nothing says to what size the pictures are to be brought.",
                given="a model that takes any size" if model is not None else "no model",
                expected="an `image_size`",
                to_mend=f"{argument_of}(…, image_size=224)",
            )
        )
    if wanted is not None and given is not None and wanted != given:
        raise ValueError(
            explain(
                "The data and the model disagree about the size of a picture.",
                given=f"{given} from {argument_of}(image_size=…)",
                expected=f"{wanted}, which the model takes",
                to_mend="leave image_size out: the model's is taken",
            )
        )
    return wanted or given


def _input_size(model: Any) -> tuple[int, int] | None:
    shape = getattr(model, "input_shape", None)
    if shape is None or len(shape) != 4 or None in shape[1:3]:
        return None
    return int(shape[1]), int(shape[2])


def images(
    source: Any,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    augment: str | Augmentation | Callable = "light",
    validation: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    on_bad_file: str = "error",
    data_dir: str | os.PathLike | None = None,
) -> ImageSplits:
    """Pictures from wherever they are, checked to the last byte, as train, validation and test.

    Args:
        source: one of
            - a folder with one folder per class, or with `train`, `val` and `test` that have one folder per class each;
            - a CSV or TSV file with the columns path, label and, if it likes, split;
            - the name of a TFDS data set, for instance `"tf_flowers"`;
            - a pair (x, y) of pictures and labels: arrays of pixels 0..255, or paths;
            - a mapping of split name to any of these: `{"train": …, "test": …}`.
        image_size: pixels, a number or (height, width); only for models that take any size.
        batch_size: examples per step.
        augment: what training, and only training, does to a picture: `"none"`, `"light"` (flips, crops of 70 to 100 %,
            brightness), `"strong"`, a `kt.data.Augmentation`, or a function (picture, seed) -> picture.
        validation: the part of each class that is taken off train where the source has no validation split, or 0.
        test: the part that is taken off before, where the source has no test split.
        seed: what is held out, the order of the epochs and the augmentation are functions of it.
        on_bad_file: `"error"` refuses the data if any of it cannot be read; `"skip"` leaves that out and says so.
        data_dir: where TFDS keeps its data.

    Raises:
        ValueError: the data cannot be trained on as it is; every problem is listed.

    Example:

    >>> x, y = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), "uint8"), ["cat", "dog"] * 10
    >>> print(images((x, y), batch_size=4))
    class  train  validation
    cat        8           2
    dog        8           2
    all       16           4
    fingerprint ..., the model's size, batches of 4, seed 0, augmentation 'light'
    no test split: what is reported is measured on validation
    note: validation is 20 % of each class, taken off train
    """
    check_settings(validation, test, seed, on_bad_file)
    augmentation(augment)
    skip = on_bad_file == "skip"
    parts = divided(read(source, data_dir=data_dir), validation=validation, test=test, seed=seed, skip=skip)
    return ImageSplits(parts, image_size=image_size, batch_size=batch_size, augment=augment, seed=seed)

"""What every kind of text has in common once it is tokens: batches of similar length, the same whenever reached."""

import abc
import functools
import hashlib
import numbers as whole
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.data.buckets import arrange, bucket_of, check_lengths, choose_lengths
from keras_transfer.data.model_inputs import check_segments, input_names, required_preprocessor
from keras_transfer.data.packing import Packed
from keras_transfer.data.preprocessors import longest_read, reads_and_writes
from keras_transfer.data.splits import Divided, Split, Splits, table
from keras_transfer.errors import explain

if TYPE_CHECKING:
    from keras_transfer.data.pipeline import Dataset


class TokenSplits(Splits):
    """Texts for training, validation and test, which become tokens as the model reads them.

    Attributes:
        max_length: tokens that a row may have, or `None`: as many as the model reads.
        buckets: the lengths that rows are padded to, or `None`: the eight that need the least padding.
    """

    def __init__(
        self,
        parts: Divided,
        *,
        batch_size: int,
        max_length: int | None,
        buckets: Sequence[int] | None,
        seed: int,
    ) -> None:
        super().__init__(parts, batch_size=batch_size, seed=seed)
        if max_length is not None and (not isinstance(max_length, whole.Integral) or max_length < 1):
            raise ValueError(
                explain("`max_length` is no length.", given=repr(max_length), expected="a number of tokens, from 1")
            )
        self.max_length = max_length
        self.buckets = None if buckets is None else check_lengths(buckets)
        # Tokens by what made them: they go when the model does.
        self._packed: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._lengths: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    @abc.abstractmethod
    def _pack(self, preprocessor: keras.Layer, split: Split, max_length: int) -> Packed:
        """The rows of a split, in order."""

    def packed(self, split: Split, model: keras.Model) -> Packed:
        """The rows of a split as the model reads them, tokenized once.

        Raises:
            ValueError: nothing says how the model reads text, or it reads less than `max_length`.
        """
        preprocessor = required_preprocessor(model)
        max_length = self._length(model, preprocessor)
        kept = self._packed.setdefault(preprocessor, {})
        if (split.name, max_length) not in kept:
            packed = self._pack(preprocessor, split, max_length)
            check_segments(model, packed)
            if packed.cut:
                noun, most = split.examples.noun, f"{max_length} tokens"
                if reads_and_writes(preprocessor):
                    most = "what is read, or written, by its preprocessor"
                warnings.warn(
                    f"{packed.cut} of the {len(packed)} {noun}s of {split.name} are longer than {most}, and are read"
                    " only so far",
                    stacklevel=3,
                )
            kept[split.name, max_length] = packed
        return kept[split.name, max_length]

    def training_batches(
        self, model: keras.Model, *, seed: int | None = None, first_step: int = 0, epochs: int | None = None
    ) -> "Dataset":
        """Batches of the epochs, rows of similar length together, one epoch after another, from step `first_step` on.

        Which rows make a batch and which batch comes when are functions of (seed, epoch): any step's batch is the same
        whenever and from wherever it is reached. Its rows are padded to the least of a few lengths that they fit.

        Args:
            model: what they are for; its preprocessor makes the tokens.
            seed: of the order; that of the splits if not given.
            first_step: the step to begin with, counted from the first epoch's beginning.
            epochs: how many there are in all; without it there is no end.

        Returns:
            A dataset of (x, y), or (x, y, sample_weight) for a language model: x the model's inputs by name, of shape
            (batch, length); y the labels, int64 of shape (batch,), or the next tokens and their weights, of shape
            (batch, length). The last batch of an epoch may be smaller.
        """
        from keras_transfer.data import pipeline

        rows_of_step = self.rows_of_step(model, seed=seed)

        def batch(step: int) -> tuple:
            return self.without_pictures(self.train, model, rows_of_step(step)[1])

        last_step = None if epochs is None else max(first_step, epochs * self.steps_per_epoch(model))
        return pipeline.computed_batches(batch, example=batch(0), first_step=first_step, last_step=last_step)

    def rows_of_step(self, model: keras.Model, *, seed: int | None = None) -> Callable[[int], tuple[int, np.ndarray]]:
        padded = self._padded(self.packed(self.train, model))
        steps = self.steps_per_epoch(model)
        seed = self.seed if seed is None else seed

        @functools.lru_cache(maxsize=2)
        def batches_of(epoch: int) -> list[np.ndarray]:
            return arrange(padded, self.batch_size, seed=seed, epoch=epoch)

        def rows(step: int) -> tuple[int, np.ndarray]:
            epoch, number = divmod(step, steps)
            return epoch, batches_of(epoch)[number]

        return rows

    def without_pictures(self, split: Split, model: keras.Model, rows: np.ndarray) -> tuple:
        packed = self.packed(split, model)
        columns = packed.padded(rows, int(self._padded(packed)[rows].max()))
        x = {name: columns[name] for name in self._input_names(model, packed)}
        if packed.targets:
            return x, columns["y"], columns["sample_weight"]
        return x, split.labels[rows]

    def _input_names(self, model: keras.Model, packed: Packed) -> list[str]:
        """Which of the columns the model takes."""
        return input_names(model, packed)

    def view(
        self,
        split: Split,
        model: keras.Model,
        *,
        epoch: int | None,
        seed: int | None = None,
        batch_size: int | None = None,
    ) -> "Dataset":
        from keras_transfer.data import pipeline

        del epoch, seed  # nothing is augmented
        order, size = self.evaluation_order(split, model), batch_size or self.batch_size
        # Rows of one length together: each is as long as it would be among its like, wherever it is needed.
        ends = np.flatnonzero(np.diff(self._padded(self.packed(split, model))[order])) + 1
        batches = [rows[start : start + size] for rows in np.split(order, ends) for start in range(0, len(rows), size)]

        def batch(step: int) -> dict[str, np.ndarray]:
            return self.without_pictures(split, model, batches[step])[0]

        return pipeline.computed_batches(batch, example=batch(0), last_step=len(batches))

    def view_identity(
        self, split: Split, model: keras.Model, *, epoch: int | None, seed: int | None = None
    ) -> dict[str, Any] | None:
        packed = self.packed(split, model)
        longest, digest = int(packed.lengths.max()), hashlib.sha256()
        for start in range(0, len(packed), 1024):
            columns = packed.padded(np.arange(start, min(start + 1024, len(packed))), longest)
            for name in self._input_names(model, packed):
                digest.update(f"{name} {columns[name].dtype} {columns[name].shape}".encode())
                digest.update(np.ascontiguousarray(columns[name]).tobytes())
        return {"content": digest.hexdigest(), "padded to": np.unique(self._padded(packed)).tolist()}

    def evaluation_batches(self, split: Split, model: keras.Model, *, in_order: bool = True) -> "Dataset":
        """Batches of one split, once; each is padded to the least of the lengths that its rows fit.

        Args:
            split: which.
            model: what they are for.
            in_order: whether rows come in the order of the split, or in that of `evaluation_order`, with half of the
                padding or less.

        Returns:
            A dataset as that of `training_batches`.
        """
        from keras_transfer.data import pipeline

        count = len(self.packed(split, model))
        order = np.arange(count) if in_order else self.evaluation_order(split, model)
        batch = self._batches(split, model, order, self.batch_size)
        return pipeline.computed_batches(batch, example=batch(0), last_step=-(-count // self.batch_size))

    def evaluation_order(self, split: Split, model: keras.Model) -> np.ndarray:
        """The numbers of a split's rows, the short ones first."""
        return np.argsort(self.packed(split, model).lengths, kind="stable")

    def peek(self, split: Split, numbers: Sequence[int], model: Any = None) -> np.ndarray:
        """Some texts, as strings, of shape (numbers,)."""
        del model
        return np.array([self._text(split, int(number)) for number in numbers], object)

    @abc.abstractmethod
    def _text(self, split: Split, number: int) -> str:
        """One example as a reader would see it."""

    def _words(self, split: Split, number: int) -> int:
        """How many words, parted by blanks, an example has."""
        return len(self._text(split, number).split())

    def _length(self, model: keras.Model, preprocessor: keras.Layer) -> int:
        own = longest_read(preprocessor)
        if self.max_length is not None and self.max_length > own:
            raise ValueError(
                explain(
                    f"The model {model.name!r} does not read so far.",
                    given=f"max_length={self.max_length} of the data",
                    expected=f"at most {own} tokens, the length of the model's preprocessor",
                    to_mend="leave max_length out, or build the model with it",
                )
            )
        return own if self.max_length is None else int(self.max_length)

    def _padded(self, packed: Packed) -> np.ndarray:
        """What each row is padded to."""
        if packed not in self._lengths:
            buckets = choose_lengths(packed.lengths, packed.max_length) if self.buckets is None else self.buckets
            self._lengths[packed] = bucket_of(packed.lengths, buckets, packed.max_length)
        return self._lengths[packed]

    def _batches(self, split: Split, model: keras.Model, order: np.ndarray, batch_size: int) -> Callable[[int], tuple]:
        """From the number of a step to the batch of rows that come in it in this order."""
        return lambda step: self.without_pictures(split, model, order[step * batch_size : (step + 1) * batch_size])

    def _more(self) -> list[str]:
        """A histogram of how many words, parted by blanks, the texts of each split have."""
        counts = [np.array([self._words(split, number) for number in range(len(split))]) for split in self.all]
        top = max(3, int(max(count.max() for count in counts) - 1).bit_length())
        bounds = 2 ** np.arange(min(3, top), top + 1)
        binned = [np.bincount(np.searchsorted(bounds, count), minlength=len(bounds)) for count in counts]
        used = [number for number in range(len(bounds)) if any(row[number] for row in binned)]
        rows = [["words", *(f"≤{bounds[number]}" for number in used)]]
        rows += [
            [split.name, *(str(row[number]) for number in used)] for split, row in zip(self.all, binned, strict=True)
        ]
        return table(rows)

    @property
    def settings(self) -> dict[str, Any]:
        """Size of the batches, and where and how far rows are cut and padded."""
        buckets = None if self.buckets is None else [int(length) for length in self.buckets]
        return {**super().settings, "max_length": self.max_length, "buckets": buckets}

    def _settings(self) -> str:
        length = "the model's length" if self.max_length is None else f"at most {self.max_length} tokens"
        padding = "" if self.buckets is None else f", padded to {', '.join(map(str, self.buckets))}"
        return f"{length}{padding}, {super()._settings()}"

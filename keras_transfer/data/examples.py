"""One split's worth of pictures wherever they lie, by number: the common form of every source."""

import abc
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from keras_transfer.data import decoding
from keras_transfer.errors import explain


class Examples(abc.ABC):
    """Pictures with the names of their classes, in a fixed order, each reached by its number from any thread."""

    class_names: Sequence[str]

    def __len__(self) -> int:
        return len(self.class_names)

    @abc.abstractmethod
    def picture(self, number: int, at_least: tuple[int, int] | None = None) -> np.ndarray:
        """The pixels of one example: uint8 or float32 of shape (height, width, 3), 0..255.

        Args:
            number: which one.
            at_least: (height, width) that it will be brought to, see `decoding.decode`; all of its pixels if not given.
        """

    @abc.abstractmethod
    def describe(self, number: int) -> str:
        """What a reader finds the example by: its path, or its place in an array."""

    @abc.abstractmethod
    def inspect(self, number: int) -> tuple[bytes, str | None]:
        """(SHA-256 of the example's content, what is wrong with it or `None`), after looking at every byte."""

    @abc.abstractmethod
    def select(self, numbers: Sequence[int]) -> Self:
        """These examples alone, in this order."""


def _taken(sequence: Sequence, numbers: Sequence[int]) -> list:
    return [sequence[number] for number in numbers]


class FileExamples(Examples):
    """Pictures in files.

    Args:
        paths: one file for each example.
        class_names: one name for each.
    """

    def __init__(self, paths: Sequence[pathlib.Path], class_names: Sequence[str]) -> None:
        self.paths = list(paths)
        self.class_names = list(class_names)

    def picture(self, number: int, at_least: tuple[int, int] | None = None) -> np.ndarray:
        """The pixels of one file.

        Raises:
            ValueError: the file cannot be read any more.
        """
        path = self.paths[number]
        try:
            return decoding.decode(path.read_bytes(), at_least)
        except (OSError, ValueError) as error:
            raise ValueError(
                explain("A picture that could be read before cannot be read now.", given=path, reason=error)
            ) from error

    def describe(self, number: int) -> str:
        """The file's path."""
        return str(self.paths[number])

    def inspect(self, number: int) -> tuple[bytes, str | None]:
        """(SHA-256 of the file's bytes, why it cannot be decoded or `None`)."""
        try:
            encoded = self.paths[number].read_bytes()
        except OSError as error:
            return b"", error.strerror or str(error)
        return hashlib.sha256(encoded).digest(), decoding.why_unreadable(encoded)

    def select(self, numbers: Sequence[int]) -> Self:
        """These files alone, in this order."""
        return type(self)(_taken(self.paths, numbers), _taken(self.class_names, numbers))


class EncodedExamples(Examples):
    """Pictures as the bytes of a file each, fetched one by one from wherever they are kept.

    Args:
        fetch: gives the bytes of the example with this number, from any thread.
        class_names: one name for each example.
        name: what they are called in messages, for instance `"tf_flowers:train"`.
        numbers: the numbers that `fetch` knows the examples by; all of them, in order, if not given.
    """

    def __init__(
        self,
        fetch: Callable[[int], bytes],
        class_names: Sequence[str],
        *,
        name: str,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.fetch = fetch
        self.class_names = list(class_names)
        self.name = name
        self.numbers = range(len(self.class_names)) if numbers is None else list(numbers)

    def picture(self, number: int, at_least: tuple[int, int] | None = None) -> np.ndarray:
        """The pixels of one example."""
        return decoding.decode(self.fetch(self.numbers[number]), at_least)

    def describe(self, number: int) -> str:
        """The name of the whole and the example's place in it."""
        return f"{self.name}[{self.numbers[number]}]"

    def inspect(self, number: int) -> tuple[bytes, str | None]:
        """(SHA-256 of the bytes, why they cannot be decoded or `None`)."""
        encoded = self.fetch(self.numbers[number])
        return hashlib.sha256(encoded).digest(), decoding.why_unreadable(encoded)

    def select(self, numbers: Sequence[int]) -> Self:
        """These examples alone, in this order."""
        return type(self)(
            self.fetch,
            _taken(self.class_names, numbers),
            name=self.name,
            numbers=_taken(self.numbers, numbers),
        )


class ArrayExamples(Examples):
    """Pictures that are arrays already.

    Args:
        pictures: an array (or what is indexed like one: a memory map, an HDF5 data set, a list of arrays) of shape
            (pictures, height, width, channels) or (pictures, height, width); one channel is repeated to three.
        class_names: one name for each.
        name: what they are called in messages.
        numbers: which of `pictures` these are; all of them, in order, if not given.
    """

    def __init__(
        self,
        pictures: Any,
        class_names: Sequence[str],
        *,
        name: str,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.pictures = pictures
        self.class_names = list(class_names)
        self.name = name
        self.numbers = range(len(self.class_names)) if numbers is None else list(numbers)

    def _raw(self, number: int) -> np.ndarray:
        return np.asarray(self.pictures[self.numbers[number]])

    def picture(self, number: int, at_least: tuple[int, int] | None = None) -> np.ndarray:
        """The pixels of one example, with three channels."""
        picture = self._raw(number)
        picture = picture if picture.dtype == np.uint8 else picture.astype(np.float32)
        picture = picture[..., None] if picture.ndim == 2 else picture
        return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture

    def describe(self, number: int) -> str:
        """The array's name and the example's place in it."""
        return f"{self.name}[{self.numbers[number]}]"

    def inspect(self, number: int) -> tuple[bytes, str | None]:
        """(SHA-256 of type, shape and values, what is wrong with the pixels or `None`)."""
        picture = self._raw(number)
        digest = hashlib.sha256(f"{picture.dtype.str}{picture.shape}".encode())
        digest.update(np.ascontiguousarray(picture).tobytes())
        return digest.digest(), self._wrong_with(picture)

    def select(self, numbers: Sequence[int]) -> Self:
        """These pictures alone, in this order, without copying any."""
        return type(self)(
            self.pictures, _taken(self.class_names, numbers), name=self.name, numbers=_taken(self.numbers, numbers)
        )

    @staticmethod
    def _wrong_with(picture: np.ndarray) -> str | None:
        if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[-1] not in (1, 3)) or not picture.size:
            return (
                f"shape {picture.shape}, where (height, width, 3), (height, width, 1) or (height, width) was expected"
            )
        if picture.dtype == np.uint8:
            return None
        if picture.dtype.kind not in "uif":
            return f"values of type {picture.dtype}, where uint8 or float was expected"
        if not np.isfinite(picture).all():
            return "pixels that are not finite (NaN or infinity)"
        if picture.min() < 0 or picture.max() > 255:
            return f"pixels of {picture.min():g}..{picture.max():g}, where 0..255 was expected"
        return None

"""One split's worth of pictures or texts wherever they lie, by number: the common form of every source."""

import abc
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from keras_transfer.data import decoding
from keras_transfer.errors import explain


class Examples(abc.ABC):
    """What there is to learn from with the names of its classes, in a fixed order, each reached by its number."""

    noun: ClassVar[str] = "example"
    """What one is called in messages."""

    class_names: Sequence[str]

    def __len__(self) -> int:
        return len(self.class_names)

    @abc.abstractmethod
    def describe(self, number: int) -> str:
        """What a reader finds the example by: its path, or its place in an array."""

    @abc.abstractmethod
    def inspect(self, number: int) -> tuple[bytes, str | None]:
        """(SHA-256 of the example's content, what is wrong with it or `None`), after looking at every byte."""

    @abc.abstractmethod
    def select(self, numbers: Sequence[int]) -> Self:
        """These examples alone, in this order."""


class PictureExamples(Examples):
    """Pictures, each reached by its number from any thread."""

    noun = "picture"

    @abc.abstractmethod
    def picture(self, number: int, at_least: tuple[int, int] | None = None) -> np.ndarray:
        """The pixels of one example: uint8 or float32 of shape (height, width, 3), 0..255.

        Args:
            number: which one.
            at_least: (height, width) that it will be brought to, see `decoding.decode`; all of its pixels if not given.
        """


def _taken(sequence: Sequence, numbers: Sequence[int]) -> list:
    return [sequence[number] for number in numbers]


class FileExamples(PictureExamples):
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


class EncodedExamples(PictureExamples):
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


class ArrayExamples(PictureExamples):
    """Pictures that are arrays already.

    Args:
        pictures: an array (or what is indexed like one: a memory map, an HDF5 data set, a list of arrays) of shape
            (pictures, height, width, channels) or (pictures, height, width); one channel is repeated to three. Or
            pictures that Pillow has opened.
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
        return decoding.as_array(self.pictures[self.numbers[number]])

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
            mend = "; leave transparency out, x[..., :3], or give the file" if picture.shape[2:] == (4,) else ""
            return (
                f"shape {picture.shape}, where (height, width, 3), (height, width, 1) or (height, width) was "
                f"expected{mend}"
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


class TextExamples(Examples):
    """Texts, or several that are read together: a question and an answer, a premise and a hypothesis.

    Args:
        texts: one for each example, or a tuple of as many for each.
        class_names: one name for each.
        place: what a reader finds the text with this number by, for instance `"train.tsv, line 12"`.
        numbers: the numbers that `place` knows the texts by; all of them, in order, if not given.
        longest: how many characters a text may have; more are a file that was read as one text.
    """

    noun = "text"

    def __init__(
        self,
        texts: Sequence[str | tuple[str, ...]],
        class_names: Sequence[str],
        *,
        place: Callable[[int], str],
        numbers: Sequence[int] | None = None,
        longest: int | None = 1_000_000,
    ) -> None:
        self.texts = list(texts)
        self.class_names = list(class_names)
        self.place = place
        self.numbers = range(len(self.class_names)) if numbers is None else list(numbers)
        self.longest = longest

    def describe(self, number: int) -> str:
        """What a reader finds the text by."""
        return self.place(self.numbers[number])

    @property
    def texts_per_row(self) -> int:
        """How many texts are read together, by the first row."""
        return len(self.parts(0)) if self.texts else 1

    def parts(self, number: int) -> tuple[str, ...]:
        """The texts of an example that are read together, often one."""
        text = self.texts[number]
        return text if isinstance(text, tuple) else (text,)

    def readable(self, number: int) -> str:
        """The text as one line of a listing has it."""
        return " | ".join(self.parts(number))

    def inspect(self, number: int) -> tuple[bytes, str | None]:
        """(SHA-256 of the text in UTF-8, what is wrong with it or `None`)."""
        parts = self.parts(number)
        if len(parts) != self.texts_per_row:
            return b"", f"has {len(parts)} texts to be read together, and the first row {self.texts_per_row}"
        found = [self._inspect_one(part) for part in parts]
        if len(parts) == 1:
            return found[0]
        wrong = [f"its text {place} of {len(parts)} {reason}" for place, (_, reason) in enumerate(found, 1) if reason]
        return hashlib.sha256(b"".join(digest for digest, _ in found)).digest(), wrong[0] if wrong else None

    def _inspect_one(self, text: str) -> tuple[bytes, str | None]:
        if not isinstance(text, str):
            return b"", f"is no text but {type(text).__name__} {text!r:.40}"
        # Bytes that are no UTF-8 come as lone surrogates, see `tables.decoded`.
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
        return digest.digest(), self._wrong_with(text)

    def select(self, numbers: Sequence[int]) -> Self:
        """These texts alone, in this order."""
        return type(self)(
            _taken(self.texts, numbers),
            _taken(self.class_names, numbers),
            place=self.place,
            numbers=_taken(self.numbers, numbers),
            longest=self.longest,
        )

    def _wrong_with(self, text: str) -> str | None:
        if self.longest is not None and len(text) > self.longest:
            return f"has {len(text):,} characters; more than {self.longest:,} are hardly one text"
        return _wrong_with_text(text)


class PairExamples(Examples):
    """Prompts, each with its response.

    Args:
        prompts: one for each example.
        responses: one for each.
        place: what a reader finds the pair with this number by, for instance `"train.tsv, line 12"`.
        numbers: the numbers that `place` knows the pairs by; all of them, in order, if not given.
    """

    noun = "pair"

    def __init__(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        place: Callable[[int], str],
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.prompts = list(prompts)
        self.responses = list(responses)
        self.class_names = [""] * len(self.prompts)
        self.place = place
        self.numbers = range(len(self.prompts)) if numbers is None else list(numbers)

    def describe(self, number: int) -> str:
        """What a reader finds the pair by."""
        return self.place(self.numbers[number])

    def inspect(self, number: int) -> tuple[bytes, str | None]:
        """(SHA-256 of both in UTF-8, what is wrong with one of them or `None`)."""
        return self._inspect_texts(number, may_be_empty=())

    def _inspect_texts(self, number: int, may_be_empty: Sequence[str]) -> tuple[bytes, str | None]:
        digest = hashlib.sha256()
        for part, text in (("prompt", self.prompts[number]), ("response", self.responses[number])):
            if not isinstance(text, str):
                return b"", f"its {part} is no text but {type(text).__name__} {text!r:.40}"
            digest.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
            reason = None if part in may_be_empty and not text else _wrong_with_text(text)
            if reason is not None:
                return digest.digest(), f"its {part} {reason}"
        return digest.digest(), None

    def select(self, numbers: Sequence[int]) -> Self:
        """These pairs alone, in this order."""
        return type(self)(
            _taken(self.prompts, numbers),
            _taken(self.responses, numbers),
            place=self.place,
            numbers=_taken(self.numbers, numbers),
        )


def _wrong_with_text(text: str) -> str | None:
    if not text.strip():
        return "has no text"
    if "\0" in text:
        return f"has a NUL byte after {text.index(chr(0)):,} characters"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        return f"is not UTF-8: byte 0x{byte:02x} after {error.start:,} characters"
    return None

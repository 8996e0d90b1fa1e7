"""`kt.cache`: the features that `fit` keeps on disk, listed and cleared."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Sequence

from keras_transfer.data.splits import table
from keras_transfer.training import feature_store


@dataclasses.dataclass(frozen=True)
class Entry:
    """The features of one split of some data below one cut of some model.

    Attributes:
        folder: where they are.
        of: what they were computed from, in words.
        examples: how many examples they are of.
        bytes: how much of the disk they take.
        written: when, ISO 8601 in UTC.
    """

    folder: pathlib.Path
    of: str
    examples: int
    bytes: int
    written: str


class Entries(Sequence[Entry]):
    """What is kept. Printed, it is a table."""

    def __init__(self, folder: pathlib.Path, every: Sequence[Entry]) -> None:
        self.folder = folder
        self._every = tuple(every)

    def __getitem__(self, number):
        return self._every[number]

    def __len__(self) -> int:
        return len(self._every)

    @property
    def bytes(self) -> int:
        """How much of the disk they take together."""
        return sum(entry.bytes for entry in self)

    def __str__(self) -> str:
        if not self:
            return f"nothing is kept in {self.folder}"
        rows = [["features", "examples", "MB", "written"]]
        rows += [[e.of, str(e.examples), f"{e.bytes / 1e6:.1f}", e.written] for e in self]
        return "\n".join([*table(rows), f"{self.bytes / 1e6:.1f} MB in {self.folder}"])


def folder() -> pathlib.Path:
    """Where features are kept: `KERAS_TRANSFER_CACHE`, or `keras_transfer` in the user's cache folder."""
    return feature_store.default_folder()


def entries(folder: str | os.PathLike | None = None) -> Entries:
    """What is kept, the latest first.

    Args:
        folder: another folder than the usual one.

    Example:

    >>> import tempfile
    >>> print(entries(tempfile.mkdtemp()))
    nothing is kept in ...
    """
    place = pathlib.Path(folder) if folder is not None else feature_store.default_folder()
    found = []
    for one in place.glob("[!.]*/manifest.json"):
        try:
            manifest = feature_store.read_manifest(one.parent)
        except feature_store.CorruptError as error:
            found.append(Entry(one.parent, f"unreadable: {error}", 0, _size(one.parent), ""))
            continue
        found.append(Entry(one.parent, manifest["words"], manifest["examples"], manifest["bytes"], manifest["written"]))
    return Entries(place, sorted(found, key=lambda entry: entry.written, reverse=True))


def clear(folder: str | os.PathLike | None = None) -> int:
    """Removes all that is kept, and what killed processes left; returns how many bytes that frees.

    Args:
        folder: another folder than the usual one.
    """
    place = pathlib.Path(folder) if folder is not None else feature_store.default_folder()
    before = _size(place)
    feature_store.sweep(place)
    for one in place.glob("[!.]*/manifest.json"):
        shutil.rmtree(one.parent)
    return before - _size(place)


def _size(place: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())

"""Features on disk: what was computed once for every example, found again by what it was computed from.

A store is a folder of safetensors files and a manifest. Safetensors, because others keep it well, it holds plain arrays
at known places (so that a row is read without reading the file), runs no code when it is opened, and is a dependency
already; HDF5 and TFRecord fall short of one or the other.
"""

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import json
import os
import pathlib
import shutil
import socket
import struct
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from keras_transfer import digests
from keras_transfer.errors import explain
from keras_transfer.training.files import DISK_FULL, write_whole

# Bytes that are gathered before a file is written: what a pass needs of memory, whatever its length.
_SHARD = 64 * 2**20
_FORMAT = 1
_VARIABLE = "KERAS_TRANSFER_CACHE"


def default_folder() -> pathlib.Path:
    """Where features are kept: `KERAS_TRANSFER_CACHE`, or `keras_transfer` in the user's cache folder."""
    if os.environ.get(_VARIABLE):
        return pathlib.Path(os.environ[_VARIABLE])
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "keras_transfer"


class Rows(Protocol):
    """Features of a number of examples, each reached by its place in the order in which they were computed.

    Attributes:
        sides: the shape of each kept tensor of one example, -1 for a side that differs between examples.
    """

    sides: list[list[int]]

    def __len__(self) -> int: ...

    def take(self, places: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """The kept tensors of some examples, each of shape (places, …).

        Where examples differ in length, the shorter are padded with zeros at the end.
        """

    def whole(self, most_bytes: float) -> list[np.ndarray] | None:
        """The kept tensors of all examples, where these have one shape and take no more than so many bytes."""


@dataclasses.dataclass(frozen=True)
class _Run:
    """Consecutive examples whose tensors have one shape each.

    Attributes:
        first: the place of the first of them.
        count: how many.
        file: the file that they are in, by its name.
        shapes: of one example's tensors.
        dtypes: theirs, as NumPy calls them.
        offsets: where in the file each tensor begins, in bytes.
    """

    first: int
    count: int
    file: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    offsets: tuple[int, ...]


class _Gathered:
    """Batches as they come, joined into runs of one shape."""

    def __init__(self) -> None:
        self.first: list[int] = []
        self.batches: list[list[list[np.ndarray]]] = []
        self.bytes = 0

    def add(self, place: int, tensors: Sequence[np.ndarray]) -> None:
        shapes = [array.shape[1:] for array in tensors]
        if not self.batches or [array.shape[1:] for array in self.batches[-1][-1]] != shapes:
            self.first.append(place)
            self.batches.append([])
        self.batches[-1].append(list(tensors))
        self.bytes += sum(array.nbytes for array in tensors)

    def runs(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        """The place of each run's first example, and its tensors."""
        for first, batches in zip(self.first, self.batches, strict=True):
            yield first, [np.concatenate(tensors) for tensors in zip(*batches, strict=True)]


class InMemory:
    """Features that are held in memory, for as long as somebody holds them."""

    def __init__(self, batches: Iterable[Sequence[np.ndarray]]) -> None:
        gathered, place = _Gathered(), 0
        for tensors in batches:
            tensors = [_storable(array) for array in tensors]
            gathered.add(place, tensors)
            place += len(tensors[0])
        self._runs = list(gathered.runs())
        self._first = np.array([first for first, _ in self._runs])
        self._count = place
        self.sides = _sides([[tensor.shape[1:] for tensor in tensors] for _, tensors in self._runs])

    def __len__(self) -> int:
        return self._count

    def take(self, places: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        places = np.asarray(places)
        runs = np.searchsorted(self._first, places, side="right") - 1
        if len(self._runs) == 1:
            return [tensor[places] for tensor in self._runs[0][1]]
        return _joined([
            [tensor[place - self._first[run]] for tensor in self._runs[run][1]]
            for place, run in zip(places, runs, strict=True)
        ])  # fmt: skip

    def whole(self, most_bytes: float) -> list[np.ndarray] | None:
        if len(self._runs) > 1:
            return None
        ((_, tensors),) = self._runs
        return tensors if sum(tensor.nbytes for tensor in tensors) <= most_bytes else None


class OnDisk:
    """Features in a folder, of which only what is asked for is read.

    Args:
        folder: the folder of one store.

    Raises:
        CorruptError: the folder is not as it was written.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        _verify(folder, self.manifest)
        self._runs = [
            _Run(
                run["first"], run["count"], run["file"], tuple(map(tuple, run["shapes"])), tuple(run["dtypes"]),
                tuple(run["offsets"]),
            )
            for run in self.manifest["runs"]
        ]  # fmt: skip
        self._first = np.array([run.first for run in self._runs])
        self.sides = _sides([run.shapes for run in self._runs])
        # Open for as long as they are in use: what is cleared meanwhile is read on.
        self._files = {name: os.open(folder / name, os.O_RDONLY) for name in self.manifest["files"]}
        for file in self._files.values():
            weakref.finalize(self, os.close, file)

    def __len__(self) -> int:
        return self.manifest["examples"]

    @property
    def largest(self) -> int:
        """The most bytes that an example takes."""
        return max(
            sum(_size(shape, dtype) for shape, dtype in zip(run.shapes, run.dtypes, strict=True)) for run in self._runs
        )

    def take(self, places: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        places = np.asarray(places)
        runs = np.searchsorted(self._first, places, side="right") - 1
        rows = []
        for place, number in zip(places, runs, strict=True):
            run = self._runs[number]
            rows.append(_read_rows(self._files[run.file], run, int(place) - run.first, 1))
        return _joined([[tensor[0] for tensor in tensors] for tensors in rows])

    def whole(self, most_bytes: float) -> list[np.ndarray] | None:
        if any(side < 0 for shape in self.sides for side in shape) or self.largest * len(self) > most_bytes:
            return None
        first = self._runs[0]
        every = [np.empty((len(self), *shape), dtype) for shape, dtype in zip(first.shapes, first.dtypes, strict=True)]
        for run in self._runs:  # one after another: all of them and a joined copy would take twice the memory
            for tensor, rows in zip(every, _read_rows(self._files[run.file], run, 0, run.count), strict=True):
                tensor[run.first : run.first + run.count] = rows
        return every


def _sides(shapes: Sequence[Sequence[tuple[int, ...]]]) -> list[list[int]]:
    """The shape of each tensor over all runs, -1 where they differ.

    Example:

    >>> _sides([[(2, 4), (1,)], [(3, 4), (1,)]])
    [[-1, 4], [1]]
    """
    return [
        [sides[0] if len(set(sides)) == 1 else -1 for sides in zip(*tensor, strict=True)]
        for tensor in zip(*shapes, strict=True)
    ]


def _read_rows(file: int, run: _Run, first: int, count: int) -> list[np.ndarray]:
    """The tensors of some examples. Read, not mapped: pages of a mapped file count as this process' memory."""
    tensors = []
    for shape, dtype, offset in zip(run.shapes, run.dtypes, run.offsets, strict=True):
        size = _size(shape, dtype)
        content = os.pread(file, count * size, offset + first * size)
        if len(content) < count * size:
            last = run.first + first + count - 1
            raise CorruptError(f"{run.file} ends before example {last}: it was changed while it was in use")
        tensors.append(np.frombuffer(content, dtype).reshape(count, *shape))
    return tensors


def _size(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _joined(rows: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Batches of the tensors of several examples, padded to the longest with zeros."""
    joined = []
    for tensors in zip(*rows, strict=True):
        shape = tuple(map(max, zip(*(tensor.shape for tensor in tensors), strict=True))) if tensors[0].ndim else ()
        if all(tensor.shape == shape for tensor in tensors):
            joined.append(np.stack(tensors))
            continue
        batch = np.zeros((len(tensors), *shape), tensors[0].dtype)
        for place, tensor in zip(batch, tensors, strict=True):
            place[tuple(slice(side) for side in tensor.shape)] = tensor
        joined.append(batch)
    return joined


def _storable(array: np.ndarray) -> np.ndarray:
    """An array of a kind that NumPy itself knows: bfloat16 goes into float32, which holds it exactly."""
    array = np.asarray(array)
    return np.ascontiguousarray(array.astype("float32") if array.dtype.name == "bfloat16" else array)


class CorruptError(ValueError):
    """A store is not as it was written."""


def kept(
    folder: pathlib.Path,
    facts: Mapping[str, Any],
    compute: Callable[[], Iterable[Sequence[np.ndarray]]],
    *,
    words: str = "",
) -> OnDisk:
    """The features that follow from `facts`: those on disk, or computed and put there.

    A store is written under a name of its own and renamed when it is whole, so that a kill at any moment leaves either
    all of it or nothing that is ever read. Two processes that compute the same one do the work twice, and keep one.

    Args:
        folder: of all stores.
        facts: all that the features are a function of, as plain data; another fact, another store.
        compute: gives batches of tensors, each of shape (batch, …).
        words: what they are, for a reader.

    Raises:
        OSError: if the disk is full, or cannot be written to.

    Example:

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for _ in range(2):
    ...     rows = kept(folder, {"of": "doctest"}, lambda: print("computed") or [[np.eye(3, dtype="float32")]])
    computed
    >>> rows.take([2, 0])[0].tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    name = key(facts)
    place = folder / name
    found = existing(folder, facts)
    if found is not None:
        return found
    unfinished = folder / f".{name}.{socket.gethostname()}.{os.getpid()}.unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        _write(unfinished, facts, compute(), words)
        try:
            os.rename(unfinished, place)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was first, and keeps the same
                raise
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OSError(
            error.errno,
            explain(
                "The disk is full, so features cannot be kept on it.",
                given=str(folder),
                to_mend='kt.cache.clear(), KERAS_TRANSFER_CACHE on another disk, or cache="memory" or "off"',
            ),
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return OnDisk(place)


def has(folder: pathlib.Path, facts: Mapping[str, Any]) -> bool:
    """Whether there is a store of these facts, whole or not."""
    return (folder / key(facts) / "manifest.json").exists()


def existing(folder: pathlib.Path, facts: Mapping[str, Any]) -> OnDisk | None:
    """The store of these facts, where there is one that is whole; one that is not is put away, and said."""
    place = folder / key(facts)
    if not place.is_dir():
        return None
    try:
        return OnDisk(place)
    except CorruptError as error:
        warnings.warn(f"Features in {place} are not as they were written ({error}): computed again", stacklevel=2)
        doomed = folder / f".{place.name}.{socket.gethostname()}.{os.getpid()}.corrupt"
        with contextlib.suppress(FileNotFoundError):  # another process has put it away
            os.rename(place, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        return None


def key(facts: Mapping[str, Any]) -> str:
    """The name of the store of these facts: their SHA-256, shortened."""
    return digests.of_json({"format": _FORMAT, **facts})[:32]


def _write(folder: pathlib.Path, facts: Mapping[str, Any], batches: Iterable[Sequence[np.ndarray]], words: str) -> None:
    gathered, place, runs, files = _Gathered(), 0, [], {}
    for tensors in batches:
        tensors = [_storable(array) for array in tensors]
        gathered.add(place, tensors)
        place += len(tensors[0])
        if gathered.bytes >= _SHARD:
            _write_file(folder, gathered, runs, files)
            gathered = _Gathered()
    if gathered.batches:
        _write_file(folder, gathered, runs, files)
    manifest = {
        "format": _FORMAT,
        "facts": dict(facts),
        "words": words,
        "examples": place,
        "bytes": sum(file["bytes"] for file in files.values()),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "files": files,
        "runs": [dataclasses.asdict(run) for run in runs],
    }
    text = json.dumps(manifest, sort_keys=True)
    write_whole(folder / "manifest.json", json.dumps({"sha256": digests.of_bytes(text.encode()), "manifest": text}))


def _write_file(folder: pathlib.Path, gathered: _Gathered, runs: list[_Run], files: dict[str, Any]) -> None:
    from safetensors.numpy import save

    name = f"{len(files):05}.safetensors"
    found = list(gathered.runs())
    content = save({f"{first}.{n}": array for first, tensors in found for n, array in enumerate(tensors)})
    (length,) = struct.unpack("<Q", content[:8])  # the header's: https://github.com/huggingface/safetensors#format
    header = json.loads(content[8 : 8 + length])
    for first, tensors in found:
        offsets = tuple(8 + length + header[f"{first}.{n}"]["data_offsets"][0] for n in range(len(tensors)))
        shapes, dtypes = tuple(array.shape[1:] for array in tensors), tuple(array.dtype.name for array in tensors)
        runs.append(_Run(first, len(tensors[0]), name, shapes, dtypes, offsets))
    write_whole(folder / name, content)
    files[name] = {"bytes": len(content), "sha256": digests.of_bytes(content)}


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """What a store says of itself.

    Raises:
        CorruptError: it says nothing, or something else than was written.
    """
    try:
        outer = json.loads((folder / "manifest.json").read_text())
        if digests.of_bytes(outer["manifest"].encode()) != outer["sha256"]:
            raise CorruptError("manifest.json has another checksum")
        return json.loads(outer["manifest"])
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"manifest.json: {error}") from error


# What has been verified in this process, by folder and the time of its manifest: a second look costs nothing.
_verified: set[tuple[str, int]] = set()


def _verify(folder: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Compares every file with its checksum, once a process."""
    mark = (str(folder.resolve()), (folder / "manifest.json").stat().st_mtime_ns)
    if mark in _verified:
        return
    for name, file in manifest["files"].items():
        try:
            with open(folder / name, "rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise CorruptError(f"{name}: {error}") from error
        if digest != file["sha256"]:
            raise CorruptError(f"{name} has another checksum")
    _verified.add(mark)


def sweep(folder: pathlib.Path) -> None:
    """Removes what processes of this machine left unfinished when they were killed."""
    for left in folder.glob(f".*.{socket.gethostname()}.*.unfinished"):
        if not _alive(int(left.name.split(".")[-2])):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

import keras

from keras_transfer.errors import explain

_PREFIX = ".unfinished."
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that a reader, or a kill at any moment, finds the old content or the new, never a part.

    Raises:
        OSError: where it cannot be written, a full disk for one; what was there before is then still there.

    Example:

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.txt"
    >>> write_whole(path, "done")
    >>> path.read_text()
    'done'
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Lends another name beside `path`, of the same ending; what was written there takes its place when it is whole.

    Raises:
        OSError: as `write_whole`.
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f"{_PREFIX}{os.getpid()}.{path.name}")
    try:
        yield unfinished
        _flush(unfinished)
        os.replace(unfinished, path)
        # The name is an entry of the folder, and outlives a loss of power only once that is written.
        _flush(path.parent)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise OSError(
                error.errno,
                explain(
                    "The disk is full.",
                    given=f"{path}, which could not be written",
                    expected="room for it; whatever was written before is whole",
                    to_mend="make room, and start the same line again: it goes on from the last checkpoint",
                ),
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a model, as `write_whole` does any content.

    Raises:
        OSError: as `write_whole`.
    """
    with replacing(path) as unfinished:
        model.save(unfinished)


def clear_unfinished(folder: pathlib.Path) -> None:
    """Removes what a killed process was writing. Only for whoever alone may write there."""
    for left in folder.glob(f"{_PREFIX}*"):
        left.unlink(missing_ok=True)


def _flush(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

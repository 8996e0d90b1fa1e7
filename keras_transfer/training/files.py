"""Files that are written whole or not at all."""

import os
import pathlib


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that a reader, or a kill at any moment, finds the old content or the new, never a part.

    Example:

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.txt"
    >>> write_whole(path, "done")
    >>> path.read_text()
    'done'
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    with open(unfinished, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)

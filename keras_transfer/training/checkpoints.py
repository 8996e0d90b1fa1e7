"""A folder of checkpoints: each written whole, verified when read, the last two kept.

A checkpoint is one safetensors file. Its tensors are named by the SHA-256 of their content, so that weights which
occur several times (frozen ones are the same now, at the best epoch and at the start of the stage) are written once.
Its metadata is JSON: the facts, with the names of the tensors in the places where arrays stood. No pickle.
"""

import json
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from keras_transfer import digests
from keras_transfer.errors import explain
from keras_transfer.training.files import clear_unfinished, write_whole

KEPT = 2
_FORMAT = "keras_transfer.checkpoint.2"
_ARRAY = "array sha256"
_NAME = re.compile(r"checkpoint-(\d+)\.safetensors")
# What a safetensors file holds as it is; the rest (bfloat16, float8) goes in as bytes.
_NATIVE = {"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they lie; made with the first one.
        run: what identifies the run; a checkpoint of another one is as good as none.

    Example:

    >>> import tempfile
    >>> checkpoints = Checkpoints(pathlib.Path(tempfile.mkdtemp()), run="pets")
    >>> for step in (1, 2, 3):
    ...     checkpoints.write({"step": step, "weights": [np.zeros(2)]})
    >>> checkpoints.read_last()
    {'step': 3, 'weights': [array([0., 0.])]}
    >>> [path.name for path in checkpoints.paths]
    ['checkpoint-000002.safetensors', 'checkpoint-000003.safetensors']
    """

    def __init__(self, folder: pathlib.Path, run: str):
        self.folder, self._run = folder, run
        found = folder.glob("checkpoint-*.safetensors") if folder.is_dir() else ()
        numbered = {int(match[1]): path for path in found if (match := _NAME.fullmatch(path.name))}
        self.paths = [numbered[number] for number in sorted(numbered)]
        self._next = max(numbered, default=0) + 1

    def write(self, content: Mapping[str, Any], *, kept: int = KEPT) -> None:
        """Adds a checkpoint, and only then removes those before the last `kept`.

        Args:
            content: dictionaries, lists, strings, numbers, `None`, and arrays.
            kept: how many stay, this one among them.

        Raises:
            OSError: where it cannot be written, on a full disk for one; those before it are then still there.
        """
        self.folder.mkdir(exist_ok=True)
        clear_unfinished(self.folder)
        arrays: dict[str, np.ndarray] = {}
        facts = json.dumps({"run": self._run, "content": _without_arrays(content, arrays)})
        metadata = {"format": _FORMAT, "facts": facts, "sha256": digests.of_bytes(facts.encode())}
        path = self.folder / f"checkpoint-{self._next:06}.safetensors"
        write_whole(path, safetensors.numpy.save(arrays, metadata))
        self._next += 1
        self.paths = [*self.paths, path][-kept:]
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old not in self.paths:
                old.unlink()

    def read_last(self) -> Any:
        """What the last good checkpoint holds, or `None` where there is none.

        One that is torn or corrupt is passed over with a warning that names the reason.
        """
        while self.paths:
            path = self.paths[-1]
            try:
                return self._read(path)
            except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
                self.paths.pop()
                then = f"{self.paths[-1].name} is taken instead" if self.paths else "the run starts at its beginning"
                warnings.warn(
                    explain(f"{path} is not whole: {then}.", given=error, to_mend="nothing: less is kept, none wrong"),
                    stacklevel=2,
                )
        return None

    def _read(self, path: pathlib.Path) -> Any:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {_FORMAT!r}")
        if digests.of_bytes(metadata["facts"].encode()) != metadata["sha256"]:
            raise ValueError("the checksum of its facts is another one")
        facts = json.loads(metadata["facts"])
        if facts["run"] != self._run:
            raise ValueError("it belongs to another run")
        return _with_arrays(facts["content"], arrays)


def _without_arrays(content: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The content as JSON can hold it; its arrays go into `arrays`, by their digest."""
    if isinstance(content, Mapping):
        return {name: _without_arrays(value, arrays) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_arrays(value, arrays) for value in content]
    if isinstance(content, np.ndarray):
        dtype, shape, digest = str(content.dtype), list(content.shape), digests.of_arrays([content])
        as_it_is = dtype in _NATIVE
        arrays[digest] = np.ascontiguousarray(content).reshape(shape) if as_it_is else digests.raw_bytes(content)
        return {_ARRAY: digest, "dtype": dtype, "shape": shape}
    return content.item() if isinstance(content, np.generic) else content


def _with_arrays(content: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(content, list):
        return [_with_arrays(value, arrays) for value in content]
    if not isinstance(content, dict):
        return content
    if _ARRAY not in content:
        return {name: _with_arrays(value, arrays) for name, value in content.items()}
    dtype, shape = content["dtype"], content["shape"]
    array = digests.raw_bytes(arrays[content[_ARRAY]]).view(np.dtype(dtype)).reshape(shape)
    if digests.of_arrays([array]) != content[_ARRAY]:
        raise ValueError(f"the checksum of an array of shape {tuple(shape)} is another one")
    return array

"""SHA-256 of what runs, features and adapters are known by again."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np


def of_bytes(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def of_json(content: Any) -> str:
    """The SHA-256 of plain data, whatever the order of its keys.

    Example:

    >>> of_json({"a": 1, "b": [2]}) == of_json({"b": [2], "a": 1})
    True
    """
    return of_bytes(json.dumps(content, sort_keys=True).encode())


def of_arrays(arrays: Iterable[np.ndarray]) -> str:
    """The SHA-256 of the content, types and shapes of arrays, in their order.

    Example:

    >>> of_arrays([np.zeros((2, 3))]) == of_arrays([np.zeros((3, 2))])
    False
    """
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {list(array.shape)}".encode())
        found.update(raw_bytes(array))
    return found.hexdigest()


def raw_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of an array, as numbers."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)

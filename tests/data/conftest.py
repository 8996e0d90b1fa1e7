"""Small pictures, written where a test wants them."""

import io
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image


def noise(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Gives the bytes of a file that holds this array or Pillow image."""

    def encode(picture, format: str = "PNG", **options) -> bytes:
        held = io.BytesIO()
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(held, format, **options)
        return held.getvalue()

    return encode


@pytest.fixture
def folder(tmp_path, encoded) -> Callable[..., pathlib.Path]:
    """Writes a folder of pictures, each different from all others: counts like {"train/cat": 3}, or {"cat": 3}."""
    drawn = iter(range(10**6))

    def write(counts: dict[str, int], root: str = "pictures") -> pathlib.Path:
        for name, count in counts.items():
            place = tmp_path / root / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (place / f"{number:03d}.png").write_bytes(encoded(noise(next(drawn))))
        return tmp_path / root

    return write

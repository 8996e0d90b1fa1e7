"""Features on disk: found again by what they follow from, whole or not at all."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from keras_transfer.training import cache, feature_store
from keras_transfer.training.feature_store import InMemory, OnDisk, kept

FACTS = {"of": "a test", "seed": 0}


def _batches(count=10, size=4, width=3):
    values = np.arange(count * width, dtype="float32").reshape(count, width)
    for start in range(0, count, size):
        yield [values[start : start + size], values[start : start + size, :1].astype("int32")]


def _lengths():
    """Three batches of two examples each, of lengths 2, 2 and 5."""
    for number, length in enumerate((2, 2, 5)):
        yield [np.full((2, length, 3), number + 1, "float32")]


def _never():
    raise AssertionError("computed, and was there already")


@pytest.fixture(params=["memory", "disk"])
def keep(request, tmp_path):
    return InMemory if request.param == "memory" else lambda batches: kept(tmp_path, FACTS, lambda: batches)


def test_any_rows_come_back_in_any_order(keep):
    rows = keep(_batches())
    assert len(rows) == 10
    features, numbers = rows.take([7, 0, 7])
    assert features.tolist() == [[21, 22, 23], [0, 1, 2], [21, 22, 23]]
    assert numbers.dtype == "int32"
    assert numbers.tolist() == [[21], [0], [21]]


def test_all_rows_come_at_once_where_they_fit(keep):
    rows = keep(_batches())
    assert [tensor.tolist() for tensor in rows.whole(10 * 16)] == [tensor.tolist() for tensor in rows.take(range(10))]
    assert [tensor.dtype for tensor in rows.whole(10 * 16)] == [tensor.dtype for tensor in rows.take(range(10))]
    assert rows.whole(10 * 16 - 1) is None


def test_rows_of_several_lengths_do_not_come_at_once(keep):
    assert keep(_lengths()).whole(1e9) is None


def test_examples_of_several_lengths_are_padded_to_the_longest(keep):
    rows = keep(_lengths())
    (together,) = rows.take([4, 1])
    assert together.shape == (2, 5, 3)
    assert together[0].min() == 3
    assert together[1, :2].min() == 1
    assert not together[1, 2:].any()
    assert rows.take([0, 3])[0].shape == (2, 2, 3)


def test_bfloat16_is_kept_exactly(keep):
    import ml_dtypes

    values = np.array([[1.0, 1 / 3, 1e30]], ml_dtypes.bfloat16)
    (found,) = keep([[values]]).take([0])
    assert found.dtype == "float32"
    assert found.tolist() == values.astype("float32").tolist()


def test_the_same_facts_are_computed_once(tmp_path):
    kept(tmp_path, FACTS, _batches)
    assert kept(tmp_path, dict(reversed(FACTS.items())), _never).take([9])[0].tolist() == [[27, 28, 29]]


def test_another_fact_is_another_store(tmp_path):
    kept(tmp_path, FACTS, _batches)
    other = kept(tmp_path, FACTS | {"seed": 1}, lambda: [[np.zeros((1, 3), "float32")]])
    assert len(other) == 1
    assert len(cache.entries(tmp_path)) == 2


def test_a_store_of_many_files_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "_SHARD", 64)
    rows = kept(tmp_path, FACTS, _batches)
    assert len(rows.manifest["files"]) == 3
    assert rows.take(range(10))[0].tolist() == np.arange(30).reshape(10, 3).tolist()
    assert [tensor.tolist() for tensor in rows.whole(1e9)] == [tensor.tolist() for tensor in rows.take(range(10))]


@pytest.mark.parametrize("harm", ["a flipped byte", "a truncated file", "no file", "a flipped byte in the manifest"])
def test_a_store_that_was_harmed_is_computed_again_and_said(tmp_path, monkeypatch, harm):
    found = kept(tmp_path, FACTS, _batches)
    file = found.folder / ("manifest.json" if "manifest" in harm else "00000.safetensors")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "no file":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if "truncated" in harm else content)
    monkeypatch.setattr(feature_store, "_verified", set())  # as another process finds it
    with pytest.warns(UserWarning, match="not as they were written"):
        again = kept(tmp_path, FACTS, _batches)
    assert again.take([9])[0].tolist() == [[27, 28, 29]]
    assert [path.name for path in tmp_path.iterdir()] == [again.folder.name]


def test_what_fails_on_the_way_leaves_nothing(tmp_path):
    def failing():
        yield from _batches(4)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        kept(tmp_path, FACTS, failing)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_never_read_and_is_swept(tmp_path):
    writer = (
        "import sys, os, signal, pathlib, numpy as np\n"
        "from keras_transfer.training import feature_store\n"
        "feature_store._SHARD = 1\n"
        "def batches():\n"
        "    yield [np.ones((1, 3), 'float32')]\n"
        "    yield [np.ones((1, 3), 'float32')]\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"feature_store.kept(pathlib.Path({str(tmp_path)!r}), {FACTS!r}, batches)\n"
    )
    assert subprocess.run([sys.executable, "-c", writer], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".unfinished")
    assert not cache.entries(tmp_path)
    found = kept(tmp_path, FACTS, _batches)
    assert [path.name for path in tmp_path.iterdir()] == [found.folder.name]


def test_what_a_live_process_is_writing_is_left_alone(tmp_path):
    other = tmp_path / f".{'0' * 32}.{socket.gethostname()}.{os.getppid()}.unfinished"
    other.mkdir()
    kept(tmp_path, FACTS, _batches)
    cache.clear(tmp_path)
    assert other.is_dir()


def test_two_writers_of_one_store_keep_one(tmp_path):
    """The second begins while the first computes; what the first has put there stays, and both read it."""

    def slowly():
        first = threading.Thread(target=lambda: kept(tmp_path, FACTS, _batches))
        # As another process would: under a name of its own.
        feature_store_pid = os.getpid
        os.getpid = lambda: feature_store_pid() + 1_000_000
        try:
            first.start()
            first.join()
        finally:
            os.getpid = feature_store_pid
        yield from _batches()

    found = kept(tmp_path, FACTS, slowly)
    assert found.take([9])[0].tolist() == [[27, 28, 29]]
    assert [path.name for path in tmp_path.iterdir()] == [found.folder.name]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_store.os, "fsync", full)
    with pytest.raises(OSError, match=r"The disk is full.*\n.*\n.*kt.cache.clear") as caught:
        kept(tmp_path, FACTS, _batches)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_what_is_kept_is_listed_and_cleared(tmp_path):
    kept(tmp_path, FACTS, _batches, words="a test")
    (entry,) = cache.entries(tmp_path)
    assert (entry.of, entry.examples) == ("a test", 10)
    assert entry.bytes == (entry.folder / "00000.safetensors").stat().st_size
    assert "a test" in str(cache.entries(tmp_path))
    size = sum(file.stat().st_size for file in entry.folder.iterdir())
    assert cache.clear(tmp_path) == size
    assert str(cache.entries(tmp_path)) == f"nothing is kept in {tmp_path}"


def test_an_unreadable_store_is_listed_as_such(tmp_path):
    found = kept(tmp_path, FACTS, _batches)
    (found.folder / "manifest.json").write_text(json.dumps({"sha256": "0", "manifest": "{}"}))
    assert "another checksum" in str(cache.entries(tmp_path))


def test_the_folder_is_the_users_cache_or_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    assert cache.folder() == tmp_path
    monkeypatch.delenv("KERAS_TRANSFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache.folder() == tmp_path / "caches" / "keras_transfer"


def test_only_what_is_asked_for_is_read(tmp_path):
    found = kept(tmp_path, FACTS, lambda: [[np.arange(1000, dtype="float32")[:, None]]])
    (found.folder / "00000.safetensors").write_bytes((found.folder / "00000.safetensors").read_bytes()[:-4])
    assert OnDisk.take(found, [998])[0].tolist() == [[998.0]]
    with pytest.raises(feature_store.CorruptError, match="ends before example 999"):
        found.take([999])

"""Checkpoints as files: what comes back, what is kept, what is found to be broken, and a disk that is full."""

import errno
import os

import ml_dtypes
import numpy as np
import pytest

from keras_transfer.training import files
from keras_transfer.training.checkpoints import Checkpoints


def _checkpoints(folder, run="this run"):
    return Checkpoints(folder / "checkpoints", run)


def _numbers(folder):
    return sorted(int(path.stem.split("-")[1]) for path in (folder / "checkpoints").glob("*.safetensors"))


@pytest.mark.parametrize(
    "array",
    [
        np.array(1.5, "float64"),
        np.arange(6, dtype="float32").reshape(2, 3),
        np.array([1, 2], "uint32"),
        np.array([[True, False]]),
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array([0.5], ml_dtypes.float8_e4m3fn),
        np.zeros((0, 3), "int8"),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([np.nan, -0.0, np.inf]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_comes_back_to_the_last_bit(tmp_path, array):
    _checkpoints(tmp_path).write({"array": array})
    found = _checkpoints(tmp_path).read_last()["array"]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_facts_come_back_as_they_were(tmp_path):
    facts = {"step": 3, "loss": 0.1 + 0.2, "rows": [{"stage": "köpfe", "best": None}], "nested": {"a": [1, [2.5]]}}
    _checkpoints(tmp_path).write({**facts, "scalar": np.float32(0.1)})
    found = _checkpoints(tmp_path).read_last()
    assert found.pop("scalar") == float(np.float32(0.1))
    assert found == facts


def test_what_occurs_twice_is_written_once(tmp_path):
    big = np.random.default_rng(0).normal(size=50_000)
    _checkpoints(tmp_path).write({"now": big, "before": big.copy(), "best": [big]})
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert path.stat().st_size < 1.1 * big.nbytes
    np.testing.assert_array_equal(_checkpoints(tmp_path).read_last()["best"][0], big)


def test_the_last_two_are_kept(tmp_path):
    checkpoints = _checkpoints(tmp_path)
    for step in range(5):
        checkpoints.write({"step": step})
    assert _numbers(tmp_path) == [4, 5]
    assert checkpoints.read_last() == {"step": 4}
    again = _checkpoints(tmp_path)
    again.write({"step": 5})
    assert _numbers(tmp_path) == [5, 6]


def _cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: _cut(path, 0),
        lambda path: _cut(path, 5),
        lambda path: _cut(path, path.stat().st_size // 2),
        lambda path: _cut(path, path.stat().st_size - 1),
        lambda path: _flip(path, -1),
        lambda path: _flip(path, 3),
        lambda path: path.write_bytes(path.read_bytes().replace(b"first", b"f1rst")),
    ],
    ids=["empty", "no header", "half", "one byte short", "a bit of a weight", "a bit of the size", "a fact"],
)
def test_a_broken_checkpoint_is_passed_over_for_the_one_before_and_the_reason_said(tmp_path, damage):
    checkpoints = _checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.write({"step": step, "name": "first", "weights": np.full(100, step)})
    damage(checkpoints.paths[-1])
    again = _checkpoints(tmp_path)
    with pytest.warns(UserWarning, match=r"(?s)000002.* is not whole: checkpoint-000001.* taken instead.*given: +\S"):
        assert again.read_last()["step"] == 1
    again.write({"step": 3})
    assert _numbers(tmp_path) == [1, 3]  # and never the broken one in place of the good


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    checkpoints = _checkpoints(tmp_path)
    checkpoints.write({"weights": [np.arange(3, dtype="float32")], "step": 7})
    path = checkpoints.paths[0]
    whole, expected = path.read_bytes(), checkpoints.read_last()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole)
        _flip(path, place)
        with pytest.warns(UserWarning, match="the run starts at its beginning") as said:
            found = _checkpoints(tmp_path).read_last()
        assert found is None, (place, found, expected, said)


def test_two_broken_ones_leave_the_beginning(tmp_path):
    checkpoints = _checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.write({"step": step})
    for path in checkpoints.paths:
        _cut(path, 10)
    with pytest.warns(UserWarning, match="the run starts at its beginning"):
        assert _checkpoints(tmp_path).read_last() is None


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path):
    _checkpoints(tmp_path).write({"step": 1})
    with pytest.warns(UserWarning, match="belongs to another run"):
        assert _checkpoints(tmp_path, run="that run").read_last() is None


def test_a_full_disk_leaves_the_last_good_checkpoint_and_no_part_of_the_new_one(tmp_path, monkeypatch):
    checkpoints = _checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.write({"step": step})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="The disk is full") as error:
        checkpoints.write({"step": 3})
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [
        "checkpoint-000001.safetensors",
        "checkpoint-000002.safetensors",
    ]
    assert _checkpoints(tmp_path).read_last() == {"step": 2}


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path):
    checkpoints = _checkpoints(tmp_path)
    checkpoints.write({"step": 1})
    (tmp_path / "checkpoints" / ".unfinished.4711.checkpoint-000002.safetensors").write_bytes(b"half")
    checkpoints.write({"step": 2})
    assert [path.name for path in checkpoints.folder.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.txt"
    files.write_whole(path, "old")

    def fail():
        with files.replacing(path) as unfinished:
            unfinished.write_text("ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.txt"]

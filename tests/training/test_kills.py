"""Ten processes killed at random moments, by the command that also kills a hundred."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("data", ["pictures"])
def test_ten_killed_runs_of_ten_end_bit_identical(data):
    command = [sys.executable, ROOT / "benchmarks" / "kills.py", "--kills", "10", "--data", data]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "10 of 10 killed runs end bit-identical" in found.stdout

"""Processes killed at random moments, by the command that also kills a hundred."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("data", "kills"), [("pictures", 5), ("comparison", 1)])
def test_killed_runs_end_bit_identical(data, kills):
    command = [sys.executable, ROOT / "benchmarks" / "kills.py", "--kills", str(kills), "--data", data]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{kills} of {kills} killed runs end bit-identical" in found.stdout

"""Processes killed at random moments, by the command that also kills a hundred."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_killed_runs_end_bit_identical():
    command = [sys.executable, ROOT / "benchmarks" / "kills.py", "--kills", "2", "--data", "pictures", "comparison"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "2 of 2 killed runs end bit-identical" in found.stdout
    assert "pictures: unbroken" in found.stdout
    assert "comparison: unbroken" in found.stdout

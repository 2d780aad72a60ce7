"""benchmarks/training_step.py runs, and its hidden units fit its networks."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "training_step.py"


@pytest.mark.slow
def test_it_prints_a_row_for_each_method_and_network():
    methods = ["swr", "cbp", "redo", "l2", "upgd", "infer", "fire", "dash", "snr"]
    result = subprocess.run(
        [sys.executable, PROGRAM, "--quick", "--rounds", "1", "--method", *methods],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "failed" not in result.stdout
    for name in methods:
        assert len([line for line in result.stdout.splitlines() if f" {name} " in line]) == 2

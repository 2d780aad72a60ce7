"""benchmarks/training_step.py runs, and its hidden units fit its networks."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "training_step.py"


@pytest.mark.slow
def test_it_prints_a_row_for_each_method_and_network():
    result = subprocess.run(
        [sys.executable, PROGRAM, "--quick", "--rounds", "1"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    for name in ("SWR", "CBP", "ReDo", "L2", "shrink and perturb"):
        rows = [line for line in result.stdout.splitlines() if line.startswith(f"{name} ")]
        assert len(rows) == 2
        assert all(float(row.split()[-2]) < 1 for row in rows)  # MiB kept beside the network

"""The probe tells networks of the permuted MNIST study that were trained without a method from those with SWR."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "probed_study.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_base_is_told_from_swr_and_not_from_its_like():
    found = runpy.run_path(str(EXAMPLE))["main"](["--tasks", "50", "--seeds", "5"])
    assert found["the next task, without a method against with SWR"].verdict.startswith("slower by")
    alike = [probe.verdict for name, probe in found.items() if name[0].isdigit()]
    assert len(alike) == 10
    assert sum(verdict.startswith(("slower", "faster")) for verdict in alike) <= 1

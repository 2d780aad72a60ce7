"""Studies and images that are small enough for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from supple.lab.data import LabelledImages
from supple.lab.study.results import CHECKPOINT
from supple.lab.study.spec import Study, from_dict

STRONG: dict[str, dict[str, Any]] = {
    "base": {},
    "l2": {"l2": 0.01},
    "shrink_and_perturb": {"l2": 1e-3, "variance": 1e-5},
    "cbp": {"maturity": 5, "replacement_rate": 0.02},
    "redo": {"frequency": 4, "threshold": 0.5},
    "swr": {"frequency": 5, "factor": 0.05},
}
"""Settings so strong that each method acts often in few steps."""


def study(methods: dict[str, dict[str, Any]] | None = None, **tables: Any) -> Study:
    """A study of tiny networks; keyword arguments replace its tables."""
    content = {
        "title": "tiny",
        "network": {"hidden": 8, "depth": 2},
        "problem": {"data": "mnist10k", "batch_size": 10},
        "run": {"tasks": 3, "seeds": [4, 7]},
        "measure": {"examples": 40, "disturbances": 1},
        "methods": STRONG if methods is None else methods,
    }
    return from_dict({**content, **tables}, "tiny.toml")


def images(count: int = 120) -> LabelledImages:
    """Noise of 5 x 5 pixels in ten classes."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, 5, 5), generator=generator, dtype=torch.uint8)
    return LabelledImages(pixels, torch.randint(0, 10, (count,), generator=generator), 10, "noise")


def killed_and_whole(file: Path, place: Path, *options: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The files of parts, by name, of a run that was killed after its first checkpoint and went on, and of another."""

    def start(out: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "supple", "run", str(file), "--out", out, "--processes", "2", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=place,
        )  # fmt: skip

    killed = start("killed")
    end = time.monotonic() + 120
    while not list(place.glob(f"killed/parts/*/{CHECKPOINT}")):
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    for out in ("killed", "whole"):
        process = start(out)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
    assert "100.0%" in output
    folders = [place / out for out in ("killed", "whole")]
    one, other = ({str(p.relative_to(f)): p.read_bytes() for p in f.glob("parts/*/[a-z]*")} for f in folders)
    return one, other

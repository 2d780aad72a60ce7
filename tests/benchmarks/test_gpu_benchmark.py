"""benchmarks/gpu.py: its parts on a CPU, what becomes of one that fails, and the targets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch
from conftest import BENCHMARKS

from supple.methods.registry import METHODS


def met(rows: list[dict[str, Any]], device: str = "cuda") -> list[bool | None]:
    return [one["met"] for one in gpu.targets(rows, device)]


def measured(rate: float, over: float, data: float, overhead: float) -> list[dict[str, Any]]:
    """Rows that the four targets depend on."""
    ours = {"part": "transformer", "what": "supple, SWR", "over": over, "shares": {"data": data}}
    own = [{"part": "methods", "what": "", "hidden": 10, "method": name, "rate": rate / 2} for name in gpu.STUDY]
    steps = {"part": "drop-in, eager", "what": "ResNet-18, swr", "overhead_share": overhead}
    return [{"part": "populations", "hidden": 100, "asked": 1024, "rate": rate}, ours, *own, steps]


def test_targets() -> None:
    # 360,000,000 steps in 900 s are 400,000 a second.
    assert met(measured(1e6, 3.0, 0.04, 0.1)) == [True, True, True, True]
    assert met(measured(0.9e6, 3.0, 0.06, 0.11)) == [False, True, False, False]
    assert met(measured(0.79e6, 2.9, 0.04, 0.0)) == [False, False, False, True]
    assert met([]) == met(measured(1e6, 3.0, 0.04, 0.1), "cpu") == [None] * 4
    assert "drop-in, eager, ResNet-18, swr +11%" in gpu.targets(measured(1, 1, 1, 0.11), "cuda")[-1]["found"]


def test_a_part_that_does_not_fit_or_fails_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\n"
        'open(sys.argv[-1], \'w\').write(\'{"what": "first", "found": "1"}\\n{"wh\')\n'
        "time.sleep(60) if 'study' in sys.argv else sys.exit('no memory')\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(program))
    first, last = gpu.run_part("study", "cpu", 2)
    assert first == {"what": "first", "found": "1", "part": "study"}
    assert last["failed"]
    assert last["found"] == "left out: the rest did not fit into 2 s"
    assert [one["found"] for one in gpu.run_part("device", "cpu", 60)] == ["1", "failed: no memory"]


def test_table_is_one_of_markdown() -> None:
    text = gpu.table({"rows": [{"part": "a", "what": "b | c", "found": "d\ne"}]})
    assert text.splitlines()[2:] == ["| a | b \\| c | d e |"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch finds no CUDA device on this machine; use --device cpu" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_part_on_a_cpu(tmp_path: Path) -> None:
    program = [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu", "--budget", "800", "--out", tmp_path]
    result = subprocess.run(program, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert list(dict.fromkeys(one["part"] for one in rows)) == ["target", *gpu.PARTS]
    assert [one for one in rows if one.get("failed")] == []
    for mode in ("eager", "autocast", "compiled"):
        measured = {(one["network"], one["method"]) for one in rows if one["part"] == f"drop-in, {mode}"}
        assert measured == {(network, method) for network in ("ResNet-18", "transformer") for method in METHODS}
    assert {one["what"] for one in rows if one["part"] == "stacked"} == {"lenet, R = 2", "gpt, R = 2"}
    able = {name for name, method in METHODS.items() if not method.loops_only}
    assert able | {"base"} == {one["method"] for one in rows if one["part"] == "methods" and "method" in one}
    assert (tmp_path / "gpu.md").read_text() in result.stdout

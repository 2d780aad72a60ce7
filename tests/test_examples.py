"""The programs in examples/ run, at a small size, and print their comparison."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(text: str) -> dict[str, list[float]]:
    """The rows of the comparison, which is what is printed after the last empty line."""
    rows = [line.split() for line in text.rsplit("\n\n", 1)[1].splitlines()]
    names = {"plain", "SWR", "CBP", "fresh"}
    return {row[0]: [float(cell.rstrip("%")) for cell in row[1:] if cell != "-"] for row in rows if row[0] in names}


SMALL = {
    "drifting_images": ["--tasks", "2", "--steps", "12", "--frequency", "6", "--maturity", "4"],
    "changing_text": ["--rounds", "1", "--steps", "3", "--batch", "2", "--frequency", "6", "--maturity", "4"],
    "changing_control": ["--phases", "2", "--phase", "260", "--frequency", "40", "--maturity", "9"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "changing_control":
        pytest.importorskip("gymnasium")
    threads = torch.get_num_threads()
    try:
        load(name).main([*SMALL[name], "--seed", "3"])
    finally:
        torch.set_num_threads(threads)
    rows = table(capsys.readouterr().out)
    assert list(rows) == ["plain", "SWR", "CBP", "fresh"]
    assert all(math.isfinite(number) for numbers in rows.values() for number in numbers)
    counts = {method: numbers[-1] for method, numbers in rows.items()}
    assert counts["plain"] == counts["fresh"] == 0
    assert counts["SWR"] > 0


def test_a_network_is_probed_and_treated(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        load("lost_plasticity").main(["--tasks", "2", "--steps", "5", "--budget", "4", "--seeds", "2"])
    finally:
        torch.set_num_threads(threads)
    text = capsys.readouterr().out
    for heading in ("random labels:", "the next task:", "one layer fresh at a time:", "after a method:"):
        assert heading in text
    assert [line.split()[0] for line in text.splitlines() if " fresh  " in line][-4:] == ["0", "2", "4", "6"]
    assert re.search(r"task 2: \d.* dead, effective rank \d", text)
    for task in ("the next task", "random labels"):
        assert re.search(f"^{task}, before: .*\n{task}, after: ", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_an_agent_is_watched_and_probed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("stable_baselines3")
    small = ["--phases", "2", "--phase", "128", "--rollout", "128", "--epochs", "20", "--frequency", "20"]
    threads = torch.get_num_threads()
    try:
        load("probed_control").main([*small, "--budget", "8", "--seeds", "2"])
    finally:
        torch.set_num_threads(threads)
    text = capsys.readouterr().out
    assert re.search(r"phase 2: return plain \d.* dead, update \d.*, SWR \d.*, fresh \d", text)
    verdicts = re.findall(r"^(\w+) after phase (\d): \w", text, flags=re.MULTILINE)
    assert verdicts == [("plain", "1"), ("SWR", "1"), ("plain", "2"), ("SWR", "2")]
    found = re.search(r"^(\d+) weights drawn anew", text, flags=re.MULTILINE)
    assert found, text
    assert int(found[1]) > 0


def test_every_subject_has_text() -> None:
    example = load("changing_text")
    for subject in example.SUBJECTS:
        text = example.corpus(subject, seed=0, number=0)
        assert len(text) > 20_000
        assert not torch.equal(text, example.corpus(subject, seed=0, number=1))


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize(
    ("how", "method"), [("sharded", "SWR"), pytest.param("parallel", "CBP", marks=pytest.mark.slow)]
)
def test_two_processes_end_with_the_same_network(how: str, method: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # gloo's threads can outlive the last collective, and abort an interpreter that ends meanwhile: it is not let end.
    run = "import os, runpy, sys; runpy.run_path(sys.argv.pop(1), None, '__main__'); sys.stdout.flush(); os._exit(0)"
    command = [sys.executable, "-c", run, str(EXAMPLES / "several_processes.py"), "--how", how, "--method", method]
    ranks = []
    for rank in range(2):
        environment = os.environ | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": "0",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        ranks.append(
            subprocess.Popen(
                [*command, "--steps", "60"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    outputs = [process.communicate(timeout=240) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    found = re.search(r"2 processes, (\d+) reinitialized, networks the same", outputs[0][0])
    assert found, outputs
    assert int(found[1]) > 0


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_help_shows_an_example(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if path.stem.endswith("_control"):
        pytest.importorskip("gymnasium")
    if path.stem == "probed_control":
        pytest.importorskip("stable_baselines3")
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        load(path.stem).main(["--help"])
    assert ended.value.code == 0
    assert re.search(rf"example: .*examples/{path.name} --", capsys.readouterr().out)

"""States come back as they were, and a file that cannot be written leaves the old one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from supple.lab.study import checkpoint, claims, files

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
KEYS = st.text(max_size=4) | st.integers() | st.just("$tensor")
STATES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(STATES)
def test_states_come_back(tmp_path_factory: Any, state: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "state.safetensors"
    checkpoint.save(path, {"state": state})
    assert checkpoint.load(path) == {"state": state}


def test_tensors_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    state = {
        "view": shared[::2],
        "same": shared,
        "list": [torch.tensor(3), {"a": torch.zeros(0, 2), 7: torch.ones(2, dtype=torch.bfloat16)}],
        "tuple": (torch.tensor([True]), None, 0.5),
    }
    path = tmp_path / "deep" / "state.safetensors"
    checkpoint.save(path, state)
    found = checkpoint.load(path)
    assert list(found) == list(state)
    for name in ("view", "same"):
        assert torch.equal(found[name], state[name])
    assert torch.equal(found["list"][0], torch.tensor(3))
    assert found["list"][1]["a"].shape == (0, 2)
    assert found["list"][1][7].dtype == torch.bfloat16
    assert isinstance(found["tuple"], tuple)
    assert found["tuple"][1:] == (None, 0.5)
    with pytest.raises(TypeError, match="cannot hold a set"):
        checkpoint.save(path, {"a": {1}})
    assert list(checkpoint.load(path)) == list(state)


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_damaged_files_are_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"state.safetensors is damaged"):
        checkpoint.load(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.replace(path, b"old")

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=r"cannot write .*file: No space left on device"):
        files.replace(path, b"half of the n")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from supple.lab.study import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
checkpoint.save(path, {"a": torch.zeros(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    checkpoint.save(path, {"a": torch.zeros(100000)})
except OSError as error:
    print(error)
print(len(checkpoint.load(path)["a"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of the size of files are of POSIX")
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """A limit of the size of files stands for the disk; the error comes out of the library that writes."""
    path = tmp_path / "state.safetensors"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    message, length = done.stdout.splitlines()
    assert message.startswith(f"cannot write {path}")
    assert length == "10"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.safetensors"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        claims.claimed(tmp_path),
        pytest.raises(claims.Busy, match=f"another process is writing into {tmp_path}; wait"),
        claims.claimed(tmp_path),
    ):
        pass
    with claims.claimed(tmp_path, wait=1):
        pass

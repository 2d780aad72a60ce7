"""Studies on Ray's own cluster of several nodes on this machine, with nodes that come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cli_runs import run as command
from cli_runs import words, write_images
from test_running import CHECKPOINT, STUDY, TASKS, all_files

import supple
from supple.lab.study import load, running
from supple.lab.study.run_config import RunConfig
from supple.lab.study.spec import read

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

LENGTH = 200
"""Tasks of a run: so many that machines come and go before it is over, also on a fast one."""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(STUDY.replace("tasks = 12", f"tasks = {LENGTH}"))
    return path


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without processors, on the loopback; nodes are added by the test."""
    from ray.cluster_utils import Cluster

    one = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    yield one
    one.shutdown()


# Else Ray takes an address on the loopback for that of the machine's other interface.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}


def start(study: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    arguments = ("run", str(study), "--out", str(out), "--part-size", "1", "--on", "ray", *options)
    return subprocess.Popen(
        [sys.executable, "-m", "supple", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def whole(study: Path, folder: Path) -> dict[str, bytes]:
    assert running.run(RunConfig(read(study), "tiny", folder, processes=2, part_size=1)).complete
    return all_files(folder)


def wait(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def complete(folder: Path) -> int:
    """Parts that are complete."""
    return 0 if not (folder / "manifest.json").exists() else int((load(folder).runs["done"] == LENGTH).sum())


def workers() -> list[int]:
    """Worker processes of the cluster, which are not those of this process."""
    found = subprocess.run(["pgrep", "-f", "supple.lab.study.worker"], capture_output=True, text=True, check=False)
    there = []
    for one in found.stdout.split():
        with suppress(OSError):  # it may have ended meanwhile
            there += [int(one)] if b"RAY_" in Path(f"/proc/{one}/environ").read_bytes() else []
    return there


@pytest.mark.usefixtures("thread_workers")
def test_nodes_workers_and_the_driver_may_be_lost(study: Path, tmp_path: Path, cluster: Any) -> None:
    out = tmp_path / "out"
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    process = start(study, out, "--address", cluster.address)
    wait(lambda: list(out.glob(f"parts/*/{CHECKPOINT}")), process)
    # A node joins, and two leave while they train.
    nodes.append(cluster.add_node(**NODE))
    wait(lambda: len(workers()) >= 3, process)
    for node in nodes[:2]:
        cluster.remove_node(node)
    wait(lambda: complete(out) >= 1, process)
    cluster.add_node(**NODE)
    # A worker is killed.
    wait(lambda: workers(), process)
    os.kill(workers()[0], signal.SIGKILL)
    wait(lambda: complete(out) >= 2, process)
    # The driver is killed, and run again at once.
    process.kill()
    process.wait()
    assert complete(out) < 6
    process = start(study, out, "--address", cluster.address)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "Done: all results are in" in output
    assert all_files(out) == whole(study, tmp_path / "whole")


@pytest.mark.usefixtures("thread_workers")
def test_a_ray_of_this_machine_and_an_interruption(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(study, out, "--workers", "2")
    wait(lambda: list(out.glob(f"parts/*/{TASKS}")), process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    process = start(study, out, "--workers", "2")
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert all_files(out) == whole(study, tmp_path / "whole")
    parts = running.open_manifest(out).parts
    assert all(part["ran"][0]["device"] == "CPU" for part in parts)


@contextmanager
def other_node(address: str, script: str) -> Iterator[None]:
    """A node that sees other files, as a script of mounts says; skips where that is not allowed."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("it takes root to give a node files of its own")
    given = {**NODE, "gcs_address": address, "min_worker_port": 0, "max_worker_port": 0, "node_manager_port": 0}
    program = (
        "from ray._private.node import Node; from ray._private.parameter import RayParams; "
        f"Node(RayParams(include_log_monitor=False, **{given}), head=False, shutdown_at_exit=True); input()"
    )
    command = ["unshare", "--mount", "sh", "-ec", f'{script}\nexec "$0" -c "$1"', sys.executable, program]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.communicate()


def test_nodes_that_are_not_fit(tmp_path: Path, cluster: Any) -> None:
    shared, data, version = tmp_path / "shared", tmp_path / "data", tmp_path / "version.py"
    shared.mkdir()
    data.mkdir()
    write_images(data)
    study = tmp_path / "tiny.toml"
    study.write_text(STUDY.replace("mnist10k", "mnist").replace("500", "40"))
    package = Path(supple.__file__)
    version.write_text(package.read_text() + '\n__version__ = "0.0.1"\n')
    for script, said in (
        (f"mount -t tmpfs none {shared}", f"does not see the folder {shared}"),
        (f"mount -t tmpfs none {data}", "cannot open the problem: MNIST: neither"),
        (f"mount --bind {version} {package}", f"has supple 0.0.1 instead of {supple.__version__}; install the same"),
    ):
        with other_node(cluster.address, script):
            wait_for_nodes(cluster, 2)
            began = time.monotonic()
            process = start(study, shared / "out", "--address", cluster.address, "--data-dir", str(data), "--no-verify")
            output = process.communicate(timeout=120)[0]
            print(f"{said}: {time.monotonic() - began:.0f} s")
        assert process.returncode == 1, output
        assert said.replace(" ", "") in "".join(output.split()), output
        assert not (shared / "out").exists()
        wait_for_nodes(cluster, 1)


def wait_for_nodes(cluster: Any, count: int) -> None:
    end = time.monotonic() + 120
    while sum(one["Alive"] for one in cluster.global_state.node_table()) != count:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_an_address_where_nothing_answers(study: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    result = command("run", study, "--out", tmp_path / "out", "--on", "ray", "--address", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "--address: nothing answers at 127.0.0.1:1" in words(result)
    assert time.monotonic() - began < 30
    assert not (tmp_path / "out").exists()

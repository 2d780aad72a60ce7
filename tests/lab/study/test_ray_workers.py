"""The executor for Ray, with what stands for Ray; test_ray.py has the same with a cluster."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray_stand_in
from test_running import all_files, config

from supple.lab.study import claims, executor, fitness, running
from supple.lab.study.errors import StudyError
from supple.lab.study.manifest import open_manifest
from supple.lab.study.progress import Watcher


@pytest.fixture
def nodes() -> list[dict[str, Any]]:
    return [ray_stand_in.node(CPU=1), ray_stand_in.node(CPU=2)]


@pytest.fixture
def workers(nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the executor, with a Ray that has these nodes."""
    import supple.lab.study as study

    for name, module in ray_stand_in.modules(nodes):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "supple.lab.study.ray_workers", raising=False)
    monkeypatch.delattr(study, "ray_workers", raising=False)
    from supple.lab.study import ray_workers

    yield ray_workers
    del sys.modules["supple.lab.study.ray_workers"], study.ray_workers


@pytest.mark.usefixtures("thread_workers")
def test_actors_train_as_processes_do_also_where_one_is_lost(workers: Any, tmp_path: Path) -> None:
    said: list[str] = []

    class Said(Watcher):
        def say(self, message: str) -> None:
            said.append(message)

    class Losing(workers.RayWorkers):  # type: ignore[misc, name-defined]
        def send(self, number: int, request: Any) -> None:
            super().send(number, request)
            if number == 0:
                self._actors[0].lose()

    one_a_part = replace(config(tmp_path / "out", methods={"base": {}}), part_size=1)
    assert running.run(one_a_part, Said(), executor=Losing(None, 1)).complete
    assert said[0] == "A machine was lost; its part goes on from its last checkpoint."
    whole = replace(one_a_part, folder=tmp_path / "whole")
    assert running.run(whole).complete
    assert all_files(tmp_path / "out") == all_files(tmp_path / "whole")
    ran = [part["ran"] for part in open_manifest(tmp_path / "out").parts]
    assert all(one["host"] == claims.here()["host"] for part in ran for one in part)


def test_as_many_workers_as_nodes_have_room_for(workers: Any, nodes: list[dict[str, Any]]) -> None:
    ray = workers.RayWorkers(None, None)
    assert ray.capacity() == 3
    nodes[1]["Alive"] = False
    ray._counted = float("-inf")
    assert ray.capacity() == 1
    nodes.append(ray_stand_in.node(CPU=8))
    ray._counted = float("-inf")
    assert ray.capacity() == 9
    assert workers.RayWorkers(None, 4).capacity() == 4


def test_a_node_that_is_not_fit(workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(versions: object) -> None:
        raise ValueError("there has supple 0.1 instead of 0.2; install the same versions on all machines")

    monkeypatch.setattr(fitness, "compare", compare)
    with pytest.raises(StudyError, match=r"^there has supple 0.1 instead of 0.2; install the same versions"):
        running.run(config(tmp_path / "out"), executor=workers.RayWorkers(None, None))
    assert not (tmp_path / "out").exists()


def test_a_cluster_without_room(workers: Any, nodes: list[dict[str, Any]], tmp_path: Path) -> None:
    for resources, message in (
        ({}, "no node of the Ray cluster has a processor core; start one that has"),
        ({"CPU": 1, "memory": 1e6}, "no node of the Ray cluster has the 0.4 GB that a worker takes"),
    ):
        nodes[:] = [ray_stand_in.node(**resources)]
        with pytest.raises(StudyError, match=message):
            running.run(config(tmp_path / "out"), executor=workers.RayWorkers(None, None))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n", None])
def test_an_address_where_no_ray_answers(
    workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    monkeypatch.setattr(workers, "_GREETING", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as there:

        def serve() -> None:
            connection, _ = there.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer) if answer is not None else time.sleep(1)

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{there.getsockname()[1]}"
        with pytest.raises(StudyError, match=f"--address: nothing answers at {address}"):
            running.run(config(tmp_path / "out"), executor=workers.RayWorkers(address, None))
    assert not (tmp_path / "out").exists()


def test_what_a_worker_printed_last_is_told(workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "raise SystemExit('a library is missing')"]
    monkeypatch.setattr(executor, "WORKER", failing)
    outcome = running.run(config(tmp_path / "out"), executor=workers.RayWorkers(None, 1))
    assert outcome.errors == ["a worker process ended with code 1; it said: a library is missing"]

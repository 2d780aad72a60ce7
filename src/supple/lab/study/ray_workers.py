"""Workers on a Ray cluster, or on a Ray of this machine: an actor each, which has a worker process beside it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from supple.lab.limits import cores
from supple.lab.study.errors import StudyError
from supple.lab.study.executor import Ending, Executor, Processes, environment
from supple.lab.study.manifest import Manifest
from supple.lab.study.problems import open_problem
from supple.lab.study.run_config import RunConfig

try:
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as error:
    raise StudyError('--on ray needs Ray, which is not installed: pip install "supple[ray]"') from error

_ANSWER = 180.0
"""Seconds within which each node has to say whether it is fit; on some, torch is slow to import."""

_GREETING = 5.0
"""Seconds within which a cluster greets at its address."""

_BASE = 400_000_000
"""Bytes that Python and torch take in a worker."""

_OBJECTS = 100 * 2**20
"""Bytes for the objects of a local Ray; only short messages are passed."""


class Relay:
    """The actor of a worker: starts its process on the node, and passes on what is said."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._processes = Processes(1, tempfile.TemporaryFile())  # noqa: SIM115
        self._processes.start(0, options)

    def send(self, request: Mapping[str, Any]) -> None:
        """Passes a request on."""
        self._processes.send(0, request)

    def hear(self) -> tuple[list[dict[str, Any]], Ending | None]:
        """Waits for events; with the ending where the process has ended."""
        found = [self._processes.events.get()[1]]
        while not self._processes.events.empty():
            found.append(self._processes.events.get()[1])
        events = [event for event in found if event is not None]
        return events, self._processes.ended(0) if len(events) < len(found) else None


class RayWorkers(Executor):
    """Actors on the cluster at an address, at most so many; None: a Ray of this machine, and as many as there is room.

    ``auto``: the cluster that this machine belongs to.
    """

    def __init__(self, address: str | None, count: int | None) -> None:
        super().__init__()
        self.address, self.count = address, count
        self._demand: dict[str, float] = {"num_cpus": 1}
        self._actors: dict[int, Any] = {}
        self._hearing: dict[Any, int] = {}
        self._endings: dict[int, Ending] = {}
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._capacity, self._counted = 0, float("-inf")

    def check(self, config: RunConfig, token: Mapping[str, Any]) -> None:
        """Connects, and asks every node whether it is fit."""
        self._connect(config)
        study = config.study.model_dump(mode="json")
        self._problem = open_problem(config.study, **{**config.problem_options, "device": "cpu", "graphs": False})
        identity = self._problem.identity()
        arguments = {**token, "study": study, "problem": config.problem_options, "identity": identity}
        asked = {
            _examine.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            ).remote(str(config.folder.absolute()), arguments): node
            for node in _alive()
            if _room(node, self._demand)
        }
        if not asked:
            raise StudyError(
                f"no node of the Ray cluster has {'a GPU' if 'num_gpus' in self._demand else 'a processor core'}; "
                "start one that has, or leave --device out"
            )
        ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER)
        for answer, node in asked.items():
            try:
                message = ray.get(answer, timeout=0.1)
            except ray.exceptions.GetTimeoutError as error:
                raise StudyError(f"{node['NodeManagerHostname']} does not answer within {_ANSWER:g} s") from error
            except RayError as error:
                first = str(getattr(error, "cause", error)).strip().splitlines()[-1]
                raise StudyError(f"{node['NodeManagerHostname']} cannot run supple: {first}") from error
            if message:
                raise StudyError(message)

    def prepare(self, config: RunConfig, manifest: Manifest) -> None:
        """Asks for the memory of the largest part, as ``supple plan`` has it, for each worker."""
        sizes = {
            (manifest.columns[part["columns"][0]].text, len(part["seeds"]), len(part["columns"])): part["columns"][0]
            for part in manifest.parts
        }
        most = max(
            self._problem.part_memory(manifest.columns[column], seeds, columns)
            for (_, seeds, columns), column in sizes.items()
        )
        if config.device == "cpu":
            self._demand["memory"] = _BASE + self._problem.images_memory + most
        self._counted = float("-inf")
        if not self.capacity():
            raise StudyError(
                f"no node of the Ray cluster has the {self._demand.get('memory', 0) / 1e9:,.1f} GB that a worker "
                "takes; start a larger one, or give a smaller --part-size"
            )

    def capacity(self) -> int:
        """As many as the nodes that are there now have room for."""
        if time.monotonic() - self._counted > 1:
            self._counted = time.monotonic()
            with suppress(RayError, ConnectionError):
                self._capacity = sum(_room(node, self._demand) for node in _alive())
        return self._capacity if self.count is None else min(self._capacity, self.count)

    def start(self, number: int, options: Mapping[str, Any]) -> None:
        """Asks for an actor; where there is no room at the moment, it starts when there is."""
        actor = _Actor.options(**self._demand, max_concurrency=3).remote(options)
        with self._lock:
            self._actors[number] = actor
            self._hearing[actor.hear.remote()] = number

    def send(self, number: int, request: Mapping[str, Any]) -> None:
        """Sends it to the actor."""
        self._actors[number].send.remote(request)

    def ended(self, number: int) -> Ending:
        """How its process ended, or that the actor was lost."""
        with self._lock:
            ray.kill(self._actors.pop(number))
            return self._endings.pop(number)

    def close(self) -> None:
        """Ends the actors, which ends their processes, and leaves the cluster, or ends the Ray of this machine."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        ray.shutdown()

    def _connect(self, config: RunConfig) -> None:
        address = self.address
        if address not in (None, "auto"):
            _see_that_it_answers(str(address))
        options: dict[str, Any] = {"address": "local", "num_cpus": self.count or cores()} if address is None else {}
        if address is None:
            options |= {"object_store_memory": _OBJECTS, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        else:
            options["address"] = address
        if config.device != "cpu":
            self._demand["num_gpus"] = 1
        handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(
                **options,
                runtime_env={"env_vars": environment()},
                namespace="supple",
                logging_level=logging.ERROR,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, RayError, OSError) as error:
            said = " ".join(str(error).split())[:300]
            raise StudyError(f"--on ray: no cluster at {address or 'this machine'}: {said}") from error
        finally:
            # Ctrl-C and a request to end are this command's business.
            if threading.current_thread() is threading.main_thread():
                for name, handler in handlers.items():
                    signal.signal(name, handler)
        self._thread.start()

    def _listen(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                waiting = list(self._hearing)
            if not waiting:
                time.sleep(0.05)
                continue
            ready, _ = ray.wait(waiting, num_returns=1, timeout=0.2)
            if ready:
                ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
            for answer in ready:
                self._hear(answer)

    def _hear(self, answer: Any) -> None:
        number = self._hearing[answer]
        try:
            events, ending = ray.get(answer)
        except RayError:
            events, ending = [], Ending(None)
        for event in events:
            self.events.put((number, event))
        with self._lock:
            del self._hearing[answer]
            if ending is None:
                self._hearing[self._actors[number].hear.remote()] = number
            else:
                self._endings[number] = ending
        if ending is not None:
            self.events.put((number, None))


def _see_that_it_answers(address: str) -> None:
    """StudyError if nothing answers at an address as Ray does, which Ray itself would wait for without end."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    try:
        with socket.create_connection((host, int(port)), timeout=_GREETING) as there:
            # Every server of gRPC greets with a frame of type 4; through TLS it would not be seen.
            there.sendall(hello)
            if os.environ.get("RAY_USE_TLS", "0") == "0" and there.recv(9)[3:4] != b"\x04":
                raise ConnectionError("what is there is no Ray")
    except (OSError, ValueError) as error:
        raise StudyError(
            f"--address: nothing answers at {address} ({error}); ray start --head prints the address of a cluster"
        ) from error


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _room(node: Mapping[str, Any], demand: Mapping[str, float]) -> int:
    """How many workers a node has room for."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return int(min(node["Resources"].get(names[name], 0) // value for name, value in demand.items()))


def _check(folder: str, arguments: Mapping[str, Any]) -> str:
    """What is wrong with this node; empty if nothing is."""
    from supple.lab.study import fitness

    try:
        fitness.check(Path(folder), **arguments)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


_examine: Any = ray.remote(_check)
_Actor: Any = ray.remote(Relay)

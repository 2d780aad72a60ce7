"""Comparing methods on a problem of one's own with one call, as ``supple run`` does with a file."""

from __future__ import annotations

import json
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy
import torch

from supple.functional.generators import generators_kept
from supple.lab.population.problem import Curve, Problem
from supple.lab.study.errors import StudyError
from supple.lab.study.executor import Ending, Executor
from supple.lab.study.progress import Watcher
from supple.lab.study.results import Results, load
from supple.lab.study.run_config import RunConfig
from supple.lab.study.running import run
from supple.lab.study.spec import from_dict
from supple.lab.study.worker import Worker


def compare(
    problem: Problem | Curve | Callable[[int, Any], Any] | str,
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | str,
    *,
    tasks: int,
    seeds: int | Sequence[int],
    out: str | PathLike[str],
    title: str = "",
    network: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    examples: int = 1500,
    device: str | torch.device = "cpu",
    processes: int | None = None,
    part_size: int | None = None,
    watcher: Watcher | None = None,
) -> Results:
    """Compares methods on a problem of your own, and writes a results folder as ``supple run`` does.

    The same call goes on where it was stopped, and ends with the results that it would have given without; with more
    methods, seeds or tasks it runs only what is missing. ``supple report FOLDER`` shows the comparison. Everything that
    can be found out before is checked before anything is trained.

    Args:
        problem: what to learn: a :class:`supple.lab.Problem`; a :class:`supple.lab.Curve`, or its function, of training
            that goes by itself; or "package.module:factory", the name of a function that makes one of these, as a study
            file names it. What is named is trained in a process a core, all else in this one.
        methods: for each name the settings of its method, of which a list is a grid; ``kind`` where the name is not
            that of the method, and ``network`` or ``optimizer``, what differs for it from those below. "base" is plain
            training. Or only names of methods, or one, which then have their defaults.
        tasks: how many tasks each run learns.
        seeds: how many, or which.
        out: folder of the results.
        title: of the report; left out: the folder's name.
        network: what ``problem.network`` is called with by name, beside the seed.
        optimizer: what ``problem.optimizer`` is called with by name, beside the parameters.
        arguments: what a factory is called with by name.
        examples: on about so many of a task's first examples dead units and ranks are measured; 0: not at all.
        device: where to train.
        processes: how many train at the same time, where the problem is named; None: one a core.
        part_size: runs that are trained together at most; None: as the folder says, else 24.
        watcher: is told how it goes, such as ``supple.lab.study.progress.Bars(rich.console.Console())``.

    Returns:
        The results, as :func:`supple.lab.load` gives them.

    Raises:
        ValueError: if something is wrong with the problem, the methods or the folder; the message names it.
        RuntimeError: if a run went wrong; what was learned until then stays.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> from torch.utils.data import TensorDataset
        >>> def stream(seed):
        ...     return [TensorDataset(torch.randn(64, 4), torch.randint(3, (64,))) for task in range(4)]
        >>> problem = supple.lab.Problem(
        ...     network=lambda seed: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        ...     optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        ...     stream=stream,
        ...     loss=nn.functional.cross_entropy,
        ... )
        >>> results = supple.lab.compare(
        ...     problem, {"base": {}, "swr": {"frequency": [1, 2]}}, tasks=4, seeds=2, out=tempfile.mkdtemp()
        ... )
        >>> len(results.tasks)  # three settings, two seeds, four tasks
        24
    """
    device, folder, named = _device(device), Path(out), isinstance(problem, str)
    if arguments and not named:
        raise StudyError(
            "arguments are those of a factory that is named, but the problem itself is given; leave them out"
        )
    processes, part_size = _count("processes", processes), _count("part_size", part_size)
    content = {
        "title": title or folder.name,
        "problem": {"kind": problem if named else "own", **_table("arguments", arguments)},
        "network": _table("network", network),
        "optimizer": _table("optimizer", optimizer),
        "run": {"tasks": tasks, "seeds": _whole(seeds)},
        "measure": {"examples": examples},
        "methods": {name: _table(f"methods.{name}", entry) for name, entry in _entries(methods).items()},
    }
    config = RunConfig(
        from_dict(content, "compare"),
        folder.name,
        folder,
        device=device,
        processes=processes if named else 1,
        part_size=part_size,
        command="supple.lab.compare",
        given=None if named else problem,
    )
    here = None if named else Here()
    with one_thread(), torch.random.fork_rng([] if device == "cpu" else None), generators_kept():
        outcome = run(config, watcher, executor=here)
    if here is not None and here.error is not None:
        raise here.error
    if not outcome.complete:
        raise RuntimeError("; ".join(outcome.errors) or f"{folder} is not complete; the same call goes on")
    return load(folder)


def _device(given: str | torch.device) -> str:
    """The name of a device that can train here."""
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise StudyError(f"device is {str(given)!r}; it has to be 'cpu' or 'cuda'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise StudyError(f"device is {str(given)!r}, but torch finds no CUDA device; leave it out to train on the CPU")
    return "cpu" if device.type == "cpu" else str(device)


def _entries(methods: Any) -> Mapping[str, Any]:
    """What is said of each method, by its name."""
    if isinstance(methods, str):
        methods = [methods]
    names: list[Any] = list(methods) if isinstance(methods, Iterable) else [None]
    if not all(isinstance(name, str) for name in names):
        raise StudyError(
            f"methods is {methods!r}; it has to be names of methods, or a dict of their settings by name, such as "
            '{"base": {}, "swr": {"frequency": [2, 4]}}'
        )
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"methods: {name!r} is there twice; leave one of them out")
    return methods if isinstance(methods, Mapping) else dict.fromkeys(names)


def _table(name: str, values: Any) -> dict[str, Any]:
    """Settings by name, where there are some."""
    if not isinstance(values, Mapping | None):
        raise StudyError(f'{name} is {values!r}; it has to be a dict of settings by name, such as {{"frequency": 2}}')
    return {key: _plain(value) for key, value in (values or {}).items()}


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python, also in lists and dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, numpy.generic) else value


def _count(name: str, value: Any) -> int | None:
    """How many of something, 1 or more, or None."""
    value = _whole(value)
    if value is not None and (type(value) is not int or value < 1):
        raise StudyError(f"{name} is {value!r}; it has to be a whole number, 1 or more, or None")
    return value


def _whole(given: Any) -> Any:
    """Whole numbers of numpy or torch, or a sequence of them, as those of Python; others are refused later."""
    if isinstance(given, Iterable) and not isinstance(given, str | torch.Tensor):
        return [_whole(one) for one in given]
    try:
        return given if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return given


class Here(Executor):
    """One worker, a thread of this process, for what cannot be told to another process; ``error`` is what ended it."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._workers: dict[int, tuple[threading.Thread, Any, Any]] = {}

    def capacity(self) -> int:
        """One."""
        return 1

    def start(self, number: int, options: Mapping[str, Any]) -> None:
        """Starts a thread."""
        requests, inbox = _pipe()
        outbox, answers = _pipe()

        def serve() -> None:
            with answers:
                try:
                    Worker(dict(options), requests, answers).serve()
                except BaseException as error:
                    self.error = error

        def listen() -> None:
            with outbox:
                for line in outbox:
                    self.events.put((number, json.loads(line)))
            self.events.put((number, None))

        thread = threading.Thread(target=serve, daemon=True)
        self._workers[number] = thread, inbox, requests
        thread.start()
        threading.Thread(target=listen, daemon=True).start()

    def send(self, number: int, request: Mapping[str, Any]) -> None:
        """Writes it to the worker's requests."""
        with suppress(BrokenPipeError, ValueError):
            self._workers[number][1].write(json.dumps(request) + "\n")
            self._workers[number][1].flush()

    def ended(self, number: int) -> Ending:
        """Waits for the thread."""
        thread, inbox, requests = self._workers.pop(number)
        thread.join()
        _close(inbox, requests)
        return Ending(0 if self.error is None else 1)

    def close(self) -> None:
        """Ends the worker after the step that it is at."""
        for thread, inbox, requests in self._workers.values():
            _close(inbox, requests)
            thread.join()
        self._workers.clear()


def _pipe() -> tuple[Any, Any]:
    read, write = os.pipe()
    return os.fdopen(read, "r"), os.fdopen(write, "w")


def _close(inbox: Any, requests: Any) -> None:
    """Closes both ends of a pipe, first the one that is written to, so that whoever reads comes to the end."""
    with suppress(BrokenPipeError):
        inbox.close()
    requests.close()


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch use one thread on the CPU.

    The products of so small a network take microseconds, less than handing a part to another thread; where another
    program keeps a core busy, waiting for that part makes a step ten to twenty times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

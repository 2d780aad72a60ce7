"""Stands for Ray in tests without a cluster: actors and tasks are threads of the tests, which may be lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from types import ModuleType
from typing import Any


class RayError(Exception):
    """Any error of Ray."""


class GetTimeoutError(RayError):
    """There is no answer yet."""


def call(function: Callable[..., Any], *arguments: Any) -> futures.Future[Any]:
    """Calls a function in a thread of its own, which does not keep the tests from ending."""
    answer: futures.Future[Any] = futures.Future()

    def work() -> None:
        try:
            found = function(*arguments)
        except Exception as error:
            set_answer(answer, error=error)
        else:
            set_answer(answer, found)

    threading.Thread(target=work, daemon=True).start()
    return answer


def set_answer(answer: futures.Future[Any], found: Any = None, error: Exception | None = None) -> None:
    """Answers, unless that was done already."""
    try:
        answer.set_result(found) if error is None else answer.set_exception(error)
    except futures.InvalidStateError:
        return


class Remote:
    """A class or a function that is called elsewhere."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def options(self, **_: Any) -> Remote:
        return self

    def remote(self, *arguments: Any) -> Any:
        return Actor(self.what(*arguments)) if isinstance(self.what, type) else call(self.what, *arguments)


class Actor:
    """An object elsewhere."""

    def __init__(self, made: Any) -> None:
        self.made = made
        self.asked: list[futures.Future[Any]] = []
        self.lost = False

    def __getattr__(self, name: str) -> Remote:
        def ask(*arguments: Any) -> futures.Future[Any]:
            answer = call(getattr(self.made, name), *arguments)
            self.asked.append(answer)
            if self.lost:
                self.lose()
            return answer

        asked = Remote(None)
        asked.remote = ask  # type: ignore[method-assign]
        return asked

    def lose(self) -> None:
        """As where its node is lost."""
        self.lost = True
        for answer in list(self.asked):
            set_answer(answer, error=RayError("the actor died"))
        for process in list(self.made._processes._processes.values()):
            process.kill()


def wait(answers: Sequence[Any], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
    when = futures.ALL_COMPLETED if num_returns == len(answers) else futures.FIRST_COMPLETED
    done = futures.wait(answers, timeout, when).done
    return [one for one in answers if one in done], [one for one in answers if one not in done]


def get(answer: futures.Future[Any], timeout: float | None = None) -> Any:
    try:
        return answer.result(timeout)
    except futures.TimeoutError as error:
        raise GetTimeoutError from error


def modules(nodes: list[dict[str, Any]]) -> Iterator[tuple[str, ModuleType]]:
    """The modules of a Ray with these nodes, with their names."""
    ray = ModuleType("ray")
    exceptions, strategies = ModuleType("ray.exceptions"), ModuleType("ray.util.scheduling_strategies")
    for error in (RayError, GetTimeoutError):
        setattr(exceptions, error.__name__, error)
    strategies.NodeAffinitySchedulingStrategy = lambda *_, **__: None  # type: ignore[attr-defined]
    given = {"remote": Remote, "wait": wait, "get": get, "kill": Actor.lose, "nodes": lambda: nodes}
    nothing = dict.fromkeys(("init", "shutdown"), lambda **_: None)
    for name, value in {**given, **nothing, "exceptions": exceptions}.items():
        setattr(ray, name, value)
    yield from {one.__name__: one for one in (ray, exceptions, ModuleType("ray.util"), strategies)}.items()


def node(**resources: float) -> dict[str, Any]:
    """A node as Ray tells of it."""
    return {"NodeID": "1", "Alive": True, "NodeManagerHostname": "here", "Resources": {"memory": 1e12, **resources}}

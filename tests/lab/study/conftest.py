"""Workers of a study that are threads of the tests, since a process takes seconds to start."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from supple.lab.study import executor
from supple.lab.study.worker import Worker


class ThreadWorker:
    """Stands for the process of a worker."""

    def __init__(self) -> None:
        requests, self.stdin = _pipe()
        self.stdout, answers = _pipe()
        self._code = 1
        self._thread = threading.Thread(target=self._serve, args=(requests, answers), daemon=True)
        self._thread.start()

    def _serve(self, requests: Any, answers: Any) -> None:
        with answers:
            Worker(json.loads(requests.readline()), requests, answers).serve()
            self._code = 0

    def wait(self) -> int:
        self._thread.join()
        return self._code

    def kill(self) -> None:
        # As of a process, what it was still to be told is lost.
        with suppress(BrokenPipeError):
            self.stdin.close()


def _pipe() -> tuple[Any, Any]:
    read, write = os.pipe()
    return os.fdopen(read, "r"), os.fdopen(write, "w")


@pytest.fixture(scope="module")
def thread_workers() -> Iterator[None]:
    """Lets studies that are run within the tests train in threads; the workers of other commands stay processes."""
    usual = executor.WORKER

    def start(command: list[str], **options: Any) -> Any:
        return ThreadWorker() if command == usual else subprocess.Popen(command, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "Popen", start)
        yield

"""Worker processes that do the same at the same time, one a core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any


class Crew:
    """Worker processes that get the same requests at the same time; a context manager, at whose end they are gone.

    Args:
        name: what they do, for messages.
        device: "cpu" or "cuda".
        groups: the cores of each worker, which uses as many threads; one worker a group.

    Raises:
        RuntimeError: by every request, if a worker fails or dies; the message says why.
    """

    def __init__(self, name: str, device: str, groups: Sequence[Sequence[int]]) -> None:
        self.name = name
        self._processes = [self._start(device, group) for group in groups]

    def __len__(self) -> int:
        return len(self._processes)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def ask(self, do: str, **arguments: Any) -> list[Any]:
        """The same request to all workers.

        Args:
            do: name of the request; see :mod:`supple.lab.bench.worker`.
            arguments: its arguments.

        Returns:
            The answers, one a worker.
        """
        return self.ask_each(do, [arguments] * len(self))

    def ask_each(self, do: str, arguments: Sequence[dict[str, Any]]) -> list[Any]:
        """The same request to all workers, each with its own arguments.

        Args:
            do: name of the request; see :mod:`supple.lab.bench.worker`.
            arguments: those of each worker.

        Returns:
            The answers, one a worker.

        Raises:
            RuntimeError: if a worker fails or dies.
        """
        for process, own in zip(self._processes, arguments, strict=True):
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps({"do": do, **own}) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                self._died(process, do)
        return [self._answer(process, do) for process in self._processes]

    def _answer(self, process: subprocess.Popen[str], do: str) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self._died(process, do)
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"a worker of {self.name} failed at {do!r}:\n{answer['error']}")
        return answer["result"]

    def _died(self, process: subprocess.Popen[str], do: str) -> None:
        code = process.wait()
        hint = "; memory may have run out, use fewer --replicas" if code == -9 else ""
        raise RuntimeError(f"a worker of {self.name} ended at {do!r} with code {code}{hint}")

    @staticmethod
    def _start(device: str, group: Sequence[int]) -> subprocess.Popen[str]:
        threads = str(len(group))
        return subprocess.Popen(
            [sys.executable, "-m", "supple.lab.bench.worker", device, threads, *map(str, group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )

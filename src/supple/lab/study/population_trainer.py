"""Training a population as part of a study: a stage is a task, of which each run has a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor

from supple.lab.population import AnyPopulation, Disturbance, Population, TaskMetrics
from supple.lab.study.problem import StageResult, Trainer
from supple.lab.study.results import DISTURBANCES, DISTURBANCES_SCHEMA, TASKS, TASKS_SCHEMA


class PopulationTrainer(Trainer):
    """Trains a population of C columns, whose R runs have these numbers; ``schema`` is that of their tasks."""

    def __init__(
        self,
        population: Population | AnyPopulation,
        columns: int,
        runs: Sequence[int],
        schema: Mapping[str, Any] = TASKS_SCHEMA,
    ) -> None:
        self.population, self._columns, self._schema = population, columns, schema
        self._runs = pl.Series("run", runs, dtype=pl.Int32)

    def learn(self, on_step: Callable[[int], object]) -> StageResult:
        """Learns the next task."""
        task = self.stage
        metrics = self.population.train_task(task, on_step)
        self.stage += 1
        rows = {TASKS: tasks_frame(self._runs, task, metrics, self._schema)}
        if metrics.disturbances:
            rows[DISTURBANCES] = pl.concat([disturbances_frame(self._runs, task, one) for one in metrics.disturbances])
        return StageResult(rows, metrics.outcome.view(-1, self._columns).mean(dim=0).tolist())

    def state_dict(self) -> dict[str, Any]:
        """States of the networks, the optimizer and the method."""
        return {"tasks": self.stage, **self.population.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self.population.load_state_dict(state)
        self.stage = int(state["tasks"])


def tasks_frame(
    runs: pl.Series, task: int, metrics: TaskMetrics, schema: Mapping[str, Any] = TASKS_SCHEMA
) -> pl.DataFrame:
    """What was measured of one task: a row a run with the columns of a schema."""
    columns: dict[str, Any] = {"run": runs, "task": task}
    for name in list(schema)[2:]:
        value = getattr(metrics, name)
        columns[name] = None if value is None else _numpy(value)
    return pl.DataFrame(columns).cast(pl.Schema(schema)).select(list(schema))


def disturbances_frame(runs: pl.Series, task: int, measured: Disturbance) -> pl.DataFrame:
    """What one reinitialization changed: a row for each run in which something was reinitialized, as in
    :data:`supple.lab.study.results.DISTURBANCES_SCHEMA`.
    """
    columns: dict[str, Any] = {"run": runs, "task": task, "step": measured.step}
    for name in list(DISTURBANCES_SCHEMA)[3:]:
        value = _numpy(getattr(measured, name))
        columns[name] = value if value.ndim == 1 else value.tolist()
    frame = pl.DataFrame(columns).cast(pl.Schema(DISTURBANCES_SCHEMA)).select(list(DISTURBANCES_SCHEMA))
    return frame.filter(pl.col("reinitialized") > 0)


def _numpy(value: Tensor) -> Any:
    value = value.detach().to("cpu")
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # numpy has no bfloat16

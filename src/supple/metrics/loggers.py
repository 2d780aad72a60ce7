"""Writing numbers into whatever logger is there, recognized by what it has and not by whose it is."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Write = Callable[[Mapping[str, float], int], None]
"""Writes numbers by name, of a step."""


class History(list[dict[str, float]]):
    """Rows of numbers by name, one a measurement, each with its ``step``; also as a frame."""

    def columns(self) -> list[str]:
        """The names in all rows, in the order in which they first occur."""
        return list(dict.fromkeys(name for row in self for name in row))

    def to_pandas(self) -> Any:
        """As a ``pandas.DataFrame``, with a column for each name."""
        import pandas  # type: ignore[import-untyped, unused-ignore]

        return pandas.DataFrame(list(self), columns=self.columns())

    def to_polars(self) -> Any:
        """As a ``polars.DataFrame``, with a column for each name."""
        import polars

        columns = self.columns()
        types = {name: polars.Int64 if name == "step" else polars.Float64 for name in columns}
        return polars.DataFrame({name: [row.get(name) for row in self] for name in columns}, schema=types)


def writer(log: Any) -> Write:
    """How to write into a logger.

    Args:
        log: a function of the numbers, or of them and ``step``; a TensorBoard writer, a Weights & Biases run, the
            module ``mlflow`` or a logger or Trainer of Lightning, a Trainer of transformers, an ``Accelerator``; the
            path of a .csv or .parquet file, in which rows that are there already are kept.

    Returns:
        A function of the numbers by name and of the step.

    Raises:
        TypeError: if it is none of these.
        ValueError: if it is a path of another kind, or what Parquet needs is not installed.
    """
    if isinstance(log, str | os.PathLike):
        return _File(Path(log))
    if callable(scalar := getattr(log, "add_scalar", None)):

        def add_each(values: Mapping[str, float], step: int) -> None:
            for name, value in values.items():
                scalar(name, value, step)

        return add_each
    metrics: Any = getattr(log, "log_metrics", None)
    if _takes(metrics, "step"):
        return lambda values, step: metrics(dict(values), step=step)
    if isinstance(loggers := getattr(log, "loggers", None), Iterable):
        several = [writer(one) for one in loggers]

        def write_each(values: Mapping[str, float], step: int) -> None:
            for write in several:
                write(values, step)

        return write_each
    function = getattr(log, "log", log)
    if not callable(function):
        raise TypeError(
            f"log is a {type(log).__name__}; it has to be a function of the numbers, a TensorBoard writer, a Weights & "
            "Biases run, mlflow, a Lightning logger, a Trainer, the path of a .csv or .parquet file, or None"
        )
    if _takes(function, "commit"):
        # Weights & Biases. A step of one's own would be refused where other steps are counted in the run.
        if callable(define := getattr(log, "define_metric", None)):
            define("plasticity/*", step_metric="plasticity/step")
        return lambda values, step: function({**values, "plasticity/step": step})
    if _takes(function, "step"):
        return lambda values, step: function(dict(values), step=step)
    return lambda values, step: function(dict(values))


def _takes(function: Any, name: str) -> bool:
    """Whether a function has a parameter of this name."""
    try:
        return callable(function) and name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # it does not tell
        return False


class _File:
    """Rows in a file. The order of columns may change as new ones come; no row is lost when a write fails."""

    def __init__(self, path: Path) -> None:
        self.path, self._rows, self._columns = path, History(), list[str]()
        if path.suffix not in (".csv", ".parquet"):
            raise ValueError(f"log={str(path)!r} is no file that is known; name it .csv or .parquet")
        if path.suffix == ".parquet" and importlib.util.find_spec("polars") is None:
            raise ValueError(f"log={str(path)!r} needs polars: pip install polars, or take a .csv file")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size:
            self._rows.extend(self._read())
            self._columns = self._rows.columns()

    def _read(self) -> list[dict[str, float]]:
        if self.path.suffix == ".parquet":
            import polars

            rows: Iterable[Mapping[str, Any]] = polars.read_parquet(self.path).to_dicts()
        else:
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        if any("step" not in row for row in rows):
            raise ValueError(f"{self.path} is there already and has no column step; take another file")
        values = ({name: value for name, value in row.items() if value not in ("", None)} for row in rows)
        return [{k: int(v) if k == "step" else float(v) for k, v in row.items()} for row in values]

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Adds a row."""
        self._rows.append({"step": step, **values})
        written, self._columns = self._columns, []  # all rows are written again after a write that failed
        columns = self._rows.columns() if set(values) - set(written) else written
        if self.path.suffix == ".csv" and columns == written and self.path.exists():
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerow(self._rows[-1])
            self._columns = columns
            return
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        if self.path.suffix == ".parquet":
            self._rows.to_polars().write_parquet(beside)
        else:
            with beside.open("w", newline="") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows(self._rows)
        os.replace(beside, self.path)
        self._columns = columns

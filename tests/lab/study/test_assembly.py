"""Columns trained together, each against the same network, optimizer and method alone, through autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_studies import STRONG, images, study

import supple
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.lab.study.assembly import assemble, groups
from supple.lab.study.schema import Measure, Permuted
from supple.lab.study.spec import Column
from supple.optim import SGDW, AdamW

CLASSES: dict[str, Any] = {
    "l2": supple.L2,
    "shrink_and_perturb": supple.ShrinkAndPerturb,
    "cbp": supple.CBP,
    "redo": supple.ReDo,
    "swr": supple.SWR,
}
SEEDS = [3, 5]
PROBLEM, MEASURE = Permuted(data="mnist10k", batch_size=10), Measure(examples=40, disturbances=0)

# Words, switches, step sizes and decays differ within one population.
MIXED: dict[str, dict[str, Any]] = {
    **STRONG,
    "swr_mean": {"kind": "swr", "frequency": 3, "factor": 0.1, "reinit": "mean", "utility": "magnitude"},
    "swr_share": {"kind": "swr", "frequency": 7, "factor": 0.2, "pruning": "proportional"},
    "swr_average": {"kind": "swr", "frequency": 6, "factor": 0.05, "decay": 0.5},
    "swr_often": {"kind": "swr", "frequency": 2, "factor": 0.01},
    "cbp_gradient": {"kind": "cbp", "maturity": 2, "replacement_rate": 0.05, "utility": "gradient"},
    "cbp_drawn": {"kind": "cbp", "maturity": 4, "replacement_rate": 0.05, "counting": "draw", "decay": 0.9},
    "redo_magnitude": {"kind": "redo", "frequency": 6, "threshold": 0.7, "utility": "magnitude"},
    "slow": {"kind": "base", "optimizer": {"step_size": 0.01, "weight_decay": 1e-3}},
}


def alone(column: Column, general: bool = True) -> Population:
    """The networks of one column, written out."""
    stream = PermutedStream(images(), SEEDS, 10)
    network = StackedMLP(SEEDS, inputs=25, hidden=column.network.hidden, outputs=10, depth=2)
    settings = column.optimizer
    optimizer: torch.optim.Optimizer
    if settings.name == "adamw":
        optimizer = AdamW(network.parameters(), settings.step_size, settings.betas, weight_decay=settings.weight_decay)
    else:
        optimizer = SGDW(network.parameters(), settings.step_size, settings.momentum, settings.weight_decay)
    make = CLASSES.get(column.kind)
    method = make(network, optimizer, **column.settings) if make else None
    return Population(network, optimizer, stream, method, general=general, measured_on=40)


@pytest.mark.parametrize(
    "optimizer",
    [
        {},
        pytest.param({"momentum": 0.8}, marks=pytest.mark.slow),
        pytest.param({"name": "adamw", "step_size": 1e-3, "betas": [0.8, 0.99]}, marks=pytest.mark.slow),
    ],
)
def test_each_column_is_as_it_is_alone(optimizer: dict[str, Any]) -> None:
    columns = study(MIXED, optimizer=optimizer).columns
    population = assemble(images(), columns, SEEDS, PROBLEM, MEASURE)
    together = [population.train_task(task) for task in range(2)]
    acted = set()
    for c, column in enumerate(columns):
        reference = alone(column)
        for task in range(2):
            metrics, mine = reference.train_task(task), together[task]
            rows = slice(c, None, len(columns))
            assert torch.equal(mine.reinitialized[rows], metrics.reinitialized), column.method
            torch.testing.assert_close(mine.loss[rows], metrics.loss, rtol=2e-4, atol=1e-5)
            torch.testing.assert_close(mine.weight_magnitude[rows], metrics.weight_magnitude, rtol=1e-4, atol=1e-6)
            if metrics.reinitialized.any():
                acted.add(column.method)
    assert acted == {name for name in MIXED if name not in ("base", "slow", "l2", "shrink_and_perturb")}


def test_columns_are_grouped_by_network_and_kind_of_optimizer() -> None:
    columns = study(
        {
            "base": {},
            "rates": {"kind": "base", "optimizer": {"step_size": [0.1, 0.2], "weight_decay": 1e-5}},
            "wide": {"kind": "swr", "network": {"hidden": [8, 16]}},
            "momentum": {"kind": "base", "optimizer": {"momentum": 0.5}},
            "adam": {"kind": "cbp", "optimizer": {"name": "adamw"}},
        }
    ).columns
    found = [[column.method for column in group] for group in groups(columns)]
    assert found == [["base", "rates", "rates", "wide"], ["wide"], ["momentum"], ["adam"]]
    with pytest.raises(ValueError, match="one network and one kind of optimizer"):
        assemble(images(), columns, SEEDS, PROBLEM)
    with pytest.raises(ValueError, match="one network and one kind of optimizer"):
        assemble(images(), [], SEEDS, PROBLEM)


def test_settings_that_are_common_to_a_population_are_not_mixed_where_nothing_switches_the_method_off() -> None:
    """Else all networks would get both: a reset of one layer would be one of all, beside one of all."""
    columns = study(
        {
            "one": {"kind": "layer_reset", "layers": 1},
            "all": {"kind": "layer_reset", "layers": 4},
            "again": {"kind": "layer_reset", "layers": 1, "every": 5},
            "snr": {"threshold": [20, 40]},
            "normalized": {"kind": "snr", "features": "after_norm"},
        }
    ).columns
    found = [[column.method for column in group] for group in groups(columns)]
    assert found == [["one", "again"], ["all"], ["snr", "snr"], ["normalized"]]

"""Networks, optimizer, stream and methods of one population, from the columns of a study."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from supple.lab.data import LabelledImages
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.lab.study.kinds import KINDS, varies
from supple.lab.study.spec import Column
from supple.lab.study.tables import Measure, Optimizer, Permuted
from supple.methods import Chain, Method, chain
from supple.optim import SGDW, AdamW


def together(column: Column) -> str:
    """What has to be the same for columns to be trained in one population: the network, and the kind of optimizer.

    Step sizes, weight decays and everything that methods are set to may differ.

    Args:
        column: a column.

    Returns:
        Text that is equal for columns that can be trained together.
    """
    optimizer = column.optimizer.model_dump(mode="json", exclude={"step_size", "weight_decay"})
    return json.dumps([column.network.model_dump(mode="json"), optimizer], sort_keys=True)


def assemble(
    images: LabelledImages,
    columns: Sequence[Column],
    seeds: Sequence[int],
    problem: Permuted | None = None,
    measure: Measure | None = None,
    device: torch.device | str = "cpu",
) -> Population:
    """One population of a network for each seed and column.

    Networks of one seed start alike and see the same batches. Replica s * C + c has seed s and column c.

    Args:
        images: what the tasks are made of.
        columns: C columns that can be trained :func:`together`.
        seeds: S seeds, all different.
        problem: how tasks are made of the images; None: as by default.
        measure: what is measured; None: as by default.
        device: where to train.

    Returns:
        The population, S * C networks.

    Raises:
        ValueError: if there are no columns or no seeds, columns that cannot be trained together, or fewer images than
            a batch has.
    """
    problem, measure = problem or Permuted(), measure or Measure()
    if len({together(column) for column in columns}) != 1:
        raise ValueError("a population has columns of one network and one kind of optimizer; give one or more of them")
    stream = PermutedStream(images, seeds, problem.batch_size, device)
    replicas = [seed for seed in seeds for _ in columns]
    network = StackedMLP(
        replicas, inputs=stream.features, outputs=images.classes, **columns[0].network.model_dump()
    ).to(device)
    optimizer = _optimizer(network, columns, len(seeds))
    return Population(
        network,
        optimizer,
        stream,
        _methods(network, optimizer, columns, len(seeds)),
        measured_on=measure.examples,
        disturbances=measure.disturbances,
    )


def _optimizer(network: StackedMLP, columns: Sequence[Column], seeds: int) -> torch.optim.Optimizer:
    first = columns[0].optimizer
    assert isinstance(first, Optimizer)
    rates = [column.optimizer.step_size for column in columns]
    decays = [column.optimizer.weight_decay for column in columns]
    replicated: dict[str, Any] = {
        "lr": rates[0] if len(set(rates)) == 1 else torch.tensor(rates * seeds, dtype=torch.float64),
        "weight_decay": decays[0] if len(set(decays)) == 1 else torch.tensor(decays * seeds, dtype=torch.float64),
    }
    if first.name == "adamw":
        return AdamW(network.parameters(), betas=first.betas, **replicated)
    return SGDW(network.parameters(), momentum=first.momentum, **replicated)


def _methods(
    network: StackedMLP, optimizer: torch.optim.Optimizer, columns: Sequence[Column], seeds: int
) -> Chain | None:
    """A method object for each kind and choice of words; a strength of 0 switches it off in the other columns."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, column in enumerate(columns):
        words = {name: value for name, value in column.settings.items() if not varies(column.kind, name)}
        if KINDS[column.kind].make is not None:
            alike[column.kind, json.dumps(words, sort_keys=True)].append(number)
    made: list[Method] = []
    for (kind, text), numbers in alike.items():
        users = {number: columns[number].settings for number in numbers}
        first, arguments = columns[numbers[0]].settings, json.loads(text)
        for name in first.keys() - arguments.keys():
            off = 0 if name in KINDS[kind].strength else first[name]
            values = [users[number][name] if number in users else off for number in range(len(columns))]
            same = len(set(values)) == 1
            arguments[name] = values[0] if same else torch.tensor(values * seeds, dtype=torch.float64)
        make: Any = KINDS[kind].make
        made.append(make(network, optimizer, **arguments))
    return chain(*made) if made else None


def groups(columns: Sequence[Column]) -> list[list[Column]]:
    """Sorts columns into those that can be trained together.

    Args:
        columns: the columns.

    Returns:
        The groups, each in the order of the columns.
    """
    found: dict[str, list[Column]] = defaultdict(list)
    for column in columns:
        found[together(column)].append(column)
    return list(found.values())

"""Networks, optimizer, stream and methods of one population, from the columns of a study."""

from __future__ import annotations

import inspect
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from supple.lab.data import LabelledImages
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.lab.study.methods import method_class
from supple.lab.study.schema import Measure, Network, Optimizer, Permuted, Settings
from supple.lab.study.spec import Column
from supple.methods import Method, chain
from supple.methods.registry import differs_by_replica
from supple.optim import SGDW, AdamW


def population_key(column: Column) -> str:
    """What has to be the same for columns to be trained in one population, as text.

    It is the network, and the kind of optimizer. Step sizes, weight decays and everything that methods are set to may
    differ; a method that has no setting which switches it off is trained without others, also of its own kind where a
    setting cannot differ by replica.
    """
    replicated = {"step_size", "weight_decay"} if not isinstance(column.optimizer, Settings) else set()
    optimizer = column.optimizer.model_dump(mode="json", exclude=replicated)
    method = method_class(column.kind)
    alone = [] if method is None or method.about.strength else [column.kind, _common(column)]
    return json.dumps([column.network.model_dump(mode="json"), optimizer, *alone], sort_keys=True)


def _common(column: Column) -> dict[str, Any]:
    """The settings of a column that are the same for all replicas of a method object."""
    method = method_class(column.kind)
    if method is None:
        return {}
    return {name: value for name, value in column.settings.items() if not differs_by_replica(method, name)}


def groups(columns: Sequence[Column]) -> list[list[Column]]:
    """Sorts columns into those that can be trained together, each in the order of the columns."""
    found: dict[str, list[Column]] = defaultdict(list)
    for column in columns:
        found[population_key(column)].append(column)
    return list(found.values())


def assemble(
    images: LabelledImages,
    columns: Sequence[Column],
    seeds: Sequence[int],
    problem: Permuted | None = None,
    measure: Measure | None = None,
    device: torch.device | str = "cpu",
    graphs: bool = False,
) -> Population:
    """One population of a network for each of S seeds and C columns; replica s * C + c has seed s and column c.

    Networks of one seed start alike and see the same batches. ValueError if the columns cannot be trained together, or
    there are fewer images than a batch has.
    """
    problem, measure = problem or Permuted(), measure or Measure()
    if len(groups(columns)) != 1:
        raise ValueError("a population has columns of one network and one kind of optimizer; give one or more of them")
    sizes = columns[0].network
    assert isinstance(sizes, Network)
    stream = PermutedStream(images, seeds, problem.batch_size, device)
    replicas = [seed for seed in seeds for _ in columns]
    network = StackedMLP(replicas, inputs=stream.features, outputs=images.classes, **sizes.sizes).to(device)
    optimizer = _optimizer(network, columns, len(seeds))
    return Population(
        network,
        optimizer,
        stream,
        methods_of(network, optimizer, columns, len(seeds)),
        measured_on=measure.examples,
        disturbances=measure.disturbances,
        precision=sizes.precision,
        graphs=graphs,
    )


def _optimizer(network: StackedMLP, columns: Sequence[Column], seeds: int) -> torch.optim.Optimizer:
    first = columns[0].optimizer
    assert isinstance(first, Optimizer)
    settings: list[Any] = [column.optimizer for column in columns]
    replicated: dict[str, Any] = {
        "lr": _one_a_replica([one.step_size for one in settings], seeds),
        "weight_decay": _one_a_replica([one.weight_decay for one in settings], seeds),
    }
    if first.name == "adamw":
        return AdamW(network.parameters(), betas=first.betas, **replicated)
    return SGDW(network.parameters(), momentum=first.momentum, **replicated)


def methods_of(
    network: torch.nn.Module, optimizer: torch.optim.Optimizer, columns: Sequence[Column], seeds: int, **more: Any
) -> Method | None:
    """A method object for each kind and choice of the settings that cannot differ by replica, made with ``more``.

    A strength of 0 switches it off in the columns of other methods.
    """
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, column in enumerate(columns):
        if method_class(column.kind) is not None:
            alike[column.kind, json.dumps(_common(column), sort_keys=True)].append(number)
    made: list[Method] = []
    for (kind, text), numbers in alike.items():
        make: Any = method_class(kind)
        users = {number: columns[number].settings for number in numbers}
        first, arguments = columns[numbers[0]].settings, json.loads(text)
        for name in first.keys() - arguments.keys():
            off = 0 if name in make.about.strength else first[name]
            values = [users[number][name] if number in users else off for number in range(len(columns))]
            arguments[name] = _one_a_replica(values, seeds)
        known = {name: value for name, value in more.items() if name in inspect.signature(make).parameters}
        made.append(make(network, optimizer, **arguments, **known))
    return chain(*made) if made else None


def _one_a_replica(values: Sequence[float], seeds: int) -> Any:
    """A number a column as a number a replica, or as one number where all are the same."""
    return values[0] if len(set(values)) == 1 else torch.tensor([*values] * seeds, dtype=torch.float64)

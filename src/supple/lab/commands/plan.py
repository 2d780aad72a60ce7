"""``supple plan``: what running a study will take, on the command line."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from supple.lab.commands.options import Device, plain_errors
from supple.lab.commands.run import (
    Data,
    Epochs,
    Memory,
    Methods,
    Processes,
    Seeds,
    StudyName,
    Tasks,
    Where,
    check_options,
    scale,
)
from supple.lab.study import shipped
from supple.lab.study.courses import blank_course
from supple.lab.study.estimate import Estimate, estimate, makespan
from supple.lab.study.order import Order, process_count
from supple.lab.study.spec import read
from supple.lab.study.tables import Transformer
from supple.lab.study.watching import duration, pace


def plan_command(
    study: StudyName,
    tasks: Tasks = None,
    seeds: Seeds = None,
    methods: Methods = None,
    epochs: Epochs = None,
    data_name: Data = None,
    device: Where = Device.cpu,
    processes: Processes = None,
    memory: Memory = None,
) -> None:
    """Say what running a study will take here: runs, parts, memory and time, from a measurement of seconds.

    Takes the options of [bold]supple run[/]. Nothing is downloaded and nothing
    is kept.

    [bold]Examples[/]

    [dim]$[/] supple plan permuted_mnist/small

    [dim]$[/] supple plan permuted_mnist/sweeps/large --methods swr --seeds 3 --tasks 100
    """
    allowed = check_options(device, memory)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with plain_errors():
            path, name = shipped.find(study)
            chosen = scale(read(path), tasks, seeds, methods, data_name.value if data_name else None, epochs)
            order = Order(chosen, name, Path(), device=device.value, processes=processes, memory=allowed)
            found = estimate(order, blank_course(chosen))
    finally:
        torch.set_num_threads(threads)
    Console().print(_table(found, order))


def _table(found: list[Estimate], order: Order) -> Table:
    runs, steps = sum(one.runs for one in found), sum(one.runs * one.steps for one in found)
    count = process_count(order)
    table = Table(
        caption=f"{runs:,} runs of {found[0].steps:,} steps, {steps:,} network steps in all, "
        f"{sum(one.flops for one in found) / 1e15:.3g} PFLOP. About {duration(makespan(found, order))} with {count} "
        f"process{'es' if count > 1 else ''}.",
        caption_justify="left",
    )
    headings = ("network", "methods", "runs", "parts", "runs a part", "memory a process", "steps/s a process")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("network", "methods") else "right")
    for one in found:
        table.add_row(
            _network(one),
            ", ".join(one.methods),
            f"{one.runs:,}",
            f"{one.parts:,}",
            f"{one.part:,}",
            f"{one.memory / 1e6:,.0f} MB",
            pace(one.rate),
        )
    return table


def _network(one: Estimate) -> str:
    """Such as "3 x 100 relu, layer_norm after, adamw", or "8 x 384 transformer, reparameterized, sgd"."""
    network, optimizer = one.network, one.optimizer
    if isinstance(network, Transformer):
        options = ["reparameterized"] * network.reparameterized
        return ", ".join([f"{network.depth} x {network.width} transformer", *options, optimizer.name])
    options = [f"{name} {value}" for name in ("skip", "layer_norm") if (value := getattr(network, name))]
    return ", ".join([f"{network.depth} x {network.hidden} {network.activation}", *options, optimizer.name])

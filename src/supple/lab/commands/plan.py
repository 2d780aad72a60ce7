"""``supple plan``: what running a study will take."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from supple.lab.commands.options import DataDir, Device, Verify, Where, plain_errors
from supple.lab.commands.scale import (
    Data,
    Epochs,
    Graphs,
    Memory,
    Methods,
    PartSize,
    Precision,
    Processes,
    Seeds,
    StudyName,
    Tasks,
    in_bytes,
    scale,
)
from supple.lab.escaping import short, shown
from supple.lab.study import shipped
from supple.lab.study.compare import one_thread
from supple.lab.study.estimate import Estimate, estimate, makespan, others
from supple.lab.study.problems import noise_problem
from supple.lab.study.progress import duration, pace
from supple.lab.study.run_config import RunConfig
from supple.lab.study.schema import ResidualNetwork, Settings, Transformer
from supple.lab.study.spec import read


def plan_command(
    study: StudyName,
    tasks: Tasks = None,
    seeds: Seeds = None,
    methods: Methods = None,
    epochs: Epochs = None,
    data_name: Data = None,
    data_dir: DataDir = None,
    verify: Verify = True,
    precision: Precision = None,
    device: Where = Device.cpu,
    graphs: Graphs = False,
    processes: Processes = None,
    part_size: PartSize = None,
    memory: Memory = None,
) -> None:
    """Say what running a study will take here: runs, parts, memory and time, from a measurement of seconds.

    Takes the options of [bold]supple run[/]. Nothing is kept. Images are not
    read but by a problem of your own, which is made with its data.

    [bold]Examples[/]

    [dim]$[/] supple plan permuted_mnist/small

    [dim]$[/] supple plan permuted_mnist/sweeps/large --methods swr --seeds 3 --tasks 100
    """
    allowed = in_bytes(memory)
    with one_thread(), plain_errors():
        path, name = shipped.find(study)
        chosen = scale(read(path), tasks, seeds, methods, data_name, epochs, precision)
        config = RunConfig(
            chosen,
            name,
            Path(),
            device=device.value,
            graphs=graphs,
            processes=processes,
            memory=allowed,
            part_size=part_size,
        )
        found = estimate(config, noise_problem(chosen, data_dir, verify, **config.runtime))
    Console().print(_table(found, config))


def _table(found: list[Estimate], config: RunConfig) -> Table:
    runs, steps = sum(one.runs for one in found), sum(one.runs * one.steps for one in found)
    count, parts = config.process_count, sum(one.parts for one in found)
    idle = f" There are parts for {parts}; a smaller --part-size makes more." if parts < min(count, runs) else ""
    table = Table(
        caption=f"{runs:,} runs of {found[0].steps:,} steps, {steps:,} network steps in all, "
        f"{sum(one.flops for one in found) / 1e15:.3g} PFLOP. About {duration(makespan(found, config))} with {count} "
        f"process{'es' if count > 1 else ''}.{idle}{others(found, config)}",
        caption_justify="left",
    )
    headings = ("network", "methods", "runs", "parts", "runs a part", "memory a process", "steps/s a process")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("network", "methods") else "right")
    for one in found:
        table.add_row(
            _network(one),
            shown(", ".join(map(short, one.methods))),
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
    if isinstance(network, Settings) or isinstance(optimizer, Settings):
        sections = [section.values for section in (network, optimizer) if isinstance(section, Settings)]
        return ", ".join(f"{name} {value}" for values in sections for name, value in values.items()) or "its own"
    precision = [network.precision] * (network.precision != "float32")
    if isinstance(network, Transformer):
        options = ["reparameterized"] * network.reparameterized
        return ", ".join([f"{network.depth} x {network.width} transformer", *options, *precision, optimizer.name])
    if isinstance(network, ResidualNetwork):
        return ", ".join([f"4 x {network.depth} blocks from {network.width} channels", *precision, optimizer.name])
    options = [f"{name} {value}" for name in ("skip", "layer_norm") if (value := getattr(network, name))]
    return ", ".join([f"{network.depth} x {network.hidden} {network.activation}", *options, *precision, optimizer.name])

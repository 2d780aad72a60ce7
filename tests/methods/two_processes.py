"""One training run by one process, or by two that share each batch: what test_processes.py compares."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from every_method import EVERY, build
from torch import Tensor, nn

import supple
import supple.methods.seeds
from supple.functional.sharding import block_of, gathered, local

STEPS, CUT, BATCH = 7, 4, 12

Make = Callable[[nn.Module, torch.optim.Optimizer], supple.Method]
L2, ShrinkAndPerturb, SWR, CBP, ReDo = (
    partial(kind, seed=5) for kind in (supple.L2, supple.ShrinkAndPerturb, supple.SWR, supple.CBP, supple.ReDo)
)

METHODS: dict[str, Make] = {
    "L2": lambda m, o: L2(m, o, l2=1e-2),
    "S&P": lambda m, o: ShrinkAndPerturb(m, o, l2=1e-3, variance=1e-4),
    "SWR": lambda m, o: SWR(m, o, frequency=3, factor=0.3, optimizer_state="fresh"),
    "SWR many": lambda m, o: SWR(m, o, frequency=3, factor=2.0),
    "SWR proportional": lambda m, o: SWR(m, o, frequency=3, factor=0.2, pruning="proportional", reinit="mean"),
    # Eight weights of the first layer have no gradient, of which four are chosen.
    "SWR tied": lambda m, o: SWR(m, o, frequency=3, factor=0.1, pruning="proportional", include="0.weight"),
    "SWR averaged": lambda m, o: SWR(m, o, frequency=3, factor=0.3, decay=0.7),
    "SWR random": lambda m, o: SWR(m, o, frequency=3, factor=0.3, utility="random"),
    "SWR initial": lambda m, o: SWR(m, o, frequency=3, factor=0.3, utility="magnitude", reinit="initial"),
    "CBP": lambda m, o: CBP(m, o, maturity=2, replacement_rate=0.15, optimizer_state="fresh"),
    "CBP gradient": lambda m, o: CBP(m, o, maturity=2, replacement_rate=0.15, utility="gradient"),
    "CBP of 2024": lambda m, o: CBP(
        m, o, maturity=2, replacement_rate=0.15, decay=0.9, counting="draw", absorb_mean=True
    ),
    "ReDo": lambda m, o: ReDo(m, o, frequency=3, threshold=0.5, optimizer_state="fresh"),
    "ReDo magnitude": lambda m, o: ReDo(m, o, frequency=3, threshold=0.95, utility="magnitude"),
    "C-CHAIN": lambda m, o: supple.CChain(m, o, ratio=0.5, warm_up=2, window=3),
    "InFeR": lambda m, o: supple.InFeR(m, o, heads=3, scale=5.0, seed=5),
    "SWR after surgery": lambda m, o: SWR(m, o, frequency=3, factor=0.3, initial={"*": supple.Normal(0.0, 0.5)}),
}

SPECIAL = {"L2", "ShrinkAndPerturb", "SWR", "CBP", "ReDo", "CChain", "InFeR", "DASH"}
"""Methods that have cases above; and DASH, whose boundary takes data (test_dash.py)."""

OTHERS = [*{kind: name for name, (kind, _, _) in reversed(EVERY.items()) if kind.__name__ not in SPECIAL}.values()]
"""Every other method, one case each."""

METHODS |= {name: partial(build, name, replica=0, seed=5) for name in OTHERS}

PENALTIES = ["C-CHAIN", "InFeR"]
COPIED = ["SWR", "CBP", "ReDo"]
HALF = ["L2", "S&P"]


def network(name: str = "") -> nn.Sequential:
    """Layers of 8 and 7 units, so that one divides by two and one does not, and a scale of one entry."""
    torch.manual_seed(0)
    layers = [nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 1)]
    model = nn.Sequential(*layers).double()
    if name == "SWR after surgery":
        supple.surgery.inject(supple.surgery.crelu(model), head="5")
    return model


def batch(step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(BATCH, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    x[:, 2] = 0  # weights without a gradient
    return x[rank::world], (x[:, :1] * x[:, 1:2])[rank::world]


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: gathered(p).clone() for name, p in model.named_parameters()}


def sharded(model: nn.Module) -> nn.Module:
    """The first layer on its own, the rest as one."""
    from torch.distributed.fsdp import fully_shard

    fully_shard(model[0])  # type: ignore[index]
    return fully_shard(model)


def copied(model: nn.Module) -> nn.Module:
    """Sharded over one process, with a copy on each of two."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "blocks")))


def parallel(model: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def train(
    name: str, wrap: Callable[[nn.Module], nn.Module] = lambda m: m, rank: int = 0, world: int = 1
) -> dict[str, Any]:
    """A run, and what its method did."""
    wrapped = wrap(network(name))
    model = wrapped.module if isinstance(wrapped, nn.parallel.DistributedDataParallel) else wrapped
    optimizer = torch.optim.Adam(wrapped.parameters(), lr=0.02)
    method = METHODS[name](wrapped, optimizer)
    changes, counts = [], []
    for step in range(STEPS):
        if step == CUT:
            # Saved, and loaded by a method made anew; a sharded state is whole when it is gathered.
            state = {"steps": whole(method.state_dict())}
            method.close()
            method = remade(name, wrapped, optimizer)
            method.load_state_dict(state["steps"])
        x, y = batch(step, rank, world)
        optimizer.zero_grad()
        loss = (wrapped(x) - y).square().mean()
        if isinstance(method, supple.CChain | supple.InFeR):
            loss = loss + method.penalty(x, loss=loss)
        loss.backward()
        if method.acts_before_step:
            method.before_step()
        optimizer.step()
        before = {key: local(p).clone() for key, p in model.named_parameters()}
        method.step()
        own = {key: (p, (local(p) != before[key]).unsqueeze(0)) for key, p in model.named_parameters()}
        changes.append({key: gathered(block_of(p).join(mask))[0] for key, (p, mask) in own.items()})
        counts.append(method.reinitialized.last.clone())
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    moments = {key: gathered(optimizer.state[p]["exp_avg"]) for key, p in trained.items()}
    if isinstance(method, supple.InFeR):
        moments["heads"] = method.heads.detach().clone()
    return {"changes": changes, "counts": counts, "values": values(model), "moments": moments}


def remade(name: str, wrapped: nn.Module, optimizer: torch.optim.Optimizer) -> supple.Method:
    """A new method for trained parameters: those of a fresh network stand in while it is made."""
    parameters = list(wrapped.parameters())
    trained = [p.detach().clone() for p in parameters]
    optimizer.state, kept = type(optimizer.state)(dict), optimizer.state
    with torch.no_grad():
        for p, fresh in zip(parameters, network(name).parameters(), strict=True):
            local(p).copy_(block_of(p).of(fresh))
        method = METHODS[name](wrapped, optimizer)
        for p, value in zip(parameters, trained, strict=True):
            p.copy_(value)
    optimizer.state = kept
    return method


def whole(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    return gathered(state) if isinstance(state, Tensor) else state


def sharded_stack() -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    from supple.lab.nn import StackedMLP

    return fully_shard(StackedMLP([0, 1], 5, 8, 3, 1))


def errors() -> dict[str, str]:
    """What is refused where two processes run."""

    def message(make: Callable[[], object]) -> str:
        try:
            make()
        except ValueError as error:
            return str(error)
        return "nothing was refused"

    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (2,))
    tensor_parallel = parallelize_module(network(), mesh, {"0": ColwiseParallel()})
    # Features of a mean need no group where the processes are said to train networks of their own.
    alone = [torch.distributed.new_group([rank]) for rank in range(2)][torch.distributed.get_rank()]
    supple.CBP(network(), process_group=alone).close()
    supple.CBP(network(), utility="magnitude").close()
    return {
        "unknown group": message(lambda: supple.CBP(network())),
        "stacked": message(lambda: supple.L2(sharded_stack())),
        "infer without an optimizer": message(lambda: supple.InFeR(parallel(network()))),
        "surgery of a wrapped network": message(lambda: supple.surgery.crelu(parallel(network()))),
        "surgery of a sharded network": message(lambda: supple.surgery.inject(sharded(network()))),
        "sharded C-CHAIN": message(lambda: supple.CChain(sharded(network()))),
        "sharded InFeR": message(lambda: supple.InFeR(sharded(network()))),
        "tensor parallel": message(lambda: supple.ReDo(tensor_parallel, units=supple.units(network()))),
    }


def unread(rank: int) -> dict[str, Any]:
    """What CBP does where one process runs a layer less, or no layer, and where none runs any.

    Args:
        rank: number of this process, or -1 for one that runs alone, on the examples of both.
    """
    model = network()
    method = supple.CBP(
        model,
        maturity=0,
        replacement_rate=0.15,
        decay=0.5,
        absorb_mean=True,
        process_group=torch.distributed.group.WORLD if rank >= 0 else None,
        seed=5,
    )
    found = []
    for step in range(4):
        for part in (0, 1) if rank < 0 else (rank,):
            x = torch.randn(3 + part, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2 * step + part))
            model.train(not (part == 1 and step == 2))
            (model[:4] if part == 1 and step == 1 else model)(x)
        method.step()
        found.append(values(model))
    try:
        method.step()
    except RuntimeError as error:
        return {"values": found, "steps": method.steps, "nothing read": str(error)}
    return {"values": found}


class Dropped(nn.Module):
    """A block that a process runs or leaves out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into, self.out = nn.Linear(5, 6), nn.Linear(6, 1)
        self.block = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 6))
        self.double()

    def forward(self, x: Tensor, runs: bool) -> Tensor:
        x = self.into(x)
        return self.out(x + self.block(x) if runs else x)


DROPPED = {
    f"{kind.__name__} {utility}": (kind, {"utility": utility, **settings})
    for utility in ("contribution", "gradient", "magnitude")
    for kind, settings in (
        (supple.CBP, {"maturity": 2, "replacement_rate": 0.08}),
        (supple.ReDo, {"frequency": 3, "threshold": 0.9}),
    )
}


def dropped(name: str, rank: int) -> dict[str, Any]:
    """A run in which each process leaves out a layer in steps of its own.

    Args:
        name: one of :data:`DROPPED`.
        rank: number of this process, or -1 for one that runs alone, on the examples of both.
    """
    kind, settings = DROPPED[name]
    model: nn.Module = Dropped()
    inner = model
    if rank >= 0:
        model = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    tensors = [("block.0.weight", 0), ("block.0.bias", 0), ("block.2.weight", 1)]
    incoming, bias, outgoing = (supple.Slice(tensor, dim) for tensor, dim in tensors)
    units = [
        supple.UnitGroup(
            "block.0",
            7,
            supple.Feature("block.2", "input", supple.Slice("", -1)),
            incoming=(incoming,),
            bias=(bias,),
            consumers=(supple.Consumer(outgoing, "block.2.bias"),),
        )
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = kind(model, optimizer, units=units, **settings, seed=5)
    counts = []
    for step in range(24):
        optimizer.zero_grad()
        for part in (0, 1) if rank < 0 else (rank,):
            x = torch.randn(4 + part, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2 * step + part))
            # One of them, none or both.
            runs = bool((step * 7 + part * 3) % 5 % 3)
            loss = (model(x, runs) - 1).square().mean()
            (loss / 2 if rank < 0 else loss).backward()
        optimizer.step()
        method.step()
        counts.append((int(method.reinitialized.last), int(method.skipped)))
    return {"counts": counts, "values": values(inner)}


def half(name: str, wrap: Callable[[nn.Module], nn.Module] = lambda m: m) -> dict[str, Tensor]:
    """What a few steps of a method, without training, make of a network in half precision."""
    model = wrap(network().bfloat16())
    method = METHODS[name](model, torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in range(3):
        method.step()
    return values(model)


def seeds(rank: int) -> dict[str, Any]:
    """The seeds that methods have where none is stated, of processes that were seeded differently."""
    torch.distributed.barrier()
    alone = [torch.distributed.new_group([other]) for other in range(2)][rank]
    world = torch.distributed.group.WORLD
    models = [parallel(network()), sharded(network()), copied(network()), *(network() for _ in range(5))]
    torch.manual_seed(100 + rank)
    own = supple.methods.seeds.next_seed()
    found = {
        "parallel": supple.SWR(models[0]),
        "sharded": supple.SWR(models[1]),
        "copied": supple.SWR(models[2]),
        "plain": supple.SWR(models[3]),
        "plain again": supple.SWR(models[4]),
        "group": supple.CBP(models[5], process_group=world),
        "alone": supple.CBP(models[6], process_group=alone),
        "stated": supple.SWR(models[7], seed=rank),
    }
    result: dict[str, Any] = {name: int(method.seed) for name, method in found.items()} | {"own": own}
    # A method that only one of them makes.
    patience = supple.methods.seeds._QUIET, supple.methods.seeds._PATIENCE
    supple.methods.seeds._QUIET = supple.methods.seeds._PATIENCE = timedelta(seconds=0.2)
    if rank == 0:
        result["only here"] = int(supple.L2(network()).seed)
    else:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                supple.ShrinkAndPerturb(network())
            except RuntimeError as error:
                result["only here"] = str(error)
        result["warning"] = str(said[0].message)
    supple.methods.seeds._QUIET, supple.methods.seeds._PATIENCE = patience
    torch.distributed.barrier()
    return result


def blocks() -> dict[str, bool]:
    """Whether each block is where it is said to be, for tensors divided in all ways that are known."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    found = {}
    for shape in ((4, 3), (3, 5), (1, 2), (5,)):
        ways: list[Placement] = [Replicate(), *(Shard(dim) for dim in range(len(shape)))]
        for way in ways:
            whole = torch.arange(float(torch.Size(shape).numel())).view(shape)
            tensor = distribute_tensor(whole, mesh, [way])
            block, own = block_of(tensor), local(tensor)
            joined = block.join(own.unsqueeze(0))
            found[f"{shape} {way}"] = (
                torch.equal(block.every_index(own.device).to(own.dtype), own)
                and torch.equal(gathered(joined)[0], whole)
                and torch.equal(block.split(joined)[0], own)
                and torch.equal(block.split(whole.unsqueeze(0))[0], own)
                and float(block.total(own.sum())) == float(whole.sum())
            )
    partial = DTensor.from_local(torch.ones(2), mesh, [Partial()], run_check=False)
    try:
        block_of(partial)
    except ValueError:
        found["a sum that was not carried out"] = True
    return found


def main(rank: int, folder: str) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    found: dict[str, Any] = {"errors": errors(), "blocks": blocks(), "unread": unread(rank), "seeds": seeds(rank)}
    found["dropped"] = {name: dropped(name, rank) for name in DROPPED}
    for name in METHODS:
        found[f"parallel {name}"] = train(name, parallel, rank, 2)
        if name not in PENALTIES:
            found[f"sharded {name}"] = train(name, sharded, rank, 2)
        if name in HALF:
            found[f"half {name}"] = half(name, sharded)
        if name in COPIED:
            found[f"copied {name}"] = train(name, copied, rank, 2)
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
    # gloo's threads can outlive the last collective, and abort an interpreter that ends meanwhile: it is not let end.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

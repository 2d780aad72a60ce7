"""One of two processes that train one network together, with a method attached or watched: what tests compare."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

import supple
from supple.functional.sharding import gathered

CUT, STEPS = 4, 8


def made(how: str, attached: bool) -> tuple[nn.Module, torch.optim.Optimizer, supple.Method]:
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model = nn.parallel.DistributedDataParallel(model) if how == "parallel" else fully_shard(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    method = supple.chain(
        supple.SWR(model, optimizer, frequency=2, factor=0.3, decay=0.5, optimizer_state="fresh", seed=1),
        supple.CBP(model, optimizer, maturity=2, replacement_rate=0.1, seed=2),
    )
    return model, optimizer, method.attach(checkpoint=True) if attached else method


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, method: supple.Method, steps: range
) -> tuple[dict[str, Tensor], list[int]]:
    for step in steps:
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))[dist.get_rank() :: 2]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()
        if method.attachment is None:
            method.step()
    values = {name.removeprefix("module."): gathered(p).clone() for name, p in model.named_parameters()}
    return values, [int(method.reinitialized.total), *(part.steps for part in method.parts)]


def watched(how: str) -> tuple[tuple[dict[str, Tensor], list[int]], list[dict[str, float]]]:
    """Watched with every measure; only the first process has a log."""
    model, optimizer, method = made(how, attached=True)
    lines: list[dict[str, float]] = []
    examples = torch.randn(50, 6, generator=torch.Generator().manual_seed(99))
    log = lines.append if dist.get_rank() == 0 else None
    # Of a sharded network they are found before it is.
    units = supple.units(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), examples)
    watch = supple.watch(model, units, batch=examples, optimizer=optimizer, every=2, log=log)
    found = train(model, optimizer, method, range(STEPS))
    assert [row["step"] for row in watch.history] == [2, 4, 6, 8]
    assert len(lines) == (4 if dist.get_rank() == 0 else 0)
    return found, list(watch.history)


def resumed(how: str, folder: Path) -> tuple[dict[str, Tensor], list[int]]:
    """Saved in pieces by all processes together, and loaded into what was made anew."""
    model, optimizer, method = made(how, attached=True)
    train(model, optimizer, method, range(CUT))
    weights, states = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": states}, checkpoint_id=folder / how)
    model, optimizer, method = made(how, attached=True)
    # Which takes a step of the optimizer that is none of training.
    weights, states = get_state_dict(model, optimizer)
    assert all(part.steps == 0 for part in method.parts)
    saved = {"model": weights, "optimizer": states}
    dcp.load(saved, checkpoint_id=folder / how)
    set_state_dict(model, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
    assert all(part.steps == CUT for part in method.parts), [part.steps for part in method.parts]
    return train(model, optimizer, method, range(CUT, STEPS))


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=250))
    found = {}
    for how in ("parallel", "sharded"):
        found[f"{how}, attached"] = train(*made(how, attached=True), range(STEPS))
        found[f"{how}, by hand"] = train(*made(how, attached=False), range(STEPS))
        found[f"{how}, watched"], found[f"{how}, history"] = watched(how)
        found[f"{how}, resumed"] = resumed(how, folder)
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    # gloo's threads can outlive the last collective, and abort an interpreter that ends meanwhile: it is not let end.
    sys.stderr.flush()
    os._exit(0)

"""A method where several processes, each with its GPU, train one network together.

Each process makes the same method and attaches it to its optimizer. ``--how parallel`` copies the network to all of
them (DistributedDataParallel), ``--how sharded`` gives each a part of every parameter (fully_shard). At the end the
program says whether all processes have the same network. Without a GPU it runs on the CPU:

    torchrun --standalone --nproc-per-node 2 examples/several_processes.py --how sharded
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import supple


def main(argv: Sequence[str] | None = None) -> None:
    example = "example: torchrun --standalone --nproc-per-node 2 examples/several_processes.py --how sharded"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=example)
    parser.add_argument("--how", choices=["parallel", "sharded"], default="parallel", help="(%(default)s)")
    parser.add_argument("--method", choices=["SWR", "CBP"], default="SWR", help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="steps of training (%(default)s)")
    arguments = parser.parse_args(argv)

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")  # torchrun says which process this is
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device(kind, int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)

    torch.manual_seed(0)  # the same first values everywhere
    model: nn.Module = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    model.to(device)
    if arguments.how == "parallel":
        model = nn.parallel.DistributedDataParallel(model)
    else:
        fully_shard(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    # After the model was wrapped or sharded, in each process.
    if arguments.method == "SWR":
        method = supple.SWR(model, optimizer, frequency=20, factor=1e-2, seed=0).attach()
    else:
        method = supple.CBP(model, optimizer, maturity=20, replacement_rate=1e-3, seed=0).attach()

    data = torch.Generator().manual_seed(rank)  # each process has its own part of the batch
    for step in range(1, arguments.steps + 1):
        x = torch.randn(32, 20, generator=data).to(device)
        y = (x[:, (step - 1) // 50 % 20] > 0).long()  # another question every 50 steps
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if rank == 0 and step % 50 == 0:
            print(f"step {step}: loss {float(loss.detach()):.3f}", flush=True)

    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    own = torch.stack([p.detach().double().sum() for p in whole])
    networks = [torch.zeros_like(own) for _ in range(world)]
    dist.all_gather(networks, own)
    total = int(method.reinitialized.total)
    if rank == 0:
        same = all(torch.equal(own, other) for other in networks)
        print(f"{world} processes, {total} reinitialized, networks {'the same' if same else 'DIFFER'}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""How many functions of the package one due step of SWR and of CBP passes through, and in how many files.

python benchmarks/functions.py --list
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from torch import nn

import supple

SOURCE = Path(supple.__file__).parent
METHODS: dict[str, Callable[[nn.Module, torch.optim.Optimizer], supple.Method]] = {
    "SWR": lambda model, optimizer: supple.SWR(model, optimizer, frequency=1, factor=0.1),
    "CBP": lambda model, optimizer: supple.CBP(model, optimizer, maturity=1, replacement_rate=0.5),
}


def passed_through(work: Callable[[], object]) -> list[tuple[str, str]]:
    """The distinct (file, function) pairs of the package that some work calls, by file and place in it."""
    found = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        # Comprehensions are functions of their own before Python 3.12.
        if event == "call" and path.is_relative_to(SOURCE) and not frame.f_code.co_name.endswith("comp>"):
            found.add((str(path.relative_to(SOURCE)), frame.f_code.co_firstlineno, frame.f_code.co_name))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return [(file, name) for file, _, name in sorted(found)]


def due_step(name: str) -> list[tuple[str, str]]:
    """What a due step of a method passes through, after the optimizer's step of the same training step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = METHODS[name](model, optimizer)

    def train() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.rand(5, 6)), torch.arange(5) % 3).backward()
        optimizer.step()

    for _ in range(3):  # what is done only once is done, and units of CBP are old enough
        train()
        method.step()
    before = method.reinitialized.total.clone()
    train()
    found = passed_through(method.step)
    assert (method.reinitialized.total > before).all(), "nothing was due"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name them")
    options = parser.parse_args()
    for name in METHODS:
        found = due_step(name)
        print(f"{name}: {len(found)} functions in {len({file for file, _ in found})} files")
        if options.list:
            print("".join(f"  {file}: {function}\n" for file, function in found))


if __name__ == "__main__":
    main()

"""A small GPT on a changing corpus: does it go on learning, and what do SWR and CBP change?

The corpus is the source code of Python's standard library, a subject after the other: text processing, networks,
numbers and so on, round after round. In each round the bytes have new names, as if written in another alphabet, so that
what was learned in one round helps less in the next. The model predicts the next byte, and the loss of a batch is
measured before it is learned from, in bits a byte. At the end a fresh model learns the last subject alone.

    python examples/changing_text.py --rounds 3
"""

from __future__ import annotations

import argparse
import math
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import supple

SUBJECTS = {  # modules; which of them there are depends on the version of Python
    "text": "string textwrap difflib gettext shlex tokenize",
    "networks": "socket ssl smtplib ftplib socketserver ipaddress",
    "numbers": "statistics fractions random _pydecimal numbers colorsys",
    "files": "shutil tarfile zipfile tempfile pathlib glob",
    "dates": "_pydatetime datetime calendar _strptime locale sched",
    "objects": "dataclasses enum typing abc functools inspect copy",
}

CONTEXT = 64
"""How many bytes the model sees."""

Make = Callable[[nn.Module, torch.optim.Optimizer], supple.Method | None]


class Block(nn.Module):
    """Attention to what came before, and two layers for each token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attention(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).flatten(2))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class GPT(nn.Module):
    """Tokens [B, T] to logits [B, T, 256] of the next."""

    def __init__(self, width: int = 64, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def corpus(subject: str, seed: int, number: int) -> Tensor:
    """The bytes of a subject's modules, int64, renamed by a permutation that belongs to the round."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = [folder / f"{module}.py" for module in SUBJECTS[subject].split()]
    text = torch.tensor(list(b"".join(file.read_bytes() for file in files if file.exists())))
    return torch.randperm(256, generator=torch.Generator().manual_seed(1000 * seed + number))[text]


class Learner:
    """A model, its optimizer and perhaps a method."""

    def __init__(self, make: Make, arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        self.model = GPT()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=arguments.lr)
        self.method = make(self.model, self.optimizer)
        self.losses: list[float] = []  # one a subject

    def learn(self, tokens: Tensor) -> float:
        """Learns one batch [B, T + 1], and gives the loss on it before, in bits a byte."""
        logits = self.model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach()) / math.log(2)


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    example = "example: python examples/changing_text.py --rounds 5 --factor 1e-2"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=example)
    parser.add_argument("--rounds", type=int, default=3, help="how often all subjects come (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="steps a subject (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="pieces of text a step (%(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW's step size (%(default)s)")
    parser.add_argument("--frequency", type=int, default=100, help="SWR: steps between two times (%(default)s)")
    parser.add_argument("--factor", type=float, default=1e-3, help="SWR: share of the mean utility (%(default)s)")
    parser.add_argument("--maturity", type=int, default=100, help="CBP: steps a new unit is protected (%(default)s)")
    parser.add_argument("--rate", type=float, default=1e-4, help="CBP: share of units replaced a step (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of model, data and methods (%(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = read_arguments(argv)
    torch.set_num_threads(1)  # products as small as these are faster without sharing them out
    seed = arguments.seed
    makes: dict[str, Make] = {
        "plain": lambda model, optimizer: None,
        # Most bytes are in no batch, so that their rows of the embedding have a gradient of 0 and would be drawn again.
        "SWR": lambda model, optimizer: supple.SWR(
            model, optimizer, frequency=arguments.frequency, factor=arguments.factor, exclude=nn.Embedding, seed=seed
        ).attach(),
        "CBP": lambda model, optimizer: supple.CBP(
            model,
            optimizer,
            maturity=arguments.maturity,
            replacement_rate=arguments.rate,
            units=supple.units(model, torch.zeros(1, CONTEXT, dtype=torch.int64)),
            seed=seed,
        ).attach(),
    }
    learners = {name: Learner(make, arguments) for name, make in makes.items()}
    generator = torch.Generator().manual_seed(seed)
    plan = [(number, subject) for number in range(arguments.rounds) for subject in SUBJECTS]
    started = time.perf_counter()
    for place, (number, subject) in enumerate(plan, start=1):
        if place == len(plan):
            learners["fresh"] = Learner(makes["plain"], arguments)
        text = corpus(subject, seed, number)
        losses = dict.fromkeys(learners, 0.0)
        for _ in range(arguments.steps):
            starts = torch.randint(len(text) - CONTEXT, (arguments.batch, 1), generator=generator)
            tokens = text[starts + torch.arange(CONTEXT + 1)]
            for name, learner in learners.items():
                losses[name] += learner.learn(tokens) / arguments.steps
        for name, learner in learners.items():
            learner.losses.append(losses[name])
        line = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
        print(f"{place} of {len(plan)}, {subject}: {line} bits; {time.perf_counter() - started:.0f} s", flush=True)

    print("\nbits a byte, less is better\n        first round  last round  last subject  reinitialized")
    for name, learner in learners.items():
        first, last = (sum(part) / len(SUBJECTS) for part in (learner.losses[: len(SUBJECTS)], learner.losses[-6:]))
        rounds = f"{first:<13.3f}{last:<12.3f}" if name != "fresh" else f"{'-':13}{'-':12}"
        count = 0 if learner.method is None else int(learner.method.reinitialized.total)
        print(f"{name:8}{rounds}{learner.losses[-1]:<14.3f}{count}")


if __name__ == "__main__":
    main()

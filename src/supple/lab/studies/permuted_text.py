"""Text whose characters change places in each task: the next character of Python's standard library, by a small GPT.

What is learned of the language before stays true, but for which character is which. Text, network and sizes are ours.
"""

from __future__ import annotations

import string
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supple.functional import random
from supple.lab.population.problem import Problem
from supple.lab.streams import Made
from supple.lab.studies.random_labels import optimizer_named

CHARACTERS = string.printable[:-2]
"""The vocabulary; other characters of the text are left out."""

_PLACES, _WINDOWS = random.purpose("permuted text", "characters"), random.purpose("permuted text", "windows")


def make(characters: int = 2_000_000, steps: int = 1000, batch_size: int = 32, context: int = 64) -> Problem:
    """The problem, with so many first characters of the library, and so many steps a task.

    ``name`` of the optimizer is that of a class of torch.optim.
    """
    text = library(characters)
    if len(text) <= context:
        raise ValueError(f"characters is {characters}; it has to be above {context}, the context")

    def network(seed: int, width: int = 64, depth: int = 2, heads: int = 4) -> GPT:
        return GPT(len(CHARACTERS), context, width, depth, heads)

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, -2), targets.flatten())

    return Problem(
        network=network,
        optimizer=optimizer_named,
        stream=lambda seed: PermutedText(text, seed, steps, batch_size, context),
        loss=loss,
    )


def library(characters: int) -> Tensor:
    """The first characters of the modules of Python's standard library, in alphabetical order, int64 [characters]."""
    numbers = {character: number for number, character in enumerate(CHARACTERS)}
    found: list[int] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if path.name.startswith("_sysconfigdata"):  # of the machine that Python was built on
            continue
        found += [numbers[one] for one in path.read_text(encoding="utf-8", errors="ignore") if one in numbers]
        if len(found) >= characters:
            break
    return torch.tensor(found[:characters])


class PermutedText:
    """The tasks of a seed: windows of the text at random, in which characters have changed places."""

    def __init__(self, text: Tensor, seed: int, steps: int, batch_size: int, context: int) -> None:
        self._text, self._seed = text, torch.tensor([seed])
        self._steps, self._size, self._context = steps, batch_size, context

    def __getitem__(self, task: int) -> Made:
        places = random.permutation(self._seed, _PLACES, task, len(CHARACTERS))[0]
        along = torch.arange(self._context + 1)

        def batch(number: int) -> tuple[Tensor, Tensor]:
            starts = random.words(self._seed, _WINDOWS, task, self._size, number * self._size)[0]
            starts = starts % (len(self._text) - self._context)
            windows = places[self._text[starts.unsqueeze(1) + along]]
            return windows[:, :-1], windows[:, 1:]

        return Made(self._steps, batch)


class GPT(nn.Module):
    """A transformer of characters: each block normalizes what comes in, attends to what came before, and has an MLP."""

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """From tokens [B, T] to a number for each next one [B, T, vocabulary]."""
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        hidden: Tensor = self.head(self.norm(self.blocks(self.embedding(tokens) + self.positions(places))))
        return hidden


class Block(nn.Module):
    """Attention to tokens before, then an MLP with 4 width hidden units."""

    def __init__(self, width: int, heads: int, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.heads, self.activation = heads, activation
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block to [B, T, width]."""
        queries, keys, values = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(self.activation(self.up(self.norm2(x))))

"""Networks of everyday size for the benchmarks: a residual network and a transformer, with their hidden units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from supple import Consumer, Feature, Norm, Slice, UnitGroup


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Images in, images out."""
        hidden = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(hidden)) + self.shortcut(x)).relu()


class ResNet18(nn.Module):
    """ResNet-18 for 32 x 32 images: a first convolution of 3 x 3 and no pooling before the blocks.

    Args:
        width: channels of the first stage, 64 in ResNet-18.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        sizes = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 2)]
        self.blocks = nn.Sequential(
            *(block for a, b, stride in sizes for block in (Block(a, b, stride), Block(b, b, 1)))
        )
        self.head = nn.Linear(8 * width, 100)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of 100 classes."""
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))

    def units(self) -> list[UnitGroup]:
        """The channels between the two convolutions of each block."""
        groups = []
        for number, block in enumerate(self.blocks):
            name = f"blocks.{number}"
            norm = Norm(*(Slice(f"{name}.bn1.{part}") for part in ("weight", "bias", "running_mean", "running_var")))
            groups.append(
                UnitGroup(
                    name=f"{name}.conv1",
                    size=block.conv1.out_channels,
                    feature=Feature(f"{name}.conv2", "input", Slice("", dim=1)),
                    incoming=(Slice(f"{name}.conv1.weight"),),
                    consumers=(Consumer(Slice(f"{name}.conv2.weight", dim=1)),),
                    norms=(norm,),
                )
            )
        return groups


class Layer(nn.Module):
    """Attention and a multilayer perceptron, each behind a normalization."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in, tokens out."""
        parts = self.attention(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A language model on bytes in the style of GPT-2; 25 million parameters as it stands.

    Args:
        width: width of the tokens.
        depth: number of layers.
        heads: attention heads a layer.
        context: most tokens of a text.
    """

    def __init__(self, width: int = 512, depth: int = 8, heads: int = 8, context: int = 128) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(256, width), nn.Embedding(context, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the next byte at each place."""
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.norm(self.layers(self.token(x) + self.position(places))))

    def units(self) -> list[UnitGroup]:
        """The hidden units of each layer's perceptron."""
        return [
            UnitGroup(
                name=f"layers.{number}.up",
                size=layer.up.out_features,
                feature=Feature(f"layers.{number}.down", "input", Slice("", dim=-1)),
                incoming=(Slice(f"layers.{number}.up.weight"),),
                bias=(Slice(f"layers.{number}.up.bias"),),
                consumers=(Consumer(Slice(f"layers.{number}.down.weight", dim=1), f"layers.{number}.down.bias"),),
            )
            for number, layer in enumerate(self.layers)
        ]


@dataclass(frozen=True)
class Task:
    """A network and what it is trained on.

    Args:
        network: makes the network.
        batch: makes inputs and labels.
    """

    network: Callable[[], ResNet18 | Transformer]
    batch: Callable[[], tuple[Tensor, Tensor]]

    @staticmethod
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy over all labels."""
        return cross_entropy(model(x).flatten(0, -2), y.flatten())


def tasks(quick: bool) -> dict[str, Task]:
    """The two networks, or small ones of the same kind.

    Args:
        quick: whether they are small.

    Returns:
        Tasks by name.
    """
    width, images = (8, 4) if quick else (64, 32)
    small = {"width": 64, "depth": 2, "heads": 2} if quick else {}
    texts = 2 if quick else 8

    def text() -> tuple[Tensor, Tensor]:
        tokens = torch.randint(0, 256, (texts, 129))
        return tokens[:, :-1], tokens[:, 1:]

    return {
        "ResNet-18": Task(
            lambda: ResNet18(width), lambda: (torch.randn(images, 3, 32, 32), torch.randint(0, 100, (images,)))
        ),
        "transformer": Task(lambda: Transformer(**small), text),
    }

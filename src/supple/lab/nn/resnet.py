"""The residual network of class-incremental CIFAR-100."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from supple.functional.initial import Constant, Distribution, Normal
from supple.lab.nn.stacked import initialize


class ResNet(nn.Module):
    """Residual network for small images, by default ResNet-18 with 11 million parameters.

    A convolution of 3 x 3 without stride or pooling comes first; then four stages of blocks, of which the first of
    stages two to four halves height and width and doubles the channels; the output layer reads the mean over all
    places. All convolutions have biases.

    Its values are a function of the seed alone: torch's own random numbers are neither used nor moved on. Made under
    ``torch.device("meta")`` it has no values. Initial values: convolutions normal with standard deviation
    sqrt(2 / fan_in), output layer with sqrt(1 / fan_in); biases 0; scales of the normalizations 1.

    Args:
        outputs: number of outputs.
        channels: colours of an image.
        width: channels of the first stage.
        depth: blocks of each stage.
        seed: seed of the initial values, any 64-bit integer.

    Attributes:
        blocks: the blocks; ``blocks[k].activation`` puts out what block k computes between its convolutions.
        output: the linear layer that takes in the means.

    Raises:
        ValueError: if a size is not positive.

    Example:
        >>> network = ResNet(outputs=10, width=8, depth=1, seed=7)
        >>> network(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016; as changed for CIFAR-100, and with
    the initial values, of the program of Dohare et al., "Loss of plasticity in deep continual learning", Nature 632,
    2024.
    """

    parts = ("network", "head")
    """Parts that :meth:`parameters_of` knows."""

    def __init__(
        self, outputs: int = 100, *, channels: int = 3, width: int = 64, depth: int = 2, seed: int = 0
    ) -> None:
        super().__init__()
        self.sizes = {"outputs": outputs, "channels": channels, "width": width, "depth": depth}
        for name, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it has to be 1 or more")
        self.seed = seed
        device = torch.get_default_device()
        # Layers made on the meta device draw no values of their own, so torch's random numbers are not moved on.
        with torch.device("meta"):
            self.stem, self.norm = nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)
            widths = [width * 2**stage for stage in range(4) for _ in range(depth)]
            before = [width, *widths]
            self.blocks = nn.ModuleList(map(ResidualBlock, before, widths))
            self.output = nn.Linear(widths[-1], outputs)
        self.to_empty(device=device)
        forget_statistics(self)
        initialize(self, self.initial_distributions(), torch.tensor([seed], device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, channels, height, width] to [B, outputs]."""
        x = self.norm(self.stem(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.output(x.mean(dim=(2, 3)))

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from, by its name."""
        found: dict[str, Distribution] = {}
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                gain = 2 if isinstance(module, nn.Conv2d) else 1
                found[f"{name}.weight"] = Normal(0.0, math.sqrt(gain / module.weight[0].numel()))
                found[f"{name}.bias"] = Constant(0.0)
            elif isinstance(module, nn.BatchNorm2d):
                found |= {f"{name}.weight": Constant(1.0), f"{name}.bias": Constant(0.0)}
        return found

    def parameters_of(self, part: str) -> list[str]:
        """Names of the parameters of one of the :attr:`parts`."""
        return [name for name, _ in self.named_parameters() if part == "network" or name.startswith("output.")]

    def __repr__(self) -> str:
        return f"ResNet({', '.join(f'{name}={size}' for name, size in self.sizes.items())}, seed={self.seed})"


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3, added to what comes in, or to a projection of it where sizes change."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = outputs // inputs
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU()
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.shortcut = projection if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block to [B, inputs, H, W]."""
        inner = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        return (inner + self.shortcut(x)).relu()


def forget_statistics(network: nn.Module) -> None:
    """Sets the running means and variances of all batch normalizations to what they are in a fresh network."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()

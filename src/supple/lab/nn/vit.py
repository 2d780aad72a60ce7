"""The vision transformer of the study."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from supple.functional.initial import Constant, Distribution, Normal, TruncatedNormal
from supple.lab.nn.layers import Dropout
from supple.lab.nn.stacked import initialize
from supple.lab.nn.transformer import Attention, EncoderBlock, FeedForward, layer_norm
from supple.structure.description import Consumer, Excluded, Feature, Slice, UnitGroup, Units

_RESIDUAL = "its outputs are added up in a residual stream"


class ViT(nn.Module):
    """Vision transformer, by default with the sizes of the study (14 million parameters).

    An image is cut into patches; each becomes a token. A class token is put in front, and each position has a learned
    embedding. The output layer reads the class token after the last layer and a normalization.

    Its values are a function of the seed alone: torch's own random numbers are neither used nor moved on. Made under
    ``torch.device("meta")`` it has no values. Initial values: class token 0; positions normal with standard deviation
    0.02; patches truncated normal (at +-2, as ``torch.nn.init.trunc_normal_``) with sqrt(1 / fan_in); input projection
    of the attention Xavier uniform; its output projection, and weights and biases of the MLP, uniform within
    1 / sqrt(fan_in); other biases 0; output layer 0.

    Args:
        outputs: number of outputs.
        image_size: height and width of the images in pixels.
        channels: colours of an image.
        patch_size: height and width of a patch; divides ``image_size``.
        depth: number of layers.
        heads: attention heads a layer; divides ``width``.
        width: size of a token.
        hidden: hidden units of the MLP of each layer.
        dropout: probability of dropout: of tokens at the input, attention weights, hidden units, and outputs of
            attention and MLP. Its masks come from torch's own generator.
        reparameterized: the normalizations' scale is 1 + weight, so that weight decay pulls it to 1.
        seed: seed of the initial values, any 64-bit integer.

    Attributes:
        blocks: the layers; ``blocks[k].activation`` puts out the hidden units of layer k.
        output: the last linear layer, which takes in the class token.

    Raises:
        ValueError: if a size is not positive, does not divide another that it has to divide, or ``dropout`` is not from
            0 to below 1.

    Example:
        >>> network = ViT(outputs=10, image_size=8, depth=2, heads=3, width=12, hidden=24, seed=7)
        >>> network(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 10])

    Source: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, section 3.1; sizes and initial values:
    Hernandez-Garcia, Dohare, Luo and Sutton, arXiv 2508.00212.
    """

    parts = ("network", "head", "layer_norms", "attention", "mlp")
    """Parts that :meth:`parameters_of` knows."""

    def __init__(
        self,
        outputs: int = 100,
        *,
        image_size: int = 32,
        channels: int = 3,
        patch_size: int = 4,
        depth: int = 8,
        heads: int = 12,
        width: int = 384,
        hidden: int = 1536,
        dropout: float = 0.1,
        reparameterized: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"outputs": outputs, "image_size": image_size, "channels": channels, "patch_size": patch_size}
        sizes |= {"depth": depth, "heads": heads, "width": width, "hidden": hidden}
        _check(sizes, dropout)
        self.sizes, self.reparameterized, self.seed = sizes, reparameterized, seed
        device = torch.get_default_device()
        # Layers made on the meta device draw no values of their own, so torch's random numbers are not moved on.
        with torch.device("meta"):
            self.patches = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)
            self.class_token = nn.Parameter(torch.empty(1, 1, width))
            self.positions = nn.Parameter(torch.empty(1, 1 + (image_size // patch_size) ** 2, width))
            self.dropout = Dropout(dropout)
            blocks = (EncoderBlock(width, heads, hidden, dropout, reparameterized) for _ in range(depth))
            self.blocks = nn.ModuleList(blocks)
            self.norm = layer_norm(width, reparameterized)
            self.output = nn.Linear(width, outputs)
        self.to_empty(device=device)
        initialize(self, self.initial_distributions(), torch.tensor([seed], device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, channels, image_size, image_size] to [B, outputs]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token.expand(len(x), -1, -1), tokens), dim=1)
        tokens = self.dropout(tokens + self.positions)
        for block in self.blocks:
            tokens = block(tokens)
        return self.output(self.norm(tokens[:, 0]))

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from, by its name."""
        fan_in = self.patches.weight[0].numel()
        found: dict[str, Distribution] = {
            "class_token": Constant(0.0),
            "positions": Normal(0.0, 0.02),
            "patches.weight": TruncatedNormal(0.0, math.sqrt(1 / fan_in), -2.0, 2.0),
            "patches.bias": Constant(0.0),
            "output.weight": Constant(0.0),
            "output.bias": Constant(0.0),
        }
        for name, module in self.named_modules():
            if isinstance(module, Attention | FeedForward):
                found |= {f"{name}.{inner}": drawn for inner, drawn in module.initial_distributions().items()}
            elif isinstance(module, nn.LayerNorm):
                found |= {
                    f"{name}.weight": Constant(0.0 if self.reparameterized else 1.0),
                    f"{name}.bias": Constant(0.0),
                }
        return found

    def parameters_of(self, part: str) -> list[str]:
        """Names of the parameters of one of the :attr:`parts`."""
        if part == "network":
            return [name for name, _ in self.named_parameters()]
        if part == "head":
            return [f"output.{name}" for name, _ in self.output.named_parameters()]
        kinds: dict[str, type[nn.Module]] = {"layer_norms": nn.LayerNorm, "attention": Attention, "mlp": FeedForward}
        return [
            f"{path}.{name}"
            for path, module in self.named_modules()
            if isinstance(module, kinds[part])
            for name, _ in module.named_parameters()
        ]

    def hidden_units(self) -> Units:
        """The hidden units of the MLPs, a group a layer; layers left out are in its ``excluded``."""
        groups = []
        excluded = [Excluded("patches", _RESIDUAL)]
        for k in range(len(self.blocks)):
            mlp = f"blocks.{k}.mlp"
            groups.append(
                UnitGroup(
                    name=f"{mlp}.linear1",
                    size=self.sizes["hidden"],
                    feature=Feature(f"{mlp}.linear2", "input", Slice("", dim=-1)),
                    incoming=(Slice(f"{mlp}.linear1.weight"),),
                    bias=(Slice(f"{mlp}.linear1.bias"),),
                    consumers=(Consumer(Slice(f"{mlp}.linear2.weight", dim=1), f"{mlp}.linear2.bias"),),
                )
            )
            excluded += [
                Excluded(f"blocks.{k}.attention.in_projection", "they go into attention"),
                Excluded(f"blocks.{k}.attention.out_projection", _RESIDUAL),
                Excluded(f"{mlp}.linear2", _RESIDUAL),
            ]
        return Units(groups, excluded)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        reparameterized = ", reparameterized=True" if self.reparameterized else ""
        return f"ViT({options}, dropout={self.dropout.p:g}{reparameterized}, seed={self.seed})"


def _check(sizes: dict[str, int], dropout: float) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it has to be 1 or more")
    for part, whole in (("patch_size", "image_size"), ("heads", "width")):
        if sizes[whole] % sizes[part]:
            raise ValueError(
                f"{part} is {sizes[part]}, which does not divide {whole}, {sizes[whole]}; choose one that does"
            )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it has to be at least 0 and below 1")

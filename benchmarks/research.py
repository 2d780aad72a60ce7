"""Class-incremental training of a vision transformer as research code is written: the contender of ``incremental.py``.

Images are augmented one by one in the workers of a ``DataLoader``, with the tensor operations that torchvision's
transforms do (torchvision itself is not needed); the loop is eager and reads its metrics at every step; the network is
made of ``torch.nn.TransformerEncoderLayer``. It is a lean one: images are tensors already, and nothing is decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from supple.lab.data.augmentation import CIFAR100_MEAN, CIFAR100_STD
from supple.lab.streams import ClassIncrementalStream
from supple.lab.streams.class_incremental import Part


def to_tensor(image: Tensor) -> Tensor:
    """``ToTensor`` and ``Normalize``: uint8 [C, H, W] to float32."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (CIFAR100_MEAN, CIFAR100_STD))
    return image.float().div(255).sub_(mean).div_(std)


def augment(image: Tensor, numbers: Tensor) -> Tensor:
    """``RandomHorizontalFlip``, ``RandomCrop(32, padding=4, padding_mode="reflect")`` and ``RandomRotation((0, 15))``.

    Args:
        image: float32 [C, H, W].
        numbers: [4], uniform from 0 to 1: for flip, top and left of the crop, and angle.

    Returns:
        Same shape.
    """
    flip, top, left, turn = numbers.tolist()
    if flip < 0.5:
        image = image.flip(-1)
    height, width = image.shape[1:]
    image = nn.functional.pad(image, (4, 4, 4, 4), mode="reflect")
    image = image[:, int(top * 9) :, int(left * 9) :][:, :height, :width]
    angle = torch.deg2rad(torch.tensor(15 * turn))
    sine, cosine, zero = angle.sin(), angle.cos(), torch.zeros(())
    turned = torch.stack((cosine, -sine, zero, sine, cosine, zero)).view(1, 2, 3)
    grid = nn.functional.affine_grid(turned, [1, *image.shape], align_corners=False)
    return nn.functional.grid_sample(image[None], grid, mode="nearest", align_corners=False)[0]


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images for a ``DataLoader``.

    Args:
        part: images and labels.
        training: whether they are augmented.
    """

    def __init__(self, part: Part, training: bool) -> None:
        self.images, self.labels, self.training = part.images.cpu(), part.labels.cpu(), training

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = to_tensor(self.images[index])
        return augment(image, torch.rand(4)) if self.training else image, self.labels[index]


class TorchViT(nn.Module):
    """The network of :class:`supple.lab.nn.ViT`, of torch's own layers.

    Args:
        outputs: number of outputs.
        image_size: height and width of the images in pixels.
        channels: colours of an image.
        patch_size: height and width of a patch.
        depth: number of layers.
        heads: attention heads a layer.
        width: size of a token.
        hidden: hidden units of the MLP of each layer.
        dropout: probability of dropout.
    """

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
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + (image_size // patch_size) ** 2, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            width, heads, hidden, dropout, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.output = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, channels, image_size, image_size] to [B, outputs]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token.expand(len(x), -1, -1), tokens), dim=1)
        return self.output(self.norm(self.encoder(self.dropout(tokens + self.positions))[:, 0]))


class PlainLoop:
    """Trains and evaluates epoch by epoch, at the settings of the study.

    Args:
        network: what is trained, on its device.
        stream: where the images are from; its first addition is trained.
        workers: processes that make the batches.
        synchronize: waits for the device.
    """

    def __init__(
        self, network: nn.Module, stream: ClassIncrementalStream, workers: int, synchronize: Callable[[], object]
    ) -> None:
        self.network, self.synchronize = network, synchronize
        self.device = stream.training.images.device
        self.classes = stream.sizes[0]
        self.steps = stream.steps(0)
        seen = [part.of(0, self.classes) for part in (stream.training, stream.validation, stream.test)]
        self.images = Images(seen[0], training=True)
        options = {"num_workers": workers, "persistent_workers": workers > 0}
        self.loader = DataLoader(self.images, stream.batch_size, shuffle=True, drop_last=True, **options)
        self.held_out = [
            DataLoader(Images(part, training=False), size, **options)
            for part, size in zip(seen[1:], (50, 100), strict=True)
        ]
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, 0.01, self.steps * stream.epochs_each, anneal_strategy="linear", cycle_momentum=False
        )

    def epoch(self) -> tuple[float, float]:
        """Trains for an epoch and evaluates.

        Returns:
            Seconds of training, and of evaluation.
        """
        start = time.perf_counter()
        self.train()
        self.synchronize()
        middle = time.perf_counter()
        for loader in self.held_out:
            self.evaluate(loader)
        return middle - start, time.perf_counter() - middle

    def train(self) -> tuple[float, float]:
        """One epoch; mean loss and accuracy."""
        self.network.train()
        total, right = 0.0, 0
        for x, y in self.loader:
            x, y = x.to(self.device), y.to(self.device)
            for group in self.optimizer.param_groups:
                group["weight_decay"] = 2e-6 / group["lr"]
            self.optimizer.zero_grad()
            outputs = self.network(x)[:, : self.classes]
            loss = nn.functional.cross_entropy(outputs, y)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item()
            right += (outputs.argmax(dim=1) == y).sum().item()
        return total / self.steps, right / (self.steps * self.loader.batch_size)

    @torch.no_grad()
    def evaluate(self, loader: DataLoader[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Mean loss and accuracy on images as they are."""
        self.network.eval()
        total, right, count = 0.0, 0, 0
        for x, y in loader:
            x, y = x.to(self.device), y.to(self.device)
            outputs = self.network(x)[:, : self.classes]
            total += nn.functional.cross_entropy(outputs, y, reduction="sum").item()
            right += (outputs.argmax(dim=1) == y).sum().item()
            count += len(y)
        return total / count, right / count

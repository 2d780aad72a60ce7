"""Whether a network, its optimizer, a stream and a method belong together."""

from __future__ import annotations

import torch

from supple.lab.nn import ViT
from supple.lab.streams.incremental import ClassIncrementalStream
from supple.methods import Method


def check_together(
    network: ViT,
    optimizer: torch.optim.Optimizer,
    stream: ClassIncrementalStream,
    method: Method | None,
) -> None:
    """Refuses what cannot be trained together.

    Args:
        network: the network.
        optimizer: has to hold all its parameters, and to have a weight decay, which has to be 0.
        stream: has to give images that the network takes, on its device, of at most as many classes as it has outputs.
        method: has to be made for the network; None is fine.

    Raises:
        ValueError: if they do not fit; the message says which and why.
    """
    sizes, images = network.sizes, stream.training.images
    if images.shape[1:] != (sizes["channels"], sizes["image_size"], sizes["image_size"]):
        raise ValueError(
            f"the network has channels={sizes['channels']} and image_size={sizes['image_size']}, but images of "
            f"{stream.name} are {' x '.join(map(str, images.shape[1:]))}"
        )
    if sizes["outputs"] < stream.sizes[-1]:
        raise ValueError(f"the network has {sizes['outputs']} outputs, but {stream.sizes[-1]} classes will come")
    if network.positions.device != images.device:
        raise ValueError(f"the network is on {network.positions.device}, the stream on {images.device}")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not all(id(parameter) in held for parameter in network.parameters()):
        raise ValueError("the optimizer does not hold all parameters of the network")
    for group in optimizer.param_groups:
        if "weight_decay" not in group or group["weight_decay"]:
            raise ValueError(
                f"{type(optimizer).__name__} has to have a weight decay, and it has to be 0: give weight_decay to "
                "IncrementalTraining, which divides it by the step size of the moment"
            )
    if method is not None and method.model is not network:
        raise ValueError(f"{method!r} was made for another network")

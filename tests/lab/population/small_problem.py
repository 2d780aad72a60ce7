"""A small class-incremental problem and everything to train on it."""

import torch

import supple
from supple.lab.data import LabelledImages
from supple.lab.data.augmentation import Augmentation
from supple.lab.nn import ViT
from supple.lab.population.class_incremental import ClassIncrementalTraining
from supple.lab.streams import ClassIncrementalStream

CLASSES = 6

METHODS = {
    "base": lambda network, optimizer: None,
    "swr": lambda network, optimizer: supple.SWR(network, optimizer, frequency=3, factor=0.05),
    "cbp": lambda network, optimizer: supple.CBP(network, optimizer, maturity=2, replacement_rate=0.05),
    "redo": lambda network, optimizer: supple.ReDo(network, optimizer, frequency=4, threshold=0.5),
    "shrink and perturb": lambda network, optimizer: supple.ShrinkAndPerturb(network, l2=1e-4, variance=1e-6),
    "chain": lambda network, optimizer: supple.chain(
        supple.L2(network, l2=1e-3),
        supple.SWR(network, optimizer, frequency=2, factor=0.01, optimizer_state="fresh", decay=0.5),
    ),
}


def images(count=60, seed=0):
    """Each class has a bright square in its own place, in noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 120, (count, 8, 8), generator=generator)
    labels = torch.arange(count) % CLASSES
    for picture, label in zip(pixels, labels.tolist(), strict=True):
        top, left = 4 * (label // 3), 3 * (label % 3)
        picture[top : top + 3, left : left + 2] += 130
    return LabelledImages(pixels.to(torch.uint8), labels, CLASSES, "squares")


def stream(**options):
    settings = {"first": 2, "step": 2, "epochs": 2, "validation": 2, "batch_size": 5}
    augmentation = Augmentation((0.3,), (0.2,), flip=0.0, padding=1, degrees=(0.0, 10.0))
    return ClassIncrementalStream(
        images(), images(30, seed=1), **{"seed": 3, "augmentation": augmentation, **settings, **options}
    )


def network(**options):
    sizes = {"image_size": 8, "channels": 1, "depth": 2, "heads": 2, "width": 12, "hidden": 16, "seed": 5}
    return ViT(CLASSES, **{**sizes, **options})


def training(method="base", *, lr=0.05, data=None, dropout=0.1, reparameterized=False, on="cpu", **options):
    net = network(dropout=dropout, reparameterized=reparameterized).to(on)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    return ClassIncrementalTraining(
        net, optimizer, data or stream(device=on), METHODS[method](net, optimizer), **{"weight_decay": 1e-6, **options}
    )


def whole_run(run):
    return [run.train_epoch(epoch) for epoch in range(run.epoch, run.stream.epochs)]

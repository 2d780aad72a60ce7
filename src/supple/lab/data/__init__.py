"""Data sets: finding or downloading their files, and reading them."""

from supple.lab.data.augmentation import Augmentation, channel_statistics
from supple.lab.data.fetching import DataSetState, FileState, cache_folder, fetch, state, states
from supple.lab.data.formats import read_idx
from supple.lab.data.images import LabelledImages
from supple.lab.data.loading import NAMES, cifar10, cifar100, fashion_mnist, load, mnist, mnist10k, read_labelled_images
from supple.lab.data.sources import DATA_SETS, DataSet

__all__ = [
    "DATA_SETS",
    "NAMES",
    "Augmentation",
    "DataSet",
    "DataSetState",
    "FileState",
    "LabelledImages",
    "cache_folder",
    "channel_statistics",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "fetch",
    "load",
    "mnist",
    "mnist10k",
    "read_idx",
    "read_labelled_images",
    "state",
    "states",
]

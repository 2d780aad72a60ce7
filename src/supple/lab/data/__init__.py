"""Data sets: finding or downloading their files, and reading them."""

from supple.lab.data.augmentation import Augmentation
from supple.lab.data.fetching import fetch, state, states
from supple.lab.data.loading import NAMES, LabelledImages, load, mnist10k, read_labelled_images
from supple.lab.data.sources import DATA_SETS, DataSet

__all__ = [
    "DATA_SETS",
    "NAMES",
    "Augmentation",
    "DataSet",
    "LabelledImages",
    "fetch",
    "load",
    "mnist10k",
    "read_labelled_images",
    "state",
    "states",
]

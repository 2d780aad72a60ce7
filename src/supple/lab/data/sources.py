"""Where data sets come from, and how their files are told to be the right ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One gzip-compressed tar archive that holds all files of a data set in a folder; its MD5 is for downloads."""

    name: str
    md5: str
    folder: str


@dataclass(frozen=True)
class DataSet:
    """A data set of files that can be fetched.

    ``shape`` is (colours, height, width) of an image, ``counts`` are the images for training and for test. ``digests``
    are, for each file without ".gz", the SHA-256 of its uncompressed content, which does not differ from mirror to
    mirror. ``mirrors``, which have to be https, are tried in this order; ``folders`` are where other programs put the
    files.
    """

    name: str
    title: str
    licence: str
    shape: tuple[int, int, int]
    classes: int
    counts: tuple[int, int]
    digests: Mapping[str, str]
    mirrors: tuple[str, ...]
    folders: tuple[str, ...] = ()
    reference: str = ""
    archive: Archive | None = None

    @property
    def largest(self) -> int:
        """Bytes that no file of it has, uncompressed; more are not read of what claims to be one."""
        return self._room(max(self.counts))

    @property
    def whole(self) -> int:
        """Bytes that all of its files together do not have, uncompressed."""
        return self._room(sum(self.counts))

    def _room(self, images: int) -> int:
        # An image has up to two labels; headers and the like take little.
        return images * (math.prod(self.shape) + 2) + (1 << 20)


_MNIST = DataSet(
    name="mnist",
    title="MNIST",
    licence="CC BY-SA 3.0",
    shape=(1, 28, 28),
    classes=10,
    counts=(60_000, 10_000),
    digests={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    folders=("MNIST/raw", "MNIST"),
    reference="LeCun, Bottou, Bengio and Haffner, Proceedings of the IEEE 86(11), 1998",
)

_FASHION_MNIST = DataSet(
    name="fashion_mnist",
    title="Fashion-MNIST",
    licence="MIT",
    shape=(1, 28, 28),
    classes=10,
    counts=(60_000, 10_000),
    digests={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    folders=("FashionMNIST/raw", "FashionMNIST", "fashion-mnist"),
    reference="Xiao, Rasul and Vollgraf, arXiv 1708.07747, 2017",
)

# The authors publish the MD5 of each archive. The SHA-256 of the files inside are those that another library
# (torchvision for Ruby) checks.
_CIFAR10 = DataSet(
    name="cifar10",
    title="CIFAR-10",
    licence="licence not stated",
    shape=(3, 32, 32),
    classes=10,
    counts=(50_000, 10_000),
    digests={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    folders=("cifar-10-batches-bin",),
    reference="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
    archive=Archive("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin"),
)

_CIFAR100 = DataSet(
    name="cifar100",
    title="CIFAR-100",
    licence="licence not stated",
    shape=(3, 32, 32),
    classes=100,
    counts=(50_000, 10_000),
    digests={
        "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
    },
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    folders=("cifar-100-binary",),
    reference="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
    archive=Archive("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary"),
)

DATA_SETS: dict[str, DataSet] = {source.name: source for source in (_MNIST, _FASHION_MNIST, _CIFAR10, _CIFAR100)}
"""The data sets that can be fetched, by name."""


def data_set(name: str) -> DataSet:
    """The data set of a name; a ValueError lists those there are."""
    if name not in DATA_SETS:
        raise ValueError(
            f"no data set is called {name!r}; there are {', '.join(DATA_SETS)}, and mnist10k, which is part of supple "
            "and needs no fetching"
        )
    return DATA_SETS[name]

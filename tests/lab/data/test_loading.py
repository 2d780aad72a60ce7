"""The shipped subset against what is known of MNIST; loaders against files written here."""

import gzip
import hashlib
import importlib
import struct
from dataclasses import replace

import pytest
import torch

from supple.lab import data
from supple.lab.data.sources import DATA_SETS


def idx(shape, values):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(values)


def write_set(folder, part="train", count=4, labels=(0, 1, 2, 3), size=(2, 3)):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = [i % 251 for i in range(count * size[0] * size[1])]
    (folder / f"{part}-images-idx3-ubyte").write_bytes(idx((count, *size), pixels))
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx((len(labels),), labels)))
    return torch.tensor(pixels).view(count, *size)


def test_mnist10k_is_the_start_of_mnist():
    images = data.mnist10k()
    assert images.images.shape == (10_000, 28, 28)
    assert images.images.dtype == torch.uint8
    assert images.labels.dtype == torch.int64
    assert images.classes == 10
    # The first training digits, as everywhere in print, and how often each digit is among the first 10,000.
    assert images.labels[:20].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7, 2, 8, 6, 9]
    assert images.labels.bincount().tolist() == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]


def test_mnist10k_files_are_small_and_have_the_digests_of_their_attribution():
    folder = importlib.resources.files("supple.lab.data") / "mnist10k"
    text = (folder / "ATTRIBUTION.md").read_text()
    images = data.mnist10k()
    contents = [
        struct.pack(">IIII", 0x803, 10_000, 28, 28) + images.images.numpy().tobytes(),
        struct.pack(">II", 0x801, 10_000) + images.labels.to(torch.uint8).numpy().tobytes(),
    ]
    for content in contents:
        assert hashlib.sha256(content).hexdigest() in text
    for words in ("Yann LeCun", "Corinna Cortes", "Attribution-Share Alike 3.0", "subset"):
        assert words in text
    assert sum(len((folder / f"{kind}-ubyte.xz").read_bytes()) for kind in ("images-idx3", "labels-idx1")) < 1_700_000


def test_mnist10k_agrees_with_mnist_where_mnist_is_at_hand():
    try:
        if not data.state("mnist").verified:
            pytest.skip("MNIST is not in the cache")
    except ModuleNotFoundError:
        pytest.skip("there is no cache without pooch")
    whole, part = data.load("mnist"), data.mnist10k()
    assert len(whole) == 60_000
    assert torch.equal(whole.images[:10_000], part.images)
    assert torch.equal(whole.labels[:10_000], part.labels)
    assert len(data.load("mnist", train=False)) == 10_000


@pytest.mark.parametrize(("name", "folder"), [("mnist", "mnist"), ("fashion_mnist", "FashionMNIST/raw")])
@pytest.mark.parametrize(("train", "part"), [(True, "train"), (False, "t10k")])
def test_own_data_in_the_files_of_mnist(tmp_path, name, folder, train, part):
    expected = write_set(tmp_path / folder, part)
    images = data.load(name, tmp_path, train, verify=False)
    assert torch.equal(images.images, expected.to(torch.uint8))
    assert images.labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no-verify"):
        data.load(name, tmp_path, train)


def test_load_by_name(tmp_path):
    write_set(tmp_path)
    assert data.load("mnist", tmp_path, verify=False).name == "mnist"
    assert data.load("fashion_mnist", tmp_path, verify=False).name == "fashion_mnist"
    assert data.load("mnist10k").name == "mnist10k"
    with pytest.raises(ValueError, match="no test images"):
        data.load("mnist10k", train=False)
    with pytest.raises(ValueError, match=r"--no-verify.*--data-dir"):
        data.load("mnist10k", verify=False)
    with pytest.raises(ValueError, match="in no folder: leave data_dir out"):
        data.load("mnist10k", tmp_path)
    with pytest.raises(ValueError, match="'cifar'; there are mnist, fashion_mnist, cifar10, cifar100, and mnist10k"):
        data.load("cifar")
    assert set(data.NAMES) == {*DATA_SETS, "mnist10k"}


def test_counts_that_disagree_name_both_files(tmp_path):
    write_set(tmp_path, count=4, labels=(0, 1, 2))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte holds 4 .*train-labels-idx1-ubyte\.gz holds 3"):
        data.load("mnist", tmp_path, verify=False)


def test_labels_out_of_range(tmp_path):
    write_set(tmp_path, labels=(0, 1, 10, 3))
    with pytest.raises(ValueError, match=r"labels-idx1-ubyte\.gz holds label 10.*from 0 to 9"):
        data.load("mnist", tmp_path, verify=False)
    files = (tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte.gz")
    images = data.read_labelled_images(*files, classes=11, name="mine")
    assert (images.classes, images.name, len(images)) == (11, "mine", 4)


def test_files_taken_for_one_another(tmp_path):
    write_set(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte.gz"
    with pytest.raises(ValueError, match=r"labels-idx1-ubyte.*has to be uint8 \[N, H, W\]"):
        data.read_labelled_images(labels, images, classes=10, name="mine")


GOOD = data.LabelledImages(torch.zeros(3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2]), 3, "mine")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(3, 2, 2)}, TypeError, r"mine: .*torch\.float32.*have to be torch\.uint8"),
        ({"labels": torch.zeros(3)}, TypeError, r"labels torch\.float32"),
        ({"images": torch.zeros(3, 4, dtype=torch.uint8)}, ValueError, r"shape \(3, 4\)"),
        ({"images": torch.zeros(2, 2, 2, dtype=torch.uint8)}, ValueError, "2 images but 3 labels"),
        ({"classes": 2}, ValueError, "from 0 to 2.*classes=2.*from 0 to 1"),
        ({"labels": torch.tensor([0, -1, 2])}, ValueError, "from -1 to 2"),
    ],
)
def test_labelled_images_that_do_not_fit(change, error, message):
    with pytest.raises(error, match=message):
        replace(GOOD, **change)


def test_labelled_images_says_what_it_is():
    assert repr(GOOD) == "LabelledImages(mine: 3 images of 2 x 2, 3 classes)"
    colour = replace(GOOD, images=torch.zeros(3, 3, 4, 5, dtype=torch.uint8))
    assert repr(colour) == "LabelledImages(mine: 3 images of 3 x 4 x 5, 3 classes)"

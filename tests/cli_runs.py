"""What the tests of the command line share."""

import csv
import gzip
import re
import struct

import numpy as np
from typer.testing import CliRunner

from supple.lab import commands, data


def run(*arguments):
    return CliRunner().invoke(commands.app, [str(argument) for argument in arguments])


def words(result):
    """What was printed, without the frames and line breaks of the terminal."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


def write_images(folder):
    """Writes 240 images of 8 x 8 in the files of MNIST."""
    whole = data.mnist10k()
    pixels, labels = whole.images[:240, 4:28:3, 4:28:3].numpy(), whole.labels[:240].numpy().astype(np.uint8)
    images = struct.pack(">HBBIII", 0, 8, 3, *pixels.shape) + pixels.tobytes()
    (folder / "train-images-idx3-ubyte").write_bytes(images)
    packed = gzip.compress(struct.pack(">HBBI", 0, 8, 1, len(labels)) + labels.tobytes())
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(packed)
    return folder


def read(out):
    """The rows of a demo's results."""
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))

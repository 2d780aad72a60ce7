"""Augmentation of batches against one image at a time, in steps, with loops; and against torch's grid sampling."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from supple.functional import random
from supple.lab.data.augmentation import Augmentation, channel_statistics

MEAN, STD = (0.3, 0.5, 0.6), (0.2, 0.3, 0.25)
FULL = Augmentation(MEAN, STD, padding=3, degrees=(0.0, 15.0))


def batch(count=12, height=9, width=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def normalized(image):
    """float64 [C, H, W]."""
    return (image.numpy() / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]


def rotated(image, degrees):
    """Counterclockwise as seen, with the nearest pixel, half to even, and 0 outside."""
    _, height, width = image.shape
    turn = math.radians(degrees)
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            # Right and up of the middle, as in a drawing; what is here stood where a clockwise turn takes it.
            right, up = column - (width - 1) / 2, (height - 1) / 2 - row
            from_right = math.cos(turn) * right + math.sin(turn) * up
            from_up = -math.sin(turn) * right + math.cos(turn) * up
            source_column, source_row = round(from_right + (width - 1) / 2), round((height - 1) / 2 - from_up)
            if 0 <= source_column < width and 0 <= source_row < height:
                out[:, row, column] = image[:, source_row, source_column]
    return out


def one_at_a_time(image, numbers, augmentation):
    flip, top, left, turn = numbers.tolist()
    padding, (low, high) = augmentation.padding, augmentation.degrees
    out = normalized(image)
    if flip < augmentation.flip:
        out = out[:, :, ::-1]
    _, height, width = out.shape
    padded = np.pad(out, ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    top, left = math.floor(top * (2 * padding + 1)), math.floor(left * (2 * padding + 1))
    return rotated(padded[:, top : top + height, left : left + width], low + turn * (high - low))


@pytest.mark.parametrize(
    "augmentation",
    [
        FULL,
        Augmentation(MEAN, STD, padding=0, degrees=(0.0, 0.0)),
        Augmentation(MEAN, STD, flip=0.0, padding=7, degrees=(0.0, 0.0)),
        Augmentation(MEAN, STD, flip=1.0, padding=0, degrees=(-180.0, 180.0)),
    ],
    ids=["all", "flip", "crop", "rotation"],
)
def test_a_batch_is_its_images_one_at_a_time(augmentation):
    images = batch()
    numbers = augmentation.numbers(torch.tensor([5]), 3, len(images))
    expected = [one_at_a_time(image, row, augmentation) for image, row in zip(images, numbers, strict=True)]
    found = augmentation(images, numbers)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(np.array(expected)).float(), rtol=1e-5, atol=1e-6)


def test_a_quarter_turn_is_counterclockwise():
    image = torch.tensor([[0, 255], [0, 0]], dtype=torch.uint8).view(1, 1, 2, 2)
    turn = Augmentation((0.0,), (1.0,), flip=0.0, padding=0, degrees=(90.0, 90.0))
    assert turn(image, torch.full((1, 4), 0.5)).tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


def test_rotation_is_that_of_grid_sampling():
    """What torchvision does: sampling at affine coordinates in float32."""
    images = batch(count=20, height=32, width=32)
    turn = Augmentation(MEAN, STD, flip=0.0, padding=0)
    numbers = turn.numbers(torch.tensor([9]), 0, 20)
    grids = []
    for number in numbers[:, 3].tolist():
        angle = math.radians(15 * number)
        turned = torch.tensor([[[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]])
        grids.append(torch.nn.functional.affine_grid(turned, [1, 1, 32, 32], align_corners=False))
    expected = grid_sample(turn.normalize(images), torch.cat(grids), mode="nearest", align_corners=False)
    differing = (turn(images, numbers) - expected).abs().amax(dim=1) > 1e-6
    # In float32 a few pixels lie so near the border of two that the other is taken.
    assert differing.float().mean() < 1e-3


def test_numbers_are_a_function_of_seed_epoch_and_image():
    seed = torch.tensor([2**40 + 3])
    whole = FULL.numbers(seed, 5, 50)
    assert torch.equal(FULL.numbers(seed, 5, 20), whole[:20])
    index = torch.arange(4 * 7, 4 * 7 + 4)
    assert torch.equal(random.uniform_at(seed, random.purpose("augmentation"), 5, index), whole[7])
    for other in (FULL.numbers(seed + 1, 5, 50), FULL.numbers(seed, 6, 50)):
        assert not (other == whole).any(dim=0).all()
    images = batch()
    some = torch.tensor([4, 1, 9])
    assert torch.equal(FULL(images, whole[:12])[some], FULL(images[some], whole[some]))


def test_every_outcome_is_as_likely_as_stated():
    augmentation = Augmentation((0.0,), (1.0,), flip=0.25, padding=2, degrees=(0.0, 0.0))
    position = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    count = 20_000
    found = augmentation(position.expand(count, -1, -1, -1), augmentation.numbers(torch.tensor([0]), 0, count)) * 255
    # Two neighbours in the middle, which no reflection reaches, tell where the crop lies and whether it is flipped.
    here, right = found[:, 0, 4, 3].round().long(), found[:, 0, 4, 4].round().long()
    flipped = right < here
    assert abs(flipped.float().mean() - 0.25) < 0.02
    top = here // 8 - 4 + 2
    left = torch.where(flipped, 7 - here % 8, here % 8) - 3 + 2
    shares = (top * 5 + left).bincount(minlength=25) / count
    assert len(shares) == 25
    assert (shares - 1 / 25).abs().max() < 0.01


def test_statistics_of_colours():
    images = batch(30)
    mean, std = channel_statistics(images)
    values = images.double().transpose(0, 1).flatten(1) / 255
    torch.testing.assert_close(torch.tensor(mean), values.mean(dim=1).float())
    torch.testing.assert_close(torch.tensor(std), values.std(dim=1, correction=0).float())
    out = Augmentation(mean, std).normalize(images).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.std(dim=1, correction=0), torch.ones(3).double())


def test_without_changes():
    images, plain = batch(), replace(FULL, flip=0.0, padding=0, degrees=(0.0, 0.0))
    assert torch.equal(plain(images, plain.numbers(torch.tensor([1]), 0, 12)), FULL.normalize(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": (0.1, 0.0, 0.1)}, "those of std above 0"),
        ({"mean": (0.1,)}, "a number a colour"),
        ({"flip": 1.5}, r"flip is 1\.5; it is a probability"),
        ({"padding": -1}, "padding is -1"),
        ({"degrees": (5.0, 1.0)}, "the first bound may not be above the second"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**{"mean": MEAN, "std": STD, **change})


def test_images_that_do_not_fit():
    numbers = FULL.numbers(torch.tensor([0]), 0, 2)
    with pytest.raises(ValueError, match="padding is 3; images of 3 x 9 can be padded by fewer"):
        FULL(torch.zeros(2, 3, 3, 9, dtype=torch.uint8), numbers)
    with pytest.raises(ValueError, match="images have 1 colours, but the augmentation has 3 means"):
        FULL(torch.zeros(2, 1, 9, 9, dtype=torch.uint8), numbers)

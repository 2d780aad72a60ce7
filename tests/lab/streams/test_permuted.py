"""The stream against loops over images and pixels, and its properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supple.functional.random import permutation, purpose
from supple.lab.data import LabelledImages
from supple.lab.streams import PermutedStream


def make(count=23, height=5, width=4, classes=7):
    """Images that differ in every pixel as far as bytes allow, made without torch's generator."""
    generator = np.random.default_rng(count * 100 + height * 10 + width)
    images = generator.integers(0, 256, (count, height, width), dtype=np.uint8)
    labels = generator.integers(0, classes, count)
    return LabelledImages(torch.from_numpy(images), torch.from_numpy(labels), classes, "toy")


def numbered(count, size):
    """Image n has n in every pixel, so that a batch tells which images it holds."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None].expand(count, *size).contiguous()
    return LabelledImages(images, torch.arange(count), count, "numbered")


def slow_batch(data, seed, task, index, batch_size):
    """One image and one pixel at a time, as the problem is defined."""
    count, height, width = data.images.shape
    one = torch.tensor([seed])
    pixels = permutation(one, purpose("permuted", "pixels"), task, height * width)[0].tolist()
    order = permutation(one, purpose("permuted", "examples"), task, count)[0].tolist()
    x, y = [], []
    for position in range(index * batch_size, (index + 1) * batch_size):
        image = data.images[order[position]].tolist()
        x.append([np.float32(image[pixel // width][pixel % width]) / np.float32(255) for pixel in pixels])
        y.append(int(data.labels[order[position]]))
    return x, y


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
    task=st.integers(0, 2**32 - 1),
    count=st.integers(1, 12),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    data=st.data(),
)
def test_agrees_with_loops(seeds, task, count, height, width, data):
    images = make(count, height, width)
    batch_size = data.draw(st.integers(1, count))
    part = PermutedStream(images, seeds, batch_size).task(task)
    assert len(part) == part.steps == count // batch_size
    for index in range(len(part)):
        x, y = part.batch(index)
        assert x.shape == (len(seeds), batch_size, height * width)
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        for row, seed in enumerate(seeds):
            slow_x, slow_y = slow_batch(images, seed, task, index, batch_size)
            assert x[row].tolist() == slow_x
            assert y[row].tolist() == slow_y


def test_permutations_are_permutations_and_differ():
    stream = PermutedStream(make(count=50, height=7, width=3), seeds=[0, 1, 2])
    seen_pixels, seen_orders = set(), set()
    for task in map(stream.task, range(20)):
        for row in task.pixels.tolist():
            assert sorted(row) == list(range(21))
            seen_pixels.add(tuple(row))
        for row in task.order.tolist():
            assert sorted(row) == list(range(50))
            seen_orders.add(tuple(row))
    assert len(seen_pixels) == len(seen_orders) == 60


def test_each_pixel_goes_everywhere_equally_often():
    # Pearson's statistic of where the first pixel comes from over 4,000 tasks; 15 degrees of freedom, p = 1e-6 at 56.5.
    stream = PermutedStream(make(count=1, height=4, width=4), seeds=range(40), batch_size=1)
    first = torch.cat([task.pixels[:, 0] for task in map(stream.task, range(100))])
    counts = first.bincount(minlength=16).double()
    assert ((counts - 250) ** 2 / 250).sum() < 56.5


def test_every_image_once_a_task():
    stream = PermutedStream(numbered(60, (3, 3)), seeds=[5, 6], batch_size=12)
    for task in map(stream.task, range(3, 6)):
        labels = torch.cat([y for _, y in task], dim=1)
        shown = torch.cat([x for x, _ in task], dim=1)
        for row in range(2):
            assert sorted(labels[row].tolist()) == list(range(60))
        # Image and label stay together.
        assert torch.equal((shown * 255).round().long(), labels[:, :, None].expand(2, 60, 9))


def test_a_last_incomplete_batch_is_dropped():
    task = PermutedStream(numbered(23, (2, 2)), seeds=[0], batch_size=5).task(0)
    assert len(task) == 4
    labels = torch.cat([y for _, y in task], dim=1)[0].tolist()
    assert len(set(labels)) == 20
    assert labels == task.order[0, :20].tolist()
    for index in (4, -1):
        with pytest.raises(IndexError, match=rf"batch {index} of a task of 4 steps.*0 to 3"):
            task.batch(index)


def test_alone_among_others_and_again():
    images = make()
    among = PermutedStream(images, [3, 11, 2**40, 3], batch_size=4)
    for row, seed in enumerate(among.seeds.tolist()):
        alone = PermutedStream(images, torch.tensor([seed]), batch_size=4)
        for task in (0, 7, 2**32 - 1):
            for index in (4, 0):
                x, y = among.task(task).batch(index)
                x_alone, y_alone = alone.task(task).batch(index)
                assert torch.equal(x[row], x_alone[0])
                assert torch.equal(y[row], y_alone[0])


def test_torch_generator_is_neither_used_nor_moved():
    before = torch.random.get_rng_state()
    stream = PermutedStream(make(), [1], batch_size=4)
    first = stream.task(2).batch(1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(12345)
    assert torch.equal(first[0], stream.task(2).batch(1)[0])


def test_images_are_those_of_the_data_set_with_their_pixels_permuted():
    images = make()
    task = PermutedStream(images, [9], batch_size=23).task(0)
    x, y = task.batch(0)
    for row, number in enumerate(task.order[0].tolist()):
        assert torch.equal(x[0, row], images.images[number].flatten()[task.pixels[0]].float() / 255)
        assert y[0, row] == images.labels[number]


def test_examples_are_the_first_images_of_the_task():
    stream = PermutedStream(make(), [1, 2], batch_size=4)
    task = stream.task(3)
    x, y = task.examples(10)
    assert x.shape == (2, 10, 20)
    batches = [task.batch(index) for index in range(3)]
    assert torch.equal(x, torch.cat([x for x, _ in batches], dim=1)[:, :10])
    assert torch.equal(y, torch.cat([y for _, y in batches], dim=1)[:, :10])
    for count in (0, 24):
        with pytest.raises(ValueError, match=f"{count} examples of a task of 23 images"):
            task.examples(count)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_element_types(dtype):
    images = make()
    x, _ = PermutedStream(images, [1], 4, dtype=dtype).task(0).batch(2)
    exact, _ = PermutedStream(images, [1], 4, dtype=torch.float64).task(0).batch(2)
    assert x.dtype == dtype
    assert torch.equal(x, exact.to(dtype))


def test_the_data_set_is_not_changed():
    images = make()
    before = images.images.clone(), images.labels.clone()
    for x, y in PermutedStream(images, [0, 1], 4).task(0):
        x.zero_()
        y.zero_()
    assert torch.equal(images.images, before[0])
    assert torch.equal(images.labels, before[1])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"batch_size": 24}, ValueError, "batch_size is 24, but toy has 23 images"),
        ({"batch_size": 0}, ValueError, "batch_size is 0.*from 1 to 23"),
        ({"seeds": []}, ValueError, "seeds is empty"),
        ({"seeds": [0.5]}, TypeError, "seeds has element type torch.float32"),
        ({"seeds": torch.tensor([[1]])}, TypeError, r"shape \(1, 1\)"),
        ({"dtype": torch.uint8}, TypeError, "dtype is torch.uint8"),
    ],
)
def test_settings_that_mean_nothing(settings, error, message):
    with pytest.raises(error, match=message):
        PermutedStream(make(), **{"seeds": [0], "batch_size": 4} | settings)


def test_a_task_that_does_not_exist():
    with pytest.raises(ValueError, match="step is -1"):
        PermutedStream(make(), [0], 4).task(-1)


@pytest.mark.cuda
def test_same_on_cuda():
    images = make()
    here = PermutedStream(images, [3, 4], 4).task(2)
    there = PermutedStream(images, [3, 4], 4, device="cuda").task(2)
    assert torch.equal(here.pixels, there.pixels.cpu())
    assert torch.equal(here.order, there.order.cpu())
    for (x, y), (x_there, y_there) in zip(here, there, strict=True):
        assert torch.equal(x, x_there.cpu())
        assert torch.equal(y, y_there.cpu())

"""The class-incremental stream against counting by hand; images say which they are by their pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supple.lab.data import LabelledImages
from supple.lab.data.augmentation import CIFAR100_MEAN, Augmentation
from supple.lab.streams import ClassIncrementalStream

PLAIN = Augmentation((0.0,), (1 / 255,), flip=0.0, padding=0, degrees=(0.0, 0.0))


def numbered(count, classes, start=0, name="toy"):
    """Images of 2 x 3 pixels, the first of which is the image's number; class 0 more often than others."""
    images = torch.zeros(count, 2, 3, dtype=torch.uint8)
    images[:, 0, 0] = torch.arange(start, start + count)
    labels = torch.arange(count) % classes
    labels[1::14] = 0
    return LabelledImages(images, labels, classes, name)


def stream(seed=0, **options):
    sizes = {"first": 2, "step": 2, "epochs": 3, "validation": 2, "batch_size": 4, "augmentation": PLAIN}
    return ClassIncrementalStream(numbered(100, 7), numbered(40, 7, 120), seed, **{**sizes, **options})


def of_class(images, label):
    return [number for number, other in enumerate(images.labels.tolist()) if other == label]


def pixels(part):
    return part.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("seed", [0, 1, -(2**63)])
def test_split_and_order(seed):
    one, train, test = stream(seed), numbered(100, 7), numbered(40, 7, 120)
    assert sorted(one.order.tolist()) == list(range(7))
    expected = {"training": [], "validation": [], "test": []}
    for place, label in enumerate(one.order.tolist()):
        numbers = of_class(train, label)
        expected["validation"] += [(number, place) for number in numbers[:2]]
        expected["training"] += [(number, place) for number in numbers[2:]]
        expected["test"] += [(number + 120, place) for number in of_class(test, label)]
    for name, pairs in expected.items():
        part = getattr(one, name)
        assert list(zip(pixels(part), part.labels.tolist(), strict=True)) == pairs, name
        assert part.ends == tuple(sum(place <= last for _, place in pairs) for last in range(7))


def test_the_order_of_classes_is_drawn_by_the_seed_and_uniform():
    orders = [tuple(stream(seed).order.tolist()) for seed in range(40)]
    assert orders[0] == tuple(stream(0, epochs=9, first=1).order.tolist())
    assert len(set(orders)) > 35
    assert {order[0] for order in orders} == set(range(7))


def test_classes_steps_and_additions():
    one = stream()
    assert (len(one.sizes), one.epochs) == (4, 12)
    assert [one.classes(epoch) for epoch in range(12)] == [2] * 3 + [4] * 3 + [6] * 3 + [7] * 3
    assert [one.addition(epoch) for epoch in range(12)] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for epoch in range(12):
        count = sum(label < one.classes(epoch) for label in one.training.labels.tolist())
        assert one.steps(epoch) == len(one.epoch(epoch)) == count // 4
        assert one.epoch(epoch).classes == one.classes(epoch)
    assert [stream(classes=5).classes(epoch) for epoch in (0, 3, 6)] == [2, 4, 5]
    assert len(stream(first=7).sizes) == 1
    with pytest.raises(IndexError, match="epoch 12 of a stream of 12"):
        one.classes(12)


def test_the_study():
    """Counts of section 3 of the study: 450, 50 and 100 images a class, 25 steps an epoch and 25 more each time."""
    train = LabelledImages(torch.zeros(50_000, 3, 2, 2, dtype=torch.uint8), torch.arange(50_000) % 100, 100, "cifar100")
    test = LabelledImages(torch.zeros(10_000, 3, 2, 2, dtype=torch.uint8), torch.arange(10_000) % 100, 100, "cifar100")
    one = ClassIncrementalStream(train, test)
    assert (one.epochs, len(one.sizes), one.sizes[:2], one.sizes[-1]) == (2000, 20, (5, 10), 100)
    assert [len(part) for part in (one.training, one.validation, one.test)] == [45_000, 5_000, 10_000]
    assert [one.steps(epoch) for epoch in (0, 99, 100, 1999)] == [25, 25, 50, 500]
    assert one.augmentation.mean == CIFAR100_MEAN
    assert (one.augmentation.flip, one.augmentation.padding, one.augmentation.degrees) == (0.5, 4, (0.0, 15.0))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(-(2**63), 2**63 - 1), epoch=st.integers(0, 11), batch_size=st.integers(1, 17))
def test_an_epoch_is_one_pass_in_a_random_order(seed, epoch, batch_size):
    one = stream(seed, batch_size=batch_size)
    part = one.training.of(0, one.classes(epoch))
    labels = dict(zip(pixels(part), part.labels.tolist(), strict=True))
    seen = []
    for x, y in one.epoch(epoch):
        assert x.shape == (batch_size, 1, 2, 3)
        assert y.max() < one.classes(epoch)
        assert [labels[round(number)] for number in x[:, 0, 0, 0].tolist()] == y.tolist()
        seen += x[:, 0, 0, 0].round().int().tolist()
    assert len(seen) == len(set(seen)) == len(part) // batch_size * batch_size
    assert set(seen) <= set(pixels(part))


def test_epochs_differ_and_are_functions_of_the_seed():
    def order(seed, epoch):
        return stream(seed, batch_size=1).epoch(epoch).order.tolist()

    assert order(3, 5) == order(3, 5)
    assert order(3, 5) != order(3, 4)
    assert order(3, 5) != order(4, 5)


def test_batches_are_augmented_by_the_number_of_the_image():
    mixing = Augmentation((20.0,), (9.0,), padding=1, degrees=(0.0, 90.0))
    one = stream(5, augmentation=mixing)
    for epoch in (0, 11):
        found = one.epoch(epoch)
        part = one.training.of(0, one.classes(epoch))
        everything = mixing(part.images, mixing.numbers(torch.tensor([5]), epoch, len(part)))
        for index, (x, y) in enumerate(found):
            chosen = found.order[4 * index : 4 * index + 4]
            assert torch.equal(x, everything[chosen])
            assert torch.equal(y, part.labels[chosen])
    with pytest.raises(IndexError, match="batch 99"):
        found.batch(99)


def test_examples_are_of_the_classes_before_or_of_the_new_ones():
    one = stream()
    for addition, (before, after) in enumerate([(0, 2), (2, 4), (4, 6), (6, 7)]):
        for new, classes in ((False, range(before)), (True, range(before, after))):
            allowed = {
                number
                for number, label in zip(pixels(one.training), one.training.labels.tolist(), strict=True)
                if label in classes
            }
            whole = one.examples(addition, 1000, new=new)[:, 0, 0, 0].round().int().tolist() if classes else []
            assert sorted(whole) == sorted(allowed)
            some = one.examples(addition, 3, new=new)
            assert len(some) == min(3, len(allowed))
            assert some[:, 0, 0, 0].round().int().tolist() == whole[:3]


def test_normalization_of_the_training_images_where_none_is_given():
    one = stream(augmentation=None)
    values = one.augmentation.normalize(one.training.images)
    assert abs(values.mean()) < 1e-5
    assert abs(values.std() - 1) < 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": 0}, "first is 0 and classes 7; the data set has 7 classes"),
        ({"classes": 8}, "classes 8"),
        ({"step": 0}, "step is 0; it has to be 1 or more"),
        ({"epochs": 0}, "epochs is 0"),
        ({"validation": 0}, "validation is 0"),
        ({"validation": 60}, "has no images left for training; keep fewer for validation"),
        ({"batch_size": 90}, r"batch_size is 90, but the first 2 classes of toy have \d+ images"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        stream(**options)


def test_sets_that_do_not_belong_together():
    with pytest.raises(ValueError, match="do not belong together"):
        ClassIncrementalStream(numbered(40, 7), numbered(40, 6))


def test_it_says_what_it_is():
    assert repr(stream(seed=4)) == (
        "ClassIncrementalStream(toy, seed=4, classes=2-4-6-7, 3 epochs each, batch_size=4, device=cpu)"
    )

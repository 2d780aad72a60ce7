"""Class-incremental training against a plain loop, and against itself cut in the middle of an epoch."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from small_problem import CLASSES, METHODS, network, stream, training, whole_run
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

import supple
from supple.lab.data import LabelledImages
from supple.lab.nn import ResNet
from supple.lab.population.class_incremental import ClassIncrementalTraining, reset
from supple.lab.study import checkpoint
from supple.optim import one_cycle


def same(one, other):
    """Whether two nested states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def accuracy(net, part, classes, augmentation):
    """Share of right answers among the classes, one image at a time."""
    net.eval()
    right = 0
    for image, label in zip(part.images, part.labels.tolist(), strict=True):
        with torch.no_grad():
            outputs = net(augmentation.normalize(image[None]))[0].tolist()[:classes]
        right += outputs[label] == max(outputs) and outputs.count(max(outputs)) == 1
    return right / len(part)


def plain_loop(method, reparameterized, restore):
    """The study's training, written with PyTorch's own optimizer and scheduler and a mask over the outputs."""
    data, net = stream(), network(dropout=0.0, reparameterized=reparameterized)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    acting = METHODS[method](net, optimizer)
    measured = []
    for addition, classes in enumerate((2, 4, 6)):
        steps = sum(len(data.epoch(2 * addition + k)) for k in range(2))
        scheduler = OneCycleLR(optimizer, 0.05, total_steps=steps, anneal_strategy="linear", cycle_momentum=False)
        best, kept = -1.0, None
        for epoch in (2 * addition, 2 * addition + 1):
            for index, (x, y) in enumerate(data.epoch(epoch)):
                net.train()
                optimizer.param_groups[0]["weight_decay"] = 1e-6 / scheduler.get_last_lr()[0]
                outputs = net(x).masked_fill(torch.arange(CLASSES) >= classes, -math.inf)
                optimizer.zero_grad()
                nn.functional.cross_entropy(outputs, y).backward()
                optimizer.step()
                if acting is not None:
                    acting.step()
                if epoch % 2 == 0 or index + 1 < len(data.epoch(epoch)):
                    scheduler.step()
            found = accuracy(net, data.validation.of(0, classes), classes, data.augmentation)
            measured += [found, accuracy(net, data.test.of(0, classes), classes, data.augmentation)]
            if found > best:
                best, kept = found, copy.deepcopy(net.state_dict())
        if restore:
            net.load_state_dict(kept)
    return net, measured


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("method", "reparameterized", "restore"),
    [("base", False, True), ("base", True, False), ("swr", False, True), ("cbp", False, False), ("redo", True, True)],
)
def test_it_is_a_plain_loop(method, reparameterized, restore):
    expected, measured = plain_loop(method, reparameterized, restore)
    run = training(method, dropout=0.0, reparameterized=reparameterized, restore=restore)
    found = whole_run(run)
    for parameter, other in zip(run.network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6)
    assert [share for m in found for share in (m.validation_accuracy, m.test_accuracy)] == measured
    assert [m.classes for m in found] == [2, 2, 4, 4, 6, 6]


def residual(**options):
    net = ResNet(CLASSES, channels=1, width=3, depth=1, seed=5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    data = stream(epochs=10)
    return ClassIncrementalTraining(net, optimizer, data, weight_decay=5e-5, schedule="steps", **options)


def test_a_resnet_with_steps_of_the_step_size_is_a_plain_loop():
    """Ten epochs an addition, with a fifth of the step size after 3, 6 and 8, as torch's own scheduler has it."""
    run = residual(restore=False)
    found = [run.train_epoch(epoch) for epoch in range(20)]
    data, net = stream(epochs=10), ResNet(CLASSES, channels=1, width=3, depth=1, seed=5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    losses = []
    for addition, classes in enumerate((2, 4)):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["initial_lr"] = 0.1
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6, 8], gamma=0.2)
        for epoch in range(10 * addition, 10 * addition + 10):
            total = 0.0
            for x, y in data.epoch(epoch):
                outputs = net(x).masked_fill(torch.arange(CLASSES) >= classes, -math.inf)
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(outputs, y)
                loss.backward()
                optimizer.step()
                total += loss.item() / len(data.epoch(epoch))
            losses.append(total)
            scheduler.step()
    assert [one.loss for one in found] == pytest.approx(losses, rel=1e-3)
    for parameter, other in zip(run.network.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-5)


def test_a_resnet_is_taken_up_and_reset_with_its_running_statistics(tmp_path):
    whole = residual(reset=("network",))
    expected = [whole.train_epoch(epoch) for epoch in range(12)]
    run = residual(reset=("network",))
    before = [run.train_epoch(epoch) for epoch in range(9)]
    checkpoint.save(tmp_path / "state", run.state_dict())
    other = residual(reset=("network",))
    other.load_state_dict(checkpoint.load(tmp_path / "state"))
    assert before + [other.train_epoch(epoch) for epoch in range(9, 12)] == expected
    assert same(other.state_dict(), whole.state_dict())
    reset(run.network, run.optimizer, ("head",), 1)
    assert run.network.norm.running_mean.any()
    reset(run.network, run.optimizer, ("network",), 1)
    fresh = ResNet(CLASSES, channels=1, width=3, depth=1)
    for name, buffer in run.network.named_buffers():
        assert torch.equal(buffer, dict(fresh.named_buffers())[name])


def cut(method, data, at, step, tmp_path):
    """A run that is killed within an epoch, and taken up from the last state by a new process's objects."""

    class Killed(Exception):
        pass

    def killer(steps):
        if steps == step:
            raise Killed

    run = training(method, data=data)
    metrics = [run.train_epoch(epoch) for epoch in range(at)]
    checkpoint.save(tmp_path / "state", run.state_dict())
    with pytest.raises(Killed):
        run.train_epoch(at, killer)
    for attempt in (run.state_dict, lambda: run.train_epoch(at)):
        with pytest.raises(RuntimeError, match=f"epoch {at} was broken off"):
            attempt()
    torch.manual_seed(step)
    other = training(method, data=data)
    for again in (run, other):
        again.load_state_dict(checkpoint.load(tmp_path / "state"))
    return metrics + whole_run(run), metrics + whole_run(other), run, other


@pytest.mark.one_in(4)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_within_an_epoch_and_resumed_equals_the_uninterrupted(tmp_path, method):
    data = stream()
    torch.manual_seed(77)
    before = torch.get_rng_state()
    whole = training(method, data=data)
    expected = whole_run(whole)
    assert torch.equal(torch.get_rng_state(), before)
    for at, step in ((1, 2), (4, 5)):
        same_objects, new_objects, run, other = cut(method, data, at, step, tmp_path)
        assert same_objects == new_objects == expected
        assert same(run.state_dict(), whole.state_dict())
        assert same(other.state_dict(), whole.state_dict())
    total = 0 if whole.method is None else int(whole.method.reinitialized.total)
    assert sum(m.reinitialized for m in expected) == total
    assert (total > 0) == (method not in ("base", "shrink and perturb"))


def test_dropout_differs_by_step_and_seed():
    outputs = []
    for seed in (3, 4):
        run = training(data=stream(seed=seed, batch_size=5), dropout=0.5)
        seen = []
        run.network.dropout.register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(output == 0) if module.training else None
        )
        run.train_epoch(0)
        outputs += seen
    assert len(outputs) == 6
    assert all(not torch.equal(outputs[i], outputs[j]) for i in range(6) for j in range(i))


@pytest.mark.parametrize("cycle", [None, (0.85, 0.95)])
def test_the_product_of_step_size_and_weight_decay_is_constant(cycle):
    run, seen = training(cycle_momentum=cycle), []
    run.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(dict(optimizer.param_groups[0])))
    whole_run(run)
    steps = [2 * run.stream.steps(epoch) for epoch in (0, 2, 4)]
    assert len(seen) == sum(steps)
    assert [group["lr"] * group["weight_decay"] for group in seen] == pytest.approx([1e-6] * len(seen))
    for start, count in ((0, steps[0]), (steps[0], steps[1]), (steps[0] + steps[1], steps[2])):
        assert seen[start]["lr"] == pytest.approx(0.05 / 25)
        assert seen[start + count - 1]["lr"] == pytest.approx(0.05 / 25e4)
        assert max(group["lr"] for group in seen[start : start + count]) <= 0.05
    assert (
        {group["momentum"] for group in seen} == {0.9}
        if cycle is None
        else min(group["momentum"] for group in seen) < 0.88
    )


@pytest.mark.parametrize(("decay", "share"), [(2e-6, 0.22), (6e-6, 0.66)])
def test_how_much_decay_the_momentum_carries_over(decay, share):
    """What docs/incremental.md says, for the 2,500 steps of the study's first classes, by the formulas of SGD."""
    weight, momentum, steps, weights = 1.0, 0.0, 2500, []
    for step in range(2 * steps):
        lr = one_cycle(step % steps, steps, 0.01 / 25, 0.01, 0.01 / 25e4)
        momentum = 0.9 * momentum + decay / lr * weight
        weight -= lr * momentum
        weights.append(weight)
    assert weights[steps + 29] / weights[steps - 1] == pytest.approx(1 - share, abs=0.005)


def test_outputs_of_classes_that_have_not_come_learn_nothing():
    run = training(dropout=0.0)
    for epoch in range(run.stream.epochs):
        run.train_epoch(epoch)
        classes = run.stream.classes(epoch)
        for parameter in (run.network.output.weight, run.network.output.bias):
            assert (parameter[classes:] == 0).all()
            assert (parameter[:classes] != 0).any(dim=-1).all()
            assert (parameter.grad[classes:] == 0).all()


@pytest.mark.parametrize(("seed", "expected"), [(4, 2), (10, 1)])
def test_the_best_network_is_taken_back(seed, expected):
    # Without restoration the same steps are made until the first addition ends.
    data = stream(epochs=4, seed=seed, validation=3)
    run, twin = training(data=data), training(data=data, restore=False)
    states, accuracies = [], []
    for epoch in range(4):
        accuracies.append(twin.train_epoch(epoch).validation_accuracy)
        states.append(twin.state_dict()["network"])
    best = accuracies.index(max(accuracies))  # the first of equals
    assert best == expected
    end = [run.train_epoch(epoch) for epoch in range(4)][-1].end
    assert (end.best_epoch, end.validation_accuracy) == (best, max(accuracies))
    assert same(run.state_dict()["network"], states[best])
    assert not same(states[best], states[3])
    part, augmentation = run.stream.test, run.stream.augmentation
    assert end.test_accuracy == accuracy(run.network, part.of(0, 2), 2, augmentation)
    assert list(end.class_accuracy) == [accuracy(run.network, part.of(k, k + 1), 2, augmentation) for k in range(2)]


@pytest.mark.slow
def test_it_learns():
    plain = replace(stream().augmentation, flip=0.0, padding=0, degrees=(0.0, 0.0))
    data, net = stream(epochs=25, augmentation=plain), network(dropout=0.0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.0)
    found = whole_run(ClassIncrementalTraining(net, optimizer, data, weight_decay=0.0))
    ends = [m.end for m in found if m.end]
    assert [m.end is not None for m in found] == [epoch % 25 == 24 for epoch in range(75)]
    assert [m.start is not None for m in found] == [epoch % 25 == 0 for epoch in range(75)]
    assert min(end.test_accuracy for end in ends) > 0.7
    assert found[74].accuracy > 0.95
    assert found[74].loss < 0.2 < found[50].loss


@pytest.mark.one_in(3)
@pytest.mark.filterwarnings("ignore:SWR left a parameter or layer alone:UserWarning")
@pytest.mark.parametrize("method", ["base", "swr", "cbp", "redo", "shrink and perturb"])
def test_a_diverging_run_is_an_outcome(tmp_path, method):
    run = training(method, lr=1e12)
    found = whole_run(run)
    assert [m.diverged for m in found].index(True) < 3
    assert run.diverged
    last = found[-1]
    assert (last.epoch, last.classes, last.accuracy, last.test_accuracy, last.end) == (5, 6, 0.0, 0.0, None)
    assert math.isnan(last.loss)
    assert math.isnan(last.test_loss)
    other = training(method)
    checkpoint.save(tmp_path / "state", run.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path / "state"))
    assert other.diverged
    assert other.epoch == 6


def test_bfloat16_is_near_float32():
    fine, coarse = whole_run(training(dropout=0.0)), whole_run(training(dropout=0.0, precision="bfloat16"))
    assert fine != coarse
    assert [m.loss for m in coarse] == pytest.approx([m.loss for m in fine], rel=0.05)
    kept = training(precision="bfloat16")
    kept.train_epoch(0)
    assert {parameter.dtype for parameter in kept.network.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["base", "swr", "cbp", "redo"])
def test_compiled_is_the_same(method, monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: compiler(module, backend="eager", **options))
    torch._dynamo.reset()
    data = stream(epochs=1)
    expected, found = (whole_run(training(method, data=data, compiled=compiled)) for compiled in (False, True))
    assert found == expected


@pytest.mark.slow
def test_compiled_by_inductor():
    torch._dynamo.reset()
    data = stream(epochs=1)
    expected, found = (
        whole_run(training("swr", data=data, compiled=compiled, dropout=0.0)) for compiled in (False, True)
    )
    assert [m.loss for m in found] == pytest.approx([m.loss for m in expected], rel=1e-3)


@pytest.mark.cuda
@pytest.mark.parametrize("method", METHODS)
def test_on_a_gpu(method):
    expected = whole_run(training(method, dropout=0.0, lr=0.01))
    found = whole_run(training(method, dropout=0.0, lr=0.01, on="cuda"))
    losses = [m.loss for m in found]
    if method == "shrink and perturb":  # whose noise is the device's
        assert losses == pytest.approx([m.loss for m in expected], rel=0.1)
    else:
        assert losses[0] == pytest.approx(expected[0].loss, rel=1e-3)
        assert losses == pytest.approx([m.loss for m in expected], rel=0.05)


@pytest.mark.cuda
def test_a_step_on_a_gpu_never_waits():
    run = training("cbp", on="cuda")
    run.train_epoch(0)
    batch = run.stream.epoch(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for x, y in batch:
            run._step(x, y, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def other_network():
    run = training()
    return ClassIncrementalTraining(run.network, run.optimizer, run.stream, supple.L2(network()))


def with_decay(decay):
    net = network()
    return ClassIncrementalTraining(net, torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=decay), stream())


def without_momentum():
    net = network()
    return ClassIncrementalTraining(net, torch.optim.Adam(net.parameters()), stream(), cycle_momentum=(0.8, 0.9))


def half_an_optimizer():
    net = network()
    return ClassIncrementalTraining(net, torch.optim.SGD(net.output.parameters(), lr=0.1), stream())


def another_size(**options):
    net = network(**options)
    return ClassIncrementalTraining(net, torch.optim.SGD(net.parameters(), lr=0.1), stream())


def too_many_classes():
    return training(
        data=type(stream())(
            *[LabelledImages(torch.zeros(70, 8, 8, dtype=torch.uint8), torch.arange(70) % 7, 7, "seven")] * 2,
            first=1, batch_size=2, validation=2, augmentation=stream().augmentation,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (other_network, r"L2\(l2=0\.0001\) was made for another network"),
        (lambda: with_decay(0.1), "has to be 0: give weight_decay to ClassIncrementalTraining"),
        (without_momentum, "Adam has no momentum; leave it out"),
        (half_an_optimizer, "does not hold all parameters"),
        (lambda: another_size(channels=3), "channels=3 and image_size=8, but images of squares are 1 x 8 x 8"),
        (too_many_classes, "6 outputs, but 7 classes will come"),
        (lambda: training(weight_decay=-1.0), r"weight_decay is -1\.0"),
        (lambda: training(precision="float16"), "precision is 'float16'"),
        (lambda: training(schedule="step"), "schedule is 'step'; it has to be one of 'one_cycle', 'steps'"),
        (lambda: residual(reset=("mlp",)), "reset is 'mlp'; it has to be one of 'network', 'head', 'momentum'"),
        (lambda: training(reset=("heads",)), "reset is 'heads'; it has to be one of 'network', 'head'"),
    ],
)
def test_what_does_not_belong_together(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_epochs_come_in_order():
    with pytest.raises(ValueError, match="epoch is 1, but the next to be learned is 0"):
        training().train_epoch(1)


def test_a_state_with_and_without_a_method():
    with pytest.raises(ValueError, match="with a method"):
        training("swr").load_state_dict(training().state_dict())

"""What SGDW and AdamW share."""

import copy

import pytest
import torch
from helpers import numbers, train

from supple.lab.nn import MLP, StackedMLP
from supple.optim import SGDW, AdamW

SIZES = {"inputs": 6, "hidden": 5, "outputs": 3, "depth": 2}
OPTIMIZERS = {
    "sgd": lambda params, **settings: SGDW(params, **settings),
    "momentum": lambda params, **settings: SGDW(params, momentum=0.9, **settings),
    "adam": lambda params, **settings: AdamW(params, **settings),
}
both = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def learn(model, optimizer, steps, start=0):
    dtype = model.output.weight.dtype
    batches = [(numbers(step, 4, 6, dtype=dtype),) for step in range(start, start + steps)]
    train(model, optimizer, None, batches, lambda model, x: model(x).square().mean(dim=(-1, -2)).sum())


def values(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_equal(first, second):
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@both
def test_each_replica_is_trained_as_alone_with_its_settings(make):
    rates, decays = torch.tensor([0.1, 0.01, 0.02]).double(), torch.tensor([0.0, 1e-3, 1e-2]).double()
    stack = StackedMLP([0, 0, 1], **SIZES).double()
    alone = [stack.replica(r) for r in range(3)]
    learn(stack, make(stack.parameters(), lr=rates, weight_decay=decays), 50)
    for r, network in enumerate(alone):
        learn(network, make(network.parameters(), lr=rates[r].item(), weight_decay=decays[r].item()), 50)
        for p, q in zip(stack.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(p[r], q, rtol=1e-9, atol=1e-10)
    assert not torch.allclose(stack.output.weight[0], stack.output.weight[1], rtol=1e-3)


@both
def test_a_number_and_a_tensor_of_it_do_the_same_bit_for_bit(make):
    one, other = StackedMLP([3, 4], **SIZES), StackedMLP([3, 4], **SIZES)
    learn(one, make(one.parameters(), lr=0.03, weight_decay=1e-3), 20)
    learn(other, make(other.parameters(), lr=torch.full((2,), 0.03), weight_decay=torch.full((2,), 1e-3)), 20)
    assert_equal(values(one), values(other))


@both
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_settings_is_a_tensor_of_them_bit_for_bit(make, kind):
    rates, decays = [0.1, 0.01], [1e-3, 0.0]
    one, other = StackedMLP([3, 4], **SIZES), StackedMLP([3, 4], **SIZES)
    listed = make(one.parameters(), lr=kind(rates), weight_decay=kind(decays))
    tensors = make(other.parameters(), lr=torch.tensor(rates), weight_decay=torch.tensor(decays))
    learn(one, listed, 5)
    learn(other, tensors, 5)
    assert_equal(values(one), values(other))
    # A list that is put there later counts too, and so does a change in place of what it became.
    listed.param_groups[0]["lr"] = kind([0.02, 0.2])
    tensors.param_groups[0]["lr"] = torch.tensor([0.02, 0.2])
    for _ in range(2):
        learn(one, listed, 2)
        learn(other, tensors, 2)
        assert_equal(values(one), values(other))
        listed.param_groups[0]["lr"].mul_(0.5)
        tensors.param_groups[0]["lr"].mul_(0.5)


@both
@pytest.mark.parametrize("name", ["lr", "weight_decay"])
@pytest.mark.parametrize("value", ["0.1", None, [], [0.1, "a"], [[0.1], [0.2]], {0: 0.1}, True, [0.1, True]])
def test_settings_that_are_no_numbers_are_named(make, name, value):
    parameters = [torch.nn.Parameter(torch.ones(2, 5))]
    with pytest.raises(TypeError, match=rf"{name} is .*; give a number, or a tensor or list of numbers \[R\]"):
        make(parameters, **{"lr": 0.1, name: value})
    optimizer = make([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(TypeError, match=f"{name} is "):
        optimizer.add_param_group({"params": parameters, name: value})
    assert len(optimizer.param_groups) == 1


@both
def test_training_goes_on_from_a_saved_state_bit_for_bit(make):
    settings = {"lr": torch.tensor([0.1, 0.01]), "weight_decay": torch.tensor([1e-3, 0.0])}
    whole = StackedMLP([0, 1], **SIZES)
    optimizer = make(whole.parameters(), **settings)
    learn(whole, optimizer, 10)
    model, state = copy.deepcopy(whole), copy.deepcopy(optimizer.state_dict())
    learn(whole, optimizer, 10, start=10)

    resumed = make(model.parameters(), lr=0.5)
    resumed.load_state_dict(state)
    learn(model, resumed, 10, start=10)
    assert_equal(values(model), values(whole))


@both
def test_a_deep_copy_trains_on_by_itself(make):
    model = StackedMLP([0, 1], **SIZES)
    optimizer = make(model.parameters(), lr=torch.tensor([0.1, 0.01]))
    learn(model, optimizer, 3)
    twin_model, twin = copy.deepcopy((model, optimizer))
    before = values(model)
    learn(twin_model, twin, 3, start=3)
    assert_equal(values(model), before)
    learn(model, optimizer, 3, start=3)
    assert_equal(values(model), values(twin_model))


@both
@pytest.mark.parametrize("how", ["another number", "another tensor", "in place"])
def test_a_changed_step_size_takes_effect(make, how):
    model, expected = StackedMLP([0, 1], **SIZES), StackedMLP([0, 1], **SIZES)
    start = 0.1 if how == "another number" else torch.full((2,), 0.1)
    optimizer, other = make(model.parameters(), lr=start), make(expected.parameters(), lr=0.1)
    learn(model, optimizer, 2)
    learn(expected, other, 2)
    (group,) = optimizer.param_groups
    if how == "in place":
        group["lr"].mul_(0.5)
    else:
        group["lr"] = 0.05 if how == "another number" else torch.full((2,), 0.05)
    other.param_groups[0]["lr"] = 0.05
    before = values(expected)
    learn(model, optimizer, 2, start=2)
    learn(expected, other, 2, start=2)
    assert_equal(values(model), values(expected))
    assert not torch.equal(before[0], values(expected)[0])


@both
def test_a_changed_weight_decay_takes_effect(make):
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = make([parameter], lr=0.0, weight_decay=torch.tensor([0.5, 0.0]))
    for decay in (optimizer.param_groups[0]["weight_decay"], torch.tensor([0.0, 0.25])):
        optimizer.param_groups[0]["weight_decay"] = decay
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert parameter.tolist() == [[0.5] * 3, [0.75] * 3]


@both
def test_torch_schedulers_change_a_number(make):
    model, expected = MLP(**SIZES), MLP(**SIZES)
    optimizer, other = make(model.parameters(), lr=0.1), make(expected.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for step in range(3):
        other.param_groups[0]["lr"] = 0.1 * 0.5**step
        learn(model, optimizer, 1, start=step)
        learn(expected, other, 1, start=step)
        scheduler.step()
    assert_equal(values(model), values(expected))


@both
def test_weight_decay_does_not_depend_on_the_step_size(make):
    for rate in (0.0, 0.3):
        parameter = torch.nn.Parameter(torch.tensor([2.0, -4.0], dtype=torch.float64))
        parameter.grad = torch.zeros_like(parameter)
        optimizer = make([parameter], lr=rate, weight_decay=1e-3)
        for _ in range(10):
            optimizer.step()
        torch.testing.assert_close(
            parameter.detach(), torch.tensor([2.0, -4.0]).double() * 0.999**10, rtol=1e-13, atol=0
        )


@both
def test_parameters_without_a_gradient_are_left_alone(make):
    first, second = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = make([first, second], lr=0.1, weight_decay=0.1)
    first.grad = torch.ones(2)
    optimizer.step()
    assert second.tolist() == [1, 1]
    assert first.tolist() != [1, 1]
    assert second not in optimizer.state
    second.grad = torch.ones(2)
    first.grad = None
    before = first.detach().clone()
    optimizer.step()
    assert torch.equal(first, before)
    # Its own first step, though the optimizer's second: the same as the other's first.
    torch.testing.assert_close(second.detach(), before)


@both
def test_groups_have_their_own_settings(make):
    first, second = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))
    optimizer = make([{"params": [first], "lr": torch.tensor([0.0, 0.5])}, {"params": [second]}], lr=0.25)
    first.grad, second.grad = torch.ones(2, 3), torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(first.detach(), torch.tensor([[1.0] * 3, [0.5] * 3]))
    torch.testing.assert_close(second.detach(), torch.full((3,), 0.75))


@both
def test_closure_computes_the_gradient(make):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = make([parameter], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = parameter.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.75))


@both
@pytest.mark.parametrize("name", ["lr", "weight_decay"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-0.1, "-0.1"),
        (float("nan"), "nan"),
        ([0.1, -0.2], "-0.2"),
        ([0.1, 0.2, 0.3], r"\(3,\).*\(2, 5\)"),
        (torch.tensor([0.1, -0.2]), "-0.2"),
        (torch.ones(3), r"\(3,\).*\(2, 5\)"),
        (torch.ones(2, 1), r"\(2, 1\).*\(2, 5\)"),
    ],
)
def test_settings_that_do_not_fit_are_named(make, name, value, words):
    with pytest.raises(ValueError, match=f"{name} .*{words}"):
        make([torch.nn.Parameter(torch.ones(2, 5))], **{"lr": 0.1, name: value})


def test_other_settings_out_of_range_are_named():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    for momentum in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"momentum is {momentum}"):
            SGDW(parameters, lr=0.1, momentum=momentum)
    with pytest.raises(ValueError, match=r"betas is \(0.9, 1.0\)"):
        AdamW(parameters, betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="eps is -1"):
        AdamW(parameters, eps=-1)


@pytest.mark.cuda
@both
def test_a_step_does_not_wait_for_the_device(make):
    model = StackedMLP([0, 1], **SIZES).cuda()
    optimizer = make(model.parameters(), lr=torch.tensor([0.1, 0.01], device="cuda"), weight_decay=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")

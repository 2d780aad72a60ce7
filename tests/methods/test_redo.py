"""Recycling dormant neurons against a loop over units, in real training."""

import numpy as np
import pytest
import reference
import torch
from torch import nn
from unit_networks import CASES, batch, make

import supple
from supple.lab.nn import StackedMLP

every_utility = pytest.mark.parametrize("utility", ["contribution", "magnitude", "activation", "gradient"])


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", CASES)
@every_utility
def test_training_equals_a_loop_over_units(name, utility):
    case = make(name)
    frequency, threshold = 3, 0.9
    optimizer = torch.optim.SGD(case.model.parameters(), lr=0.05, momentum=0.5)
    method = supple.ReDo(
        case.model, optimizer, frequency=frequency, threshold=threshold, utility=utility, **case.arguments
    )
    recorder = reference.Recorder(case.model, case.layers)
    total = 0
    for step in range(1, 19):
        x, y = batch(case, step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(case.model(x), y).backward()
        optimizer.step()
        expected, features, last = reference.arrays(case.model), recorder.take(), 0
        for layer in case.layers if step % frequency == 0 else ():
            utilities = reference.layer_utilities(
                utility, layer, features[layer.name], expected, reference.gradients(case.model)
            )
            chosen = reference.below_threshold(utilities, threshold)
            for unit in chosen:
                reference.replaced(expected, layer, unit, "ReDo", method.distributions, step)
            last += len(chosen)
        method.step()
        total += last
        for key, value in reference.arrays(case.model).items():
            np.testing.assert_array_equal(value, expected[key], err_msg=f"{key} at step {step}")
        assert int(method.reinitialized.last) == last
        assert int(method.reinitialized.total) == total
    assert total >= 5


def dead_units(stacked):
    """A network (or two) whose first two units of the first layer never fire."""
    model = StackedMLP([4, 5], 6, 8, 3, 2)
    model = model if stacked else model.replica(0)
    initial = {"blocks.0.linear.bias": supple.Constant(0.0)}
    with torch.no_grad():
        model.blocks[0].linear.bias[..., :2] = -1e3
    return model, initial


@pytest.mark.parametrize("stacked", [False, True])
def test_dead_units_come_back_to_life(stacked):
    model, initial = dead_units(stacked)
    method = supple.ReDo(model, frequency=1, threshold=1e-6, initial=initial)
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        model(x).sum().backward()
        method.step()
    total = method.reinitialized.total
    assert total.tolist() == ([2, 2] if stacked else 2)
    layer = model.blocks[0].linear
    assert not layer.bias[..., :2].any()
    spread = layer.weight.detach()[..., :2, :].std()
    assert float(spread) == pytest.approx((2 / 6) ** 0.5, rel=0.5)


@pytest.mark.parametrize(("option", "replaced"), [("keep", 0), ("replace", 16)])
def test_a_layer_that_is_dead_as_a_whole(option, replaced):
    """Replaced as a whole, the second layer gets zeros, has no biases yet, and is dead, too."""
    model, initial = dead_units(False)
    with torch.no_grad():
        model.blocks[0].linear.bias.fill_(-1e3)
    method = supple.ReDo(model, frequency=1, threshold=1e-6, initial=initial, when_all_zero=option)
    model(torch.randn(50, 6)).sum().backward()
    method.step()
    assert int(method.reinitialized.last) == replaced


def test_without_a_device_to_wait_for_all_units_are_written_and_the_valid_ones_changed():
    """The path for accelerators, taken on the CPU: all pairs with a mask give what the chosen pairs give."""
    results = []
    for masked in (False, True):
        case = make("mlp crelu, norm after")
        optimizer = torch.optim.Adam(case.model.parameters(), lr=0.05)
        method = supple.ReDo(case.model, optimizer, frequency=1, threshold=0.8, optimizer_state="fresh")
        for step in range(1, 6):
            x, y = batch(case, step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(case.model(x), y).backward()
            optimizer.step()
            if not masked:
                method.step()
                continue
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("supple.methods.layer._at_hand", lambda tensor: False)
                method.step()
        averages = [optimizer.state[p]["exp_avg"] for p in case.model.parameters()]
        results.append((list(case.model.parameters()), averages, method.reinitialized.total))
    for one, other in zip(*(parameters for parameters, _, _ in results), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(*(averages for _, averages, _ in results), strict=True):
        assert torch.equal(one, other)
    assert results[0][2] == results[1][2] > 0

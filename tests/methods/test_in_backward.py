"""Units replaced in the backward pass, against backpropagation written out and against hooks of torch's own."""

import copy

import numpy as np
import pytest
import reference
import torch
from torch import nn
from unit_networks import CASES, batch, make

import supple


def chosen_units(kind, utilities, layer, account, step):
    """The units that a method replaces, and nothing else that it does."""
    if kind is supple.CBP:
        return account.choose(utilities, reference.tie_words("CBP", layer.name, step, layer.size))
    return reference.below_threshold(utilities, 0.9) if step % 3 == 0 else []


SETTINGS = {
    supple.CBP: {"maturity": 2, "replacement_rate": 0.13},
    supple.ReDo: {"frequency": 3, "threshold": 0.9},
}
both = pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)


@pytest.mark.one_in(8)
@both
@pytest.mark.parametrize("utility", ["contribution", "gradient"])
@pytest.mark.parametrize("name", CASES)
def test_training_equals_hooks_of_the_modules(name, utility, kind):
    """A network in which hooks of torch write new weights into the memory of the old ones, one unit at a time."""
    case = make(name)
    other = copy.deepcopy(case.model)
    settings = {"utility": utility, "order": "in_backward", **case.arguments, **SETTINGS[kind]}
    method = kind(case.model, torch.optim.SGD(case.model.parameters(), lr=0.05, momentum=0.5), **settings)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.5)
    recorder = reference.Recorder(other, case.layers)
    accounts = [reference.Ages(layer.size, 2, 0.13) for layer in case.layers]
    step, total = 0, 0

    def act(layer, account):
        nonlocal total
        values = reference.arrays(other)
        features = recorder.features.pop(layer.name)
        utilities = reference.layer_utilities(utility, layer, features, values, reference.gradients(other))
        chosen = chosen_units(kind, utilities, layer, account, step)
        for unit in chosen:
            reference.replaced(values, layer, unit, kind.__name__, method.distributions, step)
        for key, tensor in other.state_dict().items():
            tensor.data.copy_(torch.as_tensor(values[key]))
        total += len(chosen)

    for layer, account in zip(case.layers, accounts, strict=True):
        module = other.get_submodule(layer.module)
        if layer.where == "input":
            module.register_full_backward_hook(lambda *unused, layer=layer, account=account: act(layer, account))
        else:
            module.register_full_backward_pre_hook(lambda *unused, layer=layer, account=account: act(layer, account))
    for step in range(1, 13):
        x, y = batch(case, step)
        for model, steps in ((case.model, method.optimizer), (other, optimizer)):
            steps.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            steps.step()
        method.step()
        expected = reference.arrays(other)
        for key, value in reference.arrays(case.model).items():
            np.testing.assert_array_equal(value, expected[key], err_msg=f"{key} at step {step}")
        assert int(method.reinitialized.total) == total
    assert total >= 3


def written_out(values, x, y, layers, replace, after_norm, lr):
    """One step of gradient descent on a perceptron with layer normalization, by the chain rule, in numpy.

    ``replace(number, features)`` changes ``values`` where a layer's features have their gradient.
    """
    kept, h = [], x
    for number in range(layers):
        z = h @ values[f"blocks.{number}.linear.weight"].T + values[f"blocks.{number}.linear.bias"]
        a = np.maximum(z, 0)
        spread = np.sqrt(a.var(axis=1, keepdims=True) + 1e-5)
        normal = (a - a.mean(axis=1, keepdims=True)) / spread
        out = normal * values[f"blocks.{number}.norm.weight"] + values[f"blocks.{number}.norm.bias"]
        kept.append((h, z, a, spread, normal, out))
        h = out
    logits = h @ values["output.weight"].T + values["output.bias"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    d = (p - np.eye(p.shape[1])[y]) / len(y)
    slopes = {"output.weight": d.T @ h, "output.bias": d.sum(axis=0)}
    d = d @ values["output.weight"]
    for number in reversed(range(layers)):
        h, z, a, spread, normal, out = kept[number]
        name = f"blocks.{number}"
        if after_norm:
            replace(number, out)
        slopes[f"{name}.norm.weight"], slopes[f"{name}.norm.bias"] = (d * normal).sum(axis=0), d.sum(axis=0)
        e = d * values[f"{name}.norm.weight"]
        d = (e - e.mean(axis=1, keepdims=True) - normal * (e * normal).mean(axis=1, keepdims=True)) / spread
        if not after_norm:
            replace(number, a)
        d = d * (z > 0)
        slopes[f"{name}.linear.weight"], slopes[f"{name}.linear.bias"] = d.T @ h, d.sum(axis=0)
        d = d @ values[f"{name}.linear.weight"]
    for key, slope in slopes.items():
        values[key] = values[key] - lr * slope


@both
@pytest.mark.parametrize("features", ["before_norm", "after_norm"])
def test_training_equals_the_chain_rule_written_out(features, kind):
    case = make("mlp norm after")
    # Scales that are not 1, so that it shows which of them a gradient passed through.
    with torch.no_grad():
        for block in case.model.blocks:
            block.norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    initial = {"blocks.*.norm.weight": supple.Constant(1.0)}
    optimizer = torch.optim.SGD(case.model.parameters(), lr=0.05)
    method = kind(
        case.model, optimizer, order="in_backward", utility="contribution", features=features, initial=initial,
        **SETTINGS[kind],
    )  # fmt: skip
    accounts = [reference.Ages(layer.size, 2, 0.13) for layer in case.layers]
    values = reference.arrays(case.model)
    step, between = 0, 0

    def replace(number, read):
        nonlocal between
        layer = case.layers[number]
        utilities = reference.layer_utilities("contribution", layer, [read], values, values)
        units = chosen_units(kind, utilities, layer, accounts[number], step)
        for unit in units:
            reference.replaced(values, layer, unit, kind.__name__, method.distributions, step)
        between += number > 0 and bool(units)

    for step in range(1, 16):
        x, y = batch(case, step)
        written_out(values, x.numpy(), y.numpy(), 3, replace, features == "after_norm", 0.05)
        optimizer.zero_grad()
        nn.functional.cross_entropy(case.model(x), y).backward()
        optimizer.step()
        method.step()
        for key, value in reference.arrays(case.model).items():
            np.testing.assert_allclose(value, values[key], rtol=1e-9, atol=1e-12, err_msg=f"{key} at step {step}")
    assert between >= 3


def test_what_leaves_a_replaced_unit_moves_in_the_same_step():
    """And a weight between two replaced units has become 0 before it."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = supple.ReDo(model, optimizer, frequency=1, threshold=1e9, order="in_backward")
    model(torch.randn(9, 4)).square().sum().backward()
    between, last = model[2].weight, model[4].weight
    assert not between.any()
    assert not last.any()
    assert between.grad.any()
    assert last.grad.any()
    optimizer.step()
    method.step()
    assert torch.equal(last, -0.1 * last.grad)
    assert torch.equal(between, -0.1 * between.grad)
    assert int(method.reinitialized.last) == 12


def small():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_a_second_backward_pass_before_the_step_is_refused():
    model, optimizer = small()
    method = supple.ReDo(model, optimizer, frequency=2, threshold=1.0, order="in_backward")
    for _ in range(2):  # nothing is due yet, so nothing is awaited
        model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    method.step()
    model(torch.randn(3, 4)).sum().backward()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(
        RuntimeError, match=r"two through the hidden units of '0' before one call.*whole batch, or leave"
    ):
        model(torch.randn(3, 4)).sum().backward()
    assert all(map(torch.equal, before, model.parameters()))


def test_a_step_without_a_backward_pass_is_refused():
    model, optimizer = small()
    method = supple.ReDo(model, optimizer, frequency=1, threshold=1.0, order="in_backward")
    model(torch.randn(3, 4))
    with pytest.raises(RuntimeError, match="saw no backward pass of 0 since its last step"):
        method.step()
    assert method.steps == 0


def test_what_does_not_go_with_it_is_refused():
    model, optimizer = small()
    with pytest.raises(ValueError, match=r'in_backward.*comes after it.*use optimizer_state="keep"'):
        supple.CBP(model, optimizer, order="in_backward", optimizer_state="fresh")
    with pytest.raises(ValueError, match=r"in_backward.*gradients of incoming weights.*ReGraMa.*leave order out"):
        supple.ReGraMa(model, optimizer, order="in_backward")
    with pytest.raises(ValueError, match=r"order is 'before'.*'after_step', 'in_backward'"):
        supple.ReDo(model, optimizer, order="before")
    with pytest.raises(ValueError, match="it is compiled"):
        supple.ReDo(torch.compile(model), optimizer, order="in_backward")


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations_make_no_difference(reentrant):
    from torch.utils.checkpoint import checkpoint

    ends = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = supple.ReDo(model, optimizer, frequency=2, threshold=1.0, order="in_backward", seed=1)
        for step in range(6):
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step)).requires_grad_()
            output = checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
            optimizer.zero_grad()
            output.square().sum().backward()
            optimizer.step()
            method.step()
        assert int(method.reinitialized.total) > 4
        ends.append([*model.parameters()])
    assert all(map(torch.equal, *ends))

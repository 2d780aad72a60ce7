import copy

import pytest
import torch
from mlp_reference import VARIANTS, name_of

from supple.lab.nn import MLP, StackedLayerNorm, StackedLinear, StackedMLP
from supple.structure import Stacked

SMALL = {"inputs": 7, "hidden": 10, "outputs": 4, "depth": 3}
SEEDS = [5, 5, 8, 8, 2, 2]  # S = 3 seeds, C = 2 settings each


def disturbed_stack(**variant):
    stack = StackedMLP(SEEDS, **SMALL, **variant).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return stack


@pytest.mark.one_in(4)
@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_a_stack_computes_what_each_network_computes_alone(variant):
    stack = disturbed_stack(**variant)
    alone = [stack.replica(r) for r in range(6)]
    for shape in [(5, 7), (3, 5, 7), (6, 5, 7)]:
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        mine = x.expand(6, 5, 7) if x.ndim == 2 else x.repeat_interleave(6 // len(x), dim=0)
        weighting = torch.randn(6, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        x.requires_grad_()
        out = stack(x)
        stack.zero_grad()
        (out * weighting).sum().backward()
        x_gradient = torch.zeros_like(x)
        gradients = {name: [] for name, _ in stack.named_parameters()}
        for r, network in enumerate(alone):
            x_alone = mine[r].detach().clone().requires_grad_()
            out_alone = network(x_alone)
            torch.testing.assert_close(out[r], out_alone, rtol=1e-11, atol=1e-12)
            network.zero_grad()
            (out_alone * weighting[r]).sum().backward()
            for kept, q in zip(gradients.values(), network.parameters(), strict=True):
                kept.append(q.grad.clone())
            part = x_gradient if x.ndim == 2 else x_gradient[r * len(x) // 6]
            part += x_alone.grad
        torch.testing.assert_close(x.grad, x_gradient, rtol=1e-9, atol=1e-10)
        found = {name: parameter.grad for name, parameter in stack.named_parameters()}
        expected = {name: torch.stack(kept) for name, kept in gradients.items()}
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS[::5], ids=name_of)
def test_initial_values_are_those_of_the_network_alone_bit_for_bit(variant):
    seeds = [3, 3, 1, 2**62, -7]
    stack = StackedMLP(seeds, **SMALL, **variant)
    for r, seed in enumerate(seeds):
        alone = dict(MLP(**SMALL, **variant, seed=seed).named_parameters())
        assert list(alone) == [name for name, _ in stack.named_parameters()]
        for name, parameter in stack.named_parameters():
            assert torch.equal(parameter[r], alone[name])


def test_gradients_lie_in_memory_as_their_parameters():
    stack = StackedMLP(SEEDS, **SMALL, layer_norm="after")
    stack(torch.randn(3, 5, 7)).sum().backward()
    for parameter in stack.parameters():
        assert parameter.grad.stride() == parameter.stride()


def test_a_shared_batch_is_not_copied_for_each_replica():
    layer = StackedLinear(50, 4, 8, weights=MLP().initial_distributions()["output.weight"])
    x = torch.randn(2, 30, 50, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(x)
    assert {t.untyped_storage().data_ptr() for t in saved} == {
        x.untyped_storage().data_ptr(),
        layer.weight.untyped_storage().data_ptr(),
    }


def test_layers_alone():
    layer = StackedLinear(3, 2, 4, weights=MLP().initial_distributions()["output.weight"])
    assert not any(p.any() for p in layer.parameters())
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    x = torch.randn(4, 6, 3)
    expected = torch.stack([x[r] @ layer.weight[r].T + layer.bias[r] for r in range(4)])
    torch.testing.assert_close(layer(x), expected)

    norm = StackedLayerNorm(3, 4)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    tokens = torch.randn(4, 6, 5, 3)  # [R, examples, tokens, width]
    expected = torch.stack(
        [torch.nn.functional.layer_norm(tokens[r], (3,), norm.weight[r], norm.bias[r]) for r in range(4)]
    )
    torch.testing.assert_close(norm(tokens), expected)


def test_a_replica_is_a_copy_that_can_be_put_back():
    stack = disturbed_stack(layer_norm="after", reparameterized=True)
    original = copy.deepcopy(stack)
    taken = stack.replica(2)
    assert isinstance(taken, MLP)
    assert taken.seed == 8
    with torch.no_grad():
        for parameter in taken.parameters():
            assert parameter.dtype == torch.float64
            assert parameter.requires_grad
            parameter.add_(1)
    assert all(torch.equal(p, q) for p, q in zip(stack.parameters(), original.parameters(), strict=True))

    taken.seed = 99
    stack.load_replica(4, taken)
    assert stack.seeds.tolist() == [5, 5, 8, 8, 99, 2]
    for p, q in zip(stack.parameters(), original.parameters(), strict=True):
        torch.testing.assert_close(p[4], q[2] + 1, rtol=0, atol=1e-15)
        assert torch.equal(p[[0, 1, 2, 3, 5]], q[[0, 1, 2, 3, 5]])


def test_from_networks_stacks_copies():
    networks = [MLP(**SMALL, activation="crelu", seed=seed).double() for seed in (4, 9)]
    stack = StackedMLP.from_networks(networks)
    assert isinstance(stack, Stacked)
    assert stack.replicas == 2
    assert stack.seeds.tolist() == [4, 9]
    assert not stack.seeds.is_meta
    for name, parameter in stack.named_parameters():
        assert isinstance(parameter, torch.nn.Parameter)
        assert torch.equal(parameter, torch.stack([network.get_parameter(name) for network in networks]))
    x = torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(stack(x), torch.stack([network(x) for network in networks]))
    stack.output.bias.data.fill_(7)
    assert not networks[0].output.bias.any()


def test_state_dict_holds_parameters_and_seeds():
    stack, other = disturbed_stack(), StackedMLP([0] * 6, **SMALL).double()
    other.load_state_dict(stack.state_dict())
    assert torch.equal(other.seeds, stack.seeds)
    x = torch.randn(5, 7, dtype=torch.float64)
    assert torch.equal(other(x), stack(x))
    assert set(stack.state_dict()) == {name for name, _ in MLP(**SMALL).named_parameters()} | {"seeds"}


@pytest.mark.parametrize("shape", [(7,), (4, 5, 7), (12, 5, 7), (0, 5, 7), (5, 8), (1, 6, 5, 7)])
def test_inputs_of_another_shape_are_named(shape):
    stack = StackedMLP(SEEDS, **SMALL)
    with pytest.raises(ValueError, match="x has shape") as error:
        stack(torch.zeros(shape))
    assert str(shape) in str(error.value)
    assert "6 replicas" in str(error.value)


@pytest.mark.parametrize("seeds", [[], 3, [[1, 2]], [0.5], torch.ones(3), [True]])
def test_seeds_have_to_be_one_row_of_integers(seeds):
    with pytest.raises(ValueError, match="seeds"):
        StackedMLP(seeds, **SMALL)


def test_seeds_are_copied():
    seeds = torch.tensor([1, 2])
    stack = StackedMLP(seeds, **SMALL)
    seeds[0] = 5
    assert stack.seeds.tolist() == [1, 2]


def test_unlike_networks_and_missing_replicas_are_named():
    stack = StackedMLP(SEEDS, **SMALL)
    with pytest.raises(ValueError, match=r"the network has activation 'tanh', the stack 'relu'"):
        stack.load_replica(0, MLP(**SMALL, activation="tanh"))
    with pytest.raises(ValueError, match=r"network 1 has hidden 12, network 0 10"):
        StackedMLP.from_networks([MLP(**SMALL), MLP(**{**SMALL, "hidden": 12})])
    with pytest.raises(ValueError, match="no network"):
        StackedMLP.from_networks([])
    for i in (-1, 6):
        with pytest.raises(IndexError, match=f"no replica {i}.*0 to 5"):
            stack.replica(i)

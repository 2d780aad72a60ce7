"""Methods that are a term of the loss, against slow loops over examples, outputs and heads."""

import copy

import pytest
import torch
from helpers import batch, numbers, values
from torch import nn

import supple
from supple.lab.nn import MLP, StackedMLP


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()


def churn(new, old):
    """The mean squared difference of two outputs, one number at a time."""
    squares = [
        (a - b) ** 2
        for one, other in zip(new, old, strict=True)
        for a, b in zip(one.tolist(), other.tolist(), strict=True)
    ]
    return sum(squares) / len(squares)


def gradients(network):
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def test_churn_is_that_since_one_update_ago_and_weighed_by_losses():
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    method = supple.CChain(network, strength=7.0, ratio=0.2, warm_up=4, window=3)
    copies, losses, churns, strength = [copy.deepcopy(network)], [], [], 7.0
    for step in range(9):
        (x, y), others = batch(step, dtype=torch.float64), numbers(100 + step, 8, 6, dtype=torch.float64)
        loss = nn.functional.cross_entropy(network(x), y)
        old = copies[-2] if len(copies) > 1 else copies[-1]
        old.load_state_dict({**old.state_dict(), **dict(network.named_buffers())})
        expected = churn(network(others), old(others))
        penalty = method.penalty(others, loss=loss)
        assert penalty.item() == pytest.approx(strength * expected, rel=1e-5, abs=1e-12), step
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
        method.step()
        copies.append(copy.deepcopy(network))
        losses.append(float(loss))
        churns += [expected] if step else []
        if step + 1 >= 4:
            last = churns[-3:]
            strength = 0.2 * (sum(losses[-3:]) / 3) / (sum(last) / len(last) + 1e-8)
        assert float(method.weight) == pytest.approx(strength, rel=1e-5)


def test_the_gradient_of_churn_does_not_flow_through_the_old_network():
    network = nn.Linear(2, 3, bias=False).double()
    method = supple.CChain(network, strength=2.0, ratio=0)
    with torch.no_grad():
        network.weight += 0.5
    method.step()
    x = numbers(3, 4, 2, dtype=torch.float64)
    method.penalty(x).backward()
    # d/dW of 2 mean((D x)^2), D = 0.5 everywhere.
    difference = x @ torch.full((2, 3), 0.5, dtype=torch.float64)
    torch.testing.assert_close(network.weight.grad, 2 * 2 * difference.mT @ x / 12)


def test_accumulated_parts_count_as_one_update():
    network = model()
    method = supple.CChain(network, ratio=0.5, warm_up=1, window=4)
    for value in (1.0, 3.0):
        method.penalty(numbers(0, 4, 6, dtype=torch.float64), loss=torch.tensor(value))
    method.step()
    (history,) = method.kept["history"].values()
    assert history[0, 0].tolist() == [2.0, -1.0, -1.0, -1.0]


def test_churn_says_what_it_needs():
    network = model()
    x = numbers(0, 4, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"penalty\(x, loss=loss\)"):
        supple.CChain(network).penalty(x)

    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 2)

        def forward(self, x, twice=False):
            return {"logits": self.layer(x) * (1 + twice)}

    several = Several().double()
    with pytest.raises(TypeError, match=r"gives a dict.*outputs="):
        supple.CChain(several, ratio=0).penalty(x)
    method = supple.CChain(several, ratio=0, strength=1.0, outputs=lambda given: given["logits"])
    with torch.no_grad():
        several.layer.bias += 1
    assert float(method.penalty(x, twice=True)) == pytest.approx(4.0)


@pytest.mark.parametrize("optimizer", [True, False])
def test_infer_against_a_loop(optimizer):
    network = model()
    start = copy.deepcopy(network)
    made = torch.optim.SGD(network.parameters(), lr=0.05)
    method = supple.InFeR(network, made if optimizer else None, strength=0.3, heads=4, scale=7.0, seed=5)
    first = method.heads.detach().clone()
    assert (first.abs() <= 5**-0.5).all()
    assert first.unique().numel() == first.numel()
    if not optimizer:
        made.add_param_group({"params": [method.heads]})
    for step in range(5):
        x, y = batch(step, dtype=torch.float64)
        start.load_state_dict({**start.state_dict(), **dict(network.named_buffers())})
        total, features, old = 0.0, network[:3](x).tolist(), start[:3](x).tolist()
        for one, before in zip(features, old, strict=True):
            for head, target in zip(method.heads.tolist(), first.tolist(), strict=True):
                given = sum(w * f for w, f in zip(head, one, strict=False)) + head[-1]
                goal = sum(w * f for w, f in zip(target, before, strict=False)) + target[-1]
                total += (given - 7.0 * goal) ** 2
        penalty = method.penalty(x)
        assert penalty.item() == pytest.approx(0.3 * total / (len(x) * 4), rel=1e-9)
        made.zero_grad()
        (nn.functional.cross_entropy(network(x), y) + penalty).backward()
        made.step()
        method.step()
    assert not torch.equal(method.heads, first)
    (targets,) = method.kept["targets"].values()
    assert torch.equal(targets[0], first)


def test_the_heads_go_on_from_a_state_and_leave_the_optimizer():
    ends = []
    for cut in (False, True):
        network = MLP(6, 8, 2, 2, seed=3)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        method = supple.InFeR(network, optimizer, seed=1)
        for step in range(8):
            if cut and step == 4:
                saved = [copy.deepcopy(one.state_dict()) for one in (network, optimizer, method)]
                network = MLP(6, 8, 2, 2, seed=4)
                optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
                method = supple.InFeR(network, optimizer, seed=2)
                for one, state in zip((network, optimizer, method), saved, strict=True):
                    one.load_state_dict(state)
            x, y = batch(step)
            optimizer.zero_grad()
            (nn.functional.cross_entropy(network(x), y) + method.penalty(x)).backward()
            optimizer.step()
            method.step()
        ends.append({**values(network), "heads": method.heads.detach().clone()})
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    method.close()
    assert all(one is not method.heads for one in optimizer.param_groups[0]["params"])
    assert method.heads not in optimizer.state
    optimizer.step()


def test_infer_says_which_layer_it_cannot_read():
    convolutions = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 3))
    with pytest.raises(ValueError, match=r'the last layer is none; say which.*layer="head"'):
        supple.InFeR(convolutions)
    with pytest.raises(ValueError, match="features that a linear layer takes in, and 7 is none"):
        supple.InFeR(model(), layer="7")
    network = model()
    with pytest.raises(ValueError, match=r"the SGD does not hold 3\.weight"):
        supple.InFeR(network, torch.optim.SGD(network[0].parameters(), lr=0.1))
    earlier = supple.InFeR(network, layer="0")
    assert earlier.heads.shape == (10, 7)
    twice = nn.Sequential(network[0], nn.Linear(5, 6).double(), network[0], network[3])
    with pytest.raises(RuntimeError, match="run once"):
        supple.InFeR(twice, layer="0").penalty(numbers(0, 4, 6, dtype=torch.float64))


class Transposed(nn.Module):
    """A layer whose weight is [inputs, outputs], as those of GPT-2 in transformers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 4))

    def forward(self, x):
        return x @ self.weight


class Language(nn.Module):
    """Its output layer shares its weight with the embedding and comes last; the last weight is of another layer."""

    def __init__(self):
        super().__init__()
        self.embedding, self.up, self.down = nn.Embedding(9, 4), nn.Linear(4, 6), Transposed()
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.down(self.up(self.embedding(tokens)).relu()))


def test_infer_reads_a_head_that_shares_its_weight():
    network, tokens = Language(), torch.arange(9)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    method = supple.InFeR(network, optimizer, heads=3, scale=2.0, strength=1.0)
    assert method.reader is network.head
    features = network.down(network.up(network.embedding(tokens)).relu())
    given = features @ method.heads[:, :-1].T + method.heads[:, -1]
    assert torch.allclose(method.penalty(tokens), given.square().mean())  # (given - 2 * given)^2 at the start
    assert any(one is method.heads for one in optimizer.param_groups[0]["params"])
    with pytest.raises(RuntimeError, match=r"Transposed whose inputs.*takes in 6 features.*is 4; choose another layer"):
        supple.InFeR(Language(), layer="down").penalty(tokens)


@pytest.mark.parametrize("kind", [supple.CChain, supple.InFeR])
def test_nothing_of_the_network_changes_but_gradients(kind):
    network = model()
    network.train()
    reference = copy.deepcopy(network)
    method = kind(network, strength=1.0, **({"ratio": 0} if kind is supple.CChain else {}))
    x = numbers(0, 4, 6, dtype=torch.float64)
    state = torch.get_rng_state()
    method.penalty(x)
    assert torch.equal(torch.get_rng_state(), state)
    reference(x)  # one pass in training mode moves the running statistics once
    assert all(torch.equal(value, values(network)[name]) for name, value in values(reference).items())
    assert all(one is None for one in gradients(network))


@pytest.mark.parametrize("kind", [supple.CChain, supple.InFeR])
def test_a_stack_weighs_each_replica_by_its_own_loss(kind):
    stack = StackedMLP([1, 2], 6, 8, 3, 2).double()
    settings = {"ratio": [0.5, 0.1], "warm_up": 1} if kind is supple.CChain else {"strength": [0.5, 0.1]}
    together = kind(stack, seed=[4, 6], **settings)
    alone = [stack.replica(r) for r in range(2)]
    methods = [
        kind(one, seed=[4, 6][r], **{k: v if k == "warm_up" else v[r] for k, v in settings.items()})
        for r, one in enumerate(alone)
    ]
    for step in range(3):
        x, losses = numbers(step, 2, 4, 6, dtype=torch.float64), torch.tensor([1.0, 2.0])
        total = sum(method.penalty(x[r], loss=losses[r]) for r, method in enumerate(methods))
        torch.testing.assert_close(together.penalty(x, loss=losses), total)
        with torch.no_grad():
            for p in (*stack.parameters(), *(p for one in alone for p in one.parameters())):
                p *= 0.9
        for method in (together, *methods):
            method.step()


@pytest.mark.parametrize("name", ["c_chain", "infer"])
def test_a_study_says_that_it_gives_no_place_in_the_loss(name):
    pytest.importorskip("polars")
    from supple.lab.study.methods import method_class

    with pytest.raises(ValueError, match=f"{name} needs a place in the loss, which a study does not give it"):
        method_class(name)

"""Among equal utilities each entry and unit has the same chance, whatever its place and its company."""

import pytest
import torch
from scipy import stats
from torch import nn

import supple
from supple.lab.nn import StackedMLP


def train(model, optimizer, method, inputs, steps):
    """How often each row of the first weight was changed by the method, summed over its entries."""
    hits = torch.zeros(len(model[0].weight))
    for step in range(steps):
        optimizer.zero_grad()
        model(inputs(step)).square().mean().backward()
        optimizer.step()
        before = model[0].weight.detach().clone()
        method.step()
        hits += (model[0].weight.detach() != before).float().sum(1)
    return hits


def spread_evenly(hits):
    """Whether counts of independent draws that are equally likely could be so uneven, by chi-square."""
    return stats.chisquare(hits.numpy()).pvalue > 1e-3


def test_rows_of_an_embedding_that_no_token_reads():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(1000, 8), nn.Flatten(), nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    method = supple.SWR(model, optimizer, frequency=1, factor=0.02, pruning="proportional", include="0.weight", seed=1)
    # The last 100 tokens are read now and then, the others never.
    hits = train(model, optimizer, method, lambda step: torch.randint(900, 1000, (4, 8)), steps=100)
    assert int(hits.sum()) == 100 * 160
    # Entries of a row are chosen one by one, so a third is the sum of very many: compare thirds and twentieths.
    assert spread_evenly(hits[:900].view(3, 300).sum(1))
    assert spread_evenly(hits[:900].view(18, 50).sum(1))
    assert int((hits > 0).sum()) > 990


def test_weights_of_dead_units():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 2))
    with torch.no_grad():
        model[0].bias[::2] = -100
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    initial = {"0.bias": supple.Constant(0)}
    method = supple.SWR(
        model, frequency=1, factor=0.05, pruning="proportional", include="0.weight", initial=initial, seed=2
    )
    hits = train(model, optimizer, method, lambda step: torch.randn(64, 20), steps=50)
    assert int(hits[::2].sum()) == 50 * 100  # a step 100 of the 1,000 weights whose utility is 0
    assert spread_evenly(hits[::2])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("utility", ["contribution", "activation", "gradient"])
def test_dead_units_are_replaced_in_any_order(utility):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 2))
    initial = {"0.weight": supple.Constant(0.1), "0.bias": supple.Constant(0)}
    with torch.no_grad():
        model[0].weight.fill_(0.1)
        model[0].bias.fill_(-100)
    method = supple.CBP(model, maturity=0, replacement_rate=0.1, utility=utility, initial=initial, seed=3)
    replaced = torch.zeros(30)
    for _ in range(200):
        model(torch.ones(2, 4)).sum().backward()
        method.step()
        replaced += model[0].bias.detach() == 0
        with torch.no_grad():
            model[0].bias.fill_(-100)
    assert int(replaced.sum()) == int(method.reinitialized.total) == 600
    assert spread_evenly(replaced)


@pytest.mark.parametrize("kind", ["SWR", "CBP", "CBP accumulated"])
def test_a_replica_chooses_as_it_does_alone(kind):
    """Some replicas have ties at the cut and others not; seeds differ."""

    def make(model, **seed):
        if kind == "SWR":
            words = {"utility": "magnitude", "pruning": "proportional"}
            return supple.SWR(model, frequency=1, factor=0.3, initial={"*": supple.Normal(0, 1)}, **words, **seed)
        words = {"utility": "magnitude", "decay": 0.5 * (kind == "CBP accumulated")}
        return supple.CBP(model, maturity=0, replacement_rate=0.26, **words, **seed)

    def start(model):
        values = torch.arange(8.0) // 3 + 1
        for parameter in model.parameters():
            parameter.detach().copy_(values.repeat(parameter.numel() // 8 + 1)[: parameter.numel()].view_as(parameter))

    seeds = [5, 6, 5]
    stack = StackedMLP(seeds, 4, 8, 3, 2)
    method = make(stack)
    alone = [StackedMLP([seed], 4, 8, 3, 2) for seed in seeds]
    methods = [make(model) for model in alone]
    for one in alone[:2]:  # the third stays as it was drawn, without ties
        start(one)
    for name, parameter in stack.named_parameters():
        parameter.detach().copy_(torch.cat([one.get_parameter(name) for one in alone]))
    for _ in range(5):
        for one in (method, *methods):
            one.step()
        for name, parameter in stack.named_parameters():
            assert torch.equal(parameter.detach(), torch.cat([one.get_parameter(name).detach() for one in alone]))
    assert bool((method.reinitialized.total > 5).all())

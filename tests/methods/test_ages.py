"""Entries that are replaced have an age of their own: they move as those of a new optimizer of the Adam family."""

import copy

import pytest
import torch
from helpers import network

import supple
from supple.lab.nn import StackedMLP
from supple.methods import ages
from supple.methods.ages import OLD
from supple.optim import AdamW

LR = 0.01
FAMILY = {
    "Adam": lambda p: torch.optim.Adam(p, lr=LR),
    "Adam foreach decayed": lambda p: torch.optim.Adam(p, lr=LR, foreach=True, weight_decay=0.1),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=LR, fused=True),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, lr=LR, amsgrad=True, maximize=True),
    "Adam of a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(LR), foreach=False),
    "Adam fast": lambda p: torch.optim.Adam(p, lr=LR, betas=(0.0, 0.5)),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.1),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.1, fused=True, betas=(0.95, 0.99)),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=LR),
    "NAdam foreach decayed": lambda p: torch.optim.NAdam(p, lr=LR, weight_decay=0.1, foreach=True, maximize=True),
    "NAdam decoupled": lambda p: torch.optim.NAdam(p, lr=LR, weight_decay=0.1, decoupled_weight_decay=True),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=LR),
    "RAdam decayed": lambda p: torch.optim.RAdam(p, lr=LR, weight_decay=0.1, betas=(0.8, 0.9)),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=LR, weight_decay=0.1),
    "supple": lambda p: AdamW(p, lr=LR),
}


def gradient(step, shape, dtype=torch.float64):
    """Gradients of all sizes."""
    generator = torch.Generator().manual_seed(step)
    scale = torch.logspace(-6, 1, shape.numel(), dtype=dtype).view(shape)
    return scale * torch.randn(shape, generator=generator, dtype=dtype)


def replaced_by(model, optimizer, factor, state="fresh", step=1):
    return supple.SWR(
        model,
        optimizer,
        frequency=step,
        factor=factor,
        pruning="proportional",
        utility="random",
        optimizer_state=state,
        include="weight",
    )


@pytest.mark.one_in(6)
@pytest.mark.parametrize("factor", [0.05, 0.8], ids=["few", "many"])
@pytest.mark.parametrize("name", FAMILY)
def test_a_replaced_entry_moves_as_in_a_new_optimizer(name, factor):
    torch.manual_seed(0)
    model = torch.nn.Linear(12, 10, bias=False).double()
    weight = model.weight
    optimizer = FAMILY[name](model.parameters())
    method = replaced_by(model, optimizer, factor, step=200)
    for step in range(200):
        weight.grad = gradient(step, weight.shape)
        optimizer.step()
        before = weight.detach().clone()
        method.step()
    changed = weight.detach() != before
    assert 0 < changed.sum() < changed.numel()
    # The reference: the same values, with the same gradients from here on, in an optimizer that was just made.
    new = torch.nn.Parameter(weight.detach().clone())
    reference = FAMILY[name]([new])
    for step in range(200, 400):
        for one, by in ((weight, optimizer), (new, reference)):
            one.grad = gradient(step, one.shape)
            by.step()
        # Weights of which the decay is most of the gradient oscillate around 0, where small differences grow.
        near = 2e-6 if name == "RAdam decayed" else 1e-6
        torch.testing.assert_close(weight.detach()[changed], new.detach()[changed], rtol=1e-6, atol=near)


@pytest.mark.parametrize("name", ["Adam", "Adamax", "NAdam"])
def test_entries_that_were_not_replaced_move_as_before(name):
    torch.manual_seed(0)
    model = torch.nn.Linear(12, 10, bias=False).double()
    alone = copy.deepcopy(model)
    optimizer, other = FAMILY[name](model.parameters()), FAMILY[name](alone.parameters())
    method = replaced_by(model, optimizer, 0.1, step=50)
    ever = torch.zeros_like(model.weight, dtype=torch.bool)
    for step in range(120):
        for one, by in ((model.weight, optimizer), (alone.weight, other)):
            one.grad = gradient(step, one.shape)
            by.step()
        before = model.weight.detach().clone()
        method.step()
        ever |= model.weight.detach() != before
        assert torch.equal(model.weight[~ever], alone.weight[~ever])
    assert 0 < ever.sum() < ever.numel()


def test_a_step_is_as_long_as_a_new_adam_takes_it():
    # What was measured with moments of 0 and a step count in the thousands: up to 6.6 step sizes, and 278 in 50 steps.
    torch.manual_seed(0)
    model = torch.nn.Linear(20, 20, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    method = replaced_by(model, optimizer, 0.25, step=2000)
    for step in range(2000):
        model.weight.grad = torch.randn(20, 20, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        before = model.weight.detach().clone()
        method.step()
    changed = model.weight.detach() != before
    total = torch.zeros(int(changed.sum()))
    for _ in range(50):
        before = model.weight.detach().clone()
        model.weight.grad = torch.ones(20, 20)
        optimizer.step()
        moved = (model.weight.detach() - before)[changed].abs() / 1e-3
        assert moved.max() < 1.001
        total += moved
    assert total.max() < 50.01


def test_a_stack_with_a_step_size_a_replica_equals_networks_alone():
    rates = torch.tensor([0.01, 0.03])
    stack = StackedMLP([1, 2], 4, 6, 3, 2)
    alone = [stack.replica(r) for r in range(2)]
    settings = {"frequency": 3, "factor": 0.2, "pruning": "proportional", "optimizer_state": "fresh"}
    optimizer = AdamW(stack.parameters(), lr=rates)
    method = supple.SWR(stack, optimizer, **settings)
    optimizers = [AdamW(one.parameters(), lr=float(rate)) for one, rate in zip(alone, rates, strict=True)]
    methods = [
        supple.SWR(one, o, **settings, seed=1 + r) for r, (one, o) in enumerate(zip(alone, optimizers, strict=True))
    ]
    for step in range(30):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for model, by, acting in ((stack, optimizer, method), *zip(alone, optimizers, methods, strict=True)):
            by.zero_grad()
            model(x).square().sum().backward()
            by.step()
            acting.step()
    for name, parameter in stack.named_parameters():
        for r in range(2):
            other = dict(alone[r].named_parameters())[name]
            torch.testing.assert_close(
                parameter[r], other[0] if other.ndim == parameter.ndim else other, rtol=1e-4, atol=1e-6
            )


def fit(model, optimizer, method, steps):
    for step in steps:
        model.zero_grad()
        model(torch.randn(8, 6, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
        method.step()


@pytest.mark.parametrize("kind", [supple.CBP, supple.SWR])
def test_ages_are_saved(kind):
    settings = {"maturity": 2, "replacement_rate": 0.1} if kind is supple.CBP else {"frequency": 3, "factor": 0.3}

    def made():
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=LR)
        return model, optimizer, kind(model, optimizer, optimizer_state="fresh", **settings)

    one, other = made(), made()
    fit(*one, range(20))
    other[0].load_state_dict(one[0].state_dict())
    other[1].load_state_dict(copy.deepcopy(one[1].state_dict()))
    other[2].load_state_dict(one[2].state_dict())
    fit(*one, range(20, 40))
    fit(*other, range(20, 40))
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_two_methods_on_one_optimizer_correct_once():
    torch.manual_seed(0)
    model = torch.nn.Linear(12, 10, bias=False).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    method = supple.chain(*(replaced_by(model, optimizer, 0.2, step=30) for _ in range(2)))
    for step in range(30):
        model.weight.grad = gradient(step, model.weight.shape)
        optimizer.step()
        before = model.weight.detach().clone()
        method.step()
    changed = model.weight.detach() != before
    new = torch.nn.Parameter(model.weight.detach().clone())
    reference = torch.optim.Adam([new], lr=LR)
    for step in range(30, 60):
        for one, by in ((model.weight, optimizer), (new, reference)):
            one.grad = gradient(step, one.shape)
            by.step()
    assert (model.weight - new)[changed].abs().max() < 1e-6


def test_a_closed_method_leaves_no_hook_and_entries_that_are_not_hurled():
    torch.manual_seed(0)
    model = torch.nn.Linear(20, 20, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    method = replaced_by(model, optimizer, 0.25, step=500)
    for _ in range(500):
        model.weight.grad = torch.ones(20, 20)
        optimizer.step()
        before = model.weight.detach().clone()
        method.step()
    changed = model.weight.detach() != before
    for number in range(20):
        if number == 5:
            assert optimizer._optimizer_step_post_hooks
            method.close()
            assert not optimizer._optimizer_step_post_hooks
        before = model.weight.detach().clone()
        model.weight.grad = torch.ones(20, 20)
        optimizer.step()
        assert ((model.weight.detach() - before)[changed].abs() / LR).max() < 1.05


def test_births_take_memory_only_where_something_was_replaced():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    method = supple.SWR(model, optimizer, frequency=2, factor=0.5, include="0.weight", optimizer_state="fresh")
    fit(model, optimizer, method, range(1))
    assert method.memory.born == {}
    fit(model, optimizer, method, range(1, 2))
    born = method.memory.born["0.weight"]
    assert born.dtype == torch.int32
    assert set(born.unique().tolist()) <= {OLD, 2}


@pytest.mark.parametrize("kind", ["Adam", "NAdam"])
def test_young_entries_are_the_same_whether_their_list_grows_or_all_entries_are_looked_at(kind, monkeypatch):
    few = ages._Young.few

    def all_looked_at(self, *arguments):
        self.replaced = [None]
        return few(self, *arguments)

    def trained():
        torch.manual_seed(0)
        hidden = [torch.nn.Conv2d(2, 12, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(192, 30)]
        model = torch.nn.Sequential(*hidden, torch.nn.ReLU(), torch.nn.Linear(30, 3))
        optimizer = getattr(torch.optim, kind)(model.parameters(), betas=(0.8, 0.95))
        # Units are replaced again and again, so that entries are in the list twice, and some grow old.
        method = supple.CBP(model, optimizer, maturity=3, replacement_rate=0.02, optimizer_state="fresh", seed=0)
        for step in range(60):
            optimizer.zero_grad()
            model(torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            if step == 30:
                optimizer.load_state_dict(optimizer.state_dict())
            if step % 7 == 3:
                model[3].weight.grad = None
            optimizer.step()
            method.step()
        assert int(method.reinitialized.total) > 20
        return [parameter.detach().clone() for parameter in model.parameters()]

    grown = trained()
    monkeypatch.setattr(ages._Young, "few", all_looked_at)
    looked = trained()
    monkeypatch.setattr(ages, "_MANY", 10**9)
    dense = trained()
    assert all(map(torch.equal, grown, looked))
    assert all(map(torch.equal, grown, dense))


@pytest.mark.slow
def test_a_compiled_step_of_the_optimizer_is_not_compiled_anew_for_other_young_entries():
    from torch._dynamo.testing import CompileCounter

    counter, model = CompileCounter(), network()
    optimizer = torch.optim.Adam(model.parameters())
    method = supple.CBP(model, optimizer, maturity=3, replacement_rate=0.02, optimizer_state="fresh", seed=1)
    compiled, counts = torch.compile(optimizer.step, backend=counter), []
    for number in range(25):
        optimizer.zero_grad()
        model(torch.randn(8, 6, generator=torch.Generator().manual_seed(number))).square().mean().backward()
        compiled()
        method.step()
        counts.append(counter.frame_count)
    assert int(method.reinitialized.total) > 5
    assert counts[-1] == counts[3] > 0


@pytest.mark.parametrize("factor", [0.05, 0.8], ids=["few", "many"])
def test_in_half_precision_the_corrections_are_right_on_average(factor):
    # Of weights of 1 in bfloat16 each update of Adam is lost, and each correction would be.
    model = torch.nn.Linear(200, 200, bias=False).to(torch.bfloat16)
    torch.nn.init.ones_(model.weight)
    rate, betas, start, steps = 1e-4, (0.9, 0.999), 100, 30
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=betas)
    method = supple.SWR(
        model,
        optimizer,
        frequency=start,
        factor=factor,
        pruning="proportional",
        utility="random",
        optimizer_state="fresh",
        initial={"weight": supple.Constant(1.0)},
    )
    for _ in range(start):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        method.step()
    assert bool((model.weight == 1).all())
    replaced = int(method.reinitialized.total)
    expected = 0.0
    for age in range(1, steps + 1):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        first, second = (1 - beta**age for beta in betas)
        whole = [1 - beta ** (start + age) for beta in betas]
        # The moments in bfloat16 are a little off.
        expected += rate * (first / whole[0] / (second / whole[1]) ** 0.5 - 1)
    moved = float((model.weight.detach().double() - 1).sum()) / replaced
    assert moved == pytest.approx(expected, rel=0.05)

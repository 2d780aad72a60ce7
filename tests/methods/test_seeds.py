"""The seed of a method for which none is stated: its own, decided by torch.manual_seed, and saved."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import supple
from supple.methods.seeds import _Order

KINDS = {
    "L2": lambda model, **more: supple.L2(model, l2=0.01, **more),
    "S&P": lambda model, **more: supple.ShrinkAndPerturb(model, l2=0.0, variance=1e-2, **more),
    "SWR": lambda model, **more: supple.SWR(model, frequency=1, factor=0.5, utility="random", **more),
    "CBP": lambda model, **more: supple.CBP(
        model, maturity=0, replacement_rate=0.1, utility="magnitude", counting="draw", **more
    ),
    "ReDo": lambda model, **more: supple.ReDo(model, frequency=1, threshold=1.0, utility="magnitude", **more),
}
DRAWING = [name for name in KINDS if name != "L2"]


@pytest.fixture(autouse=True, scope="module")
def seed_of_methods():
    """No seed but the method's own, here."""


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))


def same_weights():
    """A network that draws nothing from torch's generator."""
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-0.2, 0.3, parameter.numel()).view_as(parameter))
    return model


def initial():
    return {"0.weight": supple.Normal(0, 1), "2.weight": supple.Normal(0, 1), "*.bias": supple.Constant(0)}


def make(name, model, **more):
    replaces = name not in ("L2", "S&P")
    return KINDS[name](model, **({"initial": initial()} if replaces else {}), **more)


def after(method, steps=3):
    for _ in range(steps):
        method.step()
    return torch.cat([p.detach().flatten() for p in method.model.parameters()])


@pytest.mark.parametrize("name", DRAWING)
def test_methods_of_one_program_draw_different_numbers(name):
    models = [same_weights() for _ in range(3)]
    torch.manual_seed(0)
    one, two, three = (after(make(name, model)) for model in models)
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)
    assert not torch.equal(one, three)


def test_twins_share_neither_noise_nor_weights():
    one, two = network(1), network(2)
    apart = one[0].weight.detach() - two[0].weight.detach()
    for method in [make("S&P", model) for model in (one, two)]:
        after(method, 100)
    # Two independent sums of 100 steps of 0.1.
    moved = one[0].weight.detach() - two[0].weight.detach() - apart
    assert float(moved.std()) == pytest.approx(2**0.5, rel=0.2)

    one, two = network(1), network(2)
    methods = [supple.CBP(m, maturity=0, replacement_rate=0.25, utility="magnitude") for m in (one, two)]
    for method in methods:
        after(method, 8)
    near = (one[0].weight.detach() - two[0].weight.detach()).abs().amax(1) < 0.05
    assert not near.any()


@pytest.mark.parametrize("name", DRAWING)
def test_torchs_seed_decides(name):
    def run(seed):
        model = same_weights()
        torch.manual_seed(seed)
        method = make(name, model)
        torch.rand(1)
        return after(method)

    first, second, again = run(1), run(2), run(1)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", DRAWING)
def test_the_same_program_gives_the_same_once_more_in_one_process(name):
    """What draws something after it made its methods, as training does, may be run again with the same seed."""

    def run():
        torch.manual_seed(3)
        methods = [make(name, nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))) for _ in range(2)]
        torch.rand(1)
        return [after(method) for method in methods]

    one, two = run(), run()
    assert all(map(torch.equal, one, two))
    assert not torch.equal(one[0], one[1])


PROGRAM = """
import torch, supple
torch.manual_seed({seed})
methods = [supple.SWR(torch.nn.Linear(3, 3), frequency=1, factor=1.0) for _ in range(2)]
print(*(int(method.seed) for method in methods), torch.rand(1).item())
"""


@pytest.mark.slow
def test_the_same_program_gives_the_same_in_another_process():
    def output(seed):
        program = PROGRAM.format(seed=seed)
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()

    one, two, other = output(1), output(1), output(2)
    assert one == two
    assert len({*one, *other}) == 6


@pytest.mark.parametrize("name", KINDS)
def test_making_a_method_takes_no_random_numbers(name):
    model = network()
    state = torch.get_rng_state()
    method = make(name, model)
    assert torch.equal(torch.get_rng_state(), state)
    method.step()
    assert torch.equal(torch.get_rng_state(), state)


def test_two_methods_of_one_chain_draw_different_numbers():
    torch.manual_seed(0)
    model = nn.Linear(100, 100)
    one, two = (supple.ShrinkAndPerturb(model, l2=0, variance=1e-2) for _ in range(2))
    before = model.weight.detach().clone()
    supple.chain(one, two).step()
    # The same noise twice would have a standard deviation of 0.2.
    assert float((model.weight.detach() - before).std()) == pytest.approx(0.1 * 2**0.5, rel=0.05)


@pytest.mark.parametrize("name", DRAWING)
def test_a_state_brings_its_seed(name):
    torch.manual_seed(0)
    method = make(name, same_weights())
    after(method)
    state = method.state_dict()
    model, others = same_weights(), [make(name, same_weights()) for _ in range(2)]
    model.load_state_dict(method.model.state_dict())
    loaded = make(name, model)
    assert not torch.equal(loaded.seed, method.seed)
    loaded.load_state_dict(state)
    # Of drawn numbers those of the first thousand steps are drawn together, which has to be done anew.
    expected = after(method)
    assert torch.equal(after(loaded), expected)
    assert all(int(other.seed) != int(method.seed) for other in others)


def test_a_state_brings_its_seed_to_noise_that_is_kept():
    def upgd():
        model = same_weights()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return supple.UPGD(model, optimizer, std=1.0)

    def moved(method):
        method.model.zero_grad()
        method.model(torch.ones(2, 8)).sum().backward()
        method.before_step()
        method.step()
        return method.model[0].weight.detach().clone()

    one, two, other = upgd(), upgd(), upgd()
    two.load_state_dict(one.state_dict())
    assert torch.equal(moved(one), moved(two))
    assert not torch.equal(moved(upgd()), moved(other))


def test_a_stated_seed_stays():
    method, stated = make("S&P", same_weights()), make("S&P", same_weights(), seed=7)
    stated.load_state_dict(method.state_dict())
    assert stated.seed.tolist() == [7]
    method.load_state_dict(make("S&P", same_weights(), seed=11).state_dict())
    assert method.seed.tolist() == [11]


def test_a_state_without_a_seed_is_of_a_version_whose_seed_was_0():
    method = make("SWR", same_weights())
    state = method.state_dict()
    del state["seed"]
    method.load_state_dict(state)
    assert method.seed.tolist() == [0]


@pytest.mark.parametrize("seed", [torch.tensor([0.5]), torch.zeros(2, dtype=torch.int64), "x", None])
def test_a_damaged_seed_changes_nothing(seed):
    method = make("S&P", same_weights())
    method.step()
    state, before = method.state_dict() | {"seed": seed, "steps": 9}, method.seed.clone()
    with pytest.raises((TypeError, ValueError), match="state"):
        method.load_state_dict(state)
    assert torch.equal(method.seed, before)
    assert method.steps == 1


def test_replicas_have_the_seeds_of_their_networks():
    from supple.lab.nn import StackedMLP

    assert supple.L2(StackedMLP([4, 5, 4], 5, 6, 3, 2)).seed.tolist() == [4, 5, 4]


def test_counting_starts_anew_when_the_generator_is_seeded():
    order = _Order()
    torch.manual_seed(1)
    assert [order.next(), order.next()] == [0, 1]
    torch.rand(1)
    assert order.next() == 2
    torch.manual_seed(1)
    assert [order.next(), order.next()] == [0, 1]
    torch.manual_seed(2)
    assert order.next() == 0
    torch.rand(1)
    order.note()  # a first step
    assert order.next() == 1
    torch.manual_seed(2)
    assert [order.next(), order.next()] == [0, 1]
    # Nothing was drawn, so this cannot be told from going on.
    torch.manual_seed(2)
    assert order.next() == 2

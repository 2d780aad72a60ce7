"""Any module as a population: each replica learns as the same module does alone."""

import copy
import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import supple
from supple.lab import stack
from supple.lab.nn import MLP, StackedMLP
from supple.methods.registry import METHODS
from supple.optim import SGDW, AdamW

SEEDS = [3, 3, 8]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A small one, whose output weights are those of the embedding."""

    def __init__(self, vocabulary=11, width=8, context=6):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(Block(width, 2), Block(width, 2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("order", torch.arange(context))

    def forward(self, tokens):
        return self.head(self.norm(self.blocks(self.embedding(tokens) + self.positions(self.order))))


def mlp(seed):
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4)).double()


def conv(seed):
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, bias=False),  # which batch normalization would take away but for rounding
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 8),
        nn.ReLU(),
        nn.Linear(8, 4),
    ).double()


def gpt(seed):
    return GPT().double()


class Padded(nn.Module):
    """A network whose padding has no gradient where it is looked up, and one where it is put out."""

    def __init__(self):
        super().__init__()
        self.embedding, self.up, self.down = nn.Embedding(11, 8), nn.Linear(8, 9), nn.Linear(9, 8)
        self.activation, self.head = nn.ReLU(), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        found = F.embedding(tokens, self.embedding.weight, padding_idx=-11)
        return self.head(self.down(self.activation(self.up(found))))


def padded(seed):
    return Padded().double()


class Gate(nn.Module):
    """Multiplies each unit by a number, which starts from a value of its own."""

    def __init__(self, size):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(size))

    def forward(self, x):
        return x * self.scale


def scaled(seed):
    """One that starts from something else in each network: numbers of their own, and weights."""
    network = nn.Sequential(nn.Linear(7, 12), nn.ReLU(), Gate(12), nn.Linear(12, 4)).double()
    nn.init.uniform_(network[0].weight, -0.1 * seed, 0.1 * seed)
    return network


class Stubborn(nn.Module):
    """A network that decides by its values, as ``torch.func.vmap`` cannot, and replaces its buffer by another."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(7, 12), nn.Linear(12, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        x = torch.relu(self.one(x))
        return self.two(x if x.sum().item() > 0 else -x)

    def hidden_units(self):
        """Those of the same layers in a row."""
        return supple.units(nn.Sequential(OrderedDict(one=self.one, activation=nn.ReLU(), two=self.two)))


def stubborn(seed):
    return Stubborn().double()


def tokens(steps, replicas):
    return torch.randint(11, (steps, replicas, 4, 6)), torch.randint(11, (steps, replicas, 4, 6))


def classes(*shape):
    def draw(steps, replicas):
        x = torch.randn(steps, replicas, 6, *shape, dtype=torch.float64)
        return x, torch.randint(4, (steps, replicas, 6))

    return draw


NETWORKS = {
    "mlp": (mlp, classes(7)),
    "conv": (conv, classes(2, 8, 8)),
    "gpt": (gpt, tokens),
    "padded": (padded, tokens),
    "scaled": (scaled, classes(7)),
    "one after the other": (stubborn, classes(7)),
}
SETTINGS = {
    "swr": {"frequency": [2, 3, 5], "factor": [0.1, 0.3, 0.2]},
    "cbp": {"replacement_rate": [0.05, 0.1, 0.02], "maturity": [2, 5, 9]},
    "redo": {"frequency": [7, 9, 11], "threshold": [0.3, 0.6, 0.5]},
    "l2_init": {"strength": [0.01, 0.1, 0.001]},
    "shrink_and_redraw": {"every": [0, 7, 9]},
}
ON_STARTS = {
    "swr": {"frequency": [2, 3, 5], "factor": [0.1, 0.3, 0.2], "reinit": ["mean"] * 3},
    "weight_clipping": {"factor": [0.8, 1.1, 1.0]},
}
"""What follows from what weights start from, in other ways."""
RATES = [0.05, 0.02, 0.1]


def loss_of(logits, targets):
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def learn(network, optimizer, method, losses, data):
    """The losses of the three lines of any training loop."""
    found = []
    for step, (x, y) in enumerate(zip(*data, strict=True)):
        if method is not None and step and step % 20 == 0 and method.acts_at_boundary:
            method.boundary()
        optimizer.zero_grad()
        loss = losses(network(x), y)
        loss.sum().backward()
        if method is not None:
            method.before_step()
        optimizer.step()
        if method is not None:
            method.step()
        found.append(loss.detach())
    return torch.stack(found)


def together_and_alone(kind, name, optimizer, settings, steps=50):
    make, draw = NETWORKS[kind]
    torch.manual_seed(5)
    data = draw(steps, len(SEEDS))
    example = data[0][0, 0]

    networks = stack(make, SEEDS, example)
    opt = optimizer(networks.parameters(), lr=RATES)
    same = {key: value[0] if isinstance(value[0], str) else value for key, value in settings.items()}
    method = METHODS[name](networks, opt, **same) if name else None
    together = learn(networks, opt, method, lambda z, y: networks.losses(loss_of, z, y), data)
    counts = method.reinitialized.total.tolist() if method else None
    for r, seed in enumerate(SEEDS):
        torch.manual_seed(seed)
        network = make(seed)
        opt = optimizer(network.parameters(), lr=RATES[r])
        mine = {key: value[r] for key, value in settings.items()}
        if name and "units" in METHODS[name].__signature__.parameters:
            mine["units"] = supple.units(network, example)
        alone = METHODS[name](network, opt, seed=seed, **mine) if name else None
        losses = learn(network, opt, alone, loss_of, [part[:, r] for part in data])
        torch.testing.assert_close(together[:, r], losses, rtol=1e-7, atol=1e-9)
        if alone:
            assert int(alone.reinitialized.total) == counts[r]
        replica = networks.replica(r)
        assert type(replica) is type(network)
        torch.testing.assert_close(replica.state_dict(), network.state_dict(), rtol=1e-6, atol=1e-8)
    return counts


QUICK = {
    ("conv", "cbp"),
    ("gpt", "redo"),
    ("padded", None),
    ("scaled", "cbp"),
    ("scaled", "swr"),
    ("one after the other", "cbp"),
}


@pytest.mark.one_in(3)
@pytest.mark.filterwarnings("ignore:3 networks .Stubborn. are computed")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, marks=[] if (kind, name) in QUICK else pytest.mark.slow)
        for kind in NETWORKS
        for name in (None, *SETTINGS)
    ],
)
def test_replicas_learn_as_they_do_alone(kind, name):
    counts = together_and_alone(kind, name, SGDW, SETTINGS.get(name, {}))
    if name in ("swr", "cbp", "redo"):
        assert min(counts) > 0


@pytest.mark.parametrize("name", ON_STARTS)
def test_with_a_start_of_each(name):
    together_and_alone("scaled", name, SGDW, ON_STARTS[name], steps=25)


OTHERS = [name for name in METHODS if name not in SETTINGS and name not in ("dash", "shrink_and_perturb")]
"""DASH needs batches of its own, and the noise of shrink and perturb is that of the whole population."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conv", "gpt"])
@pytest.mark.parametrize("name", OTHERS)
def test_with_every_method(kind, name):
    together_and_alone(kind, name, SGDW, {}, steps=25)


def adamw(parameters, lr):
    return AdamW(parameters, lr=[rate / 20 for rate in lr] if isinstance(lr, list) else lr / 20, weight_decay=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "swr", "cbp"])
def test_with_adamw(name):
    together_and_alone("conv", name, adamw, SETTINGS.get(name, {}), 30)


@pytest.mark.slow
def test_acting_in_the_backward_pass():
    settings = SETTINGS["cbp"] | {"order": ["in_backward"] * 3}
    counts = together_and_alone("mlp", "cbp", SGDW, settings, 20)
    assert min(counts) > 0


@pytest.mark.filterwarnings("ignore:3 networks .Stubborn. are computed")
def test_one_after_the_other_nothing_acts_in_the_backward_pass():
    networks = stack(stubborn, SEEDS)
    method = supple.CBP(
        networks, SGDW(networks.parameters(), 0.1), replacement_rate=0.1, maturity=0, order="in_backward"
    )
    with pytest.raises(RuntimeError, match="computed one after the other"):
        networks(torch.randn(1, 6, 7, dtype=torch.float64))
    method.close()


def test_what_cannot_be_vmapped_says_so_once():
    networks = stack(stubborn, SEEDS)
    x = torch.randn(1, 6, 7, dtype=torch.float64)
    with pytest.warns(UserWarning, match="3 networks .Stubborn. are computed one after the other.*vmap") as caught:
        networks(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        networks.eval()(x)
    assert len(caught) == 1
    assert networks.calls.tolist() == [2, 2, 2]


def test_what_networks_start_from_is_of_each_and_saved():
    def make(seed):
        network = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), Gate(20), nn.Linear(20, 3))
        nn.init.uniform_(network[0].weight, -1.0, 1.0 + seed)
        network[2].scale.data.copy_(torch.tensor([seed, 1.0, 3.0] * 6 + [2.0, 7.0]))
        return network

    networks = stack(make, [0, 1, 1, 2])
    told = supple.initial_distributions(networks)
    for r, seed in enumerate([0, 1, 1, 2]):
        torch.manual_seed(seed)
        alone = make(seed)
        for name in ("0.weight", "2.scale"):
            one = supple.initial_distributions(alone)[name].distribution
            ours = told[name].distribution.of[told[name].distribution.which[r]]
            assert str(one) == str(ours)
            assert vars(one).keys() == vars(ours).keys()
        assert torch.equal(ours.values, alone[2].scale)
    assert told["0.bias"].distribution == supple.Uniform(-(30**-0.5), 30**-0.5)
    assert "3 by network, such as uniform(" in str(told)

    optimizer = SGDW(networks.parameters(), lr=0.1)
    method = supple.SWR(networks, optimizer)
    trained = stack(lambda seed: make(5), [0, 1, 1, 2])
    other = supple.SWR(trained, SGDW(trained.parameters(), lr=0.1))
    other.load_state_dict(method.state_dict())
    for name, start in method.distributions.items():
        assert str(other.distributions[name]) == str(start)
    state = method.state_dict()
    state["initial"]["0.weight"]["which"] = torch.tensor([0, 1, 1, 3])
    with pytest.raises(ValueError, match=r"initial\.0\.weight of the state is no distribution of finite values"):
        other.load_state_dict(state)


@pytest.mark.filterwarnings("ignore:The model looks trained")
def test_of_a_scale_that_nothing_tells_the_rule_of_its_layer_does():
    def make(seed):
        network = nn.Sequential(nn.Linear(7, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 4))
        with torch.no_grad():
            network[1].weight.copy_(torch.rand(12) + 0.5)
            network[1].bias.copy_(torch.linspace(0, 1 + seed, 12))
            network[3].bias.copy_(torch.tensor([1.0, 1.0, 5.0, -2.0]) * (seed + 1))
        return network

    networks = stack(make, [0, 1])
    told = supple.initial_distributions(networks)
    assert told["1.weight"].distribution is None
    assert told.require_means(["1.weight"]) == {"1.weight": supple.Constant(1.0)}
    with pytest.raises(ValueError, match=r"1\.weight: unknown: the stacked networks do not tell"):
        supple.SWR(networks, SGDW(networks.parameters(), lr=0.1))


def test_seeds_share_batches_and_start_alike():
    """Replicas of one seed are the network that the seed makes, and a batch a seed is read by all of its replicas."""
    torch.manual_seed(9)
    before = torch.get_rng_state()
    networks = stack(mlp, [3, 3, 8, 8])
    assert torch.equal(torch.get_rng_state(), before)
    for seed, r in ((3, 1), (8, 2)):
        torch.manual_seed(seed)
        torch.testing.assert_close(dict(networks.replica(r).state_dict()), dict(mlp(seed).state_dict()), rtol=0, atol=0)
    x = torch.randn(2, 6, 7, dtype=torch.float64)
    z = networks(x)
    for r in range(4):
        torch.testing.assert_close(z[r], networks.replica(r)(x[r // 2]))
        torch.testing.assert_close(networks(x[1:])[r], networks.replica(r)(x[1]))
    with pytest.raises(ValueError, match=r"shape \(3, 6, 7\).*has to divide 4"):
        networks(torch.randn(3, 6, 7))


def test_the_perceptron_stacked_by_either_way_is_one():
    written, any_module = StackedMLP([1, 2], 7, 5, 3), stack(lambda seed: MLP(7, 5, 3, seed=seed), [1, 2])
    x = torch.randn(1, 6, 7)
    torch.testing.assert_close(any_module(x), written(x))
    assert any_module.state_dict().keys() == written.state_dict().keys()
    assert supple.units(any_module).groups == supple.units(written).groups


def test_dropout_differs_by_replica_and_follows_the_generator():
    networks = stack(lambda seed: nn.Sequential(nn.Linear(7, 50), nn.Dropout()), [4, 4])
    x = torch.randn(1, 6, 7)
    torch.manual_seed(0)
    first = networks(x)
    torch.manual_seed(0)
    assert torch.equal(networks(x), first)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(*networks.eval()(x))


def test_tied_weights_stay_tied():
    networks = stack(gpt, SEEDS)
    assert networks.head.weight is networks.embedding.weight
    assert networks.replica(1).head.weight is not networks.head.weight
    one = networks.replica(1)
    assert one.head.weight is one.embedding.weight


@pytest.mark.filterwarnings("ignore:2 networks", "ignore:There is a performance drop")
@pytest.mark.parametrize(
    "network", [nn.LSTM(3, 4), nn.GRUCell(3, 4), nn.MultiheadAttention(4, 2)], ids=["lstm", "gru", "attention"]
)
def test_modules_with_several_outputs(network):
    networks = stack(lambda seed: copy.deepcopy(network), [0, 1])
    width = 4 if isinstance(network, nn.MultiheadAttention) else 3
    given = [torch.randn(2, 5, width) for _ in range(3 if width == 4 else 1)]
    found, expected = networks(*given), [network(*(x[r] for x in given)) for r in (0, 1)]
    flat = torch.utils._pytree.tree_leaves
    for i, leaf in enumerate(flat(found)):
        torch.testing.assert_close(leaf, torch.stack([flat(one)[i] for one in expected]))
    sum(leaf.sum() for leaf in flat(found)).backward()
    assert all(parameter.grad is not None for parameter in networks.parameters())


def test_a_copy_and_a_saved_state_are_the_same_networks():
    networks, other = stack(conv, SEEDS), stack(conv, [0, 1, 2])
    x = torch.randn(1, 6, 2, 8, 8, dtype=torch.float64)
    networks(x)
    other.load_state_dict(networks.state_dict())
    twin = copy.deepcopy(networks)
    assert other.seeds.tolist() == SEEDS
    expected = networks(x)
    torch.testing.assert_close(other(x), expected)
    torch.testing.assert_close(twin(x), expected)
    assert networks.float()(x.float()).dtype == torch.float32


def hooked(seed):
    network = nn.Linear(2, 2)
    network.weight.register_hook(lambda gradient: 2 * gradient)
    return network


def hooked_module(seed):
    network = nn.Sequential(nn.Linear(2, 2))
    network[0].register_full_backward_pre_hook(lambda module, gradients: gradients)
    return network


def growing(seed):
    return nn.Linear(4, 2 + seed)


def sharing(seed, linear=nn.Linear(2, 2)):  # noqa: B008
    return nn.Sequential(linear)


class Loose(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.offset = torch.randn(2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (growing, ValueError, r"weight is torch.float32 of shape \(3, 4\) on cpu in make\(1\) and .*\(2, 4\)"),
        (
            lambda seed: nn.Sequential(*(nn.Linear(2, 2) for _ in range(1 + seed))),
            ValueError,
            "1 is Linear in make.1. and missing",
        ),
        (lambda seed: nn.Linear(2, 2).requires_grad_(seed == 0), ValueError, "frozen in make.1."),
        (sharing, ValueError, r"make\(1\) and make\(0\) share 0.weight"),
        (lambda seed: Loose(), ValueError, "offset of Loose is a tensor .*register_buffer"),
        (hooked, ValueError, r"make\(0\) gave a network that cannot be stacked: weight has a hook on its gradient"),
        (hooked_module, ValueError, "cannot be stacked: 0 has a hook on its gradient"),
        (lambda seed: nn.Embedding(5, 2, sparse=True), ValueError, "Embedding has sparse gradients; make it with"),
        (lambda seed: torch.nn.utils.weight_norm(nn.Linear(2, 2)), ValueError, "weight of Linear is computed anew"),
        (lambda seed: nn.LazyLinear(2), ValueError, "make.0. gave a network .*: weight is lazy"),
        (lambda seed: nn.ReLU(), ValueError, "no parameters"),
        (lambda seed: torch.ones(2), TypeError, "gave Tensor; it has to give one network"),
        (lambda seed: StackedMLP([0]), TypeError, "gave StackedMLP"),
        (lambda seed: nn.ModuleDict({"seeds": nn.Linear(2, 2)}), ValueError, "has 'seeds'.*another name"),
    ],
    ids=lambda value: "" if callable(value) or isinstance(value, type) else value[:12],
)
def test_networks_that_cannot_be_stacked(make, error, message):
    with pytest.raises(error, match=message):
        stack(make, [0, 1])


@pytest.mark.filterwarnings("ignore:2 networks .Halving. are computed")
def test_what_a_network_changes_in_its_input_others_do_not_see():
    class Halving(Stubborn):
        def forward(self, x):
            return super().forward(x.mul_(0.5))

    x = torch.randn(1, 3, 7)
    found = stack(lambda seed: Halving(), [0, 0])(x.clone())
    torch.manual_seed(0)
    torch.testing.assert_close(found, Halving()(x[0].clone()).expand(2, 3, 4))


def test_what_a_network_leaves_in_attributes_is_not_copied():
    class Showing(nn.Linear):
        def forward(self, x):
            self.seen = super().forward(x)
            return self.seen

    networks = stack(lambda seed: Showing(2, 2), [0, 1])
    x = torch.randn(1, 3, 2)
    found = networks(x)
    with torch.no_grad():
        torch.testing.assert_close(networks.eval()(x), found)
    torch.testing.assert_close(networks.replica(1)(x[0]), found[1])


def test_a_compiled_network_is_stacked():
    make = lambda seed: torch.compile(nn.Linear(2, 2), backend="eager")  # noqa: E731
    networks = stack(make, [0, 1])
    x = torch.randn(2, 3, 2)
    for r in range(2):
        torch.testing.assert_close(networks.replica(r)(x[r]), networks(x)[r])


def test_what_is_missing_is_said_before_training():
    with pytest.raises(ValueError, match="seeds is"):
        stack(mlp, [])
    networks = stack(gpt, SEEDS)
    with pytest.raises(ValueError, match=r"stack\(make, seeds, example=...\)"):
        supple.CBP(networks, replacement_rate=0.1)
    with pytest.raises(ValueError, match="no hidden units"):
        supple.CBP(stack(lambda seed: nn.Linear(2, 2), SEEDS, torch.ones(1, 2)), replacement_rate=0.1)
    with pytest.raises(ValueError, match=r"shape \(6,\); it has to be a scalar"):
        networks.losses(lambda z: z.sum(1), torch.ones(1, 6, 2))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        stack(mlp, SEEDS)(torch.ones(1, 6, 9, dtype=torch.float64))
    with pytest.raises(IndexError, match="replicas 0 to 2"):
        networks.replica(3)

"""CReLU, Fourier features and layer normalization by surgery, against networks written out by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import supple
from supple import surgery
from supple.lab.nn import MLP, StackedMLP

CHANGES = {"crelu": surgery.crelu, "fourier": surgery.fourier, "layer_norm": surgery.layer_norm}


class Plain(nn.Module):
    """Two hidden layers, one with its activation as a module and one with a function."""

    shape = (7, 5)

    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Linear(5, 4), nn.ReLU()
        self.second, self.out = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(F.relu(self.second(self.act(self.first(x)))))


class Convolutional(nn.Module):
    """A convolution with a batch normalization, one without, and a linear layer of flattened channels."""

    shape = (6, 2, 6, 6)

    def __init__(self):
        super().__init__()
        self.first, self.bn = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.second, self.out = nn.Conv2d(4, 3, 3), nn.Linear(12, 2)

    def forward(self, x):
        x = torch.relu(self.bn(self.first(x)))
        return self.out(self.second(x).relu().flatten(1))


class Transformer(nn.Module):
    """A layer of a transformer, and a head."""

    shape = (3, 4, 8)

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 6, dropout=0.0, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.layer(x).mean(dim=1))


MODELS = {"mlp": Plain, "convolutional": Convolutional, "transformer": Transformer}


def example(kind, step=0):
    return torch.randn(MODELS[kind].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))


def make(kind, steps=3, groups=False):
    """A network that has trained for some steps, and its optimizer."""
    torch.manual_seed(1)
    model = MODELS[kind]().double()
    parameters = list(model.parameters())
    several = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.02}] if groups else parameters
    optimizer = torch.optim.Adam(several, lr=0.01)
    train(model, optimizer, kind, steps)
    return model, optimizer


def train(model, optimizer, kind, steps, first=0):
    for step in range(first, first + steps):
        optimizer.zero_grad()
        model(example(kind, step)).square().sum().backward()
        optimizer.step()


def shuffle(model):
    """Gives all parameters other values, so that nothing that a test compares is 0 or 1."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator) / 2)


def both(change, z, dim):
    """What the changed network makes of preactivations."""
    if change == "crelu":
        return torch.cat((z.clamp(min=0), (-z).clamp(min=0)), dim=dim)
    return torch.cat((torch.sin(z), torch.cos(z)), dim=dim)


def slow_norm(z, scale, shift, dims):
    """Each example less its mean over channels (and positions), divided by its standard deviation."""
    centred = z - z.mean(dim=dims, keepdim=True)
    shape = (-1, *(1,) * (len(dims) - 1))
    normalized = centred / (centred.square().mean(dim=dims, keepdim=True) + 1e-5).sqrt()
    return normalized * scale.view(shape) + shift.view(shape)


def activate(change, layer, z, norm=None):
    dims = (-1,) if z.ndim < 4 else (1, 2, 3)
    if change == "layer_norm":
        z = slow_norm(z, layer.norm.weight, layer.norm.bias, dims) if norm is None else norm(z)
        return z.clamp(min=0)
    return both(change, z if norm is None else norm(z), dims[0])


def inside(layer):
    return layer[0] if isinstance(layer, nn.Sequential) else layer


def written_out(change, kind, model, x):
    """What the changed network has to compute."""

    def linear(layer, x):
        layer = inside(layer)
        return x @ layer.weight.mT + layer.bias

    def conv(layer, x):
        layer = inside(layer)
        return F.conv2d(x, layer.weight, layer.bias)

    if kind == "mlp":
        x = activate(change, model.first, linear(model.first, x))
        return linear(model.out, activate(change, model.second, linear(model.second, x)))
    if kind == "convolutional":
        x = activate(change, model.first, conv(model.first, x), inside(model.bn))
        x = activate(change, model.second, conv(model.second, x))
        columns = model.out.weight.view(2, x.shape[1], 4)  # each channel has 4 neighbouring columns
        return torch.einsum("bcp,ocp->bo", x.flatten(2), columns) + model.out.bias
    block = model.layer
    x = block.norm1(x + block.self_attn(x, x, x)[0])
    x = block.norm2(x + linear(block.linear2, activate(change, block.linear1, linear(block.linear1, x))))
    return linear(model.out, x.mean(dim=1))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("change", CHANGES)
def test_the_changed_network_computes_what_it_should(change, kind):
    model, optimizer = make(kind)
    assert CHANGES[change](model, optimizer, example=example(kind)) is model
    shuffle(model)
    x = example(kind, 50)
    for mode in (True, False):
        model.train(mode)
        with torch.no_grad():
            torch.testing.assert_close(model(x), written_out(change, kind, model, x))


@pytest.mark.parametrize("kind", MODELS)
def test_crelu_computes_at_first_what_the_network_did(kind):
    model, _ = make(kind)
    model.eval()
    before = model(example(kind, 8))
    surgery.crelu(model, example=example(kind))
    torch.testing.assert_close(model(example(kind, 8)), before)
    model(example(kind, 8)).sum().backward()
    wider = {"mlp": "second", "convolutional": "second", "transformer": "layer.linear2"}[kind]
    weight = inside(model.get_submodule(wider)).weight
    old = weight.shape[1] // 2
    assert not weight[:, old:].any()
    assert weight.grad[:, old:].any()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("change", CHANGES)
def test_the_optimizer_keeps_what_stays_and_gets_what_is_new(change, kind):
    model, optimizer = make(kind, groups=True)
    names = {id(p): name for name, p in model.named_parameters()}
    before = {names[id(p)]: (p.detach().clone(), copy.deepcopy(optimizer.state[p])) for p in model.parameters()}
    CHANGES[change](model, optimizer, example=example(kind))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len(held) == len({id(p) for p in held})
    assert {id(p) for p in optimizer.state} <= {id(p) for p in held}
    kept = 0
    for name, p in model.named_parameters():
        old, state = before.get(name.replace(".layer.", "."), before.get(name, (None, None)))
        if name.startswith("layer."):
            old, state = before.get("layer." + name[6:].replace(".layer.", "."), (None, None))
        if old is None:
            assert change == "layer_norm"
            assert ".norm." in name
            assert p not in optimizer.state
            continue
        if p.shape == old.shape:
            kept += 1
            assert torch.equal(p, old), name
            assert all(torch.equal(state[key], optimizer.state[p][key]) for key in state), name
            continue
        now = optimizer.state[p]
        assert now["step"] == 3
        for key in ("exp_avg", "exp_avg_sq"):
            fill = state[key].mean() if key == "exp_avg_sq" else torch.zeros(()).double()
            halves = now[key].unflatten(1, (2, -1))
            torch.testing.assert_close(halves[:, 1], fill.expand_as(halves[:, 1]))
            first = fill.expand_as(halves[:, 0]) if change == "fourier" else state[key]
            torch.testing.assert_close(halves[:, 0], first)
    assert kept >= 4
    lr = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    own = {name: lr[id(p)] for name, p in model.named_parameters()}
    assert {rate for name, rate in own.items() if name.startswith("first")} <= {0.01}
    train(model, optimizer, kind, 2, 5)
    assert all(p in optimizer.state for p in held)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_saved_state_goes_on_alike(change, kind):
    model, optimizer = make(kind)
    CHANGES[change](model, optimizer, example=example(kind))
    train(model, optimizer, kind, 2, 5)
    again, other = make(kind, steps=1)
    CHANGES[change](again, other, example=example(kind))
    again.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one in ((model, optimizer), (again, other), copy.deepcopy((model, optimizer))):
        train(*one, kind, 2, 7)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("change", CHANGES)
def test_units_of_the_changed_network_are_found_and_replaced(change, kind):
    model, optimizer = make(kind, steps=0)
    sizes = [group.size for group in supple.units(model, example(kind))]
    CHANGES[change](model, optimizer, example=example(kind))
    units = supple.units(model, example(kind))
    assert [group.size for group in units] == sizes
    copies = 1 if change == "layer_norm" else 2
    # Half the weights that read twins are 0, which no initializer makes.
    wider = {consumer.weight.tensor: supple.Normal(0, 1) for group in units for consumer in group.consumers}
    stated = {"initial": wider} if change == "crelu" else {}
    assert {consumer.weight.copies for group in units for consumer in group.consumers} == {copies}
    method = supple.CBP(model, optimizer, maturity=0, replacement_rate=0.5, units=units, neighbours="zero", **stated)
    train(model, optimizer, kind, 1)
    method.step()
    for group in units:
        for consumer in group.consumers:
            view = consumer.weight.view(model.get_parameter(consumer.weight.tensor), group.size)
            silent = (view.flatten(1) == 0).all(dim=1)
            assert 0 < int(silent.sum()) < group.size or group.size == 1


def test_fourier_draws_from_the_narrower_distribution():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 50), nn.Tanh(), nn.Linear(50, 40))
    twin, other = copy.deepcopy(model), copy.deepcopy(model)
    weight = surgery.fourier(model)[2].weight.detach()
    assert 0.95 * 100**-0.5 < weight.abs().max() <= 100**-0.5
    assert float(weight.std()) == pytest.approx((1 / 100 / 3) ** 0.5, rel=0.05)
    assert abs(float(torch.corrcoef(weight.view(40, 2, 50).transpose(0, 1).flatten(1))[0, 1])) < 0.1
    assert torch.equal(surgery.fourier(twin)[2].weight, weight)
    assert not torch.equal(surgery.fourier(other, seed=1)[2].weight, weight)
    stated = nn.Sequential(nn.Linear(3, 50), nn.Tanh(), nn.Linear(50, 40))
    surgery.fourier(stated, initial={"2.weight": supple.Normal(2.0, 0.1)})
    assert stated[2].weight.mean().item() == pytest.approx(2.0, abs=0.01)
    assert stated[2].weight.std().item() == pytest.approx(0.1 / 2**0.5, rel=0.05)


@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_the_laboratory_has_the_same_as_an_option(activation):
    """The same weights in a network of the laboratory, alone and stacked, and in one that surgery changed."""
    network = MLP(5, 8, 3, 2, activation=activation, seed=4).double()
    changed = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    CHANGES[activation](changed)
    for mine, other in zip(network.parameters(), changed.parameters(), strict=True):
        with torch.no_grad():
            other.copy_(mine)
    x = torch.randn(6, 5, dtype=torch.float64)
    torch.testing.assert_close(changed(x), network(x))
    stack = StackedMLP.from_networks([network, MLP(5, 8, 3, 2, activation=activation, seed=5).double()])
    torch.testing.assert_close(stack(x)[0], network(x))


def test_two_readers_concatenation_and_a_normalization():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 4)
            self.norm, self.out, self.other = nn.LayerNorm(2), nn.Linear(7, 2), nn.Linear(4, 1)

        def forward(self, x):
            a, b = torch.relu(self.norm(self.a(x))), torch.relu(self.b(x))
            return self.out(torch.cat((a, x[..., :1], b), dim=-1)), self.other(b)

    torch.manual_seed(2)
    model, x = Wide().double(), torch.randn(5, 3, dtype=torch.float64)
    before = model(x)
    surgery.crelu(model, example=x)
    torch.testing.assert_close(model(x), before)
    shuffle(model)
    a, b = model.norm[0](model.a(x)), model.b[0](x)
    together = torch.cat((both("crelu", a, -1), x[:, :1], both("crelu", b, -1)), dim=-1)
    torch.testing.assert_close(model(x), (model.out(together), model.other(both("crelu", b, -1))))


def test_layers_with_a_normalization_are_left_alone():
    model, optimizer = make("convolutional")
    surgery.layer_norm(model, optimizer, example=example("convolutional"))
    assert isinstance(model.first, nn.Conv2d)
    assert isinstance(model.second.norm, nn.GroupNorm)
    with pytest.raises(
        ValueError, match="every layer of hidden units of the Convolutional has a normalization already"
    ):
        surgery.layer_norm(model, optimizer, example=example("convolutional"))


def test_only_the_layers_that_are_named():
    model, optimizer = make("mlp")
    units = [group for group in supple.units(model, example("mlp")) if group.name == "second"]
    surgery.crelu(model, optimizer, units=supple.Units(units))
    assert (model.second[0].in_features, model.out.in_features) == (4, 6)


class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Conv2d(2, 4, 3), nn.Linear(64, 2)

    def forward(self, x):
        return self.out(torch.relu(self.first(x)).view(-1, 64))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(torch.relu(self.a(x)) * self.b(x))


class ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        z = self.first(x)
        return self.out(z * torch.sigmoid(z))


def chain(*between):
    return nn.Sequential(nn.Linear(5, 4), *between, nn.Linear(4, 2))


FLAT, IMAGES = torch.zeros(3, 5), torch.zeros(3, 2, 6, 6)
REFUSED = {
    "no example": (Gated, "crelu", None, "give an example of its input"),
    "no units": (lambda: nn.Linear(5, 2), "layer_norm", FLAT, "has no hidden units that can be replaced"),
    "sizes in the code": (Sized, "crelu", IMAGES, "the changed Sized does not run on the example.*flatten"),
    "gated": (Gated, "crelu", FLAT, "units of a \\* b cannot be changed: they are not all.*gated.*units=supple.Units"),
    "by hand": (ByHand, "fourier", FLAT, "does not run on the example.*Fourier features stand for an activation"),
    "slopes": (lambda: chain(nn.PReLU(4)), "fourier", None, "activation function has parameters"),
    "normalized after": (lambda: chain(nn.ReLU(), nn.LayerNorm(4)), "crelu", None, "2 follows it"),
    "laboratory": (lambda: MLP(5, 4, 2, 1), "crelu", None, "says its hidden units itself"),
    "stacked": (lambda: StackedMLP([1, 2], 5, 4, 2, 1), "layer_norm", None, 'options, such as activation="crelu"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_changed_is_refused_and_left_as_it_was(name):
    build, change, given, reason = REFUSED[name]
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {key: (id(p), p.detach().clone()) for key, p in model.named_parameters()}
    text, held = repr(model), list(map(id, optimizer.param_groups[0]["params"]))
    with pytest.raises(ValueError, match=f"(?s){reason}"):
        CHANGES[change](model, optimizer, example=given)
    assert repr(model) == text
    assert list(map(id, optimizer.param_groups[0]["params"])) == held
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(id(after[key]) == one and torch.equal(after[key], value) for key, (one, value) in before.items())


def test_an_optimizer_of_another_network_is_refused():
    model, other = chain(nn.ReLU()), chain(nn.ReLU())
    with pytest.raises(ValueError, match="holds no parameter of the Sequential"):
        surgery.crelu(model, torch.optim.SGD(other.parameters(), lr=0.1))
    assert isinstance(model[0], nn.Linear)


def test_of_factored_moments_the_changed_weight_begins_anew():
    torch.manual_seed(0)
    model = chain(nn.ReLU())
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.randn(3, 5)).sum().backward()
        optimizer.step()
    before = copy.deepcopy(optimizer.state[model[0].weight])
    surgery.crelu(model, optimizer)
    weights = [p for p in model.parameters() if p.ndim == 2]
    assert [tuple(p.shape) for p in weights] == [(4, 5), (2, 8)]
    assert all(torch.equal(value, before[key]) for key, value in optimizer.state[weights[0]].items())
    model(torch.randn(3, 5)).sum().backward()
    optimizer.step()
    after = optimizer.state[weights[1]]
    assert (int(after["step"]), after["row_var"].shape, after["col_var"].shape) == (1, (2, 1), (1, 8))


def test_lbfgs_is_refused():
    model = chain(nn.ReLU())
    with pytest.raises(ValueError, match=r"LBFGS .* make it after the change"):
        surgery.crelu(model, torch.optim.LBFGS(model.parameters()))
    assert isinstance(model[0], nn.Linear)


def test_fourier_without_an_activation_function_says_so():
    model = surgery.fourier(chain(nn.Dropout(0.5)))
    with pytest.raises(RuntimeError, match="dropout is what reads the output of the layer"):
        model(FLAT)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_compiled_after_the_change(change):
    torch.compiler.reset()
    model, _ = make("convolutional")
    CHANGES[change](model, example=example("convolutional"))
    with pytest.raises(ValueError, match="wrap or compile it after that"):
        CHANGES[change](torch.compile(model))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(example("convolutional")), model(example("convolutional")))
    torch.compiler.reset()


@pytest.mark.parametrize("change", [supple.surgery.crelu, supple.surgery.fourier])
def test_a_single_weight_has_moments_of_its_shape(change):
    model = nn.Sequential(nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for number in range(2):
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        if not number:
            assert change(model, optimizer)[2].weight.shape == (1, 2)
            assert optimizer.state[model[2].weight]["exp_avg_sq"].shape == (1, 2)


def test_a_single_unit_is_not_normalized():
    model = nn.Sequential(nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2))
    with pytest.raises(ValueError, match=r"0 cannot be changed: a layer normalization of a single unit is 0.*units="):
        supple.surgery.layer_norm(model)
    assert isinstance(model[0], nn.Linear)

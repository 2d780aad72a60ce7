import re
import time

import pytest
import torch
from torch import nn

import supple
from supple.functional.initial import Constant, Normal, Uniform
from supple.structure.initial import initial_distributions

pytestmark = pytest.mark.filterwarnings("error:The model looks trained")


def random_model(seed):
    def size(low, high):
        return int(torch.randint(low, high, ()))

    torch.manual_seed(seed)
    d = size(1, 60)
    return nn.ModuleList(
        [
            nn.Linear(size(1, 200), d),
            nn.BatchNorm1d(d),
            nn.Conv2d(size(1, 8), size(1, 30), 3),
            nn.ConvTranspose1d(2 * size(1, 4), 2 * size(1, 9), 3, groups=2),
            nn.Embedding(size(2, 100), size(1, 40), padding_idx=0),
            nn.GRU(size(1, 20), size(1, 30)),
            nn.Bilinear(size(1, 9), size(1, 9), size(1, 9)),
            nn.MultiheadAttention(4 * size(1, 12), 4, add_bias_kv=True),
        ]
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_rule_of_a_fresh_layer_is_always_believed(dtype):
    for seed in range(40):
        for name, initial in initial_distributions(random_model(seed).to(dtype)).items():
            assert initial.source.startswith("rule of torch.nn."), (seed, name, initial)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_values_drawn_in_16_bits_follow_the_rule(dtype):
    for seed in range(10):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(300, 400, dtype=dtype), nn.Embedding(500, 300, dtype=dtype))
        assert {i.source for i in initial_distributions(model).values()} == {
            "rule of torch.nn.Linear",
            "rule of torch.nn.Embedding",
        }


def test_layers_initialized_afterwards_are_told_from_their_values():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 100), nn.BatchNorm1d(100), nn.Linear(100, 10))
    nn.init.kaiming_normal_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    nn.init.zeros_(model[1].weight)
    nn.init.xavier_uniform_(model[2].weight)
    found = initial_distributions(model)
    assert found["0.weight"].source == "values: Kaiming normal (fan_in, relu)"
    assert found["0.weight"].distribution.std == pytest.approx((2 / 784) ** 0.5)
    assert found["0.bias"].distribution == Constant(0.0)
    assert found["1.weight"].distribution == Constant(0.0)
    assert found["1.bias"].source == "rule of torch.nn.BatchNorm1d"
    assert found["2.weight"].distribution.high == pytest.approx((6 / 110) ** 0.5)
    assert found["2.bias"].source == "rule of torch.nn.Linear"
    assert set(found.require()) == set(dict(model.named_parameters()))


class Declared(nn.Module):
    """A stacked layer that says what it draws from, values apart."""

    def __init__(self, said):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 3, 4), 7.0))
        self.inner = nn.Linear(4, 3)
        self.said = said

    def initial_distributions(self):
        return self.said


def test_a_module_that_says_it_itself_is_believed():
    found = initial_distributions(nn.Sequential(Declared({"weight": Normal(0, 3), "inner.weight": Constant(2)})))
    assert found["0.weight"].distribution == Normal(0, 3)
    assert found["0.inner.weight"].distribution == Constant(2)
    assert found["0.weight"].source == found["0.inner.weight"].source == "own rule of Declared"
    assert found["0.inner.bias"].source == "rule of torch.nn.Linear"


def test_the_outermost_module_is_believed_first():
    outer = Declared({"inner.weight": Constant(1)})
    outer.inner = Declared({"weight": Constant(2), "inner.bias": Constant(3)})
    found = initial_distributions(outer)
    assert found["inner.weight"].distribution == Constant(1)
    assert found["inner.inner.bias"].distribution == Constant(3)


def test_a_module_that_states_what_it_does_not_have():
    with pytest.raises(ValueError, match=r"of 0 states 'wieght', .*; did you mean 'weight'\?"):
        initial_distributions(nn.Sequential(Declared({"wieght": Constant(1)})))
    with pytest.raises(
        TypeError, match=r"Declared.initial_distributions\(\)\['weight'\] is 1.0, none of the distributions"
    ):
        initial_distributions(Declared({"weight": 1.0}))


def test_a_wrapper_that_hands_on_attributes():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.wrapped = inner

        def __getattr__(self, name):
            return super().__getattr__(name) if name == "wrapped" else getattr(super().__getattr__("wrapped"), name)

    found = initial_distributions(Wrapper(Declared({"weight": Constant(1)})))
    assert found["wrapped.weight"].distribution == Constant(1)


class QuantizedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.padding_idx = nn.Parameter(0.02 * torch.randn(50, 8)), 1
        self.weight.data[1] = 0


def test_padding_of_an_embedding_of_ones_own():
    model = nn.Sequential(QuantizedEmbedding())
    entry = supple.initial_distributions(model)["0.weight"]
    assert entry.fixed_row == 1
    assert entry.distribution.mean == 0
    method = supple.SWR(model, frequency=1, factor=1.0, utility="random", pruning="proportional")
    method.step()
    assert (model[0].weight[1] == 0).all()
    assert (model[0].weight != 0).any(dim=1).sum() == 49


def test_overrides_come_first_and_padding_rows_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(30, 8, padding_idx=3), Declared({"weight": Constant(1)}))
    found = initial_distributions(model, {nn.Embedding: Normal(0, 0.5), "1.weight": Uniform(0, 2)})
    assert (found["0.weight"].distribution, found["0.weight"].source) == (Normal(0, 0.5), "override")
    assert found["0.weight"].fixed_row == 3
    assert found["1.weight"].distribution == Uniform(0, 2)
    assert found["1.weight"].fixed_row is None


def test_tied_parameters_are_judged_once_by_the_rule_that_fits():
    torch.manual_seed(0)
    model = nn.ModuleDict({"embedding": nn.Embedding(50, 16), "decoder": nn.Linear(16, 50)})
    model["decoder"].weight = model["embedding"].weight
    found = initial_distributions(model)
    assert list(found) == ["embedding.weight", "decoder.bias"]
    assert found["embedding.weight"].source == "rule of torch.nn.Embedding"
    model = nn.ModuleDict({"embedding": nn.Embedding(50, 16), "decoder": nn.Linear(16, 50)})
    model["embedding"].weight = model["decoder"].weight
    assert initial_distributions(model)["embedding.weight"].source == "rule of torch.nn.Linear"


def test_bare_parameters():
    torch.manual_seed(0)
    model = nn.ParameterDict(
        {
            "token": nn.Parameter(torch.zeros(1, 1, 384)),
            "position": nn.Parameter(torch.randn(1, 65, 384) * 0.02),
            "scale": nn.Parameter(torch.tensor(1.0)),
            "temperature": nn.Parameter(torch.tensor([2.65926])),
            "nothing": nn.Parameter(torch.empty(0)),
            "codes": nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False),
        }
    )
    found = initial_distributions(model)
    assert found["token"].distribution == Constant(0.0)
    assert found["position"].distribution == Normal(0.0, 0.02)
    assert found["scale"].distribution == Constant(1.0)
    assert found["temperature"].source.startswith("unknown: one entry")
    assert found["nothing"].source == "no entries"
    assert found["codes"].source.startswith("unknown: entries of torch.uint8")
    with pytest.raises(
        ValueError,
        match=r"(?s)codes: unknown: .*temperature: unknown: one entry.*pass initial={'codes': supple.Normal"
        r"\(0.0, 0.02\)} to the method \(overrides=... of initial_distributions\).*requires_grad_\(False\)",
    ):
        found.require()
    assert set(found.require(["token", "scale"])) == {"token", "scale"}
    with pytest.raises(ValueError, match=r"no parameter 'tokn'; did you mean 'token'\?"):
        found.require(["tokn"])


def unknown():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.sparse_(model[0].weight, 0.5)
    return model


def test_the_remedies_for_an_unknown_distribution_work():
    """What the error says to do, done word for word."""
    with pytest.raises(ValueError, match=r"0\.weight: unknown") as error:
        supple.SWR(unknown(), frequency=1, factor=0.1)
    (stated,) = re.findall(r"pass initial=({.*?}) to the method", str(error.value))
    given = eval(stated, {"supple": supple})
    assert supple.SWR(unknown(), frequency=1, factor=0.1, initial=given).distributions["0.weight"] == Normal(0.0, 0.02)
    assert initial_distributions(unknown(), overrides=given)["0.weight"].source == "override"
    frozen = unknown()
    frozen[0].weight.requires_grad_(False)
    assert "0.weight" not in supple.SWR(frozen, frequency=1, factor=0.1).distributions


def test_parameters_without_values():
    with pytest.raises(ValueError, match=r"0.weight is lazy and has no shape yet; run the model on one batch first"):
        initial_distributions(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match="weight is on the meta device"):
        initial_distributions(nn.Linear(3, 3, device="meta"))


def test_a_lazy_layer_that_has_seen_a_batch_and_a_frozen_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(30), nn.LazyConv1d(4, 1))
    model(torch.randn(5, 12, 20))
    model.requires_grad_(False)
    assert {i.source for i in initial_distributions(model).values()} == {
        "rule of torch.nn.Linear",
        "rule of torch.nn.Conv1d",
    }


def test_weight_norm_and_pruned_layers_are_told_from_their_values():
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(40, 50))
    found = initial_distributions(layer)
    assert found["bias"].source == "rule of torch.nn.Linear"
    direction = found["parametrizations.weight.original1"]
    assert direction.source == "values: uniform within 1 / sqrt(fan_in)"


def test_the_global_generator_and_the_values_are_left_alone():
    torch.manual_seed(0)
    model = nn.Linear(400, 400)
    before, state = model.weight.clone(), torch.get_rng_state()
    first, second = initial_distributions(model), initial_distributions(model)
    assert torch.equal(model.weight, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(first) == dict(second)


def test_prints_as_a_table():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Embedding(6, 7, padding_idx=0), nn.ParameterList([torch.tensor(0.0)]))
    lines = repr(initial_distributions(model)).splitlines()
    assert lines[0].split() == ["parameter", "shape", "distribution", "source"]
    assert lines[1].split() == ["0.weight", "5", "x", "4", "uniform(-0.5,", "0.5)", "rule", "of", "torch.nn.Linear"]
    assert "row 0 fixed  rule of torch.nn.Embedding" in lines[3]
    assert lines[4].split() == ["2.0", "scalar", "constant", "0", "values:", "constant"]


@pytest.mark.slow
def test_fifty_million_parameters_take_seconds():
    model = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(48)])
    nn.init.kaiming_normal_(model[0].weight)
    start = time.perf_counter()
    found = initial_distributions(model)
    assert time.perf_counter() - start < 10
    assert found["0.weight"].source.startswith("values: Kaiming normal")


@pytest.mark.cuda
def test_on_a_gpu_as_on_the_cpu():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 300), nn.BatchNorm1d(300), nn.Embedding(100, 30, padding_idx=2))
    nn.init.kaiming_normal_(model[0].weight)
    expected = dict(initial_distributions(model))
    assert dict(initial_distributions(model.cuda())) == expected

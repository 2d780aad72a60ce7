import math

import pytest
import torch
from torch import nn

from supple.functional.initial import Constant, Fixed, Normal, TruncatedNormal, Uniform
from supple.structure.inference import Values, spread
from supple.structure.named import fans, named

init = nn.init


def inferred(shape, fill, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    tensor = torch.empty(shape, dtype=dtype)
    fill(tensor)
    return alone(tensor)


def alone(tensor):
    """What the values of a tensor tell that is the only one of its network and belongs to no layer."""
    return Values(tensor).infer({}, {})


# The expected values are those of the documentation of torch.nn.init, for fan in 200 and fan out 50.
CASES = {
    "kaiming normal": (init.kaiming_normal_, Normal(0, 0.1), "Kaiming normal (fan_in, relu)"),
    "kaiming normal fan_out": (
        lambda w: init.kaiming_normal_(w, mode="fan_out"),
        Normal(0, 0.2),
        "Kaiming normal (fan_out, relu)",
    ),
    "kaiming normal linear": (
        lambda w: init.kaiming_normal_(w, nonlinearity="linear"),
        Normal(0, math.sqrt(1 / 200)),
        "Kaiming normal (fan_in, linear)",
    ),
    "kaiming uniform": (
        lambda w: init.kaiming_uniform_(w, nonlinearity="relu"),
        Uniform(-math.sqrt(6 / 200), math.sqrt(6 / 200)),
        "Kaiming uniform (fan_in, relu)",
    ),
    "kaiming uniform leaky": (
        lambda w: init.kaiming_uniform_(w, a=0.2),
        Uniform(-math.sqrt(6 / 1.04 / 200), math.sqrt(6 / 1.04 / 200)),
        "Kaiming uniform (fan_in, leaky_relu 0.2)",
    ),
    "torch's default": (
        lambda w: init.kaiming_uniform_(w, a=math.sqrt(5)),
        Uniform(-math.sqrt(1 / 200), math.sqrt(1 / 200)),
        "uniform within 1 / sqrt(fan_in)",
    ),
    "xavier normal": (init.xavier_normal_, Normal(0, math.sqrt(2 / 250)), "Xavier normal"),
    "xavier uniform": (init.xavier_uniform_, Uniform(-math.sqrt(6 / 250), math.sqrt(6 / 250)), "Xavier uniform"),
    "trunc_normal_": (init.trunc_normal_, TruncatedNormal(0, 1, -2, 2), "normal cut at two std, std 1"),
    "trunc_normal_ 0.02": (lambda w: init.trunc_normal_(w, std=0.02), Normal(0, 0.02), "normal, std 0.02"),
    "trunc_normal_ 0.02, 2 std": (
        lambda w: init.trunc_normal_(w, std=0.02, a=-0.04, b=0.04),
        TruncatedNormal(0, 0.02, -0.04, 0.04),
        "normal cut at two std, std 0.02",
    ),
    "lecun": (
        lambda w: init.trunc_normal_(w, std=math.sqrt(1 / 200), a=-2 * math.sqrt(1 / 200), b=2 * math.sqrt(1 / 200)),
        TruncatedNormal(0, math.sqrt(1 / 200), -2 * math.sqrt(1 / 200), 2 * math.sqrt(1 / 200)),
        "LeCun normal cut at two std",
    ),
    "normal_": (init.normal_, Normal(0, 1), "normal, std 1"),
    "normal_ 0.01": (lambda w: init.normal_(w, std=0.01), Normal(0, 0.01), "normal, std 0.01"),
    "normal_ around 1": (lambda w: init.normal_(w, 1.0, 0.02), Normal(1, 0.02), "normal, mean 1, std 0.02"),
    "uniform_": (init.uniform_, Uniform(0, 1), "uniform from 0 to 1"),
    "zeros_": (init.zeros_, Constant(0), "constant"),
    "ones_": (init.ones_, Constant(1), "constant"),
    "constant_": (lambda w: init.constant_(w, 0.3), Constant(float(torch.tensor(0.3))), "constant"),
}


def same(one, other):
    return type(one) is type(other) and vars(one) == pytest.approx(vars(other), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_initializers_of_torch_are_recognized(name, dtype, seed):
    fill, distribution, source = CASES[name]
    found = inferred((50, 200), fill, seed, dtype)
    if isinstance(distribution, Constant):
        assert found.distribution.value == pytest.approx(distribution.value, rel=1e-6)
    else:
        assert same(found.distribution, distribution)
    assert source in found.source
    assert not found.doubt


# Around 1, numbers of 16 bits lie too far apart for a standard deviation of 0.02: their values repeat.
@pytest.mark.parametrize("name", [name for name in CASES if name != "normal_ around 1"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cast", [False, True])
def test_rounding_does_not_make_the_fit_fail(name, dtype, cast):
    fill, distribution, _ = CASES[name]
    torch.manual_seed(1)
    tensor = torch.empty((50, 200), dtype=torch.float32 if cast else dtype)
    fill(tensor)
    if isinstance(distribution, Normal) and bool((tensor - distribution.mean).abs().max() > 10 * distribution.std):
        pytest.skip("trunc_normal_ of PyTorch 2.6 puts some entries at the bounds if it draws in 16 bits")
    found = alone(tensor.to(dtype))
    assert type(found.distribution) is type(distribution)
    if isinstance(distribution, Constant):
        assert found.distribution.value == pytest.approx(distribution.value, rel=0.004)
    else:
        assert spread(found.distribution) == pytest.approx(spread(distribution), rel=0.03)


@pytest.mark.parametrize("seed", range(10))
def test_a_scale_that_nobody_knows_is_estimated(seed):
    found = inferred((100, 200), lambda w: init.normal_(w, 0.5, 0.037), seed)
    assert found.source == "values: normal, estimated from 20000 entries"
    assert found.distribution.mean == pytest.approx(0.5, abs=5 * 0.037 / math.sqrt(16384))
    assert found.distribution.std == pytest.approx(0.037, rel=5 / math.sqrt(2 * 16384))
    found = inferred((100, 200), lambda w: init.uniform_(w, -0.3, 0.7), seed)
    assert (found.distribution.low, found.distribution.high) == pytest.approx((-0.3, 0.7), abs=1e-3)
    found = inferred((100, 200), lambda w: init.trunc_normal_(w, std=0.31, a=-0.62, b=0.62), seed)
    assert isinstance(found.distribution, TruncatedNormal)
    assert found.distribution.std == pytest.approx(0.31, rel=0.01)


@pytest.mark.parametrize("gain", [1.0, math.sqrt(2), 0.01, 1.7])
@pytest.mark.parametrize("shape", [(100, 100), (50, 200), (200, 50), (8, 3, 3, 3), (2, 64), (1, 64), (3, 1)])
def test_orthogonal_matrices_are_noticed(shape, gain):
    if min(shape) == 1 and gain == 1.7:
        return  # a single row is orthogonal whatever its length
    found = inferred(shape, lambda w: init.orthogonal_(w, gain))
    rows, columns = shape[0], math.prod(shape[1:])
    expected = gain / math.sqrt(max(rows, columns))
    assert (found.distribution.mean, found.distribution.std) == (0, pytest.approx(expected, rel=1e-5))
    assert found.source == f"values: orthogonal, gain {gain:.4g}"
    assert found.untouched


GATES = torch.cat((torch.zeros(8), torch.ones(8), torch.zeros(16)))


@pytest.mark.parametrize("values", [
    torch.eye(40, 30), init.dirac_(torch.empty(8, 8, 3)), GATES, torch.arange(1.0, 17).log().expand(24, 16),
    torch.arange(1.0, 65).log(), torch.arange(10).float().mul(math.pi).expand(30, 10),
], ids=["eye", "dirac", "forget gate", "Mamba", "Mamba 2", "S4D"])  # fmt: skip
def test_values_that_were_set_are_kept_entry_by_entry(values):
    found = alone(values)
    assert isinstance(found.distribution, Fixed)
    assert torch.equal(found.distribution.values, values)
    assert found.untouched


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("fill", "mean"), [
    (lambda w: init.normal_(w, 0, 0.37), 0), (lambda w: init.uniform_(w, -0.37, 0.37), 0),
    (lambda w: init.trunc_normal_(w, 0, 0.37, -0.74, 0.74), 0), (lambda w: init.normal_(w, 0.2, 0.37), 0.2),
    (lambda w: init.uniform_(w, -0.3, 0.9), 0.3),
])  # fmt: skip
def test_a_mean_is_0_unless_it_differs_significantly(fill, mean, seed):
    found = inferred((30, 20), fill, seed).distribution.mean
    assert found == mean if mean == 0 else found == pytest.approx(mean, abs=5 * 0.37 / math.sqrt(600))


def test_edges_that_noise_has_blurred_are_noticed():
    """The noise stands for training; the power grows with the number of entries."""
    for bound, noise, shape in ((0.1, 0.01, (100, 200)), (0.1, 0.02, (50, 50)), (3.0, 1.0, (40, 40))):
        found = inferred(shape, lambda w, b=bound, s=noise: init.uniform_(w, -b, b).add_(s * torch.randn(w.shape)))
        assert "blurred edges" in found.doubt
        assert not found.untouched
        sharp = inferred(shape, lambda w, b=1.037 * bound: init.uniform_(w, -b, b))
        assert sharp.untouched
        assert not sharp.doubt


def test_the_initializer_of_other_layers_decides_for_a_small_one():
    torch.manual_seed(0)
    weight = init.kaiming_normal_(torch.empty(3, 4))
    values = Values(weight)
    assert {"Xavier normal", "Kaiming normal (fan_in, relu)"} < set(values.fits)
    for name in values.fits:
        assert name in values.infer({name: 5}, {}).source


def test_other_tensors_of_the_network_explain_small_ones():
    few = torch.linspace(-0.00069, 0.00069, 12)
    assert alone(few).distribution is None
    found = Values(few).infer({}, {"fc.weight": Uniform(-0.0007, 0.0007)})
    assert (found.distribution, found.source) == (Uniform(-0.0007, 0.0007), "values: uniform, as fc.weight")


def mixture(w):
    init.normal_(w)
    w[: len(w) // 2] *= 0.05


def two_humps(w):
    init.normal_(w, 0, 0.1)
    w[::2] += 1


def cauchy(w):
    w.cauchy_()


@pytest.mark.parametrize("fill", [mixture, two_humps, cauchy], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(10))
def test_what_fits_nothing_is_unknown(fill, seed):
    found = inferred((30, 40), fill, seed)
    assert found.distribution is None
    assert "fit neither a constant nor a normal nor a uniform" in found.source


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (lambda w: init.sparse_(w, 0.1), "0.1 of the entries are 0"),
        (lambda w: w.fill_(1.0)[0].fill_(float("nan")), "not all values are finite"),
        (lambda w: w.fill_(1.0)[0].fill_(float("inf")), "not all values are finite"),
    ],
)
def test_reasons(fill, reason):
    found = inferred((40, 30), fill)
    assert found.distribution is None
    assert found.source.startswith("unknown: ")
    assert reason in found.source


def test_too_few_entries():
    assert "one entry (2.3174)" in alone(torch.tensor(2.3174)).source
    assert alone(torch.tensor(0.25)).distribution == Constant(0.25)
    few = inferred((19,), lambda w: init.normal_(w, 7, 0.3))
    assert few.distribution is None
    assert "too few entries (19, at least 20 are needed)" in few.source
    assert inferred((0, 4), init.zeros_).source == "no entries"


@pytest.mark.parametrize("shape", [(2, 3), (1, 5), (3, 1)])
@pytest.mark.parametrize("fill", [init.kaiming_normal_, init.xavier_uniform_, init.normal_], ids=lambda f: f.__name__)
def test_a_few_entries_are_told_by_an_initializer_that_fits(shape, fill):
    for seed in range(50):
        found = inferred(shape, fill, seed)
        assert found.distribution.mean == 0, found
        assert not found.doubt


@pytest.mark.slow
@pytest.mark.parametrize("fill", [lambda w: init.normal_(w, 0, 0.0037), lambda w: init.uniform_(w, -0.0037, 0.0037)])
def test_small_samples_are_rarely_taken_for_the_other_family(fill):
    normal = fill(torch.empty(2000)).abs().max() > 0.004
    wrong = told = 0
    for seed in range(300):
        found = inferred((24,), fill, seed).distribution
        told += found is not None
        wrong += found is not None and isinstance(found, Uniform) == bool(normal)
    assert told == 300  # a refusal would be one by chance
    assert wrong <= 75  # of 24 entries
    assert isinstance(inferred((200,), fill).distribution, Normal if normal else Uniform)


@pytest.mark.slow
def test_a_normal_sample_is_not_turned_down():
    found = [inferred((20, 15), lambda w: init.normal_(w, 0.1, 0.37), seed).distribution for seed in range(300)]
    assert sum(distribution is None for distribution in found) == 0


def test_fans_are_torchs():
    for shape in ((7, 5), (7, 5, 3), (7, 5, 3, 2), (1, 1, 8)):
        tensor = torch.empty(shape)
        assert fans(tensor.shape) == init._calculate_fan_in_and_fan_out(tensor)


def test_scales_of_cut_normals_have_the_variance_they_promise():
    known = named(torch.Size((30, 50)))
    torch.manual_seed(0)
    for name, variance in (("LeCun normal", 1 / 50), ("Kaiming normal (fan_in, relu)", 2 / 50)):
        cut = known[f"{name} cut at two std, variance corrected"]
        draws = cut.quantile(torch.rand(400_000))
        assert float(draws.var()) == pytest.approx(variance, rel=0.01)


def test_spread_is_the_standard_deviation():
    assert spread(Constant(3)) == 0
    assert spread(Normal(1, 2)) == 2
    assert spread(Uniform(-1, 1)) == pytest.approx(1 / math.sqrt(3))

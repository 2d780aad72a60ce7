"""Products in each precision against float64, and training with them."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import supple
from supple.lab.nn import StackedMLP
from supple.lab.population import FastStep, Population, Products
from supple.lab.streams import PermutedStream
from supple.optim import SGDW

HERE = torch.zeros(1)
BFLOAT16, TF32 = 2.0**-8, 2.0**-10  # largest relative errors where 8 and 11 significant bits are kept


def factors(device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    left, right = torch.randn(3, 20, 50, generator=generator), torch.randn(3, 50, 30, generator=generator)
    return left.to(device), right.to(device), torch.randn(3, 20, 30, generator=generator).to(device)


def close(found: torch.Tensor, exact: torch.Tensor, size: torch.Tensor, unit: float) -> bool:
    """Whether the error is that of rounding both factors and the result; size is the product of the magnitudes."""
    return bool(((found.double() - exact).abs() <= 2.1 * unit * size + unit * exact.abs() + 1e-5).all())


@pytest.mark.parametrize(("precision", "unit"), [("float32", 2.0**-20), ("bfloat16", BFLOAT16)])
def test_products_against_float64(precision: str, unit: float) -> None:
    products, (left, right, term) = Products(precision, HERE), factors()
    exact, size = left.double() @ right.double(), left.double().abs() @ right.double().abs()
    assert close(products.product(left, right), exact, size, unit)
    assert close(products.add(term, left, right), term + exact, size, unit)
    for write, expected in ((products.write, exact), (products.subtract, term - exact)):
        out = term.clone()
        write(out, left, right)
        assert out.dtype == torch.float32
        assert close(out, expected, size, unit)


def test_bfloat16_rounds_factors_and_results_and_nothing_else() -> None:
    left, right, _ = factors()
    found = Products("bfloat16", HERE).product(left, right)
    exact = left.bfloat16().double() @ right.bfloat16().double()
    # Sums are taken in float32 at least: to the last digit of a bfloat16, the result is that of exact sums.
    assert bool(((found.double() - exact).abs() <= BFLOAT16 * exact.abs() + 1e-4).all())
    assert torch.equal(found, found.bfloat16().float())
    assert not torch.equal(found, left @ right)


def networks(hidden: int = 70, **optimizer: float) -> tuple[StackedMLP, SGDW, PermutedStream]:
    stream = PermutedStream(supple.lab.data.mnist10k(), [0, 1])
    network = StackedMLP([0, 0, 1, 1], stream.features, hidden, stream.classes, layer_norm="after")
    return network, SGDW(network.parameters(), lr=0.05, **optimizer), stream


def losses(precision: Any, method: Any = None, **optimizer: float) -> tuple[torch.Tensor, StackedMLP]:
    network, descent, stream = networks(**optimizer)
    acting = method and method(network)
    population = Population(network, descent, stream, acting, precision=precision)
    task = stream.task(0)
    return torch.stack([population.step(*task.batch(k))[0] for k in range(60)]), network


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_training_in_bfloat16_follows_training_in_float32(momentum: float) -> None:
    exact, _ = losses("float32", momentum=momentum)
    found, network = losses("bfloat16", momentum=momentum)
    assert not torch.equal(found, exact)
    # The first loss differs by rounding alone; later the paths part, but go down the same way.
    torch.testing.assert_close(found[0], exact[0], rtol=0.02, atol=0.02)
    torch.testing.assert_close(found[-20:].mean(0), exact[-20:].mean(0), rtol=0.1, atol=0.05)
    assert exact[-20:].mean() < exact[:5].mean() / 1.5
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_methods_read_features_and_gradients_of_a_step_in_bfloat16() -> None:
    def method(network: StackedMLP) -> supple.Chain:
        return supple.chain(supple.SWR(network, frequency=5, factor=0.1), supple.ReDo(network, threshold=0.5))

    found, _ = losses("bfloat16", method)
    assert bool(found.isfinite().all())


def test_a_precision_that_means_nothing_here_is_refused() -> None:
    network, optimizer, stream = networks()
    with pytest.raises(ValueError, match=r"precision is 'half'.*'float32', 'tf32', 'bfloat16'"):
        FastStep(network, optimizer, "half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'tf32', which GPUs have, but the networks are on 'cpu'"):
        Population(network, optimizer, stream, precision="tf32")
    with pytest.raises(ValueError, match="general=True"):
        Population(network, optimizer, stream, general=True, precision="bfloat16")
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"networks are torch\.float64"):
        Products("tf32", on_gpu)


def set_matmul(precision: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = precision


def set_all(precision: str) -> None:
    torch.backends.fp32_precision = precision


def precisions() -> tuple[str, ...]:
    """Of the products of GPUs and of CPUs, and of both as the older setting has it."""
    try:
        both = torch.get_float32_matmul_precision()
    except RuntimeError:
        both = "refused"
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision, both


@pytest.fixture
def forgotten_precision() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    for backend in (torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
        backend.fp32_precision = "none"


SETTINGS: dict[str, tuple[Callable[[str], None], str]] = {
    f"{setting.__name__} {value}": (setting, value)
    for setting, values in (
        (torch.set_float32_matmul_precision, ["highest", "high", "medium"]),
        (set_matmul, ["none", "ieee", "tf32"]),
        (set_all, ["ieee", "tf32"]),
    )
    for value in values
}


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch has but one setting")
@pytest.mark.usefixtures("forgotten_precision")
@pytest.mark.parametrize("setting", SETTINGS)
def test_tf32_is_set_for_the_step_and_no_longer(setting: str) -> None:
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    change, value = SETTINGS[setting]
    change(value)
    products, before = Products("tf32", on_gpu), precisions()
    with pytest.raises(KeyError), products.applied():
        raise KeyError
    assert precisions() == before
    with products.applied():
        assert precisions()[:2] == ("tf32", before[1])
    assert precisions() == before
    with Products("float32", HERE).applied():
        assert precisions() == before


@pytest.mark.parametrize("before", ["highest", "medium"])
@pytest.mark.usefixtures("forgotten_precision")
def test_tf32_where_torch_has_one_setting(before: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    torch.set_float32_matmul_precision(before)
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace())
    products = Products("tf32", on_gpu)
    with pytest.raises(KeyError), products.applied():
        raise KeyError
    assert torch.get_float32_matmul_precision() == before
    with products.applied():
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "unit"), [("float32", 2.0**-20), ("tf32", TF32), ("bfloat16", BFLOAT16)])
def test_products_against_float64_on_a_gpu(precision: str, unit: float) -> None:
    left, right, term = factors("cuda")
    products = Products(precision, left)
    exact, size = left.double() @ right.double(), left.double().abs() @ right.double().abs()
    with products.applied():
        assert close(products.add(term, left, right), term + exact, size, unit)
        products.subtract(term, left, right)
    assert close(term, factors("cuda")[2] - exact, size, unit)

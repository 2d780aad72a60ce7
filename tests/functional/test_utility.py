"""Utilities against loops over single weights and units."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from supple.functional.utility import (
    placed_by_rank,
    precise,
    unit_activation,
    unit_contribution,
    unit_gradient,
    unit_magnitude,
    weight_gradient,
    weight_magnitude,
)

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(result, expected, dtype):
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(result.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=0)


@every_dtype
@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 4), (2, 3, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("kind", ["gradient", "magnitude"])
def test_weight_utilities_equal_a_loop(kind, shape, dtype):
    weight, gradient = draw(*shape, dtype=dtype), draw(*shape, seed=1, dtype=dtype)
    gradient.view(-1)[0] = 0
    weight.view(-1)[1] = 0
    result = weight_gradient(weight, gradient) if kind == "gradient" else weight_magnitude(weight)
    assert result.shape == weight.shape
    lists = (tensor.double().flatten().tolist() for tensor in (weight, gradient))
    close(result.flatten(), reference.weight_utilities(kind, *lists), dtype)


def test_weight_utilities_do_not_write_into_their_arguments():
    weight, gradient = draw(2, 3), draw(2, 3, seed=1)
    before = weight.clone(), gradient.clone()
    weight_gradient(weight, gradient)
    weight_magnitude(weight)
    assert torch.equal(weight, before[0])
    assert torch.equal(gradient, before[1])


def test_precise_is_the_tensor_itself_unless_half():
    for dtype in DTYPES:
        tensor = torch.ones(3, dtype=dtype)
        half = dtype in (torch.float16, torch.bfloat16)
        assert (precise(tensor) is tensor) is not half
        assert precise(tensor).dtype == (torch.float32 if half else dtype)


def test_half_precision_products_do_not_underflow():
    tiny = torch.full((1,), 1e-6, dtype=torch.float16)
    assert float(tiny * tiny) == 0
    assert float(weight_gradient(tiny, tiny)) == pytest.approx(float(tiny) ** 2, rel=1e-6)


OUTGOING = [[(5,)], [(3, 1, 1)], [(3, 2, 2), (4, 2, 1)], [(2, 1, 1, 3, 3), (1,)]]


@every_dtype
@pytest.mark.parametrize("shapes", OUTGOING, ids=str)
@pytest.mark.parametrize("kind", ["activation", "magnitude", "contribution", "gradient"])
def test_unit_utilities_equal_a_loop(kind, shapes, dtype):
    replicas, units = 2, 4
    features = draw(replicas, units, 6, 2, seed=2, dtype=dtype)
    features[1, 2] = 0
    outgoing = [draw(replicas, units, *shape, seed=3 + i, dtype=dtype) for i, shape in enumerate(shapes)]
    gradients = [draw(replicas, units, *shape, seed=9 + i, dtype=dtype) for i, shape in enumerate(shapes)]
    gradients[0][0, 1] = 0
    result = {
        "activation": lambda: unit_activation(features),
        "magnitude": lambda: unit_magnitude(outgoing),
        "contribution": lambda: unit_contribution(unit_activation(features), outgoing),
        "gradient": lambda: unit_gradient(outgoing, gradients),
    }[kind]()
    expected = [
        [
            reference.unit_utility(
                kind,
                features[r, u].double().flatten().tolist(),
                [w for weights in outgoing for w in weights[r, u].double().flatten().tolist()],
                [g for gradient in gradients for g in gradient[r, u].double().flatten().tolist()],
            )
            for u in range(units)
        ]
        for r in range(replicas)
    ]
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5  # the terms of "gradient" may nearly cancel
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance * 0.1)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(0, 100))
def test_two_readers_are_one_reader_with_both_weights(replicas, units, outputs, seed):
    first, second = draw(replicas, units, outputs, seed=seed), draw(replicas, units, outputs + 1, seed=seed + 1)
    together = torch.cat([first, second], dim=2)
    torch.testing.assert_close(unit_magnitude([first, second]), unit_magnitude([together]), rtol=1e-13, atol=0)
    torch.testing.assert_close(
        unit_gradient([first, second], [second[..., :outputs], second]),
        unit_gradient([together], [torch.cat([second[..., :outputs], second], dim=2)]),
        rtol=1e-10,
        atol=1e-14,
    )


def test_gradients_for_other_readers_are_refused():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        unit_gradient([torch.ones(1, 2, 3), torch.ones(1, 2, 3)], [torch.ones(1, 2, 3)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_places_by_rank_equal_sorting_pairs_of_value_and_index(dtype):
    values = draw(4, 500, dtype=dtype)
    values[1] = values[1].round()  # ties, also of 0.0 and -0.0
    values[2, :8] = torch.tensor([math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38], dtype=dtype)
    values[3, ::7] = math.nan
    values[3, 1::7] = -math.nan
    ordered = draw(4, 500, seed=1, dtype=dtype).sort(dim=1).values
    expected = torch.empty_like(ordered)
    for row, one in enumerate(values.tolist()):
        order = sorted(range(500), key=lambda k, one=one: (math.inf if math.isnan(one[k]) else one[k], k))
        expected[row, order] = ordered[row]
    assert torch.equal(placed_by_rank(values, ordered), expected)

"""Dropout against what it is defined to do: how often, to what, and with which gradient."""

import math

import pytest
import torch
from torch import nn

from supple.lab.nn.layers import Dropout, dropout
from supple.lab.nn.transformer import attend


@pytest.mark.parametrize("p", [0.1, 0.5, 0.003, 0.97])
def test_every_entry_is_dropped_as_often_as_stated(p):
    torch.manual_seed(4)
    x = torch.full((50_000, 4), 3.0)
    out = dropout(x, p)
    gone = (out == 0).double()
    torch.testing.assert_close(
        out[out != 0], torch.tensor(3 / (1 - p)).expand(int((out != 0).sum())), rtol=5e-4, atol=0
    )
    # Four neighbours share a 64-bit random number: each by itself, and each two of them as if they were independent.
    deviation = math.sqrt(p * (1 - p) / len(x))
    assert (gone.mean(dim=0) - p).abs().max() < 4.5 * deviation + 2**-17
    both = (gone.T @ gone / len(x))[tuple(torch.triu_indices(4, 4, 1))]
    assert (both - p * p).abs().max() < 4.5 * math.sqrt(p * p * (1 - p * p) / len(x)) + 2**-16
    # And from one number to the next.
    assert abs(float((gone[1:, 0] * gone[:-1, 3]).mean()) - p * p) < 4.5 * p / math.sqrt(len(x)) + 2**-16


def test_the_mean_stays_exactly():
    # Kept entries are divided by the probability with which they are kept, both in multiples of 2^-16.
    out = dropout(torch.ones(1000, dtype=torch.float64), 0.1)
    assert set(out.tolist()) == {0.0, 65536 / (65536 - 6554)}


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 2), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shapes_types_and_gradients(shape, dtype):
    torch.manual_seed(0)
    x = (torch.rand(shape, dtype=dtype) + 1).requires_grad_()
    out = dropout(x, 0.4)
    assert (out.shape, out.dtype) == (x.shape, dtype)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x, out)
    if dtype == torch.float64:
        kept = out.detach() / x.detach()
        assert all(value == 0 or value == pytest.approx(1 / 0.6, rel=1e-4) for value in kept.flatten().tolist())


def test_masks_are_a_function_of_torchs_generator_and_not_of_the_threads():
    x, runs, before = torch.ones(100_000), [], torch.get_num_threads()
    for threads, seed in ((1, 1), (2, 1), (1, 2)):
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        runs += [dropout(x, 0.2), dropout(x, 0.2)]
    torch.set_num_threads(before)
    assert torch.equal(runs[0], runs[2])
    assert torch.equal(runs[1], runs[3])
    assert not torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[4])


def test_probabilities_at_the_ends():
    x = torch.ones(1000)
    assert torch.equal(dropout(x, 0.0), x)
    assert torch.equal(dropout(x, 2**-18), x)
    assert torch.isfinite(dropout(x, 1 - 2**-20)).all()


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_the_layer_refuses_what_is_no_probability_below_1(p):
    with pytest.raises(ValueError, match=f"p is {p}; it has to be at least 0 and below 1"):
        Dropout(p)


@pytest.mark.parametrize("p", [1 - 2**-14, 1 - 2**-16, 1 - 2**-40])
def test_kept_entries_are_finite_in_float16(p):
    torch.manual_seed(0)
    out = dropout(torch.full((2**20,), 1e-2, dtype=torch.float16), p)
    assert out.isfinite().all()
    assert out.max() > 100  # some of the million are kept


def test_the_layer_is_for_training():
    layer, x = Dropout(0.5), torch.ones(100)
    assert isinstance(layer, nn.Dropout)
    assert 0 < int((layer(x) == 0).sum()) < 100
    assert torch.equal(layer.eval()(x), x)


def test_attention_drops_its_weights():
    torch.manual_seed(2)
    tokens, p = 6, 0.25
    queries, keys = torch.randn(2, 500, 2, tokens, tokens, dtype=torch.float64)
    values = torch.eye(tokens, dtype=torch.float64).expand(500, 2, -1, -1)  # so that the weights come out
    out = attend(torch.stack((queries, keys, values)), p)
    weights = torch.empty_like(out)
    for i in range(tokens):
        fits = torch.stack([(queries[:, :, i] * keys[:, :, j]).sum(-1) / math.sqrt(tokens) for j in range(tokens)], -1)
        weights[:, :, i] = fits.exp() / fits.exp().sum(-1, keepdim=True)
    kept = out != 0
    torch.testing.assert_close(out, torch.where(kept, weights / (1 - p), 0.0))
    assert abs(float(kept.double().mean()) - (1 - p)) < 4.5 * math.sqrt(p * (1 - p) / kept.numel())
    torch.testing.assert_close(attend(torch.stack((queries, keys, values)), 0.0), weights)

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from supple.functional.initial import Constant, Normal
from supple.structure.rules import layer_rules, padding_rows, signs_of_training

LAYERS = {
    "Linear": lambda: nn.Linear(30, 20),
    "Bilinear": lambda: nn.Bilinear(7, 11, 13),
    "Conv1d": lambda: nn.Conv1d(6, 8, 5, groups=2),
    "Conv2d": lambda: nn.Conv2d(6, 8, (3, 2)),
    "Conv3d": lambda: nn.Conv3d(4, 8, 2),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(6, 8, 5, groups=2),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(6, 16, 3, groups=2),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(4, 8, 2),
    "Embedding": lambda: nn.Embedding(20, 10),
    "EmbeddingBag": lambda: nn.EmbeddingBag(20, 10),
    "BatchNorm1d": lambda: nn.BatchNorm1d(5),
    "BatchNorm2d": lambda: nn.BatchNorm2d(5),
    "BatchNorm3d": lambda: nn.BatchNorm3d(5),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(5),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(5, affine=True),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(5, affine=True),
    "InstanceNorm3d": lambda: nn.InstanceNorm3d(5, affine=True),
    "LayerNorm": lambda: nn.LayerNorm((5, 3)),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "RMSNorm": lambda: nn.RMSNorm(5),
    "PReLU": lambda: nn.PReLU(3, init=0.1),
    "RNN": lambda: nn.RNN(9, 12, 2, bidirectional=True),
    "LSTM": lambda: nn.LSTM(9, 12, proj_size=5),
    "GRU": lambda: nn.GRU(9, 12),
    "RNNCell": lambda: nn.RNNCell(9, 12),
    "LSTMCell": lambda: nn.LSTMCell(9, 12),
    "GRUCell": lambda: nn.GRUCell(9, 12),
    "MultiheadAttention": lambda: nn.MultiheadAttention(24, 4, add_bias_kv=True),
    "MultiheadAttention, other widths": lambda: nn.MultiheadAttention(24, 4, kdim=10, vdim=50),
}


@pytest.mark.parametrize("name", LAYERS)
def test_values_of_many_fresh_layers_follow_the_rule(name):
    torch.manual_seed(0)
    layers = [LAYERS[name]() for _ in range(60)]
    public, rules = layer_rules(layers[0])
    assert public == f"torch.nn.{name.split(',')[0]}"
    assert {key for key, _ in layers[0].named_parameters(recurse=False)} <= set(rules)
    own = dict(layers[0].named_parameters())
    for key in own.keys() & rules.keys():
        distribution = rules[key]
        values = torch.cat([dict(layer.named_parameters())[key].detach().flatten() for layer in layers]).numpy()
        if isinstance(distribution, Constant):
            assert bool((values == np.float32(distribution.value)).all())
            continue
        if isinstance(distribution, Normal):
            reference = scipy.stats.norm(distribution.mean, distribution.std)
        else:
            reference = scipy.stats.uniform(distribution.low, distribution.high - distribution.low)
        assert scipy.stats.kstest(values, reference.cdf).pvalue > 1e-6
        # The values also tell a scale that is 10% off: a fan counted wrongly would be off by more.
        assert reference.std() == pytest.approx(values.std(), rel=0.1)


def test_a_subclass_follows_the_rule_unless_it_has_its_own():
    class Plain(nn.Linear):
        pass

    class Own(nn.Linear):
        def reset_parameters(self):
            nn.init.zeros_(self.weight)

    assert layer_rules(Plain(3, 4))[0] == "torch.nn.Linear"
    assert layer_rules(Own(3, 4)) == ("", {})
    assert layer_rules(nn.ReLU()) == ("", {})


def test_transformer_draws_every_matrix_of_its_layers_from_xavier():
    torch.manual_seed(0)
    public, rules = layer_rules(nn.Transformer(16, 2, 1, 1, 24, batch_first=True))
    assert public == "torch.nn.Transformer"
    assert rules["encoder.layers.0.linear1.weight"].high == pytest.approx((6 / 40) ** 0.5)
    assert "encoder.layers.0.linear1.bias" not in rules


def test_empty_layers():
    with pytest.warns(UserWarning, match="zero-element"):
        layer = nn.Linear(0, 3)
    assert layer_rules(layer)[1] == {"weight": Constant(0.0), "bias": Constant(0.0)}


def test_padding_rows():
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=-1), nn.Embedding(5, 3), nn.EmbeddingBag(5, 3, padding_idx=0))
    assert padding_rows(model) == {"0.weight": 4, "2.weight": 0}


def test_no_signs_in_a_fresh_model():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.InstanceNorm1d(4, track_running_stats=True))
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad):
        assert list(signs_of_training(model, kind(model.parameters(), lr=0.1))) == []


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), torch.optim.Adam, torch.optim.Adagrad, torch.optim.RMSprop,
])  # fmt: skip
def test_signs_of_training(make):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = make(model.parameters())
    model(torch.randn(8, 3)).pow(2).sum().backward()
    assert list(signs_of_training(model)) == ["1 has counted 1 batches"]
    optimizer.step()
    assert list(signs_of_training(model, optimizer))[1] == "the optimizer has made steps on 4 parameters"
    model[1].num_batches_tracked.zero_()
    assert "running mean that is not 0" in next(signs_of_training(model))

"""Networks that were only initialized, in the ways that people use: none is taken for trained, none is refused."""

import itertools
import math
import warnings

import pytest
import torch
from torch import nn

import supple
from supple.functional.initial import Constant, Fixed, Normal, Uniform

init = nn.init


def dense(sizes, fill, zero_bias=False, norm=None, head=None):
    modules = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = nn.Linear(fan_in, fan_out)
        last = len(modules) // (3 if norm else 2) == len(sizes) - 2
        (head if head and last else fill)(layer.weight)
        if zero_bias:
            init.zeros_(layer.bias)
        modules += [layer, *([norm(fan_out)] if norm else []), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def orthogonal(gain):
    return lambda w: init.orthogonal_(w, gain)


def by_rows(w):  # the hidden layers of Udacity's DDPG count the rows
    init.uniform_(w, -1 / math.sqrt(w.size(0)), 1 / math.sqrt(w.size(0)))


class FairseqAttention(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.q, self.k, self.v):
            init.xavier_uniform_(layer.weight, gain=1 / math.sqrt(2))
        init.xavier_uniform_(self.out.weight)
        init.zeros_(self.out.bias)
        self.fc = nn.Linear(width, 128)
        init.normal_(self.fc.weight, 0, 0.037)


class LanguageModel(nn.Module):
    def __init__(self, width, bound):
        super().__init__()
        self.embedding, self.lstm, self.out = nn.Embedding(100, width), nn.LSTM(width, width), nn.Linear(width, 100)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)


class RepVGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 48, 3), nn.BatchNorm2d(48)
        init.normal_(self.norm.weight, 0.1, 0.1)
        init.normal_(self.norm.bias, 0, 0.1)


class Gates(nn.Module):
    """An LSTM as recurrent reinforcement learning starts it: orthogonal matrices, forget gates open."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(10, 32), nn.Linear(32, 4)
        for matrix in (*self.lstm.weight_hh_l0.chunk(4), *self.lstm.weight_ih_l0.chunk(4)):
            with torch.no_grad():
                matrix.copy_(init.orthogonal_(torch.empty_like(matrix)))
        init.zeros_(self.lstm.bias_ih_l0)
        init.zeros_(self.lstm.bias_hh_l0)
        with torch.no_grad():
            self.lstm.bias_ih_l0[32:64] = 1


def normalized_columns(w):  # the last layer of SphereFace, CosFace and others
    with torch.no_grad():
        w.uniform_(-1, 1).renorm_(2, 1, 1e-5).mul_(1e5)


def everything(model, fill):
    for parameter in model.parameters():
        fill(parameter)
    return model


NETWORKS = {
    "DDPG": lambda: dense([24, 400, 300, 4], by_rows, head=lambda w: init.uniform_(w, -3e-3, 3e-3)),
    "DDPG, narrow": lambda: dense([17, 256, 256, 6], by_rows),
    "fairseq": FairseqAttention,
    "SAC": lambda: dense([17, 256, 256, 6], lambda w: init.xavier_uniform_(w, init.calculate_gain("relu"))),
    "Xavier uniform, tanh": lambda: dense([3, 64, 64, 1], lambda w: init.xavier_uniform_(w, 5 / 3)),
    "LSTM 0.1": lambda: LanguageModel(128, 0.1),
    "LSTM 0.07": lambda: LanguageModel(50, 0.07),
    "LSTM, orthogonal": Gates,
    "RepVGG": RepVGG,
    "PPO": lambda: dense([8, 64, 64, 4], orthogonal(math.sqrt(2)), True, head=orthogonal(0.01)),
    "PPO critic": lambda: dense([4, 64, 64, 1], orthogonal(math.sqrt(2)), True, head=orthogonal(1.0)),
    "PPO, small": lambda: dense([4, 24, 1], orthogonal(1.0), True),
    "PPO, LayerNorm": lambda: dense([8, 64, 64, 4], orthogonal(math.sqrt(2)), True, nn.LayerNorm, orthogonal(0.01)),
    "Kaiming normal": lambda: dense([4, 24, 24, 2], init.kaiming_normal_),
    "Kaiming uniform": lambda: dense([4, 64, 64, 2], lambda w: init.kaiming_uniform_(w, nonlinearity="relu"), True),
    "Xavier normal": lambda: dense([2, 10, 2], init.xavier_normal_),
    "Xavier normal, LayerNorm": lambda: dense([3, 64, 64, 2], init.xavier_normal_, True, nn.LayerNorm),
    "xor": lambda: dense([2, 4, 1], init.xavier_normal_, True),
    "small head": lambda: dense([8, 64, 64, 2], init.kaiming_normal_, head=lambda w: init.uniform_(w, -3e-3, 3e-3)),
    "squeeze": lambda: dense([16, 2, 16], lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu")),
    "BERT": lambda: dense([32, 64, 2], lambda w: init.trunc_normal_(w, std=0.02), True),
    "StyleGAN": lambda: dense([16, 64, 4], init.normal_, True),
    "SIREN": lambda: dense([2, 256, 256, 1], lambda w: init.kaiming_uniform_(w, nonlinearity="relu").data.div_(30)),
    "Keras": lambda: dense([300, 128, 10], lambda w: init.uniform_(w, -0.05, 0.05), True),
    "all normal": lambda: everything(NETWORKS["PPO, LayerNorm"](), lambda p: init.normal_(p, 0, 0.13)),
    "all uniform": lambda: everything(dense([8, 40, 40, 3], init.normal_), lambda p: init.uniform_(p, -0.123, 0.123)),
    "normalized columns": lambda: dense([20, 64, 10], normalized_columns, True),
    "IRNN": lambda: everything(nn.RNN(20, 20), lambda p: init.eye_(p) if p.ndim > 1 else init.zeros_(p)),
}  # fmt: skip


def judged(model):
    """Whether the model was said to look trained, or SWR refused it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            supple.SWR(model)
        except ValueError as error:
            return str(error)
    return next((str(one.message) for one in caught if "looks trained" in str(one.message)), "")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fresh_network_is_neither_refused_nor_taken_for_trained(name):
    for seed in range(4):
        torch.manual_seed(seed)
        assert judged(NETWORKS[name]()) == "", seed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NETWORKS)
def test_none_of_200_seeds_is_refused_by_chance(name):
    """But one of a network whose biases are normal too, as those of a trained one are."""
    refused = []
    for seed in range(200):
        torch.manual_seed(seed)
        if judged(NETWORKS[name]()):
            refused.append(seed)
    assert len(refused) <= (name == "all normal"), refused


@pytest.mark.parametrize(("name", "parameter", "distribution", "source"), [
    ("DDPG", "2.weight", Uniform(-(300**-0.5), 300**-0.5), "uniform within 1 / sqrt(fan_out)"),
    ("DDPG", "4.weight", Uniform(-0.003, 0.003), "uniform within 0.003"),
    ("fairseq", "q.weight", Uniform(-((3 / 128) ** 0.5), (3 / 128) ** 0.5), "Xavier uniform (gain 1/sqrt(2))"),
    ("SAC", "0.weight", Uniform(-((12 / 273) ** 0.5), (12 / 273) ** 0.5), "Xavier uniform (gain relu)"),
    ("LSTM 0.1", "lstm.bias_ih_l0", Uniform(-0.1, 0.1), "uniform, as lstm.weight_ih_l0"),
    ("LSTM, orthogonal", "lstm.weight_hh_l0", Normal(0, 32**-0.5), "orthogonal, gain 2"),
    ("PPO", "4.weight", Normal(0, 0.01 / 8), "orthogonal, gain 0.01"),
    ("PPO critic", "4.weight", Normal(0, 1 / 8), "orthogonal, gain 1"),
    ("Kaiming normal", "2.weight", Normal(0, (2 / 24) ** 0.5), "Kaiming normal (fan_in, relu)"),
    ("Xavier normal, LayerNorm", "6.weight", Normal(0, (2 / 66) ** 0.5), "Xavier normal"),
    ("SIREN", "2.weight", Uniform(-((6 / 256) ** 0.5) / 30, (6 / 256) ** 0.5 / 30), "SIREN"),
    ("BERT", "0.weight", Normal(0, 0.02), "normal, std 0.02"),
])  # fmt: skip
def test_the_rule_is_named_and_its_numbers_are_exact(name, parameter, distribution, source):
    torch.manual_seed(0)
    found = supple.initial_distributions(NETWORKS[name]())[parameter]
    assert vars(found.distribution) == pytest.approx(vars(distribution), rel=1e-5)
    assert found.source.startswith(f"values: {source}"), found.source


def test_means_of_fresh_layers_are_0():
    """An estimated mean is never exactly 0; a rule's is."""
    for seed in range(5):
        for fill in (init.kaiming_normal_, init.xavier_uniform_, lambda w: init.normal_(w, 0, 0.037), init.orthogonal_):
            torch.manual_seed(seed)
            model = dense([30, 64, 8], fill, zero_bias=True)
            method = supple.SWR(
                model, factor=1.0, frequency=1, reinit="mean", utility="magnitude", pruning="proportional"
            )
            method.step()
            assert not any(parameter.any() for parameter in model.parameters())


def test_scales_drawn_in_an_unusual_way_are_unknown_where_nothing_shows_that_they_are_fresh():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 100), nn.LayerNorm(100), nn.Linear(100, 100))
    everything(model[1], lambda p: init.normal_(p, 1, 0.3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = supple.initial_distributions(model)
    assert found["0.weight"].source == found["0.bias"].source == "rule of torch.nn.Linear"  # not condemned
    assert "trained already?" in found["1.weight"].source
    init.zeros_(model[1].bias)  # which training would have moved too
    found = supple.initial_distributions(model)
    assert found["1.weight"].distribution.std == pytest.approx(0.3, rel=0.4)


def test_entries_that_were_set_go_back_to_their_own_values():
    torch.manual_seed(0)
    model = nn.RNN(12, 12)
    init.eye_(model.weight_hh_l0)
    for reinit in ("resample", "mean"):
        method = supple.SWR(model, frequency=1, factor=1.0, utility="random", pruning="proportional", reinit=reinit)
        with torch.no_grad():
            model.weight_hh_l0 += 1
        assert isinstance(method.distributions["weight_hh_l0"], Fixed)
        state = method.state_dict()
        method.step()
        assert torch.equal(model.weight_hh_l0, torch.eye(12))
        method.load_state_dict(state)
        assert torch.equal(method.distributions["weight_hh_l0"].values, torch.eye(12))


def test_frozen_and_excluded_parameters_are_no_evidence():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32), nn.BatchNorm1d(32), nn.Linear(32, 32))
    for parameter in backbone.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    backbone(torch.randn(5, 8))
    model = nn.Sequential(backbone, nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))
    assert "looks trained" in judged(model) or "unknown" in judged(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        supple.SWR(model, include=["1.*", "3.*"])
        backbone.requires_grad_(False)
        assert known_of_trained(supple.SWR(model)) == {
            "1.weight": Uniform(-1 / math.sqrt(32), 1 / math.sqrt(32)),
            "1.bias": Uniform(-1 / math.sqrt(32), 1 / math.sqrt(32)),
            "3.weight": Uniform(-0.25, 0.25),
            "3.bias": Uniform(-0.25, 0.25),
        }


def known_of_trained(method):
    """The distributions of what is not frozen; those of frozen parameters are for the time when they are trained."""
    trained = {name for name, parameter in method.model.named_parameters() if parameter.requires_grad}
    return {name: one for name, one in method.distributions.items() if name in trained}


class LoRA(nn.Module):
    def __init__(self, layer, rank=4):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a, self.b = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=False)
        init.kaiming_uniform_(self.a.weight, a=math.sqrt(5))
        init.zeros_(self.b.weight)

    def forward(self, x):
        return self.layer(x) + self.b(self.a(x))


def test_adapters_on_a_trained_layer():
    torch.manual_seed(0)
    layer = nn.Linear(16, 16)
    with torch.no_grad():
        layer.weight.add_(torch.randn(16, 16))
    model = nn.Sequential(LoRA(layer), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = supple.SWR(model, frequency=1, factor=0.1)
    assert known_of_trained(method) == {"0.a.weight": Uniform(-0.25, 0.25), "0.b.weight": Constant(0.0)}
    for _ in range(3):  # while B is 0, A has no gradient: all of A is drawn again, which changes nothing of the model
        model(torch.randn(5, 16)).square().sum().backward()
        method.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
WORDS = {"vocab_size": 100, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SIDES = {f"encoder_{key}": n for key, n in (("layers", 1), ("ffn_dim", 64), ("attention_heads", 4))}
SIDES |= {key.replace("encoder", "decoder"): n for key, n in SIDES.items()}
IMAGE = {"image_size": 32, "patch_size": 8}
PRETRAINING = {
    "efficientnet": {"width_coefficient": 0.5, "depth_coefficient": 0.3, "image_size": 64, "hidden_dim": 256},
    "regnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 2], "groups_width": 8},
    "clip": {"text_config": SMALL | WORDS, "vision_config": SMALL | IMAGE},
    "mamba": {"hidden_size": 48, "num_hidden_layers": 2} | WORDS,
    "vit": SMALL | IMAGE,
    "bert": SMALL | WORDS,
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 32} | WORDS,
    "llama": SMALL | WORDS,
    "t5": {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4, "vocab_size": 100},
    "whisper": {"d_model": 48, "decoder_start_token_id": 1} | SIDES | WORDS,
    "swin": {"image_size": 64, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    "convnext": {"hidden_sizes": [16, 32], "depths": [1, 2], "num_stages": 2},
    "mobilenet_v2": {"depth_multiplier": 0.35, "image_size": 64},
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", PRETRAINING)
def test_models_of_transformers(name):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(name, **PRETRAINING[name]))
    assert judged(model) == ""


def vectors(vector):
    """A fresh network with a parameter of its own."""
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    model.register_parameter("own", nn.Parameter(vector))
    return model


@pytest.mark.parametrize(
    "vector",
    [
        torch.linspace(3, 6, 4),  # the forget gates of xLSTM
        torch.logspace(0, 2, 5),
        torch.tensor([10.0, -17.3, 29.1]),
        (torch.arange(32) / 32).pow(0.7).view(1, 1, 32),  # RWKV's mixing of times
        torch.arange(32).div(31).pow(1.3).mul(8).sub(5),  # and its decay
    ],
)
def test_vectors_that_were_set_start_again_from_their_own_values(vector):
    found = supple.initial_distributions(vectors(vector))["own"].distribution
    assert torch.equal(found.values, vector)


def test_vectors_of_a_trained_network_tell_nothing():
    for vector in (torch.linspace(3, 6, 4), torch.arange(32).pow(1.3)):
        model = vectors(vector)
        model.append(nn.BatchNorm1d(2))
        model(torch.randn(8, 4))
        with pytest.warns(UserWarning, match="looks trained"):
            assert supple.initial_distributions(model)["own"].distribution is None


@pytest.mark.parametrize("value", [math.log(0.2), math.log(10), math.log(50), 64**-0.5, 48**-0.5, 768**0.5])
def test_one_number_made_of_a_round_one(value):
    for one in (torch.tensor(value), torch.tensor([value])):
        assert supple.initial_distributions(vectors(one))["own"].distribution.mean == float(one)


def test_one_number_made_of_no_round_one():
    for value in (torch.randn(100) * 3).tolist():
        assert supple.initial_distributions(vectors(torch.tensor(value)))["own"].distribution is None


def test_a_part_of_a_bias_that_was_set_is_no_sign_of_training():
    torch.manual_seed(0)
    model = nn.LSTM(8, 16)
    with torch.no_grad():
        model.bias_ih_l0[16:32] = 1
    found = supple.initial_distributions(model)["bias_ih_l0"].distribution
    assert torch.equal(found.values, model.bias_ih_l0)


@pytest.mark.parametrize("seed", range(5))
def test_biases_drawn_as_weights_of_another_layer_that_follow_its_rule(seed):
    """A uniform within 1 / sqrt(outputs), as many actors have; 64 draws from it look normal now and then."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    for layer, bound in zip(model[::2], (1 / 8, 1 / 8, 0.003), strict=True):
        init.uniform_(layer.weight, -bound, bound)
        init.uniform_(layer.bias, -bound, bound)
    assert supple.initial_distributions(model)["0.bias"].distribution == Uniform(-1 / 8, 1 / 8)


def test_the_one_bias_of_a_critic_starts_again_from_its_own_value():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    with torch.no_grad():
        model[2].bias.fill_(-2.18814)
    assert torch.equal(supple.initial_distributions(model)["2.bias"].distribution.values, model[2].bias)


def test_sines_and_cosines_of_positions():
    angles = torch.arange(12)[:, None] / 10000 ** (torch.arange(8) / 8)
    table = torch.cat([angles.sin(), angles.cos()], 1)
    assert torch.equal(supple.initial_distributions(vectors(table))["own"].distribution.values, table)

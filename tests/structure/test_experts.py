"""Experts whose weights are one parameter of three dimensions: left out by name, however they are computed."""

import pytest
import torch
from torch import nn
from traced_checks import assert_accounted
from traced_models import rows

import supple

transformers = pytest.importorskip("transformers")

SMALL = {
    **{"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2},
    **{"intermediate_size": 12, "max_position_embeddings": 8, "pad_token_id": 0, "num_experts_per_tok": 2},
}


def qwen():
    sizes = {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 6}
    return transformers.Qwen2MoeConfig(**SMALL, **sizes), transformers.Qwen2MoeForCausalLM


def deepseek():
    sizes = {"moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 2, "topk_group": 1}
    heads = {"kv_lora_rank": 4, "q_lora_rank": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "qk_nope_head_dim": 4}
    config = transformers.DeepseekV3Config(**SMALL, **sizes, **heads, first_k_dense_replace=0)
    return config, transformers.DeepseekV3ForCausalLM


def mixtral():
    return transformers.MixtralConfig(**SMALL, num_local_experts=4), transformers.MixtralForCausalLM


def olmoe():
    return transformers.OlmoeConfig(**SMALL, num_experts=4), transformers.OlmoeForCausalLM


EXPERTS = {"model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"}
SHARED = {
    qwen: "model.layers.0.mlp.shared_expert.gate_proj * model.layers.0.mlp.shared_expert.up_proj",
    deepseek: "model.layers.0.mlp.shared_experts.gate_proj * model.layers.0.mlp.shared_experts.up_proj",
    mixtral: None,
    olmoe: None,
}
REASONS = {
    None: "_grouped_mm",
    "eager": "one of several",
    "batched_mm": "looks its entries up",
    "grouped_mm": "_grouped_mm",
}


@pytest.mark.parametrize(
    ("make", "how", "kind"),
    [
        *((qwen, how, torch.float32) for how in REASONS),
        (qwen, None, torch.bfloat16),
        *((make, None, torch.float32) for make in (deepseek, mixtral, olmoe)),
        (deepseek, "eager", torch.float32),
        (mixtral, "batched_mm", torch.float32),
    ],
)
def test_experts_of_transformers_are_named(make, how, kind):
    config, build = make()
    if how:
        config._experts_implementation = how
    torch.manual_seed(0)
    model = build(config).to(kind)
    example = {"input_ids": torch.randint(1, 11, (2, 4))}
    if SHARED[make] is None:
        with pytest.raises(ValueError, match="no hidden units") as error:
            supple.units(model, example)
        reasons = dict(line.strip().split(": ", 1) for line in str(error.value).splitlines()[1:-1])
    else:
        found = supple.units(model, example)
        assert SHARED[make] in [group.name for group in found]
        assert_accounted(model, found)
        reasons = {item.name: item.reason for item in found.excluded}
    assert set(reasons) >= EXPERTS
    assert not any("attention" in reason for name, reason in reasons.items() if "mlp" in name)
    assert any(REASONS[how] in reasons[name] for name in EXPERTS)


class Batched(nn.Module):
    """All experts at once, each with its own matrix, and their mean."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.inlet, self.head = nn.Linear(4, 5), nn.Linear(6, 2)
        self.w1, self.w2 = nn.Parameter(torch.randn(3, 5, 7)), nn.Parameter(torch.randn(3, 7, 6))

    def forward(self, x):
        x = self.inlet(x).relu()
        if self.how == "einsum":
            return self.head(
                torch.einsum("ebh,eho->bo", torch.einsum("bi,eih->ebh", x, self.w1).relu(), self.w2).relu()
            )
        return self.head(((x.expand(3, *x.shape) @ self.w1).relu() @ self.w2).mean(0).relu())


@pytest.mark.parametrize("how", ["einsum", "product"])
def test_all_experts_at_once(how):
    model = nn.Sequential(Batched(how), nn.ReLU(), nn.Linear(2, 2))
    found = supple.units(model, rows(4))
    assert_accounted(model, found)
    assert {"0.w1", "0.w2"} <= {item.name for item in found.excluded}


def test_a_model_that_has_run_is_traced_as_one_that_has_not():
    """Its loss of the routing is computed from what hooks collect, which are set at the first call."""
    config, build = qwen()
    config.output_router_logits = True
    torch.manual_seed(0)
    model = build(config)
    example = {"input_ids": torch.randint(1, 11, (2, 4)), "labels": torch.randint(1, 11, (2, 4))}
    before = repr(supple.units(model, example))
    assert model(**example).aux_loss.item() > 0
    assert repr(supple.units(model, example)) == before

"""Hidden units of models of the transformers package, made from small configurations with random weights."""

import pytest
import torch
from traced_checks import (
    assert_accounted,
    assert_found,
    assert_methods_take_steps,
    assert_replacing_silences,
    assert_untouched,
    everything,
    readers,
)
from traced_models import ATTENTION, RESIDUAL, image, tokens

import supple

transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 11, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 6}


def gpt2():
    sizes = {"vocab_size": 11, "n_positions": 8, "n_embd": 4, "n_layer": 2, "n_head": 2, "n_inner": 6}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, max_position_embeddings=8))


def bert_with_tied_head():
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, max_position_embeddings=8))


def vit():
    config = transformers.ViTConfig(**SMALL, image_size=8, patch_size=4, num_channels=2)
    return transformers.ViTForImageClassification(config)


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=1))


def bart():
    layers = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 6))}
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    return transformers.BartModel(
        transformers.BartConfig(vocab_size=11, d_model=4, max_position_embeddings=8, **layers, **heads)
    )


def layers(pattern, made, read, attention, residual):
    """What is found and left out in two layers of a kind."""
    prefixes = [pattern.format(k) for k in range(2)]
    groups = {" * ".join(prefix + name for name in made): (6, [prefix + read]) for prefix in prefixes}
    excluded = {prefix + name: ATTENTION for prefix in prefixes for name in attention}
    return groups, excluded | {prefix + name: RESIDUAL for prefix in prefixes for name in residual}


def in_bert(prefix):
    own = ("attention.self.query", "attention.self.key", "attention.self.value")
    return layers(prefix, ["intermediate.dense"], "output.dense", own, ["attention.output.dense", "output.dense"])


WORDS = {"input_ids": tokens()}
BERT = in_bert("bert.encoder.layer.{}.")
VIT = layers(
    *("vit.layers.{}.", ["mlp.fc1"], "mlp.fc2"),
    *(["attention.q_proj", "attention.k_proj", "attention.v_proj"], ["attention.o_proj", "mlp.fc2"]),
)
EXPECTED = {
    gpt2: (
        WORDS,
        *layers("transformer.h.{}.", ["mlp.c_fc"], "mlp.c_proj", ["attn.c_attn"], ["attn.c_proj", "mlp.c_proj"]),
    ),
    bert: (
        {**WORDS, "attention_mask": torch.ones(3, 5, dtype=torch.int64)},
        BERT[0] | {"bert.pooler.dense": (4, ["classifier"])},
        BERT[1],
    ),
    bert_with_tied_head: (
        WORDS,
        BERT[0],
        BERT[1] | {"cls.predictions.transform.dense": "bert.embeddings.word_embeddings.weight is used 2 times"},
    ),
    vit: (
        {"pixel_values": image()},
        VIT[0],
        VIT[1] | {"vit.embeddings.patch_embeddings.projection": "puts other features in their place"},
    ),
    llama: (
        WORDS,
        *layers(
            *("model.layers.{}.", ["mlp.gate_proj", "mlp.up_proj"], "mlp.down_proj"),
            *(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj", "mlp.down_proj"]),
        ),
    ),
    bart: (
        WORDS,
        {f"{side}.layers.0.fc1": (6, [f"{side}.layers.0.fc2"]) for side in ("encoder", "decoder")},
        {
            f"{layer}.{name}": reason
            for layer in ("encoder.layers.0.self_attn", "decoder.layers.0.self_attn", "decoder.layers.0.encoder_attn")
            for name, reason in (
                *(("q_proj", ATTENTION), ("k_proj", ATTENTION)),
                *(("v_proj", ATTENTION), ("out_proj", RESIDUAL)),
            )
        }
        | {f"{side}.layers.0.fc2": RESIDUAL for side in ("encoder", "decoder")},
    ),
}


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_hidden_units_of_transformers(make):
    torch.manual_seed(0)
    example, groups, excluded = EXPECTED[make]
    model = make()
    before = everything(model)
    found = supple.units(model, example)
    assert_untouched(model, before)
    assert_found(found, groups, excluded)
    assert_accounted(model, found)
    assert_methods_take_steps(model, example, found)
    assert_replacing_silences(model, example, found)


LONG = tokens(length=16)
LABELS = torch.where(LONG % 3 == 0, -100, LONG)


def deberta():
    config = transformers.DebertaV2Config(
        **SMALL, max_position_embeddings=20, relative_attention=True, pos_att_type=["p2c", "c2p"]
    )
    return transformers.DebertaV2ForMaskedLM(config)


def longformer():
    config = transformers.LongformerConfig(**SMALL, max_position_embeddings=40, attention_window=8, pad_token_id=0)
    return transformers.LongformerModel(config)


def wav2vec2():
    layers = {"conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_feat_extract_layers": 2}
    places = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    masks = {"mask_time_prob": 0.2, "mask_time_length": 2, "layerdrop": 0.1}
    return transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**SMALL, **layers, **places, **masks))


def switch():
    sizes = {"vocab_size": 11, "d_model": 4, "d_ff": 6, "d_kv": 2, "num_heads": 2, "num_experts": 3}
    layers = {"num_layers": 2, "num_sparse_encoder_layers": 1, "num_decoder_layers": 1}
    config = transformers.SwitchTransformersConfig(**sizes, **layers, num_sparse_decoder_layers=1)
    return transformers.SwitchTransformersModel(config)


def vits():
    sizes = {"vocab_size": 11, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 6}
    flows = {"flow_size": 4, "prior_encoder_num_flows": 1, "prior_encoder_num_wavenet_layers": 1}
    others = {"posterior_encoder_num_wavenet_layers": 1, "wavenet_dilation_rate": 1, "spectrogram_bins": 9}
    duration = {
        "duration_predictor_num_flows": 1,
        "depth_separable_num_layers": 1,
        "duration_predictor_filter_channels": 4,
    }
    sound = {"upsample_initial_channel": 8, "upsample_rates": [2, 2], "upsample_kernel_sizes": [4, 4]}
    blocks = {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}
    return transformers.VitsModel(
        transformers.VitsConfig(**sizes, **flows, **others, **duration, **sound, **blocks)
    ).eval()


def dense(prefix, made="intermediate.dense", read="output.dense", layers=2):
    return {prefix.format(k) + made: (6, [prefix.format(k) + read]) for k in range(layers)}


DECIDING = {
    deberta: ({"input_ids": LONG, "labels": LABELS}, dense("deberta.encoder.layer.{}.")),
    longformer: (
        {"input_ids": LONG, "global_attention_mask": (torch.arange(16) == 0).long().expand(3, -1)},
        dense("encoder.layer.{}."),
    ),
    wav2vec2: (
        {"input_values": torch.randn(2, 400), "labels": torch.tensor([[1, 2], [3, 4]])},
        {
            "wav2vec2.feature_extractor.conv_layers.0.conv": (8, ["wav2vec2.feature_extractor.conv_layers.1.conv"]),
            **dense("wav2vec2.encoder.layers.{}.feed_forward.", "intermediate_dense", "output_dense"),
        },
    ),
    switch: (
        {"input_ids": LONG, "decoder_input_ids": tokens()},
        {
            **dense("encoder.block.{}.layer.1.mlp.", "wi", "wo", 1),
            **dense("encoder.block.1.layer.1.mlp.experts.expert_{}.", "wi", "wo", 3),
            **dense("decoder.block.0.layer.2.mlp.experts.expert_{}.", "wi", "wo", 3),
        },
    ),
    vits: ({"input_ids": LONG}, dense("text_encoder.encoder.layers.{}.feed_forward.", "conv_1", "conv_2", 1)),
}


@pytest.mark.filterwarnings("ignore:cannot trace VitsModel")  # its training is not part of the package
@pytest.mark.parametrize("make", [deberta, *(pytest.param(one, marks=pytest.mark.slow) for one in [*DECIDING][1:])])
def test_transformers_that_decide_by_values_or_at_random(make):
    torch.manual_seed(0)
    example, groups = DECIDING[make]
    model = make()
    before = everything(model)
    found = supple.units(model, example)
    assert_untouched(model, before)
    assert groups.items() <= {group.name: (group.size, readers(group)) for group in found}.items()

"""Unmodified Transformers models from small random configurations, nothing downloaded."""

import pytest
import torch

from clarke.explain import explain
from clarke.theorems import Bias, Condition, Strength, Theorem

transformers = pytest.importorskip("transformers", reason="pip install 'clarke[transformers]'")

IMAGES = torch.zeros(2, 3, 32, 32)
TOKENS = torch.tensor([[5, 7, 9, 11], [2, 3, 4, 6]])


def resnet():
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    return transformers.ResNetModel(config), {"pixel_values": IMAGES}


def mobilenet_v2():
    config = transformers.MobileNetV2Config(depth_multiplier=0.1, min_depth=4, depth_divisible_by=4)
    return transformers.MobileNetV2Model(config), {"pixel_values": IMAGES}


def t5():
    config = transformers.T5Config(
        vocab_size=16, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5Model(config), {"input_ids": TOKENS, "decoder_input_ids": TOKENS}


def opt():
    config = transformers.OPTConfig(
        vocab_size=16, hidden_size=8, ffn_dim=12, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, word_embed_proj_dim=8,
    )  # fmt: skip
    return transformers.OPTModel(config), {"input_ids": TOKENS}


def vit():
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        image_size=32, patch_size=16,
    )  # fmt: skip
    return transformers.ViTModel(config), {"pixel_values": IMAGES}


def convnext():
    config = transformers.ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2)
    return transformers.ConvNextModel(config), {"pixel_values": IMAGES}


@pytest.mark.parametrize(
    ("make", "theorem", "strength"),
    [
        (resnet, Theorem.EIGHT, Strength.BOULIGAND),  # its stem has a maxpool
        (mobilenet_v2, Theorem.EIGHT, Strength.BOULIGAND),  # ReLU6 has no common lambda
        (t5, Theorem.FIVE, Strength.BOULIGAND),  # no biases
        (opt, Theorem.FOUR, Strength.BOULIGAND),
        (vit, Theorem.ANALYTIC, Strength.GRADIENT),
        (convnext, Theorem.ANALYTIC, Strength.GRADIENT),
    ],
)
def test_the_right_conclusion(make, theorem, strength):
    model, example = make()
    found = explain(model, example)
    assert (found.theorem, found.strength) == (theorem, strength)


def test_what_stands_in_the_way():
    found = explain(*resnet())
    assert [b.location.module for b in found.hypothesis(Condition.POOLS).blames] == [
        "embedder.pooler"
    ]
    assert found.hypothesis(Condition.BIASES).holds
    found = explain(*mobilenet_v2())
    assert found.hypothesis(Condition.BIASES).holds
    assert len(found.hypothesis(Condition.LAMBDA).blames) == len(found.layers) > 10
    found = explain(*t5())
    assert {layer.bias for layer in found.layers} == {Bias.MISSING}
    assert found.hypothesis(Condition.BIASES).blames[0].fix == (
        "add a bias to `encoder.block.0.layer.1.DenseReluDense.wi`, or after it"
    )


def test_a_padding_index_is_assumed_not_to_occur():
    assert any("padding_idx" in a for a in explain(*opt()).assumptions)

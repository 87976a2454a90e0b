"""Mixtures of experts, beside transformers: Qwen3-MoE, and GLM-4.5 with shared experts and bias."""

from __future__ import annotations

import json

import pytest
import torch

from tests.conftest import random_model
from tests.exchange.test_huggingface import theirs
from tests.model.test_experts import BOTH, SIGMOID, SOFTMAX
from tianti.errors import UserError
from tianti.exchange.huggingface import load_transformer, save_transformer

transformers = pytest.importorskip("transformers")


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        model = random_model(**changes)
        for experts in model.mixtures().values():
            if experts.bias is not None:
                experts.bias.copy_(torch.linspace(-0.3, 0.3, len(experts.bias)))
        save_transformer(model, tmp_path, eos_token_id=96, pad_token_id=96)
        return model, tmp_path

    return write


@BOTH
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_transformers_computes_the_same_logits(written, changes, tied, batch):
    model, folder = written(tied_embeddings=tied, **changes)
    ids = torch.randint(0, 97, (batch, 60))
    other = theirs(folder)
    assert other.config.model_type == ("glm4_moe" if "router" in changes else "qwen3_moe")
    assert (model.logits(model(ids)) - other(ids).logits).abs().max() < 1e-4


@torch.no_grad()
def test_a_dense_first_layer_and_gates_that_do_not_add_up(written):
    model, folder = written(**SOFTMAX, dense_layers=1, normalized_gates=False)
    ids = torch.randint(0, 97, (2, 60))
    assert load_transformer(folder).config == model.config
    assert (model.logits(model(ids)) - theirs(folder)(ids).logits).abs().max() < 1e-4


@BOTH
def test_reading_back_gives_the_same_weights(written, changes):
    model, folder = written(**changes)
    again = load_transformer(folder)
    assert again.config == model.config
    ours, read = (dict(m.named_parameters()) | m.routing_state() for m in (model, again))
    for name in ours:
        assert torch.equal(ours[name], read[name]), name


COMMON = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
}


@torch.no_grad()
def test_directories_written_by_transformers_are_read(tmp_path):
    qwen = transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(**COMMON, num_experts=6, norm_topk_prob=True)
    )
    glm = transformers.Glm4MoeForCausalLM(
        transformers.Glm4MoeConfig(
            **COMMON,
            n_routed_experts=6,
            use_qk_norm=True,
            first_k_dense_replace=1,
            num_nextn_predict_layers=0,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 1.0,
            },
        )
    )
    ids = torch.randint(0, 97, (2, 60))
    for name, other in (("qwen", qwen), ("glm", glm)):
        other.eval().save_pretrained(tmp_path / name)
        model = load_transformer(tmp_path / name)
        assert (model.logits(model(ids)) - other(ids).logits).abs().max() < 1e-4, name


@pytest.mark.parametrize(
    ("changes", "values", "message"),
    [
        (SOFTMAX, {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        (SOFTMAX, {"mlp_only_layers": [1]}, "mlp_only_layers"),
        (SIGMOID, {"n_group": 2}, "n_group"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(written, changes, values, message):
    _, folder = written(**changes)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(UserError, match=message):
        load_transformer(folder)

"""Families of Hugging Face models, beside transformers: equal logits, and equal weights back."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.exchange.test_huggingface import theirs
from tianti.errors import UserError
from tianti.exchange.huggingface import load_config, load_transformer, save_transformer
from tianti.exchange.names import weight_names
from tianti.generate.config import SamplingConfig
from tianti.generate.engine import generate_ids
from tianti.model.attention import causal_mask, document_mask
from tianti.model.cache import KeyValueCache
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer
from tianti.objective.causal import causal_loss

transformers = pytest.importorskip("transformers")

CONTEXT = 96
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.3],
    "long_factor": [1.0, 4.0],
}


def rope(theta=1e4, **scaling):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta} | scaling}


GEMMA3_ROPE = {
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
}
EXPERTS = {"num_local_experts": 6, "num_experts_per_tok": 2}
QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}
GLM = {
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
    "attention_bias": True,
}
GPT2 = {
    "vocab_size": 97,
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CASES = {
    "llama": ("Llama", SHAPE),
    "llama, tied, biases": (
        "Llama",
        SHAPE | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama3": ("Llama", SHAPE | rope(5e5, **LLAMA3)),
    "llama, linear": ("Llama", SHAPE | rope(rope_type="linear", factor=2.0)),
    "mistral": ("Mistral", SHAPE | {"sliding_window": 16}),
    "mistral, no window": ("Mistral", SHAPE | {"sliding_window": None, "head_dim": 16}),
    "mixtral": ("Mixtral", SHAPE | EXPERTS),
    "qwen2": ("Qwen2", SHAPE),
    "qwen2, tied, window, yarn": (
        "Qwen2",
        SHAPE | QWEN_WINDOW | {"tie_word_embeddings": True} | rope(1e6, **YARN),
    ),
    "qwen3": ("Qwen3", SHAPE | {"head_dim": 16, "attention_bias": True} | QWEN_WINDOW),
    "glm4_moe": ("Glm4Moe", SHAPE | GLM | {"head_dim": 8}),
    "gemma2": ("Gemma2", SHAPE | {"head_dim": 16, "sliding_window": 16}),
    "gemma2, capped": (
        "Gemma2",
        SHAPE
        | {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 12}
        | {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.3},
    ),
    "gemma3": ("Gemma3Text", SHAPE | {"head_dim": 16, "sliding_window": 16}),
    "gemma3, linear": (
        "Gemma3Text",
        SHAPE
        | {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 20}
        | {"layer_types": ["full_attention", "sliding_attention"] * 2}
        | GEMMA3_ROPE,
    ),
    "phi3": ("Phi3", SHAPE | {"sliding_window": 16}),
    "phi3, partial, longrope": (
        "Phi3",
        SHAPE
        | {"original_max_position_embeddings": 48, "partial_rotary_factor": 0.5}
        | rope(**LONGROPE, partial_rotary_factor=0.5),
    ),
    "olmo2": ("Olmo2", SHAPE),
    "gpt2": ("GPT2", GPT2),
    "gpt2, untied": ("GPT2", GPT2 | {"tie_word_embeddings": False, "n_inner": 80}),
}


@pytest.fixture(params=CASES, scope="module")
def case(request, tmp_path_factory):
    """A random model of a family, written by transformers, and what is read of it here."""
    name, values = CASES[request.param]
    folder = tmp_path_factory.mktemp("theirs")
    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(**values)
    other = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for weight in other.parameters():
            # Norms and biases must be seen too.
            weight.add_(torch.randn_like(weight) * 0.2)
    other.float().save_pretrained(folder)
    return theirs(folder), load_transformer(folder).eval(), folder


def both(case, ids, **options):
    other, model, _ = case
    with torch.no_grad():
        ours = model.logits(model(ids, **options))
    return ours, other


@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_transformers_computes_the_same_logits(case, batch):
    ids = torch.randint(3, 97, (batch, CONTEXT))
    ours, other = both(case, ids)
    assert ours.std() > 0.05
    torch.testing.assert_close(ours, other(ids).logits, rtol=1e-4, atol=1e-4)
    short = ids[:, :20]
    torch.testing.assert_close(both(case, short)[0], other(short).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_rows_filled_up_on_the_left_give_the_same(case):
    other, model, _ = case
    ids, start = torch.randint(3, 97, (2, 40)), torch.tensor([0, 13])
    there = torch.arange(40) >= start[:, None]
    expected = other(ids, attention_mask=there.long(), position_ids=_positions(there)).logits
    # What fills up is a document of its own.
    options = {"segments_BT": there.long()}
    if model.positions is not None:
        # These are counted from the row's first token where nothing else is said.
        mask = document_mask(there.long())
        options = {"mask": mask, "positions_BT": _positions(there)}
    found = model.logits(model(ids, **options))
    torch.testing.assert_close(found[there], expected[there], rtol=1e-4, atol=1e-4)


def _positions(there):
    return (there.long().cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def test_token_by_token_from_a_cache_gives_the_same(case):
    _, model, _ = case
    ids = torch.randint(3, 97, (2, 45))
    whole = model.logits(model(ids))
    cache, parts, at = KeyValueCache(model.config, batch=2), [], 0
    for size in (18, 1, 1, 7, *[1] * 18):
        parts.append(model(ids[:, at : at + size], cache=cache))
        at += size
    assert at == 45
    torch.testing.assert_close(model.logits(torch.cat(parts, 1)), whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_is_generated_is_what_transformers_generates(case):
    other, model, _ = case
    ids = torch.randint(3, 97, (1, 30))
    greedy = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    expected = other.generate(ids, **greedy, attention_mask=torch.ones_like(ids))[0, 30:]
    sampling = SamplingConfig(max_tokens=12, temperature=0.0)
    assert list(generate_ids(model, ids[0].tolist(), sampling, -1)) == expected.tolist()


def test_the_same_weights_and_settings_go_back(case, tmp_path):
    _, model, folder = case
    save_transformer(model, tmp_path, eos_token_id=2, pad_token_id=0)
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    before.pop("lm_head.weight", None)
    after.pop("lm_head.weight", None)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    assert load_config(tmp_path) == model.config
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    was = transformers.AutoConfig.from_pretrained(folder)
    assert type(read) is type(was)
    for name in ("layer_types", "sliding_window", "head_dim", "hidden_act", "hidden_activation"):
        assert getattr(read, name, None) == getattr(was, name, None), name
    if model.positions is None:
        assert was.rope_parameters.items() <= read.rope_parameters.items()


@torch.no_grad()
def test_what_goes_back_computes_the_same(case, tmp_path):
    other, model, _ = case
    save_transformer(model, tmp_path, eos_token_id=2, pad_token_id=0)
    ids = torch.randint(3, 97, (2, CONTEXT))
    torch.testing.assert_close(theirs(tmp_path)(ids).logits, other(ids).logits)


def test_weights_are_counted(case):
    _, model, _ = case
    assert model.config.num_parameters() == sum(p.numel() for p in model.parameters())


def test_a_shape_survives_json(case):
    _, model, _ = case
    values = json.loads(json.dumps(model.config.as_dict()))
    assert type(model.config)(**values) == model.config


@torch.no_grad()
def test_files_in_parts_are_read_and_written(tmp_path):
    config = transformers.LlamaConfig(**SHAPE)
    other = transformers.LlamaForCausalLM(config).eval()
    other.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert not (tmp_path / "theirs" / "model.safetensors").exists()
    model = load_transformer(tmp_path / "theirs")
    ids = torch.randint(3, 97, (1, 30))
    assert (model.logits(model(ids)) - other(ids).logits).abs().max() < 1e-4
    out = tmp_path / "ours"
    save_transformer(model, out, eos_token_id=2, pad_token_id=0, shard_bytes=20_000)
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 2
    torch.testing.assert_close(theirs(out)(ids).logits, other(ids).logits)
    again = load_transformer(out)
    assert all(map(torch.equal, again.parameters(), model.parameters()))


@torch.no_grad()
def test_old_files_of_gpt2_are_read(case, tmp_path):
    _, model, folder = case
    if model.config.family != "gpt2":
        pytest.skip("of GPT-2 alone")
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    old |= {f"h.{index}.attn.bias": torch.ones(1, 1, 4, 4) for index in range(4)}
    save_file(old, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    again = load_transformer(tmp_path)
    assert all(map(torch.equal, again.parameters(), model.parameters()))


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type = 'dynamic'"),
        ("llama", {"rope_scaling": {"type": "linear", "twist": 2.0}}, "twist"),
        ("llama", {"hidden_act": "relu2"}, "hidden_act = 'relu2'"),
        ("llama", {"residual_multiplier": 0.2}, "residual_multiplier = 0.2 is not known here"),
        ("mixtral", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("phi3", {"layer_types": ["chunked_attention"] * 4}, "layer_types"),
        ("qwen2", {"pretraining_tp": 2}, "pretraining_tp = 2"),
    ],
)
def test_what_would_change_the_result_is_refused(tmp_path, family, values, message):
    name, shape = CASES[family]
    config = getattr(transformers, f"{name}Config")(**shape).to_dict()
    config.pop("rope_parameters", None)
    (tmp_path / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(UserError, match=message) as refused:
        load_config(tmp_path)
    assert refused.value.where == tmp_path / "config.json"
    assert refused.value.remedy


@pytest.mark.parametrize("window", [0, 5])
def test_a_window_is_the_same_in_every_form(window):
    plain = document_mask(torch.zeros(1, 12, dtype=torch.int64), window=window)[0, 0]
    places = torch.arange(12)
    back = places[:, None] - places
    assert torch.equal(plain, (back >= 0) & (back < (window or 99)))
    assert torch.equal(causal_mask(7, 5, window, torch.device("cpu")), plain[7:])


def test_the_loss_and_its_gradient_are_those_of_transformers(case):
    other, model, _ = case
    ids = torch.randint(3, 97, (2, 50))
    found = causal_loss(model, ids[:, :-1], ids[:, 1:], torch.zeros(2, 49, dtype=torch.int64))
    expected = other(ids, labels=ids).loss * ids[:, 1:].numel()
    assert found.nats.item() == pytest.approx(expected.item(), rel=1e-5)
    found.total.backward()
    expected.backward()
    theirs_of = dict(other.named_parameters())
    for name, parts in weight_names(model.config).items():
        if name.endswith("feedforward.bias") or "routed" in name or "router" in name:
            # A buffer; experts, which transformers keeps fused; a gradient that balance pulls at.
            continue
        expected_gradients = [
            theirs_of[part.name].grad.t() if part.transposed else theirs_of[part.name].grad
            for part in parts
        ]
        gradient = model.get_parameter(name).grad
        torch.testing.assert_close(
            gradient, torch.cat(expected_gradients), rtol=1e-3, atol=1e-3, msg=name
        )
    model.zero_grad()
    other.zero_grad()


def test_networks_of_any_family_start_from_nothing(case):
    _, model, _ = case
    fresh = Transformer(model.config)
    initialize(fresh, 0)
    ids = torch.randint(3, 97, (2, 40))
    # Writers start at zero: the stream is the embedding, whatever the family.
    with torch.no_grad():
        assert fresh.logits(fresh(ids)).isfinite().all()

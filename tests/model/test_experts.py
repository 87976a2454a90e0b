"""A mixture of experts is what a plain loop computes; balance is exact over any split."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import random_model, tiny_config
from tianti.model.cache import KeyValueCache
from tianti.model.experts import Experts
from tianti.model.initialization import weight_roles
from tianti.model.transformer import Transformer
from tianti.objective.causal import causal_loss

SOFTMAX = {"num_experts": 6, "experts_per_token": 2, "expert_width": 24}
SIGMOID = SOFTMAX | {"router": "sigmoid", "shared_experts": 1, "dense_layers": 1, "gate_scale": 1.5}
BOTH = pytest.mark.parametrize("changes", [SOFTMAX, SIGMOID], ids=["softmax", "sigmoid"])


def ids_of(batch, time, seed=0):
    return torch.randint(0, 97, (batch, time), generator=torch.Generator().manual_seed(seed))


def mixture(changes, seed=0):
    experts = next(iter(random_model(seed, **changes).mixtures().values()))
    if experts.bias is not None:
        experts.bias.copy_(torch.linspace(-0.2, 0.2, len(experts.bias)))
    return experts


def swiglu(x, gate_up, down):
    gate, up = (gate_up @ x).chunk(2)
    return down @ (F.silu(gate) * up)


def plain_loop(experts, x_NW):
    """The definition, one token and one expert at a time."""
    config, rows = experts.config, []
    gate_up = experts.routed.gate_up.weight.unflatten(0, (config.num_experts, -1))
    down = experts.routed.down.weight.unflatten(0, (config.num_experts, -1))
    for x in x_NW:
        logits = experts.router.weight @ x
        scores = logits.softmax(0) if config.router == "softmax" else logits.sigmoid()
        ranked = scores if experts.bias is None else scores + experts.bias
        chosen = sorted(range(config.num_experts), key=lambda e: -ranked[e].item())
        chosen = chosen[: config.experts_per_token]
        whole = sum(scores[e] for e in chosen)
        row = sum(
            scores[e] / whole * config.gate_scale * swiglu(x, gate_up[e], down[e]) for e in chosen
        )
        if experts.shared is not None:
            row = row + swiglu(x, experts.shared.gate_up.weight, experts.shared.down.weight)
        rows.append(row)
    return torch.stack(rows)


@BOTH
def test_a_mixture_is_the_plain_loop_forward_and_backward(changes):
    experts = mixture(changes).double()
    x = torch.randn(3, 5, 32, dtype=torch.float64, requires_grad=True)
    wanted = [x, *experts.parameters()]
    found, expected = experts(x), plain_loop(experts, x.flatten(0, 1)).view(3, 5, 32)
    # Scores are taken in single precision, whatever the rest is in.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    slope = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(y, wanted, slope) for y in (found, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@BOTH
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_counted_as_they_are(changes, tied):
    config = tiny_config(tied_embeddings=tied, **changes)
    model = Transformer(config)
    assert sum(p.numel() for p in model.parameters()) == config.num_parameters()
    idle = sum(
        p.numel() * (1 - config.experts_per_token / config.num_experts)
        for experts in model.mixtures().values()
        for p in (experts.routed.gate_up.weight, experts.routed.down.weight)
    )
    assert config.num_active_parameters() == pytest.approx(config.num_parameters() - idle)


@BOTH
def test_flops_are_those_of_the_experts_at_work(changes):
    model = random_model(num_kv_heads=4, **changes)
    config, ids = model.config, ids_of(2, 64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        causal_loss(model, ids, ids, None).total.backward()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(value for op, value in counts.items() if "bmm" in str(op))
    causal_half = 6 * config.depth * config.attention_width * config.context * ids.numel()
    assert sum(counts.values()) - attention == pytest.approx(
        config.flops_per_token() * ids.numel() - causal_half
    )


@BOTH
def test_decoding_with_a_cache_gives_what_one_pass_gives(changes):
    model = random_model(**changes)
    ids = ids_of(2, 20)
    cache = KeyValueCache(model.config, batch=2)
    pieces = [model(part, cache=cache) for part in ids.split([7, 1, 1, 5, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), rtol=1e-4, atol=1e-5)


def balance_loss(experts, x_NW, load):
    """`experts · Σ load · mean share`, whose gradient the layer adds by itself."""
    logits = x_NW @ experts.router.weight.t()
    scores = logits.softmax(-1) if experts.config.router == "softmax" else logits.sigmoid()
    shares = scores / scores.sum(-1, keepdim=True)
    return len(load) * (load * shares.mean(0)).sum()


@BOTH
def test_the_pull_is_the_gradient_of_the_balance_loss(changes):
    experts = mixture(changes).train()
    x = torch.randn(40, 32)
    load = torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    slope = torch.randn(40, 32)
    plain = torch.autograd.grad(experts(x), experts.router.weight, slope)[0]
    experts.pull.copy_(0.3 * len(load) * load / len(x))
    pulled = torch.autograd.grad(experts(x), experts.router.weight, slope)[0]
    expected = torch.autograd.grad(0.3 * balance_loss(experts, x, load), experts.router.weight)[0]
    torch.testing.assert_close(pulled - plain, expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_tokens_are_counted_in_training_alone(changes):
    experts = mixture(changes).train()
    x = torch.randn(40, 32)
    experts(x)
    assert experts.counts.sum() == 40 * changes["experts_per_token"]
    with torch.no_grad():
        experts(x)
    experts.eval()(x)
    assert experts.counts.sum() == 40 * changes["experts_per_token"]


@BOTH
def test_compiled_layers_give_the_same(changes):
    plain, compiled = random_model(**changes), random_model(**changes)
    for layer in compiled.layers:
        layer.compile()
    ids = ids_of(2, 16)
    losses = [causal_loss(model, ids, ids, None).total for model in (plain, compiled)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    for loss in losses:
        loss.backward()
    for ours, theirs in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_each_experts_matrices_are_matrices_of_their_own():
    model = random_model(**SIGMOID)
    roles = weight_roles(model.config)
    assert roles["layers.1.feedforward.routed.gate_up.weight"].splits == (24,) * 12
    assert roles["layers.1.feedforward.routed.down.weight"].splits == (32,) * 6
    assert roles["layers.1.feedforward.router.weight"].role == "router"
    for name, parameter in model.named_parameters():
        assert sum(roles[name].splits) == len(parameter)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_experts": 4, "experts_per_token": 5, "expert_width": 8},
        {"num_experts": 4, "experts_per_token": 0, "expert_width": 8},
        {"num_experts": 4, "experts_per_token": 2},
        SOFTMAX | {"shared_experts": 1},
        SOFTMAX | {"dense_layers": 3},
    ],
)
def test_what_cannot_be_is_refused(changes):
    with pytest.raises(ValueError, match=r"exper|dense"):
        tiny_config(**changes)


def test_the_mixture_is_where_it_is_asked_for():
    model = Transformer(tiny_config(**SIGMOID))
    kinds = [isinstance(layer.feedforward, Experts) for layer in model.layers]
    assert kinds == [False, True]

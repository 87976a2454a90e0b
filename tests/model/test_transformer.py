from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import random_model, tiny_config
from tianti.model.cache import KeyValueCache
from tianti.model.config import TransformerConfig
from tianti.model.initialization import initialize, weight_roles
from tianti.model.transformer import Transformer
from tianti.objective.causal import causal_loss


def ids_of(batch, time, seed=0):
    return torch.randint(0, 97, (batch, time), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_counted_as_they_are(tied):
    config = tiny_config(tied_embeddings=tied)
    model = Transformer(config)
    assert sum(p.numel() for p in model.parameters()) == config.num_parameters()


@pytest.mark.parametrize("tied", [True, False])
def test_flops_are_those_of_the_built_network(tied):
    config = tiny_config(tied_embeddings=tied, num_kv_heads=4)
    model = random_model(tied_embeddings=tied, num_kv_heads=4)
    ids = ids_of(2, config.context)
    # The plain kernel, because the counter does not know the fused one of the CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = causal_loss(model, ids, ids, None)
        loss.total.backward()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(value for op, value in counts.items() if "bmm" in str(op))
    matrices = sum(counts.values()) - attention
    causal_half = 6 * config.depth * config.attention_width * config.context * ids.numel()
    assert attention == 2 * causal_half
    assert matrices == config.flops_per_token() * ids.numel() - causal_half


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_decoding_with_a_cache_gives_what_one_pass_gives(batch, kv_heads):
    model = random_model(num_kv_heads=kv_heads)
    ids = ids_of(batch, 20)
    expected = model(ids)
    cache = KeyValueCache(model.config, batch=batch)
    pieces = [model(part, cache=cache) for part in ids.split([7, 1, 1, 5, 6], dim=1)]
    assert torch.allclose(torch.cat(pieces, 1), expected, atol=1e-5)


CAPPED = {"attention_softcap": 0.05, "attention_scale": 3.0, "window": 7, "full_layers": (1,)}


@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("changes", [{}, CAPPED], ids=["plain", "capped"])
@torch.no_grad()
def test_blocks_keep_documents_apart_as_the_mask_does(kv_heads, changes):
    model = random_model(num_kv_heads=kv_heads, **changes)
    ids = ids_of(3, 40)
    segments = (ids % 7 == 0).cumsum(1)
    expected = model(ids, segments_BT=segments)
    model.block_masks = True
    assert torch.allclose(model(ids, segments_BT=segments), expected, atol=1e-5)


def test_a_document_does_not_see_its_neighbours():
    model = random_model()
    first, second = ids_of(1, 9, seed=1), ids_of(1, 14, seed=2)
    packed = torch.cat((first, second), 1)
    segments = torch.tensor([[0] * 9 + [1] * 14])
    hidden = model(packed, segments_BT=segments)
    assert torch.allclose(hidden[:, :9], model(first), atol=1e-5)
    assert torch.allclose(hidden[:, 9:], model(second), atol=1e-5)
    assert not torch.allclose(model(packed)[:, 9:], model(second), atol=1e-2)


def test_no_token_sees_the_future():
    model = random_model()
    ids = ids_of(1, 20)
    changed = ids.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 97
    assert torch.equal(model(ids)[:, :12], model(changed)[:, :12])


def test_embeddings_can_stand_in_for_ids():
    model = random_model()
    ids = ids_of(2, 8)
    assert torch.equal(model(ids), model(embeddings_BTW=model.embedding(ids)))


def test_more_than_the_context_is_refused():
    with pytest.raises(ValueError, match="65 tokens exceed the context of 64"):
        random_model()(ids_of(1, 65))


def test_initialization_follows_its_table():
    config = TransformerConfig(1000, 256, 3, 4, 2, 64, 512, 64, tied_embeddings=False)
    model = Transformer(config)
    initialize(model, 0)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif name.endswith(("out.weight", "down.weight")):
            assert (parameter == 0).all(), name
        else:
            std = 0.02 if name == "embedding.weight" else 256**-0.5
            assert parameter.std().item() == pytest.approx(std, rel=0.02), name
            assert abs(parameter.mean().item()) < 0.01 * std * 5, name


def test_initialization_is_a_function_of_the_seed():
    one, two, three = (Transformer(tiny_config()) for _ in range(3))
    initialize(one, 5)
    initialize(two, 5)
    initialize(three, 6)
    assert torch.equal(one.embedding.weight, two.embedding.weight)
    assert not torch.equal(one.embedding.weight, three.embedding.weight)


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_has_a_role_and_fused_ones_split_into_their_matrices(tied):
    model = Transformer(tiny_config(tied_embeddings=tied))
    roles = weight_roles(model.config)
    assert set(roles) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert sum(roles[name].splits) == len(parameter), name
    assert roles["layers.0.attention.qkv.weight"].splits == (32, 16, 16)
    assert roles["layers.1.feedforward.gate_up.weight"].splits == (48, 48)
    assert ("head.weight" in roles) == (not tied)


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="multiple of"):
        tiny_config(num_heads=3)
    with pytest.raises(ValueError, match="even"):
        tiny_config(head_dim=7)
    with pytest.raises(ValueError, match="positive"):
        tiny_config(depth=0)


def test_the_loss_is_a_sum_that_any_split_of_the_batch_adds_up_to():
    model = random_model()
    ids, labels = ids_of(8, 16), ids_of(8, 16, seed=3)
    labels[0, :5] = -100
    whole = causal_loss(model, ids, labels, None)
    parts = [causal_loss(model, ids[i : i + 2], labels[i : i + 2], None) for i in range(0, 8, 2)]
    assert sum(part.nats for part in parts).item() == pytest.approx(whole.nats.item(), rel=1e-6)
    assert sum(part.tokens for part in parts) == whole.tokens == 8 * 16 - 5
    logits = model.logits(model(ids)).log_softmax(-1)
    by_hand = -sum(
        logits[row, column, labels[row, column]].item()
        for row in range(8)
        for column in range(16)
        if labels[row, column] != -100
    )
    assert whole.nats.item() == pytest.approx(by_hand, rel=1e-5)

"""Weights in few bits: what they are made whole to, and what is learnt beside them."""

from __future__ import annotations

import pytest
import torch

from tianti.model.config import TransformerConfig
from tianti.model.frozen import NF4, FrozenLinear, freeze, quantized, restored, thaw
from tianti.model.initialization import initialize
from tianti.model.lora import LoraConfig, Place, adapters_of, attach
from tianti.model.products import Linear
from tianti.model.transformer import Transformer


@pytest.mark.parametrize("shape", [(8, 64), (3, 50), (64, 192), (1, 1)])
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_weights_come_back_as_near_as_bits_allow(kind, shape):
    torch.manual_seed(0)
    weight = torch.randn(shape)
    codes, scales = quantized(weight, kind)
    found = restored(codes, scales, weight.shape, torch.float32)
    assert found.shape == weight.shape
    if kind == "int8":
        assert codes.dtype == torch.int8
        assert ((found - weight).abs() <= weight.abs().amax(1, keepdim=True) / 254 + 1e-6).all()
        return
    # By a plain loop over blocks of 64 and the nearest of 16 levels.
    flat = weight.flatten().tolist()
    wanted = []
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        largest = max(map(abs, block))
        wanted += [largest * min(NF4, key=lambda level: abs(level - x / largest)) for x in block]
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted), atol=1e-6, rtol=1e-6)
    assert codes.nbytes == -(-len(flat) // 64) * 32


def test_levels_are_those_of_torchao():
    nf4 = pytest.importorskip("torchao.quantization.quantize_.workflows.nf4.nf4_tensor")
    torch.manual_seed(1)
    weight = torch.randn(64, 64)
    theirs = nf4.to_nf4(weight, block_size=64, scaler_block_size=64).get_original_weight()
    codes, scales = quantized(weight, "nf4")
    ours = restored(codes, scales, weight.shape, torch.float32)
    # Theirs holds the scales in 8 bits besides.
    far = (ours - theirs).abs() > 0.02 + 0.02 * theirs.abs()
    # What lies between two levels may go to either.
    assert far.float().mean() < 0.002


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("bias", [False, True])
def test_products_and_gradients_are_those_of_the_whole_weight(kind, bias):
    torch.manual_seed(2)
    source = Linear(48, 80, bias=bias)
    held = FrozenLinear(source, kind)
    whole = held.whole()
    assert whole.weight.shape == source.weight.shape
    one, other = (torch.randn(5, 3, 48).requires_grad_() for _ in range(2))
    other.data.copy_(one.data)
    found, wanted = held(one), whole(other)
    torch.testing.assert_close(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    assert not any(name == "weight" for name, _ in held.named_parameters())


@pytest.mark.parametrize("magnitudes", [False, True], ids=["lora", "dora"])
def test_a_network_learns_beside_them_as_beside_whole_ones(magnitudes):
    config = TransformerConfig(
        vocab_size=50,
        width=32,
        depth=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        mlp_width=64,
        context=16,
    )
    models = []
    for _ in range(2):
        model = Transformer(config)
        initialize(model, 0)
        for name, parameter in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                draw = torch.Generator().manual_seed(3)
                torch.nn.init.normal_(parameter, std=0.1, generator=draw)
        places = {
            name: Place((module.out_features,), (0,))
            for name, module in model.named_modules()
            if isinstance(module, Linear) and name.startswith("layers")
        }
        attach(model, places, LoraConfig(rank=4, magnitudes=magnitudes, dropout=0.0), 0)
        models.append(model)
    held, plain = models
    freeze(held, "nf4")
    count = sum(isinstance(module, FrozenLinear) for module in held.modules())
    assert count == len(adapters_of(held)) == len(places)
    # The other one has the same weights, whole.
    freeze(plain, "nf4")
    thaw(plain)
    assert not any(isinstance(module, FrozenLinear) for module in plain.modules())
    assert len(adapters_of(plain)) == count
    for model in models:
        learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        descent = torch.optim.SGD(learnt, lr=0.1)
        for step in range(5):
            ids = torch.arange(16)[None] * (step + 1) % 50
            model.logits(model(ids)).logsumexp(-1).sum().backward()
            descent.step()
            descent.zero_grad()
    ids = torch.arange(16)[None]
    torch.testing.assert_close(held(ids), plain(ids), atol=1e-5, rtol=1e-5)

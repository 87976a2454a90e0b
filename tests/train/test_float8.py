"""Products in 8 bits: near what they were, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from tests.model.test_transformer import ids_of, random_model
from tianti.errors import UserError
from tianti.objective.causal import causal_loss
from tianti.train.float8 import use_float8

pytest.importorskip("torchao")


def test_gradients_are_near_and_names_the_same():
    ids = ids_of(3, 16)
    plain, rounded = random_model(mlp_width=64), random_model(mlp_width=64)
    use_float8(rounded, torch.device("cpu"), emulate=True)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in rounded.named_parameters()]
    causal_loss(plain, ids, ids, None).total.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = causal_loss(rounded, ids, ids, None).total
    loss.backward()
    for (name, one), (_, other) in zip(
        plain.named_parameters(), rounded.named_parameters(), strict=True
    ):
        assert one.grad is not None
        assert other.grad is not None
        if name.endswith(("out.weight", "down.weight", "gate_up.weight", "qkv.weight")):
            alike = torch.cosine_similarity(one.grad.flatten(), other.grad.flatten(), dim=0)
            assert 0.95 < alike < 0.99999, name


def test_a_device_without_such_products_is_named():
    with pytest.raises(UserError, match=r"train\.float8: cpu has no products in 8 bits"):
        use_float8(random_model(), torch.device("cpu"))

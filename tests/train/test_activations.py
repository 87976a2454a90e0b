"""Computing again what was not kept gives the same, and keeps less."""

from __future__ import annotations

import pytest
import torch

from tests.model.test_transformer import ids_of, random_model
from tests.train.test_trainer import same, splits, trainer, weights  # noqa: F401 - a fixture
from tianti.objective.causal import causal_loss
from tianti.train.activations import checkpoint_activations

MODES = ("off", "selective", "full")


def kept_bytes(model, ids):
    """Gives the bytes that live from the forward to the backward pass, weights left out."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in known:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        causal_loss(model, ids, ids, None).total.backward()
    return sum(storages.values())


def test_gradients_are_the_same_to_the_bit():
    ids = ids_of(3, 16)
    found = []
    for mode in MODES:
        model = random_model(depth=3)
        checkpoint_activations(model, mode)
        causal_loss(model, ids, ids, None).total.backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert same(found[0], found[1])
    assert same(found[0], found[2])


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_training_is_the_same_to_the_bit_dropout_too(splits, tmp_path, mode):  # noqa: F811
    one = trainer(splits, tmp_path / "one", dropout=0.1)
    two = trainer(splits, tmp_path / "two", dropout=0.1, activation_checkpointing=mode)
    one.fit()
    two.fit()
    assert same(weights(one), weights(two))
    assert one.last_validation == two.last_validation


def test_less_is_kept():
    ids = ids_of(4, 16)
    model = random_model(depth=4)
    plain = kept_bytes(model, ids)
    checkpoint_activations(model, "full")
    assert kept_bytes(model, ids) < plain / 3

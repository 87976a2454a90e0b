"""The loss is a sum: how a batch is cut, packed or shared changes nothing."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from tests.model.test_transformer import ids_of, random_model
from tianti.objective.causal import causal_loss
from tianti.objective.linear_cross_entropy import IGNORED


def gradients(model, parts, total):
    model.zero_grad(set_to_none=True)
    for part in parts:
        (causal_loss(model, *part).total / total).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def assert_equal_to_a_millionth(one, other):
    assert ((one - other).norm() / one.norm()).item() < 1e-6


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [4, 1])
def test_micro_batches_have_the_gradient_of_the_whole(tied, rows):
    model = random_model(tied_embeddings=tied)
    ids, labels = ids_of(16, 16), ids_of(16, 16, seed=3)
    # Supervised tokens are counted over all of the batch, however few some part has of them.
    labels[0, :15], labels[5:7] = IGNORED, IGNORED
    total = (labels != IGNORED).sum()
    whole = gradients(model, [(ids, labels, None)], total)
    cut = list(zip(ids.split(rows), labels.split(rows), [None] * 16, strict=False))
    assert_equal_to_a_millionth(whole, gradients(model, cut, total))


def distances_of_packed_and_apart(tied, dtype, seed):
    """Gives how far a packed row's gradient is from its documents', one by one and padded."""
    model = random_model(seed, tied_embeddings=tied).to(dtype)
    lengths = (5, 1, 8, 2)
    documents = [ids_of(1, length + 1, seed=seed + length)[0] for length in lengths]
    ids = torch.cat([document[:-1] for document in documents])[None]
    labels = torch.cat([document[1:] for document in documents])[None]
    segments = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None]
    packed = gradients(model, [(ids, labels, segments)], ids.numel())
    alone = [(document[None, :-1], document[None, 1:], None) for document in documents]
    padded = pad_sequence(documents, batch_first=True, padding_value=0)
    marks = pad_sequence([d[1:] for d in documents], batch_first=True, padding_value=IGNORED)
    return [
        ((packed - gradients(model, parts, ids.numel())).norm() / packed.norm()).item()
        for parts in (alone, [(padded[:, :-1], marks, None)])
    ]


@pytest.mark.parametrize("tied", [True, False])
def test_packed_documents_have_the_gradient_of_documents_apart(tied):
    exact = [distances_of_packed_and_apart(tied, torch.float64, seed) for seed in range(3)]
    # Cosines and sines of a position in the row are those of float32.
    assert max(max(pair) for pair in exact) < 2e-7
    # What float32 rounds differs from processor to processor, so no single draw is held to it.
    rounded = [distances_of_packed_and_apart(tied, torch.float32, seed) for seed in range(9)]
    for distances in zip(*rounded, strict=True):
        assert statistics.median(distances) < 1e-6


def test_what_regularises_is_descended_and_not_reported():
    model = random_model()
    ids = ids_of(2, 16)
    plain = causal_loss(model, ids, ids, None)
    other = causal_loss(model, ids, ids, None, label_smoothing=0.1, z_loss=1e-2)
    assert torch.equal(plain.total, plain.nats)
    assert torch.equal(other.nats, plain.nats)
    assert not torch.equal(other.total, other.nats)

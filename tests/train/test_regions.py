"""A compiled step computes what the plain one does, and compiles a layer once for all of them."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.model.test_transformer import ids_of, random_model
from tianti.objective.causal import causal_loss
from tianti.objective.linear_cross_entropy import chunk_loss
from tianti.train.regions import compile_layers

pytestmark = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


def test_gradients_are_those_of_the_plain_step():
    torch._dynamo.reset()
    ids = ids_of(2, 16)
    segments = (ids % 5 == 0).cumsum(1)
    plain, compiled = random_model(depth=4), random_model(depth=4)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compile_layers(compiled)
        chunk = torch.compile(chunk_loss)
        loss = causal_loss(compiled, ids, ids, segments, z_loss=1e-3, chunk=chunk)
        loss.total.backward()
    causal_loss(plain, ids, ids, segments, z_loss=1e-3).total.backward()
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4)

"""What only a GPU can show: bfloat16, FlexAttention and compiled steps agree with a CPU."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask

from tests.conftest import random_model
from tests.model.test_transformer import ids_of
from tests.train.test_trainer import break_off, same, splits, trainer, weights  # noqa: F401
from tianti.device import autocast
from tianti.objective.causal import causal_loss
from tianti.objective.linear_cross_entropy import chunk_loss
from tianti.train.log import read_log
from tianti.train.regions import compile_layers
from tianti.train.trainer import LOG

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
# FlexAttention's kernels want heads of 16 and more.
SHAPE = {"width": 64, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "mlp_width": 96}


def loss_and_gradient(model, ids, labels, segments, loss=causal_loss):
    model.zero_grad()
    with autocast(model.device):
        found = loss(model, ids, labels, segments)
    found.total.backward()
    gradient = torch.cat([p.grad.flatten().float().cpu() for p in model.parameters()])
    return found.total.item(), gradient


@pytest.mark.parametrize("time", [200])
@pytest.mark.parametrize("tied", [True, False])
def test_compiled_blocks_give_the_loss_and_gradient_of_the_cpu(time, tied):
    shape = {**SHAPE, "context": 256, "tied_embeddings": tied}
    ids, labels = ids_of(3, time), ids_of(3, time, seed=1)
    segments = (ids % 37 == 0).cumsum(1)
    expected, reference = loss_and_gradient(random_model(**shape), ids, labels, segments)
    model = random_model(**shape).cuda()
    model.block_masks = True
    compile_layers(model)
    loss = functools.partial(causal_loss, chunk=torch.compile(chunk_loss))
    found, gradient = loss_and_gradient(model, ids.cuda(), labels.cuda(), segments.cuda(), loss)
    assert isinstance(model._mask(segments.cuda()), BlockMask)
    assert found == pytest.approx(expected, rel=5e-3)
    assert (gradient - reference).norm() / reference.norm() < 3e-2


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_compiled_training_learns_as_on_the_cpu(splits, tmp_path, optimizer):  # noqa: F811
    found = []
    for device, compiled in (("cpu", False), ("cuda", True)):
        out = tmp_path / device
        options = {"optimizer": optimizer, "budget": "60 steps", "compile": compiled}
        trainer(splits, out, device=device, shape=SHAPE, **options).fit()
        found.append([row["loss"] for row in read_log(out / LOG) if "loss" in row])
    assert found[1][0] == pytest.approx(math.log(97), abs=0.2)
    assert found[1][-1] == pytest.approx(found[0][-1], abs=0.1)


@pytest.fixture
def afterwards_as_before():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_resumed_run_is_bitwise_the_undisturbed_one(
    splits,  # noqa: F811
    tmp_path,
    compiled,
    afterwards_as_before,
):
    options = {"device": "cuda", "shape": SHAPE, "deterministic": True, "compile": compiled}
    options |= {"average": 0.9, "save_every": 0.001, "dropout": 0.1}
    straight = trainer(splits, tmp_path / "straight", **options)
    straight.fit()
    break_off(trainer(splits, tmp_path / "stopped", **options), step=9)
    second = trainer(splits, tmp_path / "stopped", seed=9, **options)
    second.fit()
    assert same(weights(straight), weights(second))


def test_eight_bits_learn_too(splits, tmp_path):  # noqa: F811
    pytest.importorskip("torchao")
    options = {"device": "cuda", "shape": SHAPE, "float8": True, "compile": True}
    trainer(splits, tmp_path, budget="60 steps", **options).fit()
    losses = [row["loss"] for row in read_log(tmp_path / LOG) if "loss" in row]
    assert losses[-1] < 3.0

"""A step on devices that are not here: its memory is the planner's, and nothing is left out."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from tests.train.test_optimizers import settings
from tianti.model.config import TransformerConfig
from tianti.scale.layout import Layout
from tianti.scale.memory import memory_of
from tianti.scale.simulate import simulate
from tianti.scale.work import Work

SHAPE = {
    "vocab_size": 32_000,
    "width": 4096,
    "depth": 4,
    "num_heads": 32,
    "num_kv_heads": 8,
    "head_dim": 128,
    "mlp_width": 14_336,
    "context": 8192,
    "tied_embeddings": False,
}
SPARSE = {"num_experts": 16, "experts_per_token": 2, "expert_width": 7168}


def work(layout, micro_batches=1, mode="full", **changes):
    shape = TransformerConfig(**SHAPE | changes)
    values = settings(
        optimizer="adamw",
        batch_rows=layout.row_groups * micro_batches,
        micro_batch_rows=1,
        activation_checkpointing=mode,
    )
    return Work(shape, values, layout)


@pytest.mark.parametrize(
    ("layout", "micro_batches", "mode", "changes"),
    [
        (Layout(shard=8), 1, "full", {}),
        (Layout(replicate=512, shard=8), 1, "selective", {}),
        (Layout(shard=4, tensor=8), 1, "selective", {}),
        (Layout(shard=4, tensor=2, pipeline=2), 4, "full", {}),
        (Layout(shard=64, expert=8), 1, "full", SPARSE),
        (Layout(shard=8, pipeline=2, expert=8), 4, "full", SPARSE),
    ],
    ids=["shard", "replicate", "tensor", "pipeline", "expert", "pipeline-expert"],
)
def test_memory_is_what_the_planner_says(layout, micro_batches, mode, changes):
    wanted = work(layout, micro_batches, mode, **changes)
    found = simulate(wanted)
    memory = memory_of(wanted, "gpu")
    assert found.peak == pytest.approx(memory.total - memory.reserve, rel=0.05)
    assert found.optimizer == pytest.approx(2 * found.weights, rel=1e-4)
    assert found.gradients == pytest.approx(found.weights, rel=1e-4)
    assert not dist.is_initialized()


def test_ranks_hold_all_weights_between_them():
    layout = Layout(tensor=2, pipeline=2)
    held = [simulate(work(layout, 2), rank).weights for rank in range(4)]
    shape = TransformerConfig(**SHAPE)
    norms = 4 * (2 * 4096 + 2 * 128) + 4096
    # Norms are held by both who share products.
    assert sum(held) == 4 * (shape.num_parameters() + norms)


def test_collectives_are_counted():
    found = simulate(work(Layout(shard=8), mode="off"))
    weights = 2 * TransformerConfig(**SHAPE).num_parameters() / 8
    # Four layers twice, and what is at the ends once.
    assert found.calls["_allgather_base"] == 9
    assert found.calls["_reduce_scatter_base"] == 5
    assert found.sent["_allgather_base"] > weights

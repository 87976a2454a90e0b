"""What cannot be laid out is refused before anything is begun, with what to change."""

from __future__ import annotations

import pytest

from tests.conftest import tiny_config
from tests.model.test_experts import SIGMOID, SOFTMAX
from tests.train.test_optimizers import settings
from tianti.errors import UserError
from tianti.scale.layout import Layout, fills, is_possible, refuse_nonsense, stage_layers


@pytest.mark.parametrize(
    ("layout", "shape", "changes", "where", "words"),
    [
        ({"tensor": 4}, {}, {}, "layout.tensor", r"num_kv_heads is 2, which 4 devices"),
        ({"tensor": 3}, {}, {}, "layout.tensor", r"tokens|num_heads"),
        ({"tensor": 2}, {"mlp_width": 49}, {}, "layout.tensor", r"mlp_width is 49"),
        ({"tensor": 2}, SIGMOID | {"expert_width": 25}, {}, "layout.tensor", r"expert_width is 25"),
        ({"tensor": 2}, {"context": 63}, {}, "layout.tensor", r"63 tokens .* multiple of 2"),
        ({"tensor": 2, "context": 2}, {"context": 60}, {}, "layout.context", r"multiple of 8"),
        ({"pipeline": 3}, {}, {}, "layout.pipeline", r"3 stages are more than 2 layers"),
        ({"pipeline": 2, "stages": 2}, {}, {}, "layout.stages", r"4 stages are more than 2"),
        ({"stages": 2}, {}, {}, "layout.stages", r"there is none.*layout\.pipeline"),
        ({"pipeline": 2}, {}, {"micro_batch_rows": 8}, "micro_batch_rows", r"micro_batch_rows=4"),
        ({"pipeline": 2}, {}, {"batch_rows": 1}, "micro_batch_rows", r"2 times as much"),
        ({"pipeline": 2}, {}, {"micro_batch_rows": 3}, "micro_batch_rows", r"no work for 2"),
        (
            {"pipeline": 2, "stages": 2},
            {"depth": 4},
            {"batch_rows": 6, "micro_batch_rows": 2},
            "micro_batch_rows",
            r"6 rows, 2 at once.*micro_batch_rows=3",
        ),
        ({"shard": 4, "expert": 4}, SOFTMAX, {}, "layout.expert", r"6 experts .* among 4"),
        ({"shard": 2, "expert": 2}, {}, {}, "layout.expert", r"0 experts"),
        ({"shard": 2, "expert": 3}, SOFTMAX, {}, "layout.expert", r"no divisor of .* 2"),
    ],
)
def test_nonsense_is_refused(layout, shape, changes, where, words):
    values = settings(**{"batch_rows": 8, "micro_batch_rows": 1} | changes)
    with pytest.raises(UserError, match=words) as refused:
        refuse_nonsense(Layout(**layout), tiny_config(**shape), values)
    assert where in str(refused.value.where)


@pytest.mark.parametrize("stages", [1, 2, 5, 16, 126])
def test_stages_have_all_layers_and_the_ends_no_more_than_others(stages):
    found = stage_layers(126, stages)
    assert [index for layers in found for index in layers] == list(range(126))
    sizes = [len(layers) for layers in found]
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] == sizes[-1] == min(sizes)


def test_ranks_stand_where_the_mesh_puts_them():
    layout = Layout(replicate=2, shard=3, context=2, tensor=2, pipeline=2)
    places = [layout.place(rank) for rank in range(layout.devices)]
    assert len({(p.pipeline, p.replicate, p.cut, p.tensor) for p in places}) == 48
    assert [p.tensor for p in places[:4]] == [0, 1, 0, 1]
    # Who shares a row, or products, computes the same rows.
    assert [p.rows for p in places[:12]] == [0] * 4 + [1] * 4 + [2] * 4
    assert places[12].replicate == 1
    assert places[24].pipeline == 1
    assert places[24].rows == 0


def test_what_is_possible_is_not_refused():
    assert is_possible(Layout(tensor=2, pipeline=2), tiny_config())
    assert not is_possible(Layout(pipeline=3), tiny_config())
    assert fills(4, Layout(pipeline=4))
    assert not fills(3, Layout(pipeline=4))
    assert not fills(6, Layout(pipeline=4, stages=2))

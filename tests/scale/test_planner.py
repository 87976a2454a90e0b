"""The planner: devices by name, memory and time by kind, layouts in order, and what would fit."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from tests.train.test_optimizers import settings
from tianti.errors import UserError
from tianti.model.config import TransformerConfig
from tianti.scale.estimate import estimate
from tianti.scale.hardware import load_table, parse_devices
from tianti.scale.layout import Layout, refuse_nonsense
from tianti.scale.memory import kept_bytes
from tianti.scale.planner import layouts, plan_layouts, what_would_fit
from tianti.scale.work import Work

TABLE = load_table()
H100 = TABLE["H100-80GB"]
LLAMA_8B = TransformerConfig(
    vocab_size=128_256,
    width=4096,
    depth=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_width=14_336,
    context=8192,
    tied_embeddings=False,
)
MIXTURE = replace(LLAMA_8B, num_experts=128, experts_per_token=8, expert_width=1024)


def adamw(rows=64, **changes):
    return settings(optimizer="adamw", batch_rows=rows, **changes)


def work(layout=Layout(shard=8), rows=64, micro=1, mode="off", shape=LLAMA_8B, **changes):  # noqa: B008
    wanted = {"micro_batch_rows": micro, "activation_checkpointing": mode} | changes
    return Work(shape, adamw(rows).model_copy(update=wanted), layout)


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("64xH100-80GB", 64, "H100-80GB"),
        ("8 x h100", 8, "H100-80GB"),
        ("4090", 1, "RTX4090-24GB"),
        ("2×NVIDIA A100 80GB", 2, "A100-80GB"),
        ("16xMI300X", 16, "MI300X-192GB"),
    ],
)
def test_devices_are_known_by_their_names(text, count, name):
    found = parse_devices(text, TABLE)
    assert (found[0], found[1].name) == (count, name)


@pytest.mark.parametrize("text", ["", "0xH100", "8xGTX480", "x"])
def test_an_unknown_device_is_refused(text):
    with pytest.raises(UserError):
        parse_devices(text, TABLE)


def test_an_unknown_device_may_be_described(tmp_path):
    figures = {"memory_gib": 48, "bf16_tflops": 100, "memory_gbps": 900, "link_gbps": 30}
    count, device = parse_devices("4xNew", TABLE, figures)
    assert (count, device.memory_gib, device.network_gbps) == (4, 48, 30)
    with pytest.raises(UserError, match="not known"):
        parse_devices("4xNew", TABLE, {"memory_gib": 48.0})
    file = tmp_path / "more.json"
    file.write_text(json.dumps({"New": {**figures, "network_gbps": 10, "per_machine": 4}}))
    assert parse_devices("New", load_table(file))[1].per_machine == 4


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"New": {"memory_gib": 1}}', '{"New": {"speed": 1}}']
)
def test_a_table_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "more.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"more\.json"):
        load_table(file)


def test_every_figure_of_the_table_has_a_source():
    assert all(device.source and device.bf16_tflops > 0 for device in TABLE.values())
    assert {"gpu", "tpu"} == {device.kind for device in TABLE.values()}


def test_what_is_held_is_twelve_bytes_a_weight_over_those_that_share_it():
    for cut in (1, 8, 64):
        memory = estimate(work(Layout(64 // cut, cut), mode="full"), H100).memory
        held = memory.weights + memory.optimizer
        assert held == pytest.approx(12 * LLAMA_8B.num_parameters() / cut, rel=1e-3)
        # Gradients are there at the fullest moment, or they are not yet.
        assert memory.gradients in (0.0, memory.weights)


def test_muon_holds_one_moment_of_the_hidden_matrices():
    saved = estimate(work(Layout()), H100).memory.optimizer
    saved -= estimate(work(Layout(), optimizer="muon"), H100).memory.optimizer
    assert saved == pytest.approx(4 * LLAMA_8B.matrix_parameters(), rel=1e-6)


def test_checkpointing_trades_time_for_memory():
    found = [estimate(work(Layout(8, 8), mode=mode), H100) for mode in ("off", "selective", "full")]
    memory = [one.memory.activations for one in found]
    seconds = [one.seconds.total for one in found]
    assert memory == sorted(memory, reverse=True)
    assert seconds == sorted(seconds)
    assert found[2].seconds.products > 1.3 * found[0].seconds.products


# tokens/s of a device in torchtitan's published measurements (benchmarks/measurements.json).
@pytest.mark.parametrize(
    ("rows", "layout", "micro", "mode", "float8", "published"),
    [
        (16, Layout(shard=8), 2, "selective", False, 6667),
        (256, Layout(shard=128), 2, "selective", False, 6514),
        (16, Layout(shard=8), 2, "selective", True, 8532),
        (96, Layout(shard=8, tensor=8), 12, "selective", False, 4378),
    ],
)
def test_published_throughput_is_foretold_within_a_fifth(
    rows, layout, micro, mode, float8, published
):
    wanted = work(layout, rows, micro, mode, float8=float8)
    found = estimate(wanted, TABLE["H100-96GB-500W"])
    assert found.tokens_per_second / layout.devices == pytest.approx(published, rel=0.2)


@pytest.mark.parametrize("count", [1, 6, 8, 64])
@pytest.mark.parametrize("shape", [LLAMA_8B, MIXTURE], ids=["dense", "experts"])
def test_layouts_are_all_products_that_give_the_number(count, shape):
    found = layouts(count, shape, per_machine=8)
    assert len(set(found)) == len(found)
    assert all(one.devices == count for one in found)
    degrees = [n for n in range(1, count + 1) if count % n == 0]
    wanted = {
        (count // shard // context // tensor // pipeline, shard, context, tensor, pipeline)
        for pipeline, tensor, context, shard in itertools.product(degrees, repeat=4)
        if count % (pipeline * tensor * context * shard) == 0
        # 8 heads of keys and values, 8 devices in a machine, 32 layers; tokens not too few.
        and 8 % tensor == 0
        and pipeline <= 32
        and context <= 8
        and (context == 1 or 8192 % (2 * context * tensor) == 0)
    }
    seen = {(o.replicate, o.shard, o.context, o.tensor, o.pipeline) for o in found}
    assert seen == wanted
    for one in found:
        assert one.stages == 1 or one.pipeline * one.stages <= 32
        assert one.expert == 1 or (shape.num_experts % one.expert == 0)
    if count == 64:
        assert {one.stages for one in found} == {1, 2, 4}
        assert {one.expert for one in found} == (
            {1} if shape is LLAMA_8B else {1, 2, 4, 8, 16, 32, 64}
        )


def refusal(found) -> str | None:
    try:
        refuse_nonsense(found.layout, found.shape, found.settings)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("shape", [LLAMA_8B, MIXTURE], ids=["dense", "experts"])
def test_what_is_planned_can_be_trained(shape):
    planned = [one.estimate.work for one in plan_layouts(shape, adamw(48), 64, H100)]
    assert [refusal(one) for one in planned] == [None] * 5
    # Nor would anything do.
    assert refusal(work(Layout(shard=32), rows=48)) is not None


def test_experts_that_others_have_need_not_travel():
    apart, spread = (
        estimate(work(Layout(shard=64, expert=expert), shape=MIXTURE), H100) for expert in (1, 16)
    )
    routed = 3 * 4096 * 1024 * 128 * 32
    spared = routed * (63 / 64 - 1 / 16 * 3 / 4)
    assert apart.sent["weights"] - spread.sent["weights"] == pytest.approx(4 * spared, rel=1e-6)
    assert spread.sent["expert"] > apart.sent["expert"] == 0
    # What is held in the end is the same.
    assert apart.memory.weights == pytest.approx(spread.memory.weights)


def test_rows_that_devices_share_wait_for_keys_and_values():
    alone, shared = (
        estimate(work(Layout(shard=shard, context=context), rows=8), H100)
        for shard, context in ((8, 1), (4, 2))
    )
    assert alone.seconds.exposed == 0
    seconds = shared.sent["context"] / (H100.bandwidth(2) * 0.6)
    assert shared.seconds.exposed == pytest.approx(seconds)


def test_rings_grow_with_who_is_in_them():
    near, far = (
        estimate(work(Layout(shard=count), rows=2 * count, micro=2, mode="selective"), H100)
        for count in (64, 4096)
    )
    # As many bytes, but each waits for more devices.
    assert far.sent["weights"] == pytest.approx(near.sent["weights"], rel=0.02)
    waiting = far.seconds.exposed - near.seconds.exposed
    assert waiting == pytest.approx(3 * 32 * (4096 - 64) * 6e-6, rel=0.2)


def test_devices_that_are_more_than_rows_share_these():
    choices = plan_layouts(LLAMA_8B, adamw(8), 64, H100)
    assert all(one.estimate.work.layout.row_groups <= 8 for one in choices)
    long = replace(LLAMA_8B, context=131_072)
    alone, shared = (
        estimate(work(layout, rows=8, shape=long), H100).memory.activations
        for layout in (Layout(shard=8), Layout(shard=8, context=8))
    )
    # Each has an eighth of the tokens, and the keys and values of all.
    assert alone / 8 < shared < alone / 4


def test_the_best_comes_first_and_every_place_has_a_reason():
    choices = plan_layouts(LLAMA_8B, adamw(), 64, H100)
    seconds = [one.estimate.seconds.total for one in choices]
    assert seconds == sorted(seconds)
    assert len(choices) == 5
    assert all(one.why and one.estimate.fits for one in choices)
    row = choices[0].as_dict(1e9, price=2.0)
    assert row["memory_gib"]["total"] == pytest.approx(
        sum(v for k, v in row["memory_gib"].items() if k != "total"), abs=0.01
    )
    assert row["step_seconds"] == pytest.approx(sum(row["seconds"].values()), rel=1e-3)
    assert row["cost"] == pytest.approx(row["hours"] * 64 * 2.0, rel=1e-2)
    assert 0.2 < row["mfu"] < 0.6


def test_rows_that_do_not_divide_are_rounded_up_a_little_or_refused():
    choices = plan_layouts(LLAMA_8B, adamw(1000), 64, H100)
    assert choices[0].estimate.work.settings.batch_rows == 1024
    odd = replace(LLAMA_8B, context=8191)
    with pytest.raises(UserError, match="shared evenly"):
        plan_layouts(odd, adamw(48), 64, H100)


def test_where_nothing_fits_it_says_what_would():
    small = TABLE["RTX4090-24GB"]
    choices = plan_layouts(LLAMA_8B, adamw(), 2, small)
    assert not choices[0].estimate.fits
    assert "GiB" in choices[0].why
    assert "8 of these devices" in what_would_fit(LLAMA_8B, adamw(), 2, small)
    huge = replace(LLAMA_8B, width=65_536, num_heads=512, mlp_width=229_376)
    assert "However many" in what_would_fit(huge, adamw(), 2, small)


def test_a_mixture_needs_the_memory_of_all_experts_and_the_time_of_those_at_work():
    sparse = replace(
        LLAMA_8B, num_experts=16, experts_per_token=2, expert_width=LLAMA_8B.mlp_width // 2
    )
    ours, dense = (estimate(work(Layout(8, 8), shape=shape), H100) for shape in (sparse, LLAMA_8B))
    assert ours.memory.weights == pytest.approx(4 * sparse.num_parameters() / 8, rel=1e-3)
    assert ours.seconds.products == pytest.approx(dense.seconds.products, rel=0.01)
    kept = [kept_bytes(work(shape=shape), "off", 2) for shape in (sparse, LLAMA_8B)]
    assert kept[0] > kept[1]


RECIPE = """
name: seven
corpus: {sources: [{text: text, path: PATH}]}
model: {size: 7B, context: 4096}
tokenizer: {vocab_size: 64000}
train: {budget: 140B tokens, batch_tokens: 4194304}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "text.txt").write_text("some text " * 1000)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("text: text, ", "").replace("PATH", str(tmp_path / "text.txt")))
    return path


def test_the_command_plans_for_devices(recipe, call):
    code, out, _ = call("plan", recipe, "--devices", "64xH100-80GB", "--price", "2", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["fits"]
    assert found["devices"]["count"] == 64
    best = found["layouts"][0]
    assert best["layout"]["replicate"] * best["layout"]["shard"] == 64
    assert best["cost"] > 0
    assert any(setting.startswith("layout.shard=") for setting in found["settings"])
    code, out, _ = call("plan", recipe, "--devices", "64xH100-80GB")
    assert code == 0
    assert "layout.shard=" in out


def test_the_command_fails_where_nothing_fits_and_says_what_would(recipe, call):
    code, out, err = call("plan", recipe, "--devices", "2xRTX4090")
    assert code == 2
    assert "of these devices" in err
    code, out, _ = call("plan", recipe, "--devices", "2xRTX4090", "--json")
    assert code == 2
    assert not json.loads(out)["layouts"][0]["fits"]


@pytest.mark.parametrize("figure", ["speed=3", "memory_gib=0", "memory_gib", "memory_gib=x"])
def test_a_figure_that_is_none_is_refused(recipe, call, figure):
    code, _, err = call("plan", recipe, "--devices", "8xH100", "--figure", figure)
    assert code == 2
    assert "memory_gib=" in err

"""The layout that is taken where a recipe leaves it open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.scale.test_planner import H100, LLAMA_8B, TABLE, adamw
from tianti.scale.choose import WORTH, choose_layout
from tianti.scale.estimate import estimate
from tianti.scale.hardware import recognize
from tianti.scale.layout import Layout, refuse_nonsense
from tianti.scale.work import Work
from tianti.train.config import LayoutConfig

LLAMA_405B = replace(
    LLAMA_8B, width=16_384, depth=126, num_heads=128, num_kv_heads=8, mlp_width=53_248
)


def chosen(shape, devices, rows, device=H100, layout=LayoutConfig(), **changes):  # noqa: B008
    settings = adamw(rows).model_copy(update={"micro_batch_rows": 1} | changes)
    return settings, choose_layout(layout, shape, settings, devices, 8, device)


def test_what_fits_is_cut_within_a_machine_and_copied_between():
    full = {"activation_checkpointing": "full"}
    assert chosen(LLAMA_8B, 64, 64, **full)[1] == Layout(replicate=8, shard=8)


def test_what_does_not_fit_otherwise_shares_products_or_layers():
    settings, found = chosen(LLAMA_405B, 512, 512, activation_checkpointing="full")
    assert found.tensor * found.pipeline > 1
    refuse_nonsense(found, LLAMA_405B, settings)
    taken = estimate(Work(LLAMA_405B, settings, found), H100)
    assert taken.fits
    plain = estimate(Work(LLAMA_405B, settings, Layout(replicate=64, shard=8)), H100)
    assert not plain.fits


def test_a_faster_one_than_the_plain_one_is_taken():
    settings, found = chosen(LLAMA_8B, 64, 64, activation_checkpointing="off")
    plain = estimate(Work(LLAMA_8B, settings, Layout(replicate=8, shard=8)), H100)
    taken = estimate(Work(LLAMA_8B, settings, found), H100)
    assert taken.fits
    assert not plain.fits or plain.seconds.total <= WORTH * taken.seconds.total


@pytest.mark.parametrize("devices", [2, 8, 16])
def test_unknown_devices_get_the_plain_one(devices):
    found = chosen(LLAMA_405B, devices, 16, device=None)[1]
    assert found == Layout(replicate=max(devices // 8, 1), shard=min(devices, 8))


def test_what_is_said_stays():
    said = LayoutConfig(tensor=2)
    assert chosen(LLAMA_8B, 16, 16, layout=said)[1] == Layout(replicate=2, shard=4, tensor=2)


@pytest.mark.parametrize(
    ("name", "gib", "known"),
    [
        ("NVIDIA H100 80GB HBM3", 79.1, "H100-80GB"),
        ("NVIDIA H200", 139.8, "H200-141GB"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "A100-80GB"),
        ("NVIDIA GeForce RTX 4090", 23.6, "RTX4090-24GB"),
        ("NVIDIA L40S", 44.4, "L40S-48GB"),
        ("AMD Instinct MI300X", 191.9, "MI300X-192GB"),
        ("NVIDIA H100 NVL", 93.1, "H100-96GB-500W"),
        ("NVIDIA GeForce RTX 3090", 23.6, None),
        ("NVIDIA H100 PCIe", 20.0, None),
    ],
)
def test_gpus_are_known_by_what_their_driver_says(name, gib, known):
    found = recognize(name, gib * 2**30, TABLE)
    assert (found.name if found else None) == known

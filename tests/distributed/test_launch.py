"""Processes that train together: started, lost, stopped, hung, at odds with each other."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import tiny_config, tiny_recipe
from tests.train.test_optimizers import settings
from tianti.errors import UserError
from tianti.files import read_json
from tianti.interruption import Interrupted, signals_handled
from tianti.runs.manifest import Manifest
from tianti.scale.cost import refuse_what_cannot_fit, training_cost
from tianti.scale.launch import FAILURE, RESULT, _Group, train_on_many
from tianti.scale.layout import Layout, refuse_nonsense, settle
from tianti.scale.place import Place, place_in
from tianti.scale.worker import device_of
from tianti.train.checkpoint import load_last_good
from tianti.train.config import LayoutConfig, TrainStageConfig
from tianti.train.log import read_log
from tianti.train.trainer import CHECKPOINTS, LOG

KILLS = 20 if os.environ.get("TIANTI_FAULTS") else 2


@pytest.fixture(scope="module")
def inputs(finished_run):
    return {name: finished_run / name for name in ("tokenizer", "tokens")}


@pytest.fixture
def config(finished_run):
    from tianti.model.config import TransformerConfig

    manifest = Manifest.read(finished_run / "train")
    assert manifest is not None
    shape = TransformerConfig(**manifest.config["model"])
    values = settings(budget="40 steps", batch_rows=8, micro_batch_rows=4, save_every=0.05)
    return TrainStageConfig(shape, values, "cpu")


def workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "tianti.scale.worker" in process.cmdline():
                found.append(process)
    return found


def steps_done(out: Path) -> int:
    return max((row["step"] for row in read_log(out / LOG)), default=0)


def at_step(out: Path, step: int, action) -> threading.Thread:
    """Does something to the processes once they have come so far."""

    def watch():
        while steps_done(out) < step:
            time.sleep(0.01)
        action(workers())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def final(out: Path) -> dict[str, torch.Tensor]:
    found = load_last_good(out / CHECKPOINTS, pytest.fail)
    assert found is not None
    return found.model


def test_a_recipe_is_carried_out_by_two_processes(text_folder, finished_run, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny_recipe(text_folder))
    command = [sys.executable, "-m", "tianti", "run", str(recipe), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, "--nproc", "2", "--until", "model"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "2 processes: shard 2" in done.stderr
    assert_same_validation(finished_run, tmp_path / "run")
    layout = read_json(tmp_path / "run" / "train" / "manifest.json")["metrics"]["layout"]
    assert layout == {"shard": 2}
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_ranks_that_torchrun_started_carry_a_recipe_out(text_folder, finished_run, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny_recipe(text_folder))
    arguments = ["tianti", "run", str(recipe), "--out", str(tmp_path / "run"), "--until", "model"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "2 processes: shard 2" in done.stderr
    assert_same_validation(finished_run, tmp_path / "run")
    # One start after another at the same address: none hears what was said in the one before.
    port = free_port()
    kept = started_by_srun(arguments, port)
    assert [code for code, _ in kept] == [0, 0]
    assert "train: up to date, kept" in kept[0][1]
    refused = started_by_srun([*arguments, "train.batch_tokens=192"], port)
    assert [code for code, _ in refused] == [2, 2]
    for _, said in refused:
        assert "3 rows of a step cannot be shared evenly by 2 devices" in said
    trained = started_by_srun([*arguments, "train.budget=10 steps"], port)
    assert [code for code, _ in trained] == [0, 0]
    assert "10 steps" in trained[0][1]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def started_by_srun(arguments: list[str], port: int) -> list[tuple[int, str]]:
    """Starts two ranks as srun does; gives their exit codes and what they said."""
    processes = []
    for rank in range(2):
        place = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "MASTER_PORT": port}
        place |= {"SLURM_STEP_NUM_TASKS": 2, "SLURM_STEP_TASKS_PER_NODE": "2"}
        environment = os.environ | {key: str(value) for key, value in place.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1"}
        command = [sys.executable, "-m", *arguments]
        processes.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=200)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def assert_same_validation(alone: Path, together: Path) -> None:
    found = [
        read_json(run / "results.json")["train"]["validation_bits_per_byte"]
        for run in (alone, together)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_who_dies_is_replaced_and_nothing_is_lost(config, inputs, tmp_path):
    outs = [tmp_path / name for name in ("straight", "killed")]
    for out in outs:
        out.mkdir()
    layout = LayoutConfig()
    train_on_many(config, layout, 2, inputs, outs[0])
    chosen, killed_at = random.Random(0), []

    def kill(found):
        while not found:
            # They are just being replaced.
            time.sleep(0.01)
            found = workers()
        killed_at.append(steps_done(outs[1]))
        chosen.choice(found).kill()

    for step in sorted(chosen.sample(range(3, 30), KILLS)):
        at_step(outs[1], step, kill)
    metrics = train_on_many(config, layout, 2, inputs, outs[1])
    assert len(killed_at) == KILLS
    straight, killed = final(outs[0]), final(outs[1])
    assert all(torch.equal(straight[name], killed[name]) for name in straight)
    assert metrics["steps"] == 40
    logs = [[row for row in read_log(out / LOG) if "loss" in row] for out in outs]
    assert logs[0] == logs[1]


def test_a_signal_ends_all_with_everything_saved(config, inputs, tmp_path):
    at_step(tmp_path, 5, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with signals_handled(), pytest.raises(Interrupted):
        train_on_many(config, LayoutConfig(), 2, inputs, tmp_path)
    saved = load_last_good(tmp_path / CHECKPOINTS, pytest.fail)
    assert saved is not None
    assert saved.state.step == steps_done(tmp_path) >= 5


class _Member:
    """A process that ends after it was asked so often whether it has."""

    def __init__(self, code, polls):
        self.code, self.polls, self.told = code, polls, False

    def poll(self):
        self.polls -= self.told
        return None if self.polls > 0 else self.code

    def terminate(self):
        self.told = True


@pytest.mark.parametrize(("codes", "expected"), [((143, 143), 0), ((143, 1), 1)])
def test_who_still_saves_after_a_signal_is_waited_for(monkeypatch, codes, expected):
    monkeypatch.setattr("tianti.interruption.requested", lambda: signal.SIGTERM)
    group = _Group.__new__(_Group)
    group.members = [_Member(codes[0], polls=1), _Member(codes[1], polls=3)]
    assert group.wait() == expected
    assert [member.poll() for member in group.members] == list(codes)


def test_who_hangs_is_waited_for_only_so_long(config, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("TIANTI_RANKS_TIMEOUT", "5")
    stopped: list[psutil.Process] = []

    def stop(found):
        found[0].suspend()
        stopped.append(found[0])
        while not (tmp_path / FAILURE).is_file():
            time.sleep(0.05)
        found[0].resume()

    watching = at_step(tmp_path, 5, stop)
    with pytest.raises(UserError, match=r"train, step \d+: rank \d waited in vain") as told:
        train_on_many(config, LayoutConfig(), 2, inputs, tmp_path)
    watching.join(20)
    assert stopped
    assert 4 <= int(str(told.value.where).split()[-1]) <= 40


def test_ranks_that_are_at_odds_all_say_so_before_the_first_step(config, inputs, tmp_path):
    port = free_port()
    processes = []
    for rank in range(2):
        out = tmp_path / str(rank)
        out.mkdir()
        changed = config.settings.model_copy(update={"learning_rate": 0.01 * (1 + rank)})
        task = {
            "model": config.model.as_dict(),
            "settings": changed.model_dump(mode="json"),
            "device": "cpu",
            "layout": {"replicate": 1, "shard": 2},
            "inputs": {name: str(path) for name, path in inputs.items()},
        }
        (out / "task.json").write_text(json.dumps(task))
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        environment = os.environ | {key: str(value) for key, value in places.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "tianti.scale.worker", str(out / "task.json")]
        processes.append(subprocess.Popen(command, env=environment))
    assert [process.wait(120) for process in processes] == [2, 2]
    for rank in range(2):
        failure = read_json(tmp_path / str(rank) / FAILURE)
        assert failure["what"] == "recipe on rank 1 is not that on rank 0"
        assert not (tmp_path / str(rank) / RESULT).is_file()


@pytest.mark.parametrize(
    ("config", "devices", "expected"),
    [
        ({}, 8, Layout(2, 4)),
        ({}, 2, Layout(1, 2)),
        ({"replicate": 8}, 8, Layout(8, 1)),
        ({"replicate": 2}, 8, Layout(2, 4)),
        ({"shard": 2}, 8, Layout(4, 2)),
        ({"replicate": 2, "shard": 2}, 4, Layout(2, 2)),
        ({"context": 2}, 8, Layout(2, 2, 2)),
        ({"context": 8}, 8, Layout(1, 1, 8)),
        ({"context": 4, "replicate": 2}, 8, Layout(2, 1, 4)),
    ],
)
def test_what_is_left_open_fills_the_devices(config, devices, expected):
    assert settle(LayoutConfig(**config), devices, per_machine=4) == expected


@pytest.mark.parametrize(
    "config",
    [{"replicate": 3}, {"shard": 5}, {"replicate": 2, "shard": 8}, {"context": 3}, {"context": 16}],
)
def test_a_layout_for_other_devices_is_refused(config):
    with pytest.raises(UserError, match="there are 8"):
        settle(LayoutConfig(**config), 8, per_machine=8)


def test_rows_that_cannot_be_shared_are_refused_before_anything_starts(config, inputs, tmp_path):
    refuse_nonsense(Layout(2, 2), tiny_config(), settings(batch_rows=8))
    refuse_nonsense(Layout(2, 1, 4), tiny_config(), settings(batch_rows=2))
    with pytest.raises(UserError, match=r"60 tokens .* by 4 devices\. model\.context must"):
        refuse_nonsense(Layout(1, 1, 4), tiny_config(context=60), settings(batch_rows=2))
    odd = replace(config, settings=config.settings.model_copy(update={"batch_rows": 9}))
    with pytest.raises(UserError, match=r"9 rows .* by 2 devices\. Set train\.batch_tokens=640"):
        train_on_many(odd, LayoutConfig(), 2, inputs, tmp_path)
    assert not list(tmp_path.iterdir())


ADDRESS = {"MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"} | ADDRESS
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x4)",
} | ADDRESS
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN])
def test_a_place_is_found_in_the_environment(environment):
    assert place_in(environment) == Place(3, 8, 1, 2)


@pytest.mark.parametrize("environment", [{}, BATCH_SCRIPT])
def test_who_was_started_alone_has_no_place(environment):
    assert place_in(environment) is None


def test_a_place_that_is_none_is_refused():
    with pytest.raises(UserError, match="torchrun set no place: RANK=8"):
        place_in(TORCHRUN | {"RANK": "8"})


def test_ranks_that_cannot_find_each_other_are_told_what_is_missing():
    alone = {key: value for key, value in SRUN.items() if key not in ADDRESS}
    with pytest.raises(UserError, match="Set MASTER_ADDR and MASTER_PORT"):
        place_in(alone)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert device_of("auto", Place(0, 2, 0, 2)) == torch.device("cuda:0")
    with pytest.raises(UserError, match="2 processes, but 1 GPUs here"):
        device_of("auto", Place(1, 2, 1, 2))


def test_processes_share_the_memory_of_their_machine(config, monkeypatch):
    alone = training_cost(config.model, config.settings, 0, 0).memory.total
    monkeypatch.setattr("tianti.device.memory_bytes", lambda device: int(1.5 * alone))
    refuse_what_cannot_fit(config)
    with pytest.raises(UserError, match="training needs about"):
        refuse_what_cannot_fit(config, Layout(shard=2), processes=2)


def test_weights_that_are_cut_need_not_fit_on_one_device(config, monkeypatch):
    wide = replace(config.model, depth=24, width=512, mlp_width=2048)
    large = replace(config, model=wide)
    alone = training_cost(wide, config.settings, 0, 0).memory
    there = alone.total - (alone.weights + alone.gradients) / 4
    monkeypatch.setattr("tianti.device.memory_bytes", lambda device: there)
    with pytest.raises(UserError, match="training needs about"):
        refuse_what_cannot_fit(large)
    refuse_what_cannot_fit(large, Layout(shard=8))

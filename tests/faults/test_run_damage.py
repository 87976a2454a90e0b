"""Bits flipped and ends cut off, in every kind of file a run holds.

`TIANTI_DAMAGES` is the number of them: 120 in `make test`, 1,000 in `make faults`.
"""

from __future__ import annotations

import os
import random
import shutil

import pytest

from tests.conftest import tiny_recipe
from tianti.recipe import Recipe
from tianti.runs.runner import carry_out
from tianti.runs.verify import verify
from tianti.train.checkpoint import list_checkpoints, load_last_good

DAMAGES = int(os.environ.get("TIANTI_DAMAGES", "120"))
# What is no part of a run: who writes, which is read while it writes only.
_UNSEALED = {".lock", ".lock-owner"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, text_folder):
    """A finished run beside which an unfinished training lies."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "recipe.yaml").write_text(tiny_recipe(text_folder))
    run = folder / "run"
    carry_out(Recipe.load(folder / "recipe.yaml"), run)
    shutil.copytree(run / "train", run / ".partial" / "train")
    (run / ".partial" / "train" / "manifest.json").unlink()
    return run


def damaged(data: bytes, chance: random.Random) -> bytes:
    if not data or chance.random() < 0.3:
        return data[: chance.randrange(len(data))] if data else b"\0"
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def test_every_damage_is_found_and_its_file_named(finished):
    assert list(verify(finished)) == []
    files = sorted(
        path
        for path in finished.rglob("*")
        if path.is_file()
        and path.name not in _UNSEALED
        # Of an unfinished training, checkpoints are what counts.
        and (".partial" not in path.parts or "checkpoints" in path.parts)
    )
    kinds = {path.suffix for path in files}
    assert {".json", ".parquet", ".safetensors", ".tokens", ".i64", ".jsonl", ".html"} <= kinds
    chance = random.Random(11)
    for number in range(DAMAGES):
        path = files[number % len(files)]
        before = path.read_bytes()
        after = damaged(before, chance)
        path.write_bytes(after)
        try:
            found = [str(error.where) for error in verify(finished)]
            assert found, (path, number)
            assert all(where == str(path) for where in found), (path, found)
            if ".partial" in path.parts:
                _the_last_good_checkpoint_is_used(path)
        finally:
            path.write_bytes(before)
    assert list(verify(finished)) == []


def _the_last_good_checkpoint_is_used(path):
    folder = next(parent for parent in path.parents if parent.name == "checkpoints")
    whole = [c for c in list_checkpoints(folder) if c not in path.parents]
    told = []
    good = load_last_good(folder, told.append)
    assert good is not None
    assert whole
    newest = list_checkpoints(folder)[0]
    assert bool(told) == (newest in path.parents)
    wanted = whole[0] if newest in path.parents else newest
    assert wanted.name == f"step-{good.state.step:08d}"


def test_a_missing_file_is_named_and_verify_says_so(finished, call):
    path = finished / "tokens" / "train" / "index.json"
    before = path.read_bytes()
    path.unlink()
    try:
        code, _, err = call("verify", finished)
    finally:
        path.write_bytes(before)
    assert code == 2
    assert str(path) in err
    assert call("verify", finished)[0] == 0
    assert call("verify", finished.parent)[0] == 2

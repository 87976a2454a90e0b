"""A disk that is really full: a small tmpfs where one may be mounted, and a file-size limit."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from tests.conftest import tiny_recipe


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def run(recipe, out, **options):
    return subprocess.run(
        [sys.executable, "-m", "tianti", "run", str(recipe), "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"TIANTI_LANG": "en", "OMP_NUM_THREADS": "1"},
        **options,
    )


@pytest.fixture
def recipe(tmp_path, text_folder):
    path = tmp_path / "recipe.yaml"
    text = tiny_recipe(text_folder).replace("width: 32", "width: 160")
    path.write_text(text.replace("head_dim: 16", "head_dim: 32").replace("24 steps", "4 steps"))
    return path


def one_line_error(done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(small_disk, recipe):
    message = one_line_error(run(recipe, small_disk / "run"))
    assert "the disk is full" in message
    assert str(small_disk) in message
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    done = run(recipe, small_disk / "run")
    assert done.returncode == 0, done.stderr
    assert "corpus: up to date" in done.stderr
    leftovers = [p for p in (small_disk / "run").rglob("*") if p.name.endswith((".tmp", ".old"))]
    assert leftovers == []


@pytest.mark.slow
def test_a_file_size_limit_is_one_line_that_names_the_file(tmp_path, recipe):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    message = one_line_error(run(recipe, tmp_path / "run", preexec_fn=limit))
    assert "step-00000004" in message or "safetensors" in message
    assert "larger than is allowed" in message
    assert run(recipe, tmp_path / "run").returncode == 0

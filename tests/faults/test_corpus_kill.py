"""kill -9 at random moments of building a corpus, each followed by the same command.

`TIANTI_CORPUS_FAULTS` is the number of kills: 2 in `make test`, 30 in `make faults`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import CHINESE

KILLS = int(os.environ.get("TIANTI_CORPUS_FAULTS", "2"))
GROUP_BYTES = 150_000
# The command line, with groups small enough that a corpus of some megabytes has many.
PROGRAM = f"""
import functools
from tianti.corpus import prepare
prepare.plan_groups = functools.partial(prepare.plan_groups, group_bytes={GROUP_BYTES})
from tianti.cli import main
main()
"""
RECIPE = """
name: killed
corpus:
  sources:
    - path: {folder}/pages.jsonl
    - path: {folder}/texts
  languages: {{detect: true, keep: [en, zh]}}
  quality: {{filters: [gopher_quality, gopher_repetition]}}
  dedup: {{near: true, lines: 30}}
  privacy: {{redact: [email, phone, ip]}}
  on_bad_input: quarantine
  workers: {workers}
"""


@pytest.fixture(scope="module")
def documents(tmp_path_factory, english_texts) -> Path:
    """Text in two languages, some of it twice or nearly so, some broken, some private."""
    folder = tmp_path_factory.mktemp("documents")
    chance = random.Random(0)
    paragraphs = [p for text in english_texts for p in text.split("\n\n") if len(p) > 200]

    def page(number: int) -> str:
        said = chance.sample(CHINESE if number % 4 == 0 else paragraphs, 6)
        return "\n\n".join(
            [*said, f"Write to reader{number}@mail.example or to 10.0.0.{number % 250}."]
        )

    pages = [page(number) for number in range(2400)]
    pages += [chance.choice(pages) + f"\n{n}" * (n % 2) for n in range(300)]
    lines = [json.dumps({"text": text}) for text in pages]
    lines[100] = '{"text": '
    (folder / "pages.jsonl").write_text("\n".join(lines))
    (folder / "texts").mkdir()
    for number in range(200):
        (folder / "texts" / f"{number:03d}.txt").write_text(page(number))
    (folder / "texts" / "broken.txt").write_bytes(b"\xff\xff\xff")
    return folder


def start(recipe: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, "run", str(recipe), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--until", "corpus"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(process: subprocess.Popen) -> None:
    """Kills a process and its group; the workers, which have groups of their own, must follow."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [left for left in alive if left.status() != psutil.STATUS_ZOMBIE]


def finished_groups(run: Path) -> dict[str, tuple[int, float]]:
    """Gives of every finished group when its manifest was written and how long it took."""
    folder = run / "documents"
    if not folder.is_dir():
        folder = run / ".partial" / "documents"
    return {
        path.name: (path.stat().st_mtime_ns, json.loads(path.read_text())["wall_seconds"])
        for path in folder.glob("[0-9]*.json")
    }


def content(run: Path) -> dict[str, bytes]:
    """Gives the files of both stages, without what tells of times."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for stage in ("documents", "corpus")
        for path in (run / stage).rglob("*")
        if path.is_file() and path.suffix != ".json"
    }


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_corpus_ends_as_an_undisturbed_one_and_no_group_is_done_twice(
    tmp_path, documents, workers
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=documents, workers=workers))
    begun = time.monotonic()
    undisturbed = start(recipe, tmp_path / "straight")
    assert undisturbed.wait(timeout=300) == 0, undisturbed.stderr
    seconds = time.monotonic() - begun
    expected = content(tmp_path / "straight")
    assert len(finished_groups(tmp_path / "straight")) > 20
    assert {"corpus/dropped.jsonl", "corpus/kept.jsonl", "corpus/clusters.parquet"} < set(expected)

    count = (KILLS + 1) // 2
    chance = random.Random(workers)
    moments = [(n + chance.random()) / count for n in range(count)]
    chance.shuffle(moments)
    killed = rounds = 0
    while killed < count and rounds < 2 * count + 8:
        rounds += 1
        out = tmp_path / f"killed-{rounds}"
        known: dict[str, tuple[int, float]] = {}
        begun = time.monotonic()
        process = start(recipe, out)
        while killed < count:
            try:
                process.wait(timeout=moments[killed] * seconds)
                break
            except subprocess.TimeoutExpired:
                kill(process)
                killed += 1
            before, known = known, finished_groups(out)
            assert before.items() <= known.items()
            process = start(recipe, out)
        assert process.wait(timeout=300) == 0, process.communicate()
        # The first run may have compiled kernels that later ones find; and whatever the cause,
        # a moment that came after the end is brought forward.
        seconds = min(seconds, time.monotonic() - begun)
        if killed < count:
            moments[killed] *= 0.8
        assert known.items() <= finished_groups(out).items()
        assert content(out) == expected
        assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", ".old"))]
    assert killed == count

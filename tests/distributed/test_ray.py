"""The runners: whichever carries the work out, and whatever dies meanwhile, the corpus is the same.

Ray takes some seconds to start; killing its workers is tested where `TIANTI_FAULTS` is set.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import threading
from pathlib import Path

import psutil
import pytest

from tests.conftest import CHINESE
from tests.corpus.building import build_from
from tianti.corpus import prepare
from tianti.corpus.config import CorpusConfig, Source
from tianti.corpus.table import read_documents

pytest.importorskip("ray")

GROUPS = 40
# How the processes that do the work are named, under each runner.
WORKERS = {"native": "daft.execution.udf_worker", "ray": "ray::UDFActor"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory, english_texts) -> Path:
    """Pages in two languages, some of them twice, some nearly so."""
    chance = random.Random(0)
    paragraphs = [p for text in english_texts for p in text.split("\n\n") if len(p) > 100]
    pages = ["\n\n".join(chance.sample(paragraphs + CHINESE, 5)) for _ in range(1500)]
    pages += [chance.choice(pages) + f"\n{n}" * (n % 2) for n in range(200)]
    path = tmp_path_factory.mktemp("pages") / "pages.jsonl"
    path.write_text("".join(json.dumps({"text": page}) + "\n" for page in pages))
    return path


@pytest.fixture(scope="module", autouse=True)
def _small_groups_and_a_ray_of_our_own(pages):
    size = pages.stat().st_size // GROUPS
    small = functools.partial(prepare.plan_groups, group_bytes=size)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(prepare, "plan_groups", small)
        yield


def build(pages: Path, out: Path, engine: str) -> tuple[str, dict]:
    """Gives a hash of the rows of all splits, and what is said of them."""
    config = CorpusConfig(
        sources=[Source(path=str(pages))],
        quality={"filters": ["gopher_repetition"]},
        engine=engine,
        workers=2,
    )
    metrics = build_from(config, out)
    rows = sorted(
        (split, row["id"], row["text"])
        for split in ("train", "validation", "test")
        for row in read_documents(out / split)
    )
    assert len(list(out.with_name(f"{out.name}-documents").glob("[0-9]*.json"))) >= GROUPS
    metrics.pop("seconds")
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest(), metrics


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, pages):
    return build(pages, tmp_path_factory.mktemp("native") / "out", "native")


@pytest.mark.slow
def test_ray_makes_the_corpus_this_machine_makes(tmp_path, pages, undisturbed):
    assert build(pages, tmp_path / "out", "ray") == undisturbed


def kill_a_worker(name: str, documents: Path, ended: threading.Event, killed: list[int]) -> None:
    """Kills a worker as soon as some groups are finished."""
    while not ended.wait(0.01):
        if len(list(documents.glob("[0-9]*.json"))) < 3:
            continue
        for process in psutil.Process().children(recursive=True):
            try:
                if name in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return
            except psutil.NoSuchProcess:
                continue


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        "native",
        pytest.param(
            "ray",
            marks=pytest.mark.skipif("TIANTI_FAULTS" not in os.environ, reason="TIANTI_FAULTS"),
        ),
    ],
)
def test_a_worker_that_is_killed_changes_nothing(tmp_path, pages, undisturbed, engine):
    ended, killed = threading.Event(), []
    documents = tmp_path / "out-documents"
    killer = threading.Thread(
        target=kill_a_worker, args=(WORKERS[engine], documents, ended, killed)
    )
    killer.start()
    try:
        assert build(pages, tmp_path / "out", engine) == undisturbed
    finally:
        ended.set()
        killer.join()
    assert killed

"""A corpus far larger than memory: how much memory its preparation takes, and how fast it is.

    python benchmarks/large_corpus.py --gigabytes 4 --limit-gb 3

Writes JSONL of that size from the texts under `TIANTI_DATA` (default ../shared/data): sentences put
together anew, one document in ten repeated, one in ten repeated with a sentence changed. Then runs
the documents and corpus stages, and ends them where all their processes together hold more than
the limit. The folder is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tianti.corpus.config import Source
from tianti.corpus.document import Document
from tianti.corpus.sources import read_source

DATA = Path(os.environ.get("TIANTI_DATA", Path(__file__).parents[2] / "shared" / "data"))
SETS = (("imdb", "text"), ("wikitext2", "text"), ("en_books", "text"), ("zh_tech_lctt", "text"))
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|(?<=[。！？])|\n+")
RECIPE = """
name: large
corpus:
  sources:
    - path: {path}
  quality: {{filters: [gopher_quality, gopher_repetition]}}
  workers: {workers}
"""


def sentences() -> list[str]:
    """Gives the sentences of the data, in the order of the files."""
    found: dict[str, None] = {}
    for name, field_name in SETS:
        for item in read_source(Source(path=str(DATA / name), text=field_name)):
            if isinstance(item, Document):
                cut = (part.strip() for part in _SENTENCE.split(item.text))
                found |= dict.fromkeys(part for part in cut if 40 <= len(part) <= 1000)
    return list(found)


def documents(pool: list[str], seed: int = 0) -> Iterator[list[str]]:
    """Gives documents without end, as lists of sentences; the same for the same pool."""
    chance = random.Random(seed)
    recent: list[list[str]] = [chance.sample(pool, 12)]
    while True:
        kind = chance.random()
        if kind < 0.2:
            document = list(chance.choice(recent))
            if kind < 0.1:
                document[chance.randrange(len(document))] = chance.choice(pool)
        else:
            # Neighbours mostly, so that there is some sense in it, and places that repeat little.
            document = []
            for _ in range(chance.randrange(3, 12)):
                at = chance.randrange(len(pool))
                document += pool[at : at + 2]
            recent.append(document)
            if len(recent) > 20_000:
                recent[chance.randrange(len(recent))] = recent.pop()
        yield document


def write_text(path: Path, num_bytes: int) -> int:
    """Writes about so many bytes as JSONL and gives how many documents they are."""
    written = count = 0
    with open(path, "w", encoding="utf-8") as file:
        for document in documents(sentences()):
            line = json.dumps({"text": "\n".join(document)}, ensure_ascii=False) + "\n"
            file.write(line)
            written += len(line.encode())
            count += 1
            if written >= num_bytes:
                break
    return count


@dataclass
class Watch:
    """The most that a process and all below it held at once, and who held it."""

    peak: int = 0
    processes: list[tuple[int, str]] = field(default_factory=list)

    def look(self, root: psutil.Process) -> int:
        """Measures once and gives what is held now."""
        held = []
        for process in [root, *root.children(recursive=True)]:
            try:
                command = process.cmdline()
                held.append((proportional_bytes(process.pid), " ".join(command[1:4])[:60]))
            except (psutil.Error, OSError):
                continue
        total = sum(size for size, _ in held)
        if total > self.peak:
            self.peak, self.processes = total, sorted(held, reverse=True)
        return total


def proportional_bytes(pid: int) -> int:
    """Gives the memory of a process, of shared pages its part (Linux; elsewhere all of them)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    if not rollup.is_file():
        return psutil.Process(pid).memory_info().rss
    return next(
        int(line.split()[1]) << 10
        for line in rollup.read_text().splitlines()
        if line.startswith("Pss:")
    )


def run_watched(command: list[str], limit: int) -> Watch:
    """Runs a command and ends it where it holds more than the limit.

    Raises:
        SystemExit: it did, or it failed.
    """
    watch = Watch()
    with psutil.Popen(command, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None:
            if watch.look(child) > limit:
                for process in [*child.children(recursive=True), child]:
                    process.kill()
                raise SystemExit(f"more than {limit / 1e9:.1f} GB: {shown(watch)}")
            time.sleep(0.2)
    if child.returncode:
        raise SystemExit(child.returncode)
    return watch


def shown(watch: Watch) -> str:
    """Gives the peak, and the processes that made it up."""
    parts = ", ".join(f"{size / 1e9:.2f} {name}" for size, name in watch.processes if size > 5e7)
    return f"peak {watch.peak / 1e9:.2f} GB ({parts})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--limit-gb", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one if not given")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="large-corpus-", dir=arguments.folder))
    try:
        path = folder / "large.jsonl"
        started = time.perf_counter()
        count = write_text(path, int(arguments.gigabytes * 1e9))
        size = path.stat().st_size
        took = time.perf_counter() - started
        print(f"wrote {size / 1e9:.2f} GB in {took:.0f} s", file=sys.stderr)
        print("| what | measured | target |\n|---|---|---|")
        print(f"| text | {size / 1e9:.2f} GB, {count:,} documents | |")
        (folder / "recipe.yaml").write_text(RECIPE.format(path=path, workers=arguments.workers))
        command = [sys.executable, "-m", "tianti", "run", str(folder / "recipe.yaml")]
        command += ["--out", str(folder / "run"), "--until", "corpus"]
        watch = run_watched(command, int(arguments.limit_gb * 1e9))
        for stage in ("documents", "corpus"):
            manifest = json.loads((folder / "run" / stage / "manifest.json").read_text())
            seconds = manifest["wall_seconds"]
            print(f"| stage {stage} | {seconds:.0f} s, {size / seconds / 1e6:.1f} MB/s | |")
        print(
            f"| peak of all processes together | {shown(watch)} | < {arguments.limit_gb:.0f} GB |"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

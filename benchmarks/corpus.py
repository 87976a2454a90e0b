"""Measures the corpus steps: near-duplicates, quality rules, memory; beside datatrove where asked.

    python benchmarks/corpus.py                                   all, tianti alone
    TIANTI_PEERS_PYTHON=peers/bin/python python benchmarks/corpus.py --json figures.json

Prints a Markdown table and writes JSON with every figure and examples of what differs. The peer is
an interpreter that has datatrove[processing] and spacy (see corpus_peers.py). Seconds are CPU
seconds of all processes; ratios compare runs of one call of this command.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from corpus_data import Copy, build, for_filters, jaccard, read_copies, read_corpus, shingles
from corpus_processes import Run, adopt_orphans, measured

PEERS = os.environ.get("TIANTI_PEERS_PYTHON")
FILTERS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
# What is asked of a pair, of a dropped document, and of a text that is long enough to compare.
SAME, ALIKE, LONG_ENOUGH = 0.8, 0.5, 14
_REPEATS = 3


def deduplicated(folder: Path, out: Path, flags: Sequence[str] = ()) -> Run:
    """Runs `tianti corpus dedup` on a corpus that `build` wrote."""
    command = [sys.executable, "-m", "tianti", "corpus", "dedup", str(folder / "corpus")]
    shutil.rmtree(out, ignore_errors=True)
    return measured([*command, "--out", str(out), "--json", *flags])


def median_run(runs: Sequence[Run]) -> Run:
    """Gives the median by CPU seconds."""
    return sorted(runs, key=lambda run: run.cpu)[len(runs) // 2]


def ids_by_place(folder: Path) -> dict[tuple[int, int], str]:
    """Gives the ids of a corpus by shard and place in it."""
    places = {}
    for number, path in enumerate(sorted((folder / "corpus").glob("*.jsonl"))):
        for place, line in enumerate(path.read_text("utf-8").split("\n")):
            if line:
                places[number, place] = json.loads(line)["id"]
    return places


def tianti_clusters(folder: Path, out: Path) -> tuple[dict[str, str], set[str]]:
    """Gives the id that stays for each document that does not, and which are near-duplicates."""
    places = ids_by_place(folder)
    heads, near = {}, set()

    def name(origin: str) -> str:
        path, line = origin.rsplit(":", 1)
        return places[int(Path(path).stem), int(line) - 1]

    for row in pq.read_table(out / "clusters.parquet").to_pylist():
        heads[name(row["origin"])] = name(row["kept_origin"])
        if row["kind"] == "near":
            near.add(name(row["origin"]))
    return heads, near


def peer_clusters(folder: Path, out: Path) -> tuple[dict[str, str], set[str]]:
    """Gives the same of datatrove, which tells exact duplicates no other way."""
    places = ids_by_place(folder)
    first: dict[int, str] = {}
    heads = {}
    for line in (out / "clusters.jsonl").read_text().splitlines():
        number, place, cluster = json.loads(line)
        name = places[number, place]
        heads[name] = first.setdefault(cluster, name)
    return heads, {name for name, head in heads.items() if name != head}


def quality(folder: Path, heads: dict[str, str], near: set[str]) -> dict[str, Any]:
    """Gives recall over the known copies and precision over what was dropped.

    Args:
        folder: the corpus.
        heads: what stands for each document's cluster, where that is not itself.
        near: what was dropped as a near-duplicate.
    """
    texts = read_corpus(folder)
    found: dict[str, list[bool]] = defaultdict(list)
    missed = []
    for copy in read_copies(folder):
        same = heads.get(copy.id, copy.id) == heads.get(copy.original, copy.original)
        for group in _groups(copy):
            found[group].append(same)
        if not same and "recall" in _groups(copy):
            missed.append(copy)
    wrong = [name for name in sorted(near) if _best(name, heads, texts) < ALIKE]
    wrong = [name for name in wrong if _best_mate(name, heads, texts) < ALIKE]
    return {
        "recall": {name: [sum(hits), len(hits)] for name, hits in sorted(found.items())},
        "precision": [len(near) - len(wrong), len(near)],
        "missed": [{**copy.__dict__, "text": texts[copy.id][:300]} for copy in missed[:20]],
        "wrong": [
            {"text": texts[name][:300], "kept": texts[heads[name]][:300]} for name in wrong[:20]
        ],
    }


def _groups(copy: Copy) -> list[str]:
    """Gives under which headings a copy counts."""
    if copy.kind == "exact":
        return ["exact"]
    short = copy.words < LONG_ENOUGH
    size = "short" if short else copy.language
    if copy.jaccard < SAME:
        return [f"{size} at {int(copy.jaccard * 10) / 10}"]
    return [size, f"{size} {copy.kind}"] + ([] if short else ["recall"])


def _best(name: str, heads: dict[str, str], texts: dict[str, str]) -> float:
    """Gives how alike a document and the one kept for it are."""
    return jaccard(shingles(texts[name]), shingles(texts[heads[name]]))


def _best_mate(name: str, heads: dict[str, str], texts: dict[str, str]) -> float:
    """Gives how alike a document and the likest of its cluster are."""
    mine = shingles(texts[name])
    mates = (mate for mate, head in heads.items() if head == heads[name] and mate != name)
    return max((jaccard(mine, shingles(texts[mate])) for mate in mates), default=0.0)


def measure_minhash(out: Path, megabytes: int, peer_megabytes: int) -> dict[str, Any]:
    """Measures end to end, JSONL in and Parquet out, and how well copies are found."""
    figures: dict[str, Any] = {}
    for size in sorted({megabytes, *([peer_megabytes] if PEERS else [])}):
        folder, target = build(out, size), out / "tianti-dedup"
        runs = [deduplicated(folder, target) for _ in range(_REPEATS)]
        if PEERS and size == peer_megabytes:
            peer = _peer_run(folder, out / "datatrove-dedup")
            # Before and after, because what else the machine does falls on both.
            runs += [deduplicated(folder, target) for _ in range(_REPEATS)]
            figures["datatrove"] = peer
        run = median_run(runs)
        spread = [round(run.cpu, 1) for run in runs]
        print(f"tianti dedup, {size} MB: {spread} CPU s", file=sys.stderr)
        summary = json.loads(run.output)
        documents = summary["funnel"]["read"]["documents"]
        figures[f"tianti_{size}mb"] = {
            **run.figures(documents),
            "cpu_seconds_of_runs": spread,
            "dropped": summary["funnel"]["dropped"],
            "step_seconds": summary["seconds"],
            **quality(folder, *tianti_clusters(folder, target)),
        }
    if PEERS:
        ours, peer = figures[f"tianti_{peer_megabytes}mb"], figures["datatrove"]
        peer["documents_per_second"] = round(ours["documents"] / peer["wall_seconds"], 1)
        figures["cpu_ratio"] = round(peer["cpu_seconds"] / ours["cpu_seconds"], 1)
        figures["wall_ratio"] = round(peer["wall_seconds"] / ours["wall_seconds"], 1)
    return figures


def _peer_run(folder: Path, target: Path) -> dict[str, Any]:
    shutil.rmtree(target, ignore_errors=True)
    script = Path(__file__).with_name("corpus_peers.py")
    run = measured([PEERS, str(script), "dedup", str(folder / "corpus"), str(target)])
    print(f"datatrove dedup: {run.cpu:.1f} CPU s", file=sys.stderr)
    return {**run.figures(1), **quality(folder, *peer_clusters(folder, target))}


def measure_memory(out: Path, megabytes: int) -> dict[str, Any]:
    """Measures the peak of memory on a corpus and on a tenth of it.

    With one process, with two, and as it comes: small corpora are not worth workers, which take
    memory whatever they do.
    """
    figures: dict[str, Any] = {}
    for workers in (1, 2, None):
        flags = [] if workers is None else ["--workers", str(workers)]
        peaks = {}
        for size in (max(megabytes // 10, 1), megabytes):
            run = deduplicated(build(out, size), out / "tianti-dedup", flags=flags)
            peaks[f"{size}mb"] = round(run.rss / 1e6, 1)
            print(f"tianti dedup, {size} MB: {run.rss / 1e6:.0f} MB at most", file=sys.stderr)
        small, large = peaks.values()
        figures[f"workers {workers or 'by size'}"] = {
            "peak_rss_mb": peaks,
            "ratio": round(large / small, 3),
        }
    return figures


def measure_filters(out: Path, each: int) -> dict[str, Any]:
    """Measures tianti's rules beside datatrove's filters: time, and where they differ."""
    rows = for_filters(each, seed=1)
    texts = [text for _, text in rows]
    reasons, seconds = _tianti_reasons(texts)
    size = sum(len(text.encode()) for text in texts)
    figures: dict[str, Any] = {
        "documents": len(texts),
        "megabytes": round(size / 1e6, 2),
        "sources": Counter(source for source, _ in rows),
        "tianti_cpu_seconds": round(seconds, 3),
    }
    if not PEERS:
        return figures
    source, target = out / "filters.jsonl", out / "filters.json"
    source.write_text("".join(json.dumps(text) + "\n" for text in texts), "utf-8")
    script = Path(__file__).with_name("corpus_peers.py")
    measured([PEERS, str(script), "filters", str(source), str(target)])
    answer = json.loads(target.read_text("utf-8"))
    total = sum(answer["seconds"].values())
    figures["datatrove_cpu_seconds"] = {k: round(v, 2) for k, v in answer["seconds"].items()}
    figures["cpu_ratio"] = round(total / seconds, 1)
    figures["filters"] = {
        name: _agreement(rows, reasons[name], answer["reasons"][name]) for name in FILTERS
    }
    return figures


def _tianti_reasons(texts: list[str]) -> tuple[dict[str, list[str | None]], float]:
    """Gives why each filter drops each document, and the CPU seconds of all four, compiled."""
    from tianti.corpus.config import QualityConfig
    from tianti.corpus.filters import failing_rules
    from tianti.corpus.statistics import document_statistics

    document_statistics(pa.array(["Compiles it all."], pa.large_string()))
    times = []
    reasons: dict[str, list[str | None]] = {}
    for _ in range(3):
        started = time.process_time()
        columns = document_statistics(pa.array(texts, pa.large_string()))
        arrays = {name: np.asarray(column) for name, column in columns.items()}
        for name in FILTERS:
            config = QualityConfig(filters=[name])
            failed, names = failing_rules(arrays, config, np.zeros(len(texts), bool))
            reasons[name] = [names[number] if number >= 0 else None for number in failed.tolist()]
        times.append(time.process_time() - started)
    return reasons, statistics.median(times)


def _agreement(
    rows: list[tuple[str, str]], ours: list[str | None], theirs: list[str | None]
) -> dict[str, Any]:
    """Gives the share of documents with one fate, and those with two by their reasons."""
    differing: dict[str, list[dict[str, str]]] = defaultdict(list)
    for (source, text), mine, other in zip(rows, ours, theirs, strict=True):
        if (mine is None) != (other is None):
            where = {"source": source, "text": text[:200]}
            differing[f"{mine or 'kept'} / {other or 'kept'}"].append(where)
    count = sum(map(len, differing.values()))
    return {
        "agreement": 1 - count / len(rows),
        "same_reason": sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(rows),
        "dropped_by_datatrove": sum(reason is not None for reason in theirs),
        "differing": {
            reason: {"count": len(found), "examples": found[:3]}
            for reason, found in sorted(differing.items(), key=lambda item: -len(item[1]))
        },
    }


def share(pair: list[int]) -> str:
    """Gives a share with its counts."""
    return f"{pair[0] / max(pair[1], 1):.4f} ({pair[0]:,} of {pair[1]:,})"


def minhash_rows(figures: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Gives the table rows of the near-duplicates."""
    for name, run in figures.items():
        if not isinstance(run, dict):
            continue
        speed = f"{run['documents_per_second']:,.0f} docs/s, {run['cpu_seconds']:,.1f} CPU s"
        if "cpu_seconds_of_runs" in run:
            least, most = min(run["cpu_seconds_of_runs"]), max(run["cpu_seconds_of_runs"])
            speed += f" ({least}–{most})"
        yield f"near-duplicates, {name}", f"{speed}, {run['peak_rss_mb']:,.0f} MB", ""
        for language in ("english", "chinese", "code"):
            if language in run["recall"]:
                yield f"{name}: recall, {language}", share(run["recall"][language]), "≥ 0.99"
        yield f"{name}: precision", share(run["precision"]), "≥ 0.97"
    if "cpu_ratio" in figures:
        label = "near-duplicates: CPU seconds, datatrove ÷ tianti, same text"
        yield label, f"{figures['cpu_ratio']}", "≥ 100"


def filter_rows(figures: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Gives the table rows of the quality rules."""
    speed = figures["megabytes"] / figures["tianti_cpu_seconds"]
    yield "quality rules, tianti", f"{speed:.1f} MB per CPU s", ""
    for name, agreed in figures.get("filters", {}).items():
        dropped = f"{agreed['dropped_by_datatrove']:,} of {figures['documents']:,} dropped"
        yield f"agreement, {name}", f"{agreed['agreement']:.4f} ({dropped})", "≥ 0.99"
    if "cpu_ratio" in figures:
        yield "quality rules: CPU, datatrove ÷ tianti", f"{figures['cpu_ratio']}", "≥ 100"


def memory_rows(figures: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    """Gives the table rows of the memory."""
    for name, run in figures.items():
        peaks = ", ".join(f"{size} {peak:,.0f} MB" for size, peak in run["peak_rss_mb"].items())
        yield f"peak memory, ten times the text, {name}", f"{run['ratio']} × ({peaks})", "< 1.5"


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="minhash,filters,memory", help="some of them")
    parser.add_argument("--megabytes", type=int, default=350, help="of text for near-duplicates")
    parser.add_argument("--peer-megabytes", type=int, default=350, help="the same for datatrove")
    parser.add_argument("--memory-megabytes", type=int, default=350, help="and for memory")
    parser.add_argument("--documents", type=int, default=1500, help="of each source, for filters")
    parser.add_argument("--out", type=Path, help="keep corpora and outputs here")
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    adopt_orphans()
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        steps: dict[str, tuple[Callable[[], dict[str, Any]], Callable[..., Any]]] = {
            "minhash": (
                lambda: measure_minhash(out, arguments.megabytes, arguments.peer_megabytes),
                minhash_rows,
            ),
            "filters": (lambda: measure_filters(out, arguments.documents), filter_rows),
            "memory": (lambda: measure_memory(out, arguments.memory_megabytes), memory_rows),
        }
        figures: dict[str, Any] = {
            "machine": {"cores": os.cpu_count(), "machine": platform.machine()},
        }
        rows: list[tuple[str, str, str]] = []
        for name in arguments.only.split(","):
            measure, table = steps[name]
            figures[name] = measure()
            rows += table(figures[name])
            if arguments.json:
                text = json.dumps(figures, ensure_ascii=False, indent=1)
                arguments.json.write_text(text, "utf-8")
    print("| what | measured | target |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()

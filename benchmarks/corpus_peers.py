"""datatrove's side of corpus.py; runs under an interpreter that has it, not under tianti's.

TIANTI_PEERS_PYTHON=peers/bin/python  (a venv with datatrove[processing], spacy and psutil)
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from pathlib import Path


def dedup(source: Path, out: Path, workers: int) -> None:
    """Runs MinHash deduplication with datatrove's defaults: JSONL in, Parquet out.

    Writes `clusters.jsonl` too: for every document of a cluster its shard, place and cluster.
    """
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import ParquetWriter

    config = MinhashConfig()
    shards = sorted(source.glob("*.jsonl"))
    reader = JsonlReader(str(source), glob_pattern="*.jsonl")
    signatures, buckets, removed = (str(out / name) for name in ("signatures", "buckets", "remove"))
    steps = [
        ("1", [reader, MinhashDedupSignature(signatures, config)], len(shards)),
        ("2", [MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        ("3", [MinhashDedupCluster(buckets, removed, config, save_cluster_id=True)], 1),
        (
            "4",
            [reader, MinhashDedupFilter(removed), ParquetWriter(str(out / "documents"))],
            len(shards),
        ),
    ]
    for name, pipeline, tasks in steps:
        logs = str(out / "logs" / name)
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=logs).run()
    with open(out / "clusters.jsonl", "w") as file:
        for number in range(len(shards)):
            path = out / "remove" / f"{number:06d}.clusters"
            for place, cluster in struct.iter_unpack("<2I", path.read_bytes()):
                file.write(json.dumps([number, place, cluster]) + "\n")


def filters(source: Path, out: Path) -> None:
    """Asks datatrove's quality filters about every line of a JSONL file.

    Writes `seconds` (CPU of the calls) and `reasons`: by filter, why each document is dropped, or
    null. The filters follow each other on one document, so its words are told once.
    """
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    kinds = {
        "gopher_quality": GopherQualityFilter(),
        "gopher_repetition": GopherRepetitionFilter(),
        "fineweb": FineWebQualityFilter(),
        "c4": C4QualityFilter(),
    }
    texts = [json.loads(line) for line in source.read_text("utf-8").split("\n") if line]
    for kind in kinds.values():
        # Loads the tokenizer, which is not what is measured.
        kind.filter(Document(text="One sentence. " * 60, id="warm"))
    reasons: dict[str, list[str | None]] = {name: [] for name in kinds}
    seconds = dict.fromkeys(kinds, 0.0)
    for text in texts:
        for name, kind in kinds.items():
            document = Document(text=text, id="")
            started = time.process_time()
            kept = kind.filter(document)
            seconds[name] += time.process_time() - started
            reasons[name].append(None if kept is True else kept[1] if kept else "dropped")
    out.write_text(json.dumps({"seconds": seconds, "reasons": reasons}), "utf-8")


def main() -> None:
    """Runs one of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["dedup", "filters"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.what == "dedup":
        dedup(arguments.source, arguments.out, arguments.workers)
    else:
        filters(arguments.source, arguments.out)


if __name__ == "__main__":
    sys.exit(main())

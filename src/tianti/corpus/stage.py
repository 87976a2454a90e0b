"""The corpus stage: sources → clean, unique documents → train, validation and test tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tianti.corpus.clean import clean_text
from tianti.corpus.config import CorpusConfig
from tianti.corpus.document import BadInput, Document, cjk_bytes, content_id
from tianti.corpus.sources import read_source
from tianti.corpus.split import SPLITS, Shares, cut_sections, derived_share, section_chars
from tianti.corpus.table import DocumentWriter, read_documents
from tianti.errors import UserError, os_errors_named
from tianti.files import atomic_open
from tianti.messages import tr
from tianti.progress import SILENT, Display

COLLECTED = "collected.parquet"
SAMPLES_PER_REASON = 50


def build_corpus(
    config: CorpusConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Writes `train.parquet`, `validation.parquet` and `test.parquet`, and what was dropped.

    Args:
        config: sources and steps.
        inputs: none.
        out: where to.
        display: shows progress.

    Returns:
        `funnel`: documents and bytes kept and dropped, by reason; `splits`: documents, bytes and
        characters of each; `cjk_share`: share of bytes in Chinese characters; `section_chars` and
        `shares` as derived; `bad_inputs`: how many were set aside.

    Raises:
        UserError: a source cannot be read, nothing is left, or too little for three splits.
    """
    funnel = _Funnel()
    with display.task("corpus", unit="docs") as task:
        collected = out / COLLECTED
        with DocumentWriter(collected) as writer:
            for row in _clean_unique(config, funnel):
                writer.write(row)
                task.advance()
    if not writer.rows:
        raise UserError(
            tr("the corpus is empty: none of {count} documents was kept", count=funnel.read),
            where="corpus.sources",
            remedy=tr(
                "Dropped: {reasons}. Check the sources and corpus.min_chars",
                reasons=", ".join(f"{name} {count:,}" for name, count in funnel.dropped.items())
                or 0,
            ),
        )
    limit = section_chars(writer.rows, funnel.chars)
    shares = Shares(
        validation=config.validation or derived_share(funnel.chars),
        test=config.test or derived_share(funnel.chars),
    )
    dealing = _Dealing(config, shares)
    splits = _write_splits(collected, out, limit, dealing)
    collected.unlink()
    funnel.write_lists(out)
    return {
        "funnel": funnel.as_dict(),
        "splits": splits,
        "cjk_share": funnel.cjk_bytes / max(funnel.kept_bytes, 1),
        "section_chars": limit,
        "shares": {"validation": shares.validation, "test": shares.test},
        "bad_inputs": len(funnel.bad),
    }


class _Funnel:
    """Counts what came in and where it went, and keeps samples of what was dropped."""

    def __init__(self) -> None:
        self.read = self.read_bytes = self.chars = self.kept_bytes = self.kept = 0
        self.cjk_bytes = 0
        self.dropped: Counter[str] = Counter()
        self.dropped_bytes: Counter[str] = Counter()
        self.sources: dict[str, Counter[str]] = {}
        self.samples: list[dict[str, str]] = []
        self.bad: list[BadInput] = []

    def drop(self, document: Document, reason: str, num_bytes: int) -> None:
        self.dropped[reason] += 1
        self.dropped_bytes[reason] += num_bytes
        if self.dropped[reason] <= SAMPLES_PER_REASON:
            self.samples.append(
                {"reason": reason, "origin": document.origin, "text": document.text[:500]}
            )

    def keep(self, document: Document, text: str, num_bytes: int) -> None:
        self.kept += 1
        self.kept_bytes += num_bytes
        self.chars += len(text)
        self.cjk_bytes += cjk_bytes(text)
        counts = self.sources.setdefault(document.source, Counter())
        counts["documents"] += 1
        counts["bytes"] += num_bytes

    def write_lists(self, out: Path) -> None:
        with atomic_open(out / "dropped.jsonl", "w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self.samples)
        with atomic_open(out / "quarantine.jsonl", "w") as file:
            file.writelines(
                json.dumps({"origin": bad.origin, "reason": bad.reason}, ensure_ascii=False) + "\n"
                for bad in self.bad
            )

    def as_dict(self) -> dict[str, Any]:
        return {
            "read": {"documents": self.read, "bytes": self.read_bytes},
            "dropped": {
                reason: {"documents": count, "bytes": self.dropped_bytes[reason]}
                for reason, count in self.dropped.items()
            },
            "kept": {"documents": self.kept, "bytes": self.kept_bytes},
            "sources": {name: dict(counts) for name, counts in self.sources.items()},
        }


def _clean_unique(config: CorpusConfig, funnel: _Funnel) -> Iterator[dict[str, Any]]:
    """Gives table rows of the documents that are kept."""
    seen: set[bytes] = set()
    for document in _documents(config, funnel):
        num_bytes = len(document.text.encode("utf-8", "surrogatepass"))
        funnel.read += 1
        funnel.read_bytes += num_bytes
        text = clean_text(document.text, config.normalize)
        if len(text.strip()) < config.min_chars:
            funnel.drop(document, "too_short", num_bytes)
            continue
        identity = content_id(text)
        if config.deduplicate and bytes.fromhex(identity) in seen:
            funnel.drop(document, "exact_duplicate", num_bytes)
            continue
        seen.add(bytes.fromhex(identity))
        funnel.keep(document, text, len(text.encode("utf-8")))
        yield {
            "id": identity,
            "text": text,
            "source": document.source,
            "origin": document.origin,
            "split": document.split,
        }


def _documents(config: CorpusConfig, funnel: _Funnel) -> Iterator[Document]:
    """Gives the readable documents; a bad input stops the work or is set aside."""
    # Held-out sources first: of two equal texts the one that would be trained on is dropped.
    order = {"test": 0, "validation": 1}
    for source in sorted(config.sources, key=lambda source: order.get(source.split or "", 2)):
        for item in read_source(source):
            if isinstance(item, Document):
                yield item
            elif config.on_bad_input == "stop":
                raise UserError(
                    item.reason,
                    where=item.origin,
                    remedy=tr(
                        "{remedy}; or leave such inputs out with corpus.on_bad_input=quarantine",
                        remedy=item.remedy,
                    ),
                )
            else:
                funnel.bad.append(item)


class _Dealing:
    """Which split a document goes to: its source's own, else one that its content decides."""

    def __init__(self, config: CorpusConfig, shares: Shares):
        given = {source.split for source in config.sources}
        self._shares: dict[str | None, Shares] = {
            None: shares,
            # Data that comes as train and test alone still needs a validation split.
            "train": Shares(
                validation=0.0 if "validation" in given else shares.validation,
                test=0.0 if "test" in given else shares.test,
            ),
        }

    def is_dealt(self, asked: str | None) -> bool:
        """Tells whether content has a say for documents whose source asks for this split."""
        shares = self._shares.get(asked)
        return shares is not None and shares.validation + shares.test > 0

    def split_of(self, asked: str | None, identity: str) -> str:
        """Gives the split of a document."""
        shares = self._shares.get(asked)
        return shares.split_of(identity) if shares is not None else asked or "train"


def _write_splits(
    collected: Path, out: Path, limit: int | None, dealing: _Dealing
) -> dict[str, dict[str, int]]:
    """Deals the collected documents out to the three tables."""
    totals = {name: {"documents": 0, "bytes": 0, "chars": 0} for name in SPLITS}
    with os_errors_named(out):
        writers = {name: DocumentWriter(out / f"{name}.parquet") for name in SPLITS}
    for row in read_documents(collected):
        whole = limit is None or not dealing.is_dealt(row["split"])
        for text in [row["text"]] if whole else cut_sections(row["text"], limit or 0):
            identity = row["id"] if whole else content_id(text)
            name = dealing.split_of(row["split"], identity)
            writers[name].write({**row, "id": identity, "text": text, "split": name})
            totals[name]["documents"] += 1
            totals[name]["bytes"] += len(text.encode("utf-8"))
            totals[name]["chars"] += len(text)
    for writer in writers.values():
        writer.__exit__(None, None, None)
    empty = [name for name in SPLITS if not totals[name]["documents"]]
    if empty:
        count = sum(split["documents"] for split in totals.values())
        raise UserError(
            tr(
                "the corpus is too small for its split: {count} documents leave nothing for"
                " {empty}",
                count=count,
                empty=", ".join(empty),
            ),
            where="corpus",
            remedy=tr(
                "Add text, raise corpus.validation and corpus.test, or give a source its own split"
            ),
        )
    return totals

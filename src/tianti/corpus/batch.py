"""Some thousand documents as columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from tianti.corpus.document import Document
from tianti.errors import UserError
from tianti.messages import tr

BATCH_ROWS = 4096
# Lines that are scanned together.
SCAN_ROWS = 16_384
BATCH_BYTES = 8_000_000


@dataclass(frozen=True)
class Batch:
    """Documents as columns of one length.

    Args:
        texts: large strings.
        origins: strings; file, and line or row where there are several in one file.
        metas: strings; what else was said of each, as JSON with sorted names, or null.
        labels: strings; the class of each, or null.
        media: columns carried beside the text.
    """

    texts: pa.Array
    origins: pa.Array
    metas: pa.Array
    labels: pa.Array
    media: dict[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_bytes(self) -> int:
        """About how many bytes the texts have."""
        return int(self.texts.nbytes)

    def slice(self, start: int, stop: int) -> Batch:
        """Gives some of the documents, without copying them."""
        size = stop - start
        return Batch(
            self.texts.slice(start, size),
            self.origins.slice(start, size),
            self.metas.slice(start, size),
            self.labels.slice(start, size),
            {name: column.slice(start, size) for name, column in self.media.items()},
        )

    @classmethod
    def of(cls, documents: list[Document]) -> Batch:
        """Gives documents as columns."""
        names = {name for document in documents if document.media for name in document.media}
        return cls(
            text_column([document.text for document in documents]),
            pa.array([readable(document.origin) for document in documents], pa.string()),
            pa.array([as_json(document.meta) for document in documents], pa.string()),
            pa.array([document.label for document in documents], pa.string()),
            {name: _carried(documents, name) for name in sorted(names)},
        )

    @classmethod
    def joined(cls, batches: list[Batch]) -> Batch:
        """Gives the documents of several batches, in order; none of them has media."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            pa.concat_arrays([batch.texts for batch in batches]),
            pa.concat_arrays([batch.origins for batch in batches]),
            pa.concat_arrays([batch.metas for batch in batches]),
            pa.concat_arrays([batch.labels for batch in batches]),
        )


def gathered(items: Iterable[Document | Batch]) -> Iterator[Batch]:
    """Gives documents, single ones or many at a time, in batches that bound what is in memory."""
    single: list[Document] = []
    held: list[Batch] = []
    size = rows = 0
    for item in items:
        if isinstance(item, Document):
            single.append(item)
            size += len(item.text)
            rows += 1
        else:
            if single:
                yield from _apart_with_media(held, single)
            held.append(item)
            size += item.num_bytes
            rows += len(item)
        if rows >= BATCH_ROWS or size >= BATCH_BYTES:
            yield from _apart_with_media(held, single)
            if held:
                yield Batch.joined(held)
            held, size, rows = [], 0, 0
    yield from _apart_with_media(held, single)
    if held:
        yield Batch.joined(held)


def _apart_with_media(held: list[Batch], single: list[Document]) -> Iterator[Batch]:
    """Moves single documents to what is held; gives both where they carry other columns."""
    if not single:
        return
    batch = Batch.of(single)
    single.clear()
    if not batch.media:
        held.append(batch)
        return
    if held:
        yield Batch.joined(held)
        held.clear()
    yield batch


def different_kinds(error: Exception, where: Path | None = None) -> UserError:
    """Gives the error of a column that is one thing in one file and another in the next."""
    return UserError(
        tr("a column holds values of different kinds ({reason})", reason=error),
        where=where,
        remedy=tr("Give files of different kinds as sources of their own"),
    )


def _carried(documents: list[Document], name: str) -> pa.Array:
    try:
        return pa.array([(document.media or {}).get(name) for document in documents])
    except pa.ArrowException as error:
        raise different_kinds(error) from error


def text_column(texts: list[str]) -> pa.Array:
    """Gives texts as a column; lone surrogates, which UTF-8 cannot hold, become question marks."""
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        return pa.array(
            [text.encode("utf-8", "replace").decode() for text in texts], pa.large_string()
        )


def readable(name: str) -> str:
    """Gives a name with the bytes that are not UTF-8 written out."""
    return name.encode("utf-8", "backslashreplace").decode()


def as_json(meta: dict[str, Any]) -> str | None:
    """Gives what was said of a document as JSON with sorted names, None where nothing was."""
    if not meta:
        return None
    try:
        return orjson.dumps(meta, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        # Lone surrogates and large integers, which the fast writer refuses.
        return json.dumps(meta, ensure_ascii=True, sort_keys=True)

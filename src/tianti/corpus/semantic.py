"""Documents that mean the same: clusters of embeddings that the user brings.

SemDeDup (Abbas et al. 2023) without its k-means: all pairs are compared, in tiles, which is exact
and takes a minute for 100,000 documents.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tianti.corpus.config import DedupConfig
from tianti.corpus.prepared import prepared_path, read_columns, read_schema
from tianti.errors import UserError
from tianti.messages import tr

_TILE = 2048


def semantic_clusters(
    folder: Path, names: list[str], config: DedupConfig, eligible: np.ndarray
) -> np.ndarray:
    """Gives for each document the smallest place in its cluster: its own where it is alone.

    Args:
        folder: prepared documents.
        names: their parts, in order.
        config: `embeddings` names the column; pairs above `embedding_similarity` are joined.
        eligible: which documents take part.

    Raises:
        UserError: there is no such column, or it holds no vectors of one length.
    """
    vectors = np.concatenate([_column(prepared_path(folder, name), config) for name in names])
    places = np.flatnonzero(eligible)
    unit = vectors[places]
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    roots = np.arange(len(eligible))
    from tianti.corpus.lsh import join, roots_of

    for top in range(0, len(unit), _TILE):
        for left in range(0, top + 1, _TILE):
            alike = unit[top : top + _TILE] @ unit[left : left + _TILE].T
            rows, columns = np.nonzero(alike >= config.embedding_similarity)
            keep = rows + top > columns + left
            join(roots, places[rows[keep] + top], places[columns[keep] + left])
    return roots_of(roots, np.arange(len(roots)))


def _column(path: Path, config: DedupConfig) -> np.ndarray:
    name = config.embeddings or ""
    schema = read_schema(path)
    if name not in schema.names or not _is_list(schema.field(name).type):
        raise UserError(
            tr("there is no column of vectors {name!r}", name=name),
            where="corpus.dedup.embeddings",
            remedy=tr("Carry it along: corpus.sources.N.carry=[{name}]", name=name),
        )
    rows = read_columns(path, [name])[name].to_pylist()
    try:
        return np.array(rows, np.float32).reshape(len(rows), -1)
    except (ValueError, TypeError) as error:
        raise UserError(
            tr("its vectors differ in length"),
            where=f"corpus.dedup.embeddings ({name})",
            remedy=tr("Give every document a vector of one length"),
        ) from error


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )

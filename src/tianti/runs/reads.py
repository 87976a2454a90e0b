"""How often a run has read its test split: every further look makes it less of a test."""

from __future__ import annotations

from pathlib import Path

from tianti.errors import Damaged
from tianti.files import read_sealed, write_sealed

READS = "test-reads.json"


def count_read(run: Path, corpus: str) -> int:
    """Notes that the test split is about to be read, and gives how often that makes.

    Args:
        run: the folder of the run.
        corpus: fingerprint of the corpus whose test split it is.

    Raises:
        UserError: the disk is full or not writable.
    """
    path = run / READS
    try:
        known = read_sealed(path)["times"] if path.is_file() else {}
    except Damaged:
        known = {}
    known[corpus] = known.get(corpus, 0) + 1
    write_sealed(path, {"times": known})
    return known[corpus]

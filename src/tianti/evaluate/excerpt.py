"""Which part of a split is measured where all of it would take too long."""

from __future__ import annotations

import numpy as np

SHORTEST_EXCERPT = 20_000


def excerpt_bytes(sizes: np.ndarray, limit: int) -> dict[int, int]:
    """Gives how many bytes of which documents are measured, about `limit` in all.

    All documents have a say as long as `SHORTEST_EXCERPT` bytes of each fit: the longest are
    shortened to one length. Where there are more, documents spread evenly over the split are taken.
    A figure over many documents, each measured in part, is surer than one over a few whole ones.

    Args:
        sizes: bytes of each document.
        limit: bytes to be measured.

    Returns:
        `{number of the document: bytes of it}` in the order of the split.
    """
    if int(sizes.sum()) <= limit:
        return {number: int(size) for number, size in enumerate(sizes)}
    longest = max(_common_length(sizes, limit), SHORTEST_EXCERPT)
    shortened = np.minimum(sizes, longest)
    count = min(len(sizes), max(1, int(len(sizes) * limit / int(shortened.sum()))))
    chosen = sorted({int(number) for number in np.linspace(0, len(sizes) - 1, count)})
    return {number: int(shortened[number]) for number in chosen}


def _common_length(sizes: np.ndarray, limit: int) -> int:
    """Gives the length to which the longest are shortened for all together to hold `limit`."""
    ordered = np.sort(sizes)
    before = np.concatenate([[0], np.cumsum(ordered)[:-1]])
    # With the documents from `index` on shortened alike, each gets an equal part of what is left.
    shares = (limit - before) / np.arange(len(ordered), 0, -1)
    return int(shares[np.argmax(shares <= ordered)])


def excerpt(text: str, size: int) -> str:
    """Gives `size` bytes from the middle of a text, whole characters only.

    The middle, because beginnings are often front matter.
    """
    data = text.encode("utf-8")
    if len(data) <= size:
        return text
    start = (len(data) - size) // 2
    return data[start : start + size].decode("utf-8", "ignore")

"""Which split a document belongs to: by its content, never by its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tianti.corpus.document import content_fraction

SPLITS = ("train", "validation", "test")
LARGEST_SHARE = 0.05
HELD_OUT_CHARS = 2_000_000
FEW_DOCUMENTS = 200
_BREAKS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"[.!?。！？]\s*"))


@dataclass(frozen=True)
class Shares:
    """The share of documents that goes to validation and to the test."""

    validation: float
    test: float

    def split_of(self, identity: str) -> str:
        """Gives the split of a document from its content identity.

        The two held-out splits lie at the two ends of the unit interval: when shares shrink because
        the corpus grew, documents move into training and never from one held-out split to another.
        """
        fraction = content_fraction(identity)
        if fraction < self.test:
            return "test"
        return "validation" if fraction >= 1 - self.validation else "train"


def derived_share(total_chars: int) -> float:
    """Gives the share held out when none is asked for: 5 %, less where that is over 2 M chars."""
    return min(LARGEST_SHARE, HELD_OUT_CHARS / max(total_chars, 1))


def section_chars(documents: int, total_chars: int) -> int | None:
    """Gives how long documents may be so that few long ones can be split, or None.

    One book in one file cannot be split by document. With fewer than `FEW_DOCUMENTS`, documents are
    cut into sections of about a five-hundredth of the text, between 1,000 and 20,000 characters.
    """
    if documents >= FEW_DOCUMENTS:
        return None
    return max(1_000, min(20_000, total_chars // 500))


def cut_sections(text: str, limit: int) -> Iterator[str]:
    """Cuts text into pieces of at most `limit` characters; joined they give the text again.

    Cuts at the last paragraph, line or sentence end in the second half of a piece, at the limit
    where there is none.
    """
    start = 0
    while len(text) - start > limit:
        window = text[start + limit // 2 : start + limit]
        cut = limit
        for pattern in _BREAKS:
            ends = [match.end() for match in pattern.finditer(window)]
            if ends:
                cut = limit // 2 + ends[-1]
                break
        yield text[start : start + cut]
        start += cut
    if start < len(text):
        yield text[start:]

"""Which split a document belongs to: by its content, never by its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

SPLITS = ("train", "validation", "test")
# Changed copies of training documents that come the more often the later in training.
LATE = "late"
LARGEST_SHARE = 0.05
HELD_OUT_CHARS = 2_000_000
FEW_DOCUMENTS = 200
_BREAKS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"[.!?。！？]\s*"))


@dataclass(frozen=True)
class Shares:
    """The share of documents that goes to validation and to the test."""

    validation: float
    test: float

    def splits_of(self, keys: np.ndarray) -> np.ndarray:
        """Gives the splits of documents from what their content hashes to, in [0, 1).

        The two held-out splits lie at the two ends of the unit interval: when shares shrink because
        the corpus grew, documents move into training and never from one held-out split to another.
        """
        names = np.where(keys >= 1 - self.validation, "validation", "train")
        return np.where(keys < self.test, "test", names)


class Dealing:
    """Which split a document goes to: its source's own, else one that its content decides.

    Args:
        given: the splits that sources ask for, None for those that ask for none.
        validation: share of documents for validation.
        test: share of documents for the test.
    """

    def __init__(self, given: list[str | None], validation: float, test: float):
        # Data that comes as train and test alone still needs a validation split; what is held out
        # already is not mixed with anything else.
        shares = Shares(
            validation=0.0 if "validation" in given else validation,
            test=0.0 if "test" in given else test,
        )
        self._shares: dict[str | None, Shares] = {None: shares, "train": shares}

    def is_dealt(self, asked: str | None) -> bool:
        """Tells whether content has a say for documents whose source asks for this split."""
        shares = self._shares.get(asked)
        return shares is not None and shares.validation + shares.test > 0

    def splits_of(self, asked: pa.ChunkedArray, keys: np.ndarray) -> np.ndarray:
        """Gives the splits of documents.

        Args:
            asked: the split that the source of each asks for, if any.
            keys: what their content hashes to, in [0, 1).
        """
        wanted = np.array([name or "" for name in asked.to_pylist()], dtype="<U10")
        out = wanted.copy()
        for name, shares in self._shares.items():
            here = wanted == (name or "")
            out[here] = shares.splits_of(keys[here])
        return out


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

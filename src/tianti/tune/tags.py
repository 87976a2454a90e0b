"""Tags of the BIO scheme: the entities they tell, and the likeliest that fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Span = tuple[int, int]


@lru_cache(maxsize=16)
def _barred(tags: tuple[str, ...]) -> np.ndarray:
    """Gives 0 where a tag may follow another and minus infinity where not, `(before, after)`."""
    barred = np.zeros((len(tags), len(tags)))
    for after, tag in enumerate(tags):
        mark, _, kind = tag.partition("-")
        if mark == "I":
            fits = [before in (f"B-{kind}", tag) for before in tags]
            barred[:, after] = np.where(fits, 0, -np.inf)
    return barred


def likeliest(log_probs_TC: np.ndarray, tags: Sequence[str]) -> list[int]:
    """Gives a tag for each token: those of highest probability together of which none is inside an
    entity that has not begun (Viterbi 1967).

    Args:
        log_probs_TC: of each tag at each token.
        tags: of the BIO scheme.
    """
    if not len(log_probs_TC):
        return []
    barred = _barred(tuple(tags))
    # None is inside of an entity at the start.
    begin = [-np.inf if tag.startswith("I-") else 0.0 for tag in tags]
    best = log_probs_TC[0] + np.array(begin)
    came_from = []
    for here in log_probs_TC[1:]:
        paths = best[:, None] + barred
        came_from.append(paths.argmax(axis=0))
        best = paths.max(axis=0) + here
    path = [int(best.argmax())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return path[::-1]


def spans_of(tags: Sequence[str], offsets: Sequence[Span]) -> list[tuple[int, int, str]]:
    """Gives the entities that tags of the BIO scheme tell.

    One goes on as long as tags inside of its kind follow; one inside of another kind begins anew.

    Args:
        tags: of tokens in order.
        offsets: where each token stands.
    """
    found: list[tuple[int, int, str]] = []
    going = False
    for tag, (start, end) in zip(tags, offsets, strict=True):
        mark, _, kind = tag.partition("-")
        if mark == "O":
            going = False
        elif mark == "I" and going and found[-1][2] == kind:
            found[-1] = (found[-1][0], end, kind)
        else:
            found.append((start, end, kind))
            going = True
    return found

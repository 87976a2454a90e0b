"""What is added to the scores of classes, so that rare ones are told as often as F1 asks for."""

from __future__ import annotations

import numpy as np

PASSES = 5
# Scores that are nearer to each other count as one.
APART = 1e-5


def offsets_of(scores_NC: np.ndarray, right_NC: np.ndarray, several: bool) -> list[float]:
    """Gives what to add to each class's score, by examples that nothing was learnt from.

    Where any number of classes may be right each has a threshold of its own, the one of highest F1.
    Where one is, the offsets rise and fall one after another as long as macro-F1 rises by it.

    Args:
        scores_NC: logits.
        right_NC: whether a class is right, bool.
        several: any number of classes may be right.
    """
    classes = scores_NC.shape[1]
    if several:
        return [_threshold(scores_NC[:, c], right_NC[:, c]) for c in range(classes)]
    offsets, gold = np.zeros(classes), right_NC.argmax(axis=1)
    best = _macro_f1(scores_NC.argmax(axis=1), gold, classes)
    for _ in range(PASSES):
        before = best
        for number in range(classes):
            found, offset = _raised(scores_NC + offsets, gold, number)
            # What a tie would change is not worth it.
            if found > best + 1e-9:
                best = found
                offsets[number] += offset
        if best <= before:
            break
    return [round(float(offset), 6) for offset in offsets - offsets.mean()]


def _threshold(scores: np.ndarray, right: np.ndarray) -> float:
    """Gives what makes a score above zero tell the class with the highest F1; 0 without any."""
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    true = right[order].cumsum()
    f1 = 2 * true / (np.arange(1, len(scores) + 1) + right.sum())
    ranked = scores[order]
    # Those of one score are told together.
    ends = np.append(ranked[:-1] - ranked[1:] > APART, True)
    cut = int(np.where(ends, f1, -1.0).argmax())
    below = ranked[cut + 1] if cut + 1 < len(ranked) else ranked[cut] - 1.0
    return round(float(-(ranked[cut] + below) / 2), 6)


def _raised(scores: np.ndarray, gold: np.ndarray, number: int) -> tuple[float, float]:
    """Gives the highest macro-F1 that adding to one class's score reaches, and what is added."""
    classes = scores.shape[1]
    others = scores.copy()
    others[:, number] = -np.inf
    other = others.argmax(axis=1)
    # From here on the class is told.
    needed = others.max(axis=1) - scores[:, number]
    order = np.argsort(needed, kind="stable")
    one_hot = np.eye(classes)
    told = np.bincount(other, minlength=classes) - np.vstack(
        [np.zeros(classes), one_hot[other[order]].cumsum(axis=0)]
    )
    hit = np.bincount(other[other == gold], minlength=classes) - np.vstack(
        [np.zeros(classes), (one_hot[other] * (other == gold)[:, None])[order].cumsum(axis=0)]
    )
    moved = np.arange(len(gold) + 1)
    told[:, number] += moved
    hit[:, number] += np.append(0, (gold[order] == number).cumsum())
    f1 = _f1(hit, told, np.bincount(gold, minlength=classes))
    ranked = needed[order]
    edges = np.concatenate([[ranked[0] - 1.0], ranked, [ranked[-1] + 1.0]])
    # Between two that need the same there is no place.
    f1[np.diff(edges) <= APART] = -1.0
    cut = int(f1.argmax())
    return float(f1[cut]), float((edges[cut] + edges[cut + 1]) / 2)


def _f1(hit: np.ndarray, told: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Gives the mean F1 of classes that there are, `(…,)` from counts `(…, classes)`."""
    there = (told + true) > 0
    each = np.where(there, 2 * hit / np.maximum(told + true, 1), 0.0)
    return each.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)


def _macro_f1(told: np.ndarray, gold: np.ndarray, classes: int) -> float:
    counts = [np.bincount(x, minlength=classes) for x in (gold[told == gold], told, gold)]
    return float(_f1(*counts))

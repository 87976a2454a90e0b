"""What is added to the scores of classes, so that rare ones are told as often as F1 asks for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Way = Callable[[np.ndarray, np.ndarray, bool], list[float]]
PASSES, FOLDS = 5, 5
# How far scores are moved against the logarithm of their classes' shares, at most and in steps.
MOST_POWER, POWERS = 1.5, 31
SHARED_CUTS = 100
# Scores that are nearer to each other count as one.
APART = 1e-5


def offsets_of(scores_NC: np.ndarray, right_NC: np.ndarray, several: bool) -> list[float]:
    """Gives what to add to each class's score, by examples that nothing was learnt from.

    A threshold for each class fits few examples too well. So nothing, one number for all classes,
    and thresholds of each are tried on fifths of the examples that they do not come from, and the
    way of the highest macro-F1 is taken, the simplest of equals.

    Args:
        scores_NC: logits.
        right_NC: whether a class is right, bool.
        several: any number of classes may be right.
    """
    ways: tuple[Way, ...] = (_nothing, _one_number, each_class)
    fold = _folds(right_NC)
    best, chosen = -1.0, ways[0]
    for way in ways:
        moved = scores_NC.astype(float)
        for number in range(FOLDS):
            here = fold == number
            if here.any() and not here.all():
                moved[here] += way(scores_NC[~here], right_NC[~here], several)
        found = _f1_of(moved, right_NC, several)
        if found > best + 1e-9:
            best, chosen = found, way
    return chosen(scores_NC, right_NC, several)


def _folds(right_NC: np.ndarray) -> np.ndarray:
    """Gives the part that each example falls into; those of one class fall into all alike."""
    order = np.lexsort(right_NC.T)
    fold = np.empty(len(right_NC), np.int64)
    fold[order] = np.arange(len(right_NC)) % FOLDS
    return fold


def _nothing(scores_NC: np.ndarray, right_NC: np.ndarray, several: bool) -> list[float]:
    return [0.0] * scores_NC.shape[1]


def _one_number(scores_NC: np.ndarray, right_NC: np.ndarray, several: bool) -> list[float]:
    """Gives offsets that one number decides: a threshold for all classes or, where one class is
    right, the power of the classes' shares that scores are divided by."""
    if several:
        cuts = np.quantile(scores_NC, np.linspace(0, 1, SHARED_CUTS))
        tried = [np.full(scores_NC.shape[1], -cut) for cut in (0.0, *cuts)]
    else:
        shares = np.log((right_NC.sum(axis=0) + 1) / (len(right_NC) + right_NC.shape[1]))
        tried = [-power * shares for power in np.linspace(0, MOST_POWER, POWERS)]
    found = [_f1_of(scores_NC + offsets, right_NC, several) for offsets in tried]
    best = tried[int(np.argmax(found))]
    return [round(float(x), 6) for x in (best if several else best - best.mean())]


def each_class(scores_NC: np.ndarray, right_NC: np.ndarray, several: bool) -> list[float]:
    """Gives what to add to each class's score for the highest F1 on these examples.

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


def _f1_of(scores_NC: np.ndarray, right_NC: np.ndarray, several: bool) -> float:
    """Gives the macro-F1 of what scores tell."""
    if several:
        told = scores_NC > 0
        return float(_f1((told & right_NC).sum(axis=0), told.sum(axis=0), right_NC.sum(axis=0)))
    return _macro_f1(scores_NC.argmax(axis=1), right_NC.argmax(axis=1), scores_NC.shape[1])


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

"""How often each training document comes, so that shares of tokens are what was asked for.

Shares are by source, language or label, given as weights or by a temperature (Conneau and Lample
2019, "Cross-lingual language model pretraining": shares in proportion to size^(1/temperature)).
Documents with rare words or rare sentence shapes come more often. What repeats is capped: beyond
about four epochs repeated text teaches little (Muennighoff et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tianti.corpus.config import BalanceConfig
from tianti.errors import UserError
from tianti.messages import tr
from tianti.tokens.rarity import DocumentRarity


@dataclass(frozen=True)
class Balanced:
    """What comes how often.

    Args:
        repeats: times each document comes, int64; 0 leaves it out.
        kinds: for each kind `documents`, `tokens_before`, `tokens_after`, `share_before`,
            `share_after`, `share_wanted` and `epochs`.
    """

    repeats: np.ndarray
    kinds: dict[str, dict[str, Any]]


def balance(
    config: BalanceConfig, kinds: list[str], tokens: np.ndarray, rarity: DocumentRarity | None
) -> Balanced:
    """Decides how often each document comes.

    As many tokens are used as the caps allow, and no kind is repeated that need not be: the kind
    whose share is smallest for its size comes once.

    Args:
        config: shares, caps, rarity.
        kinds: the kind of each document.
        tokens: the tokens of each document, int64.
        rarity: how rare each document is, where that counts.

    Raises:
        UserError: weights name kinds that are not there, or leave some out.
    """
    names, of_document = np.unique(np.array(kinds, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(of_document, weights=tokens, minlength=len(names))
    shares = _wanted_shares(config, names.tolist(), sizes)
    _refuse_unknown_caps(config, names.tolist())
    factor = np.ones(len(tokens))
    if config.rare is not None and rarity is not None:
        factor[rarity.rarest(config.rare.share, tokens)] = config.rare.epochs
    caps = np.array([_cap(config, name) for name in names])
    raised = np.bincount(of_document, weights=factor * tokens, minlength=len(names))
    asked = shares > 0
    total = min(
        np.max(raised[asked] / shares[asked]), np.min((caps * sizes)[asked] / shares[asked])
    )
    repeats = np.zeros(len(tokens), np.int64)
    for number in range(len(names)):
        here = np.flatnonzero(of_document == number)
        goal = total * shares[number]
        exact = _filled(factor[here], tokens[here], goal, caps[number])
        repeats[here] = _rounded(exact, tokens[here])
    after = np.bincount(of_document, weights=repeats * tokens, minlength=len(names))
    rows = {
        name: {
            "documents": int((of_document == number).sum()),
            "tokens_before": int(sizes[number]),
            "tokens_after": int(after[number]),
            "share_before": float(sizes[number] / sizes.sum()),
            "share_after": float(after[number] / max(after.sum(), 1)),
            "share_wanted": float(shares[number]),
            "epochs": float(after[number] / max(sizes[number], 1)),
        }
        for number, name in enumerate(names.tolist())
    }
    return Balanced(repeats, rows)


def _cap(config: BalanceConfig, name: str) -> float:
    if isinstance(config.max_epochs, dict):
        return config.max_epochs.get(name, np.inf)
    return config.max_epochs


def _refuse_unknown_caps(config: BalanceConfig, names: list[str]) -> None:
    caps = config.max_epochs if isinstance(config.max_epochs, dict) else {}
    if unknown := sorted(set(caps) - set(names)):
        raise UserError(
            tr("there is no kind {name!r}", name=unknown[0]),
            where="corpus.balance.max_epochs",
            remedy=tr("Kinds here: {names}", names=", ".join(names)),
        )


def _wanted_shares(config: BalanceConfig, names: list[str], sizes: np.ndarray) -> np.ndarray:
    if config.weights is None:
        shares = sizes ** (1 / (config.temperature or 1.0))
        return shares / shares.sum()
    unknown = sorted(set(config.weights) - set(names))
    missing = sorted(set(names) - set(config.weights))
    if unknown or missing:
        raise UserError(
            tr(
                "the weights do not fit the text: not there {unknown}; without weight {missing}",
                unknown=unknown or "–",
                missing=missing or "–",
            ),
            where="corpus.balance.weights",
            remedy=tr("Kinds here: {names}", names=", ".join(names)),
        )
    weights = np.array([config.weights[name] for name in names])
    if weights.min() < 0 or not weights.sum() > 0:
        raise UserError(
            tr("weights must not be negative, nor all zero"), where="corpus.balance.weights"
        )
    return weights / weights.sum()


def _filled(factor: np.ndarray, tokens: np.ndarray, goal: float, cap: float) -> np.ndarray:
    """Gives how often each document comes, in fractions: in proportion to its factor, capped."""
    low, high = 0.0, cap / factor.min() if np.isfinite(cap) else 2 * goal / max(tokens.sum(), 1)
    for _ in range(60):
        middle = (low + high) / 2
        if (np.minimum(middle * factor, cap) * tokens).sum() < goal:
            low = middle
        else:
            high = middle
    return np.minimum(high * factor, cap)


def _rounded(exact: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Gives whole numbers whose tokens add up as the fractions do, to within a short document.

    What a document is rounded by is carried to the next, from the longest to the shortest.
    """
    out = np.floor(exact + 1e-9).astype(np.int64)
    carry = 0.0
    for place in np.argsort(-tokens, kind="stable").tolist():
        carry += (exact[place] - out[place]) * tokens[place]
        if carry >= tokens[place] / 2:
            out[place] += 1
            carry -= tokens[place]
    return out

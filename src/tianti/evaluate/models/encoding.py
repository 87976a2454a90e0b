"""Texts as tokens that fit: where what is asked begins, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tianti.errors import UserError
from tianti.evaluate.models.base import Request
from tianti.evaluate.models.prefixes import Asked
from tianti.messages import tr


@dataclass(frozen=True)
class Encoded:
    """A request as tokens.

    Args:
        asked: context and continuation, and where the continuation begins.
        size: bytes of the continuation, UTF-8.
        truncated: tokens of the context that were left out.
    """

    asked: Asked
    size: int
    truncated: int


def encode_requests(
    requests: Sequence[Request],
    encode: Callable[[str], np.ndarray],
    begin: int,
    context: int,
    *,
    always_begin: bool = True,
) -> list[Encoded]:
    """Gives requests as tokens, in order.

    What is asked begins with the first token that the context alone would not have: where a token
    crosses from one to the other, it is asked for whole. The options of one item are all asked from
    the earliest such place, so that each answers for the same characters.

    Args:
        requests: what is asked.
        encode: gives the tokens of a text.
        begin: the token that stands before a text.
        context: most tokens the model reads; of a longer context the end is taken.
        always_begin: whether `begin` stands before every text, or only where nothing else does.

    Raises:
        UserError: a continuation has no token, or is alone longer than the context.
    """
    texts = [_moved_blanks(request) for request in requests]
    wholes = [encode(before + asked) for before, asked in texts]
    starts = [
        _common(encode(before), whole) for (before, _), whole in zip(texts, wholes, strict=True)
    ]
    earliest: dict[tuple[int, str], int] = {}
    for request, start in zip(requests, starts, strict=True):
        if request.item is not None:
            key = request.item, request.context
            earliest[key] = min(start, earliest.get(key, start))
    found = []
    for request, whole, start in zip(requests, wholes, starts, strict=True):
        if request.item is not None:
            start = earliest[request.item, request.context]
        found.append(_encoded(request, whole, start, begin, context, always_begin))
    return found


def _moved_blanks(request: Request) -> tuple[str, str]:
    # A blank before a word belongs to the word's token, so to what is asked.
    before = request.context.rstrip()
    return before, request.context[len(before) :] + request.continuation


def _common(one: np.ndarray, other: np.ndarray) -> int:
    common = min(len(one), len(other))
    differs = np.flatnonzero(one[:common] != other[:common])
    return int(differs[0]) if len(differs) else common


def _encoded(
    request: Request, whole: np.ndarray, start: int, begin: int, context: int, always_begin: bool
) -> Encoded:
    if not start or always_begin:
        whole = np.concatenate(([begin], whole))
        start += 1
    over = max(0, len(whole) - 1 - context)
    if over >= start or start >= len(whole):
        raise UserError(
            tr("a continuation of {tokens} tokens cannot be scored", tokens=len(whole) - start),
            where=request.continuation[:60],
            remedy=tr("Give one that is not empty and shorter than the model's context"),
        )
    size = len(request.continuation.encode("utf-8", "surrogatepass"))
    return Encoded(Asked(whole[over:], start - 1 - over), size, over)


def room_for_prompt(context: int, max_tokens: int) -> int:
    """Gives how many tokens of a prompt fit beside the one that begins a text and new ones.

    Raises:
        UserError: none do.
    """
    room = context - 1 - max_tokens
    if room < 1:
        raise UserError(
            tr(
                "{tokens} new tokens leave no room for a prompt in a context of {context}",
                tokens=max_tokens,
                context=context,
            ),
            where="max_tokens",
            remedy=tr("Set max_tokens below the model's context"),
        )
    return room

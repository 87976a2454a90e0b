"""Bits per byte of a model on documents: every token scored once, none without context."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tianti.errors import UserError
from tianti.evaluate.statistics import Metric, bootstrap_ratio
from tianti.messages import tr
from tianti.model.transformer import Transformer

# A CPU is fastest where the activations stay in its cache (half as fast again as with 8,192).
BATCH_TOKENS = {"cpu": 2_048, "gpu": 32_768}


@dataclass(frozen=True)
class DocumentScore:
    """What a model makes of one document."""

    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Gives the bits per UTF-8 byte."""
        return self.nats / math.log(2) / max(self.bytes, 1)


@dataclass(frozen=True)
class Window:
    """A stretch of a document that is computed at once.

    Args:
        document: number of the document.
        ids: input tokens.
        labels: the token after each input.
        first_scored: where scoring starts; what lies before is context scored by another window.
    """

    document: int
    ids: np.ndarray
    labels: np.ndarray
    first_scored: int


def windows(
    document: int, tokens: np.ndarray, *, begin: int, context: int, stride: int
) -> Iterator[Window]:
    """Cuts a document into overlapping windows that score each token exactly once.

    Args:
        document: number of the document.
        tokens: its tokens, without end-of-text.
        begin: the id that stands before the first token (end-of-text).
        context: longest window.
        stride: tokens by which a window moves on, at most `context`; from the second window on
            at least `context - stride` tokens of context lie before every scored token.
    """
    inputs = np.concatenate([[begin], tokens[:-1]]).astype(np.int64)
    labels = tokens.astype(np.int64)
    scored = 0
    while scored < len(labels):
        stop = min(len(labels), context if scored == 0 else scored + stride)
        start = max(0, stop - context)
        yield Window(document, inputs[start:stop], labels[start:stop], scored - start)
        scored = stop


def score_documents(
    model: Transformer,
    documents: Iterable[tuple[np.ndarray, int]],
    *,
    begin: int,
    stride: int | None = None,
    batch_tokens: int | None = None,
    on_progress: Callable[[int], None] = lambda tokens: None,
) -> list[DocumentScore]:
    """Gives the score of each document, in order.

    Args:
        model: the network.
        documents: tokens (without end-of-text) and number of UTF-8 bytes of each document.
        begin: the id that stands before the first token.
        stride: see `windows`; half of the context when not given.
        batch_tokens: tokens computed at once, padding included; by device when not given.
        on_progress: told how many tokens have been scored.

    Raises:
        UserError: the stride is longer than the context, so tokens would be passed over.
    """
    context = model.config.context
    if stride is not None and not 1 <= stride <= context:
        raise UserError(
            tr(
                "a stride of {stride} does not fit the context of {context}",
                stride=stride,
                context=context,
            ),
            remedy=tr("Choose a stride between 1 and the context"),
        )
    batch_tokens = batch_tokens or BATCH_TOKENS["cpu" if model.device.type == "cpu" else "gpu"]
    sizes: list[tuple[int, int]] = []
    pieces: list[Window] = []
    for number, (tokens, num_bytes) in enumerate(documents):
        sizes.append((len(tokens), num_bytes))
        if len(tokens):
            pieces.extend(
                windows(number, tokens, begin=begin, context=context, stride=stride or context // 2)
            )
    nats = np.zeros(len(sizes))
    # Windows of about one length go together, so that little is padding.
    pieces.sort(key=lambda piece: len(piece.ids), reverse=True)
    start = 0
    while start < len(pieces):
        rows = max(1, batch_tokens // len(pieces[start].ids))
        group = pieces[start : start + rows]
        for piece, value in zip(group, _nats_of(model, group), strict=True):
            nats[piece.document] += value
        on_progress(sum(len(piece.ids) - piece.first_scored for piece in group))
        start += rows
    return [
        DocumentScore(float(value), tokens, num_bytes)
        for value, (tokens, num_bytes) in zip(nats, sizes, strict=True)
    ]


@torch.no_grad()
def _nats_of(model: Transformer, group: list[Window]) -> list[float]:
    """Gives the summed loss over the scored tokens of each window."""
    longest = len(group[0].ids)
    ids = np.zeros((len(group), longest), dtype=np.int64)
    labels = np.full((len(group), longest), -100, dtype=np.int64)
    for row, piece in enumerate(group):
        # Padding stands behind, where causal attention never looks.
        ids[row, : len(piece.ids)] = piece.ids
        labels[row, piece.first_scored : len(piece.ids)] = piece.labels[piece.first_scored :]
    device = model.device
    hidden = model(torch.from_numpy(ids).to(device))
    labels_on = torch.from_numpy(labels).to(device)
    # The output layer is half of a small model; where nothing is scored it is not needed.
    scored = labels_on != -100
    losses: Tensor = F.cross_entropy(
        model.logits(hidden[scored]), labels_on[scored], reduction="none"
    )
    nats = torch.zeros(labels_on.shape, dtype=torch.float64, device=device)
    nats[scored] = losses.double()
    return nats.sum(dim=1).tolist()


def bits_per_byte(scores: list[DocumentScore]) -> Metric:
    """Gives the bits per byte over all documents, its interval by a bootstrap over documents."""
    bits = np.array([score.nats for score in scores]) / math.log(2)
    return bootstrap_ratio(bits, np.array([score.bytes for score in scores], dtype=np.float64))


def perplexity_per_token(scores: list[DocumentScore]) -> Metric:
    """Gives exp(nats per token) over all documents; compares only between equal tokenizers."""
    ratio = bootstrap_ratio(
        np.array([score.nats for score in scores]),
        np.array([score.tokens for score in scores], dtype=np.float64),
    )
    return Metric(math.exp(ratio.value), math.exp(ratio.low), math.exp(ratio.high), ratio.n)

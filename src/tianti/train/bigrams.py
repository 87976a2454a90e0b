"""A start from the text's bigrams: the network knows what follows each token before step 1.

How often one token follows another is counted in a second; from weights that are random a training
on a laptop takes most of its budget to learn as much. The embedding and the output layer start as
the factors of that table, the layers between them start as the identity (`model.initialization`),
so that the first steps are spent on what a table cannot hold. Setting the output's bias to the
unigrams is known (Meister et al. 2023, arXiv:2212.09686), as are embeddings from the text at hand
(Welch et al. 2020, arXiv:2010.06762); this is both of a bigram. Figures: docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tianti.model.initialization import fill_whole
from tianti.model.transformer import Transformer
from tianti.progress import SILENT, Display
from tianti.tokens.shards import TokenSplit
from tianti.train.bigram_cost import ROWS, STEPS, rows_at_once

LEARNING_RATE = 0.005
MOST_TOKENS, SLICES = 20_000_000, 64
# Products with a table of this many rows are faster with all of it than with what is not zero.
DENSE_UP_TO = 8192
# Of every count, given to what was not seen (absolute discounting, Ney et al. 1994).
DISCOUNT = 0.75
# What layers write into the stream is small beside the embedding as long as it is still noise.
EMBEDDING_RMS = 2.0
_LEAST = 1e-8


@dataclass(frozen=True)
class BigramTable:
    """P(next | token) as what was seen and a share that falls back on the unigrams.

    Args:
        starts: where the row of each token begins, int64 `(vocabulary + 1,)`.
        columns: the tokens that followed, int64.
        seen: discounted probability of each, float32.
        backoff: share of each row that is spread as the unigrams are, float32 `(vocabulary,)`.
        unigrams: share of each token, float32 `(vocabulary,)`.
    """

    starts: Tensor
    columns: Tensor
    seen: Tensor
    backoff: Tensor
    unigrams: Tensor

    def rows(self, tokens: Tensor) -> Tensor:
        """Gives P(next | token) of some tokens, `(tokens, vocabulary)`."""
        dense = self.backoff[tokens, None] * self.unigrams
        begin, end = self.starts[tokens], self.starts[tokens + 1]
        lengths = end - begin
        row = torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), lengths)
        offset = torch.arange(len(row), device=tokens.device) - (lengths.cumsum(0) - lengths)[row]
        place = begin[row] + offset
        dense[row, self.columns[place]] += self.seen[place]
        return dense

    def to(self, device: torch.device) -> BigramTable:
        """Gives the table on a device."""
        return BigramTable(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def count_bigrams(split: TokenSplit, vocab_size: int) -> BigramTable:
    """Gives the bigrams of a split; of a very long one those of evenly spread slices.

    Args:
        split: the tokens.
        vocab_size: bound of the ids.
    """
    total = split.num_tokens
    count, length = (1, total) if total <= MOST_TOKENS else (SLICES, MOST_TOKENS // SLICES)
    pairs = []
    for start in np.linspace(0, total - length, count).astype(np.int64):
        ids = split.read(int(start), int(start) + length)
        pairs.append(ids[:-1] * vocab_size + ids[1:])
    keys, counts = np.unique(np.concatenate(pairs), return_counts=True)
    row, column = np.divmod(keys, vocab_size)
    sums = np.bincount(row, counts, vocab_size)
    kinds = np.bincount(row, minlength=vocab_size)
    follows = np.bincount(column, counts, vocab_size)
    safe = np.maximum(sums, 1)
    backoff = np.where(sums > 0, DISCOUNT * kinds / safe, 1.0)
    return BigramTable(
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(kinds)])),
        columns=torch.from_numpy(column),
        seen=torch.from_numpy(((counts - DISCOUNT) / safe[row]).astype(np.float32)),
        backoff=torch.from_numpy(backoff.astype(np.float32)),
        unigrams=torch.from_numpy((follows / follows.sum()).astype(np.float32)) + _LEAST,
    )


def factors(table: BigramTable, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Gives matrices whose product is near the logarithm of P(next | token) / P(next).

    A truncated singular value decomposition by random projection (Halko et al. 2011), in which each
    row and column counts by its frequency. What was never seen is a matrix of rank 1, so that only
    what was seen is ever multiplied.

    Args:
        table: of bigrams.
        width: rank; the vocabulary's where that is less.
        seed: of the projection.

    Returns:
        `(vocabulary, width)` twice: for the token before and for the one after.
    """
    vocab_size = len(table.unigrams)
    rank = min(width, vocab_size)
    weight = (table.unigrams + 1e-6).sqrt()
    row = torch.repeat_interleave(torch.arange(vocab_size), table.starts.diff())
    unseen = table.backoff[row] * table.unigrams[table.columns]
    gain = (table.seen / unseen).log1p() * weight[row] * weight[table.columns]
    shape = (vocab_size, vocab_size)
    places = torch.stack([row, table.columns])
    across = torch.sparse_coo_tensor(places, gain, shape, check_invariants=True).coalesce()
    if vocab_size <= DENSE_UP_TO:
        across = across.to_dense()
    down = across.t() if vocab_size <= DENSE_UP_TO else across.t().coalesce()
    fallen = table.backoff.clamp(min=_LEAST).log() * weight

    def times(x: Tensor) -> Tensor:
        return across @ x + fallen[:, None] * (weight @ x)

    def transposed_times(x: Tensor) -> Tensor:
        return down @ x + weight[:, None] * (fallen @ x)

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(vocab_size, min(rank + 8, vocab_size), generator=generator)
    basis = torch.linalg.qr(times(drawn)).Q
    basis = torch.linalg.qr(times(torch.linalg.qr(transposed_times(basis)).Q)).Q
    left, values, right = torch.linalg.svd(transposed_times(basis).T, full_matrices=False)
    root = values[:rank].sqrt()
    before = (basis @ left[:, :rank]) * root / weight[:, None]
    after = right[:rank].T * root / weight[:, None]
    missing = width - rank
    return F.pad(before, (0, missing)), F.pad(after, (0, missing))


def fit(
    table: BigramTable, width: int, seed: int, device: torch.device, display: Display = SILENT
) -> tuple[Tensor, Tensor]:
    """Gives embedding and output layer of a network without layers that knows the bigrams.

    Args:
        table: of bigrams.
        width: of the residual stream.
        seed: of all that is drawn.
        device: to compute on.
        display: shows progress.

    Returns:
        Embedding, each row of root mean square 1, and output layer, `(vocabulary, width)` each.
    """
    before, after = factors(table, width, seed)
    table = table.to(device)
    embedding = F.rms_norm(before, (width,)).to(device)
    output = (after / after.std()).to(device)
    common = table.unigrams.topk(min(ROWS, len(table.unigrams))).indices
    scales = (0.02, 0.05, 0.1, 0.2, 0.3)
    output *= min(scales, key=lambda scale: _loss(table, embedding, output * scale, common))
    rows = rows_at_once(len(table.unigrams))
    generator = torch.Generator().manual_seed(seed)
    frequencies = table.unigrams.cpu()
    optimizer = torch.optim.Adam([embedding, output], lr=LEARNING_RATE, betas=(0.9, 0.98))
    with display.task("bigrams", STEPS, "steps") as task:
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, 1.5 * (1 - step / STEPS))
            drawn = torch.multinomial(frequencies, rows, replacement=True, generator=generator)
            embedding.grad, output.grad = _gradients(table, embedding, output, drawn.to(device))
            optimizer.step()
            task.advance()
    return F.rms_norm(embedding, (width,)), output


def _loss(table: BigramTable, embedding: Tensor, output: Tensor, tokens: Tensor) -> float:
    logits = embedding[tokens] @ output.T
    nats = logits.logsumexp(1) - (table.rows(tokens) * logits).sum(1)
    return (nats * table.unigrams[tokens]).sum().item()


def _gradients(
    table: BigramTable, embedding: Tensor, output: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Gives the gradients of the mean cross-entropy of some tokens' rows."""
    width = embedding.shape[1]
    x = embedding[tokens]
    scale = (x.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()
    normed = x * scale
    logits = normed @ output.T
    slope = logits.sub_(logits.logsumexp(1, keepdim=True)).exp_()
    slope = slope.sub_(table.rows(tokens)).div_(len(tokens))
    back = slope @ output
    back = (back - normed * (back * normed).sum(1, keepdim=True) / width) * scale
    return torch.zeros_like(embedding).index_add_(0, tokens, back), slope.T @ normed


@torch.no_grad()
def start_from_bigrams(
    model: Transformer,
    split: TokenSplit,
    seed: int,
    display: Display = SILENT,
    fill: Callable[[Transformer, str, Tensor], None] = fill_whole,
) -> None:
    """Sets embedding and output layer of an initialised network to what bigrams say.

    Args:
        model: whose output layer is not tied to the embedding.
        split: tokens to count.
        seed: of all that is drawn.
        display: shows progress.
        fill: puts values into a parameter of that name.
    """
    assert not model.config.tied_embeddings
    table = count_bigrams(split, model.config.vocab_size)
    embedding, output = fit(table, model.config.width, seed, model.device, display)
    fill(model, "embedding.weight", embedding * EMBEDDING_RMS)
    fill(model, "head.weight", output)

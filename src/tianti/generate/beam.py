"""Beam search: the text that is likeliest as a whole, among those a few beginnings lead to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tianti.generate.batch import HELD_TOKENS, alike, check_fit, prefill
from tianti.model.cache import KeyValueCache
from tianti.model.transformer import Transformer


@dataclass
class _Search:
    """What is known of one text.

    Args:
        ids: new tokens of the beginnings that go on, likeliest first.
        finished: score and new tokens of texts that have ended, the best few.
    """

    ids: list[list[int]] = field(default_factory=list)
    finished: list[tuple[float, list[int]]] = field(default_factory=list)

    def finish(self, score: float, ids: list[int], beams: int) -> None:
        self.finished.append((score, ids))
        self.finished.sort(key=lambda pair: -pair[0])
        del self.finished[beams:]

    def is_over(self, best: float, beams: int) -> bool:
        """Tells whether what goes on is behind all that has ended, at the length it has now."""
        return len(self.finished) == beams and best <= self.finished[-1][0]


@torch.no_grad()
def search_beams(
    model: Transformer,
    starts: Sequence[Sequence[int]],
    ends: Sequence[int],
    *,
    beams: int,
    max_tokens: int,
    length_penalty: float = 1.0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """Gives the new tokens of the best text that follows each prompt, without the one that ends it.

    At each step the likeliest `beams` beginnings go on, together with as many in reserve for those
    that end. Texts that have ended are compared by log probability over their length, the end
    counted, to the power of `length_penalty` (Wu et al. 2016, without coverage); a search is over
    when the likeliest beginning is behind the last of `beams` ended ones. The same as
    `transformers.generate(num_beams=…)`.

    Args:
        model: the network.
        starts: tokens of the prompts.
        ends: tokens that end a text.
        beams: beginnings at once, 1 or more.
        max_tokens: most new tokens.
        length_penalty: above 0 longer texts are less at a disadvantage; 0 compares as they are.
        on_progress: told how many are finished.

    Raises:
        UserError: a prompt alone fills the context.
    """
    begun = [list(ids) for ids in starts]
    check_fit(begun, model.config.context)
    held = HELD_TOKENS["cpu" if model.device.type == "cpu" else "gpu"]
    found: dict[int, list[int]] = {}
    for group in alike(begun, max_tokens, max(1, held // beams)):
        run = _Run(model, [begun[n] for n in group], ends, beams, max_tokens, length_penalty)
        for number, ids in zip(group, run.best(), strict=True):
            found[number] = ids
        on_progress(len(group))
    return [found[number] for number in range(len(begun))]


class _Run:
    """Searches that share their steps; `beams` rows of the cache belong to each."""

    def __init__(
        self,
        model: Transformer,
        starts: list[list[int]],
        ends: Sequence[int],
        beams: int,
        max_tokens: int,
        length_penalty: float,
    ):
        self._model, self._beams, self._penalty = model, beams, length_penalty
        self._ends = torch.tensor(sorted(set(ends)), device=model.device)
        # The text stands within the context, as when it is written token by token.
        self._most = [min(max_tokens, model.config.context + 1 - len(ids)) for ids in starts]
        self._searches = [_Search([[]]) for _ in starts]
        longest = max(map(len, starts))
        capacity = longest + max(self._most)
        dtype = model.embedding.weight.dtype
        self._cache = KeyValueCache(model.config, len(starts), capacity, model.device, dtype)
        self._pads = torch.tensor([longest - len(ids) for ids in starts], device=model.device)
        pad = min(ends)
        rows = [[pad] * (longest - len(ids)) + ids for ids in starts]
        rows_BT = torch.tensor(rows, device=model.device)
        self._hidden = prefill(model, rows_BT, self._pads, self._cache)

    def best(self) -> list[list[int]]:
        """Gives the best text of each search."""
        alive, made = list(range(len(self._searches))), 0
        # One beginning at first: the same twice would be no two.
        scores_NK = torch.zeros(len(alive), 1, device=self._model.device)
        while alive:
            made += 1
            log_probs_NKV = self._log_probs(scores_NK)
            # Each beginning may end in as many ways as there are ends, and as many go on.
            count = min((len(self._ends) + 1) * self._beams, log_probs_NKV[0].numel())
            best_NC, flat_NC = log_probs_NKV.flatten(1).topk(count)
            from_NC = flat_NC // log_probs_NKV.shape[2]
            token_NC = flat_NC % log_probs_NKV.shape[2]
            ends_NC = torch.isin(token_NC, self._ends)
            alive, rows, kept = self._advance(
                made, alive, log_probs_NKV.shape[1], best_NC, from_NC, token_NC, ends_NC
            )
            if alive:
                scores_NK = torch.tensor([[s for s, _ in row] for row in kept]).to(best_NC)
                self._step(rows, [token for row in kept for _, token in row])
        return [search.finished[0][1] for search in self._searches]

    def _log_probs(self, scores_NK: Tensor) -> Tensor:
        logits = self._model.logits(self._hidden[:, -1]).float()
        return scores_NK[..., None] + logits.log_softmax(-1).unflatten(0, scores_NK.shape)

    def _advance(
        self, made: int, alive: list[int], width: int, *candidates: Tensor
    ) -> tuple[list[int], list[int], list[list[tuple[float, int]]]]:
        """Ends what ends and chooses what goes on.

        Returns:
            The searches that go on, the rows of the cache that their beginnings come from, and
            score and token of each.
        """
        going, rows, kept = [], [], []
        length = made**self._penalty
        for place, (number, *columns) in enumerate(
            zip(alive, *(part.tolist() for part in candidates), strict=True)
        ):
            search, last = self._searches[number], made == self._most[number]
            chosen: list[tuple[float, int, int]] = []
            for rank, (score, origin, token, ended) in enumerate(zip(*columns, strict=True)):
                if ended or last:
                    if rank < self._beams:
                        ids = search.ids[origin] + ([] if ended else [token])
                        search.finish(score / length, ids, self._beams)
                elif len(chosen) < self._beams:
                    chosen.append((score, origin, token))
            if last or not chosen or search.is_over(chosen[0][0] / length, self._beams):
                continue
            # Where the vocabulary has fewer entries than there are beams, the last is repeated.
            ids = [search.ids[origin] + [token] for _, origin, token in chosen]
            chosen += [(-torch.inf, *chosen[-1][1:])] * (self._beams - len(chosen))
            search.ids = ids + [ids[-1]] * (self._beams - len(ids))
            going.append(number)
            rows += [place * width + origin for _, origin, _ in chosen]
            kept.append([(score, token) for score, _, token in chosen])
        return going, rows, kept

    def _step(self, rows: list[int], tokens: list[int]) -> None:
        """Computes the next states of the beginnings that go on."""
        device, cache = self._model.device, self._cache
        if rows != list(range(len(self._pads))):
            kept = torch.tensor(rows, device=device)
            cache.keep(kept)
            self._pads = self._pads[kept]
        places = torch.arange(cache.length + 1, device=device)
        self._hidden = self._model(
            torch.tensor(tokens, device=device)[:, None],
            positions_BT=(cache.length - self._pads)[:, None],
            mask=(places >= self._pads[:, None])[:, None, None],
            cache=cache,
        )

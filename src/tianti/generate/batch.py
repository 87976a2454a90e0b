"""Many generations at once: each the one it would be alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tianti.errors import UserError
from tianti.generate.config import SamplingConfig
from tianti.generate.engine import Generated, GrowingText
from tianti.generate.sampling import next_token
from tianti.messages import tr
from tianti.model.cache import KeyValueCache
from tianti.model.transformer import Transformer
from tianti.tokens.tokenizer import Tokenizer

# Tokens of prompts and answers held at once, padding included.
HELD_TOKENS = {"cpu": 16_384, "gpu": 262_144}


def generate_texts(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    on_progress: Callable[[int], None] = lambda done: None,
    starts: Sequence[Sequence[int]] | None = None,
    ends: Sequence[int] = (),
) -> list[Generated]:
    """Gives what a model goes on with, in order; all draw from the same seed.

    Args:
        model: the network.
        tokenizer: its tokenizer.
        prompts: texts to go on from.
        sampling: how to draw.
        on_progress: told how many are finished.
        starts: tokens to go on from, where these are not end-of-text and those of the texts.
        ends: tokens that end a text; end-of-text alone when not given.

    Raises:
        UserError: a prompt alone fills the context.
    """
    end = tokenizer.end_of_text
    begun = (
        [[end, *tokenizer.encode(prompt)] for prompt in prompts]
        if starts is None
        else [list(ids) for ids in starts]
    )
    context = model.config.context
    check_fit(begun, context)
    made: dict[int, Generated] = {}
    held = HELD_TOKENS["cpu" if model.device.type == "cpu" else "gpu"]
    for group in alike(begun, sampling.max_tokens, held):
        texts = [GrowingText(tokenizer, sampling.stop) for _ in group]
        _decode(model, [begun[n] for n in group], texts, sampling, frozenset(ends or (end,)))
        for number, text in zip(group, texts, strict=True):
            length = len(begun[number])
            made[number] = text.finished(prompts[number], length, sampling, context)
        on_progress(len(group))
    return [made[number] for number in range(len(prompts))]


def check_fit(starts: Sequence[Sequence[int]], context: int) -> None:
    """Tells whether prompts leave room in the context.

    Raises:
        UserError: one alone fills it.
    """
    if starts and (longest := max(map(len, starts))) >= context:
        raise UserError(
            tr(
                "the prompt has {tokens} tokens, the model's context is {context}",
                tokens=longest,
                context=context,
            ),
            remedy=tr("Shorten the prompt"),
        )


def alike(starts: list[list[int]], new: int, held: int) -> Iterator[list[int]]:
    """Gives the numbers of prompts of about one length together."""
    order = sorted(range(len(starts)), key=lambda number: len(starts[number]), reverse=True)
    while order:
        group = order[: max(1, held // (len(starts[order[0]]) + new))]
        yield group
        order = order[len(group) :]


@torch.no_grad()
def _decode(
    model: Transformer,
    starts: list[list[int]],
    texts: list[GrowingText],
    sampling: SamplingConfig,
    ends: frozenset[int],
) -> None:
    device, longest = model.device, max(map(len, starts))
    capacity = min(longest + sampling.max_tokens, longest + model.config.context)
    cache = KeyValueCache(model.config, len(starts), capacity, device, model.embedding.weight.dtype)
    pads = torch.tensor([longest - len(ids) for ids in starts], device=device)
    pad = min(ends)
    rows = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in starts], device=device)
    hidden = prefill(model, rows, pads, cache)
    seen = [torch.tensor(ids, device=device) for ids in starts]
    generators = [torch.Generator().manual_seed(sampling.seed) for _ in starts]
    alive = list(range(len(starts)))
    for made in range(sampling.max_tokens):
        logits = model.logits(hidden[:, -1])
        going, tokens = [], []
        for place, number in enumerate(alive):
            token = next_token(logits[place], seen[number], sampling, generators[number])
            if token in ends:
                continue
            texts[number].add(token)
            seen[number] = torch.cat((seen[number], seen[number].new_tensor([token])))
            # What would stand behind the context is not read any more.
            if not texts[number].stopped and len(seen[number]) <= model.config.context:
                going.append(place)
                tokens.append(token)
        if not going or made + 1 == sampling.max_tokens:
            return
        if len(going) < len(alive):
            kept = torch.tensor(going, device=device)
            cache.keep(kept)
            pads = pads[kept]
            alive = [alive[place] for place in going]
        places = torch.arange(cache.length + 1, device=device)
        hidden = model(
            torch.tensor(tokens, device=device)[:, None],
            positions_BT=(cache.length - pads)[:, None],
            mask=(places >= pads[:, None])[:, None, None],
            cache=cache,
        )


def prefill(model: Transformer, rows: Tensor, pads: Tensor, cache: KeyValueCache) -> Tensor:
    """Gives the last hidden state of prompts that padding moves to a common end."""
    places = torch.arange(rows.shape[1], device=rows.device)
    looks = (places[:, None] >= places) & (places >= pads[:, None, None])
    # Padding looks at itself, so that nothing is divided by nothing.
    looks |= torch.eye(len(places), dtype=torch.bool, device=rows.device)
    positions = (places - pads[:, None]).clamp(min=0)
    return model(rows, positions_BT=positions, mask=looks[:, None], cache=cache)

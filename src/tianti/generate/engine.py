"""The decoding loop: one entrance for text from a model."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from tianti.errors import UserError
from tianti.generate.config import SamplingConfig
from tianti.generate.sampling import next_token
from tianti.messages import tr
from tianti.model.cache import KeyValueCache
from tianti.model.transformer import Transformer
from tianti.tokens.tokenizer import Tokenizer

StopReason = Literal["end_of_text", "stop", "max_tokens", "context"]


@dataclass(frozen=True)
class Generated:
    """A finished generation.

    Args:
        prompt: what was given.
        text: what came out, without the prompt and the stop text.
        ids: the new tokens.
        reason: why it ended.
    """

    prompt: str
    text: str
    ids: list[int]
    reason: StopReason


@torch.no_grad()
def generate_ids(
    model: Transformer, ids: list[int], sampling: SamplingConfig, end_of_text: int
) -> Iterator[int]:
    """Gives new tokens one by one until end-of-text, `max_tokens` or the end of the context.

    Args:
        model: the network.
        ids: the tokens so far, at least one.
        sampling: how to draw.
        end_of_text: the id that ends a document; it is not given.

    Raises:
        UserError: the prompt alone fills the context.
    """
    context = model.config.context
    if len(ids) >= context:
        raise UserError(
            tr(
                "the prompt has {tokens} tokens, the model's context is {context}",
                tokens=len(ids),
                context=context,
            ),
            remedy=tr("Shorten the prompt"),
        )
    generator = torch.Generator().manual_seed(sampling.seed)
    capacity = min(context, len(ids) + sampling.max_tokens)
    cache = KeyValueCache(
        model.config, capacity=capacity, device=model.device, dtype=model.embedding.weight.dtype
    )
    seen = torch.tensor(ids, device=model.device)
    hidden = model(seen[None], cache=cache)
    for made in range(sampling.max_tokens):
        logits_V = model.logits(hidden[0, -1])
        token = next_token(logits_V, seen, sampling, generator)
        if token == end_of_text:
            return
        yield token
        seen = torch.cat((seen, seen.new_tensor([token])))
        if made + 1 < sampling.max_tokens and cache.length < capacity:
            hidden = model(seen[None, -1:], cache=cache)
        else:
            return


class TextStream:
    """Generates text from a prompt, piece by piece; `result` holds the whole at the end.

    Args:
        model: the network.
        tokenizer: its tokenizer.
        prompt: text to go on from; may be empty.
        sampling: how to draw.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, prompt: str, sampling: SamplingConfig
    ):
        self._model, self._tokenizer = model, tokenizer
        self._prompt, self._sampling = prompt, sampling
        self.result: Generated | None = None

    def __iter__(self) -> Iterator[str]:
        """Gives pieces of text that never cut a character and never hold a stop text."""
        end = self._tokenizer.end_of_text
        # A document begins with end-of-text, as it did in training.
        prompt_ids = [end, *self._tokenizer.encode(self._prompt)]
        growing = GrowingText(self._tokenizer, self._sampling.stop)
        for token in generate_ids(self._model, prompt_ids, self._sampling, end):
            growing.add(token)
            if piece := growing.news():
                yield piece
            if growing.stopped:
                break
        context = self._model.config.context
        self.result = growing.finished(self._prompt, len(prompt_ids), self._sampling, context)
        if piece := growing.news():
            yield piece


class GrowingText:
    """The text that tokens spell one by one.

    Args:
        tokenizer: what reads them.
        stops: texts at which it ends.

    Attributes:
        text: so far, without the stop text.
        ids: the tokens.
        stopped: a stop text has come.
    """

    def __init__(self, tokenizer: Tokenizer, stops: list[str]):
        self._tokenizer, self._stops = tokenizer, stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text, self.ids = "", list[int]()
        self.stopped = self._ended = False
        self._shown = 0

    def add(self, token: int) -> None:
        """Adds a token."""
        self.ids.append(token)
        self.text += self._decoder.decode(self._tokenizer.decode_bytes([token]))
        cut = _first_stop(self.text, self._stops)
        if cut is not None:
            self.text, self.stopped = self.text[:cut], True

    def news(self) -> str:
        """Gives what has come to be certain since the last call."""
        whole = self.stopped or self._ended
        safe = len(self.text) - (0 if whole else _held_back(self.text, self._stops))
        piece = self.text[self._shown : safe]
        self._shown = max(self._shown, safe)
        return piece

    def finished(
        self, prompt: str, prompt_tokens: int, sampling: SamplingConfig, context: int
    ) -> Generated:
        """Gives the whole, once no token follows."""
        reason: StopReason = "end_of_text"
        if self.stopped:
            reason = "stop"
        else:
            self.text += self._decoder.decode(b"", final=True)
            if len(self.ids) == sampling.max_tokens:
                reason = "max_tokens"
            elif prompt_tokens + len(self.ids) > context:
                reason = "context"
        self._ended = True
        return Generated(prompt, self.text, self.ids, reason)


def generate_text(
    model: Transformer, tokenizer: Tokenizer, prompt: str, sampling: SamplingConfig
) -> Generated:
    """Gives a whole generation at once."""
    stream = TextStream(model, tokenizer, prompt, sampling)
    for _ in stream:
        pass
    assert stream.result is not None
    return stream.result


def _first_stop(text: str, stops: list[str]) -> int | None:
    """Gives where the first stop text begins, or None."""
    found = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return min(found) if found else None


def _held_back(text: str, stops: list[str]) -> int:
    """Gives how many last characters could be the beginning of a stop text."""
    return max(
        (
            length
            for stop in stops
            for length in range(1, len(stop))
            if text.endswith(stop[:length])
        ),
        default=0,
    )

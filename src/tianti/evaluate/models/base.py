"""What a task asks of a model, and what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Request:
    """How likely is `continuation` after `context`?

    Args:
        context: what stands before.
        continuation: what is asked for.
        item: number of the item whose options this is one of; options with one context are asked
            from the same place on.
    """

    context: str
    continuation: str
    item: int | None = None


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of a continuation.

    Args:
        nats: minus its log-probability.
        tokens: it has.
        bytes: it has, UTF-8.
        greedy: whether each of its tokens was the likeliest.
        truncated: tokens of the context that were left out, because the model takes no more.
    """

    nats: float
    tokens: int
    bytes: int
    greedy: bool
    truncated: int = 0


@dataclass(frozen=True)
class Written:
    """What a model went on with.

    Args:
        text: of its own.
        truncated: tokens of the prompt that were left out, because the model takes no more.
    """

    text: str
    truncated: int = 0


class LanguageModel(Protocol):
    """Whoever answers."""

    name: str
    identity: str
    """A hash of all that decides its answers: weights, tokenizer, settings."""
    step: int | None
    """Of its training, where it is one of several checkpoints."""
    scores_first_token: bool
    """Whether it tells how likely a text's first token is."""

    def likelihoods(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Gives the likelihoods of continuations, in order."""

    def texts(self, texts: Sequence[str]) -> list[Likelihood]:
        """Gives the likelihoods of whole texts of any length, every token scored once."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        stop: list[str],
        temperature: float,
        seed: int,
    ) -> list[Written]:
        """Gives what the model goes on with, in order.

        Tokens are drawn from the whole distribution at a temperature, or are the likeliest at 0,
        whatever else a model's own settings say.
        """

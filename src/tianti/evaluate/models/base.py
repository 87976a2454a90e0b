"""What a task asks of a model, and what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Request:
    """How likely is `continuation` after `context`?"""

    context: str
    continuation: str


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


class LanguageModel(Protocol):
    """Whoever answers."""

    name: str
    identity: str
    """A hash of all that decides its answers: weights, tokenizer, settings."""
    step: int | None
    """Of its training, where it is one of several checkpoints."""

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
    ) -> list[str]:
        """Gives what the model goes on with, in order."""

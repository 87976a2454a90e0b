"""A network of ours that is asked as in a conversation, by its chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tianti.errors import UserError
from tianti.evaluate.models.base import Likelihood, Request
from tianti.evaluate.models.network import Network
from tianti.evaluate.models.prefixes import Asked
from tianti.messages import tr
from tianti.model.transformer import Transformer
from tianti.tokens.chat import ChatEncoder, ChatTemplate
from tianti.tokens.tokenizer import Tokenizer


class Conversing(Network):
    """A network that was tuned on conversations: what is given is said by a user, what is asked for
    by the assistant.

    Texts without a context are scored as they are.

    Args:
        folder: see `Network`.
        transformer: see there.
        tokenizer: see there.
        template: of the conversations.
        options: see there.
    """

    def __init__(
        self,
        folder: Path,
        transformer: Transformer,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        **options: Any,
    ):
        super().__init__(
            folder, transformer, tokenizer, settings=("chat", template.source), **options
        )
        self._chat = ChatEncoder(tokenizer.inner, template)

    @torch.no_grad()
    def likelihoods(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Gives the likelihoods of answers, in order; the token that ends one is not asked for.

        Raises:
            UserError: an answer has no token, or is alone longer than the context.
        """
        bare = [request for request in requests if not request.context.strip()]
        asked = [self._told(request) for request in requests if request.context.strip()]
        answers = self._answers([text for text, *_ in asked])
        plain = iter(super().likelihoods(bare))
        told = iter(
            Likelihood(nats, tokens, size, greedy, over)
            for (_, tokens, size, over), (nats, greedy) in zip(asked, answers, strict=True)
        )
        return [next(told if request.context.strip() else plain) for request in requests]

    def _told(self, request: Request) -> tuple[Asked, int, int, int]:
        """Gives a request as tokens, with tokens and bytes of the answer, and tokens left out."""
        answer = self._ids(request.continuation.strip())
        room = self.context + 1 - len(answer)
        if not len(answer) or room < 1:
            raise UserError(
                tr("a continuation of {tokens} tokens cannot be scored", tokens=len(answer)),
                where=request.continuation[:60],
                remedy=tr("Give one that is not empty and shorter than the model's context"),
            )
        before, over = self._asked(request.context, room)
        size = len(request.continuation.encode("utf-8", "surrogatepass"))
        whole = np.array([*before, *answer.tolist()], dtype=np.int64)
        return Asked(whole, len(before) - 1), len(answer), size, over

    def _asked(self, text: str, room: int) -> tuple[list[int], int]:
        """Gives the tokens after which the answer comes, and how many of the text are left out: of
        one that is too long the end is taken.

        Raises:
            UserError: the template alone does not fit.
        """
        ids = self._prompt(text)
        pieces, over = self._ids(text), 0
        while len(ids) > room:
            over += len(ids) - room
            if over >= len(pieces):
                raise UserError(
                    tr("the chat template alone fills {tokens} tokens", tokens=room),
                    remedy=tr("Ask without --chat, or give shorter answers"),
                )
            ids = self._prompt(self.tokenizer.decode(pieces[over:].tolist()))
        return ids, over

    def _prompt(self, text: str) -> list[int]:
        return self._chat.encode_prompt([{"role": "user", "content": text.strip()}])

    @property
    def _ends(self) -> Sequence[int]:
        return self.tokenizer.ends

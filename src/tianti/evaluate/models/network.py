"""A network of ours as one that answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tianti.errors import UserError
from tianti.evaluate.bits_per_byte import BATCH_TOKENS, score_documents
from tianti.evaluate.models.base import Likelihood, Request
from tianti.files import sha256_file
from tianti.generate.config import SamplingConfig
from tianti.generate.engine import generate_text
from tianti.messages import tr
from tianti.model.transformer import Transformer
from tianti.tokens.tokenizer import Tokenizer

MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")


def identity_of(folder: Path, *settings: object) -> str:
    """Gives a hash of a model directory's weights, shape and tokenizer, and of settings."""
    parts = [sha256_file(folder / name) for name in MODEL_FILES if (folder / name).is_file()]
    return hashlib.sha256(" ".join([*parts, *map(str, settings)]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Encoded:
    """A request as tokens.

    Args:
        whole: context and continuation; all but the last are read, all but the first predicted.
        first: place in what is read from which the continuation is predicted.
        size: bytes of the continuation.
        truncated: tokens of the context that were left out.
    """

    whole: np.ndarray
    first: int
    size: int
    truncated: int

    @property
    def ids(self) -> np.ndarray:
        return self.whole[:-1]

    @property
    def labels(self) -> np.ndarray:
        return self.whole[1:]

    @property
    def tokens(self) -> int:
        return len(self.whole) - 1 - self.first

    @property
    def key(self) -> tuple[bytes, int]:
        return self.whole.tobytes(), self.first


class Network:
    """A Transformer with its tokenizer.

    Args:
        folder: its directory, for its identity.
        transformer: the network.
        tokenizer: the tokenizer.
        begin: whether end-of-text stands before what is given, as before each document in
            training; without it, a request that has no context still gets it.

    Attributes:
        training_text: the documents it was trained on, where it lies in their run.
    """

    def __init__(
        self, folder: Path, transformer: Transformer, tokenizer: Tokenizer, *, begin: bool = True
    ):
        self.name = folder.parent.name if folder.name == "model" else folder.name
        self.identity = identity_of(folder, begin)
        corpus = folder.parent / "corpus" / "train"
        self.training_text = corpus if folder.name == "model" and corpus.is_dir() else None
        self._model, self._begin = transformer, begin
        self.tokenizer = tokenizer

    @torch.no_grad()
    def likelihoods(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Gives the likelihoods of continuations, in order.

        Raises:
            UserError: a continuation alone is longer than the context.
        """
        encoded = [self._encode(request) for request in requests]
        return [
            Likelihood(nats, one.tokens, one.size, greedy, one.truncated)
            for one, (nats, greedy) in zip(encoded, self._answers(encoded), strict=True)
        ]

    @torch.no_grad()
    def token_likelihoods(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[tuple[float, bool]]:
        """Gives nats and greediness of continuations after contexts, both as they are: tokens.

        Args:
            pairs: tokens of the context, at least one, and of the continuation, at least one; of a
                context that is too long the end is taken.
        """
        longest = self._model.config.context + 1
        encoded = []
        for before, asked in pairs:
            whole = np.array([*before, *asked], dtype=np.int64)[-longest:]
            encoded.append(_Encoded(whole, max(0, len(whole) - 1 - len(asked)), 0, 0))
        return self._answers(encoded)

    def _answers(self, encoded: Sequence[_Encoded]) -> list[tuple[float, bool]]:
        # What is asked twice is computed once, and rows of about one length go together.
        unique = {one.key: one for one in encoded}
        ordered = sorted(unique.values(), key=lambda one: len(one.ids), reverse=True)
        answers: dict[tuple[bytes, int], tuple[float, bool]] = {}
        budget = BATCH_TOKENS["cpu" if self._model.device.type == "cpu" else "gpu"]
        start = 0
        while start < len(ordered):
            group = ordered[start : start + max(1, budget // len(ordered[start].ids))]
            answers |= zip([one.key for one in group], self._answer(group), strict=True)
            start += len(group)
        return [answers[one.key] for one in encoded]

    def _encode(self, request: Request) -> _Encoded:
        context, continuation = request.context, request.continuation
        # A blank before a word belongs to the word's token, so to what is asked.
        blanks = len(context) - len(context.rstrip())
        if blanks:
            continuation = context[-blanks:] + continuation
            context = context[:-blanks]
        whole = self.tokenizer.encode_array(context + continuation).astype(np.int64)
        before = self.tokenizer.encode_array(context).astype(np.int64)
        # Where a token crosses from one to the other, what is asked begins with it.
        common = min(len(before), len(whole))
        same = np.flatnonzero(whole[:common] != before[:common])
        asked = int(same[0]) if len(same) else common
        if not asked or self._begin:
            whole = np.concatenate(([self.tokenizer.end_of_text], whole))
            asked += 1
        first = asked - 1
        over = max(0, len(whole) - 1 - self._model.config.context)
        if over > first or asked >= len(whole):
            raise UserError(
                tr("a continuation of {tokens} tokens cannot be scored", tokens=len(whole) - asked),
                where=request.continuation[:60],
                remedy=tr("Give one that is not empty and shorter than the model's context"),
            )
        size = len(request.continuation.encode("utf-8", "surrogatepass"))
        return _Encoded(whole[over:], first - over, size, over)

    def _answer(self, group: list[_Encoded]) -> list[tuple[float, bool]]:
        longest = len(group[0].ids)
        ids = np.zeros((len(group), longest), dtype=np.int64)
        labels = np.full((len(group), longest), -100, dtype=np.int64)
        for row, one in enumerate(group):
            # Padding stands behind, where causal attention never looks.
            ids[row, : len(one.ids)] = one.ids
            labels[row, one.first : len(one.ids)] = one.labels[one.first :]
        device = self._model.device
        hidden = self._model(torch.from_numpy(ids).to(device))
        wanted = torch.from_numpy(labels).to(device)
        asked = wanted != -100
        logits = self._model.logits(hidden[asked])
        losses = F.cross_entropy(logits, wanted[asked], reduction="none").double()
        wrong = (logits.argmax(dim=-1) != wanted[asked]).double()
        sums = torch.zeros((2, len(group)), dtype=torch.float64, device=device)
        rows = asked.nonzero()[:, 0]
        sums[0].index_add_(0, rows, losses)
        sums[1].index_add_(0, rows, wrong)
        nats, misses = sums.tolist()
        return [(nat, miss == 0) for nat, miss in zip(nats, misses, strict=True)]

    def texts(self, texts: Sequence[str]) -> list[Likelihood]:
        """Gives the likelihoods of whole texts, in windows that overlap by half of the context."""
        encoded = [self.tokenizer.encode_array(text).astype(np.int64) for text in texts]
        scores = score_documents(
            self._model,
            [(ids, len(text.encode())) for ids, text in zip(encoded, texts, strict=True)],
            begin=self.tokenizer.end_of_text,
        )
        return [Likelihood(one.nats, one.tokens, one.bytes, greedy=False) for one in scores]

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        stop: list[str],
        temperature: float,
        seed: int,
    ) -> list[str]:
        """Gives what the model goes on with; of a prompt that is too long its end is taken."""
        room = self._model.config.context - 1 - max_tokens
        sampling = SamplingConfig(
            max_tokens=max_tokens, stop=stop, temperature=temperature, seed=seed
        )
        return [
            generate_text(
                self._model, self.tokenizer, self._shortened(prompt, max(1, room)), sampling
            ).text
            for prompt in prompts
        ]

    def _shortened(self, prompt: str, room: int) -> str:
        ids = self.tokenizer.encode(prompt)
        return prompt if len(ids) <= room else self.tokenizer.decode(ids[-room:])

"""A network of ours as one that answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tianti.errors import UserError
from tianti.evaluate.bits_per_byte import BATCH_TOKENS, score_documents
from tianti.evaluate.models.base import Likelihood, Request
from tianti.evaluate.models.prefixes import Asked, Family, Row, batches, families
from tianti.files import sha256_file
from tianti.generate.batch import generate_texts
from tianti.generate.config import SamplingConfig
from tianti.messages import tr
from tianti.model.cache import KeyValueCache
from tianti.model.transformer import Transformer
from tianti.tokens.tokenizer import Tokenizer

# Scores of the vocabulary held at once.
_SCORES = 2**24
# A product in attention takes so many times as long as one with the weights.
_ATTENTION_SLOWNESS = 4
MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")


def identity_of(folder: Path, *settings: object, weights: Path | None = None) -> str:
    """Gives a hash of a model directory's weights, shape and tokenizer, and of settings.

    Args:
        folder: the directory.
        settings: whatever else decides its answers.
        weights: a file that stands for the weights, where they are not the directory's.
    """
    files = [folder / name for name in MODEL_FILES]
    files[0] = weights or files[0]
    parts = [sha256_file(path) for path in files if path.is_file()]
    return hashlib.sha256(" ".join([*parts, *map(str, settings)]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Encoded:
    """A request as tokens.

    Args:
        asked: context and continuation, and where the continuation begins.
        size: bytes of the continuation.
        truncated: tokens of the context that were left out.
    """

    asked: Asked
    size: int
    truncated: int


class Network:
    """A Transformer with its tokenizer.

    Args:
        folder: its directory, for its identity.
        transformer: the network.
        tokenizer: the tokenizer.
        begin: whether end-of-text stands before what is given, as before each document in
            training; without it, a request that has no context still gets it.
        step: of its training, where it is one of several checkpoints.
        weights: see `identity_of`.

    Attributes:
        training_text: the documents it was trained on, where it lies in their run.
    """

    def __init__(
        self,
        folder: Path,
        transformer: Transformer,
        tokenizer: Tokenizer,
        *,
        begin: bool = True,
        step: int | None = None,
        weights: Path | None = None,
    ):
        self.name = folder.parent.name if folder.name == "model" else folder.name
        if step is not None:
            self.name += f"-{step}"
        self.identity = identity_of(folder, begin, weights=weights)
        corpus = folder.parent / "corpus" / "train"
        self.training_text = corpus if folder.name == "model" and corpus.is_dir() else None
        self.step = step
        self._model, self._begin = transformer, begin
        self.tokenizer = tokenizer
        self._budget = BATCH_TOKENS["cpu" if transformer.device.type == "cpu" else "gpu"]
        layer = sum(weight.numel() for weight in transformer.layers[0].parameters())
        self._worth = layer / (2 * transformer.config.attention_width) / _ATTENTION_SLOWNESS

    @torch.no_grad()
    def likelihoods(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Gives the likelihoods of continuations, in order.

        Raises:
            UserError: a continuation alone is longer than the context.
        """
        encoded = [self._encode(request) for request in requests]
        answers = self._answers([one.asked for one in encoded])
        return [
            Likelihood(nats, len(one.asked.labels), one.size, greedy, one.truncated)
            for one, (nats, greedy) in zip(encoded, answers, strict=True)
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
        texts = []
        for before, asked in pairs:
            whole = np.array([*before, *asked], dtype=np.int64)[-longest:]
            texts.append(Asked(whole, max(0, len(whole) - 1 - len(asked))))
        return self._answers(texts)

    def _answers(self, texts: Sequence[Asked]) -> list[tuple[float, bool]]:
        nats, misses = np.zeros(len(texts)), np.zeros(len(texts))
        for family in families(texts, self._worth):
            cache = self._cached(family)
            for group in batches(family.rows, self._budget if cache is None else 1):
                self._answer(texts, group, cache, nats, misses)
        return [(nat, miss == 0) for nat, miss in zip(nats.tolist(), misses.tolist(), strict=True)]

    def _cached(self, family: Family) -> KeyValueCache | None:
        length = len(family.beginning)
        if not length:
            return None
        most = length + max(row.size for row in family.rows)
        device, dtype = self._model.device, self._model.embedding.weight.dtype
        cache = KeyValueCache(self._model.config, capacity=most, device=device, dtype=dtype)
        self._model(torch.from_numpy(family.beginning[None]).to(device), cache=cache)
        return cache

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
        return _Encoded(Asked(whole[over:], first - over), size, over)

    def _answer(
        self,
        texts: Sequence[Asked],
        group: list[Row],
        cache: KeyValueCache | None,
        nats: np.ndarray,
        misses: np.ndarray,
    ) -> None:
        """Adds to the nats and the wrong guesses of the texts that end in rows."""
        device = self._model.device
        hidden = self._hidden(group, cache).flatten(0, 1)
        earlier = 0 if cache is None else cache.length
        longest = max(row.size for row in group)
        places: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        for number, row in enumerate(group):
            for text, path in row.paths:
                asked = texts[text]
                places.append(number * longest + path[asked.first - earlier :])
                labels.append(asked.labels)
                owners.append(np.full(len(asked.labels), text))
        # What several texts ask of one token needs its scores only once.
        unique, which = np.unique(np.concatenate(places), return_inverse=True)
        label = torch.from_numpy(np.concatenate(labels)).to(device)
        owner = np.concatenate(owners)
        step = max(1, _SCORES // self._model.config.vocab_size)
        for start in range(0, len(unique), step):
            chosen = torch.from_numpy(unique[start : start + step]).to(device)
            scores = self._model.logits(hidden[chosen])
            mine = np.flatnonzero((which >= start) & (which < start + step))
            at = torch.from_numpy(which[mine] - start).to(device)
            wanted = label[torch.from_numpy(mine).to(device)]
            loss = scores.logsumexp(dim=-1)[at] - scores[at, wanted]
            wrong = scores.argmax(dim=-1)[at] != wanted
            np.add.at(nats, owner[mine], loss.double().cpu().numpy())
            np.add.at(misses, owner[mine], wrong.double().cpu().numpy())

    def _hidden(self, group: list[Row], cache: KeyValueCache | None) -> Tensor:
        device = self._model.device
        longest = max(row.size for row in group)
        ids = np.zeros((len(group), longest), dtype=np.int64)
        for number, row in enumerate(group):
            # Padding stands behind, where nobody looks.
            ids[number, : row.size] = row.ids()
        read = torch.from_numpy(ids).to(device)
        if cache is None and group[0].is_chain:
            return self._model(read)
        positions = np.zeros((len(group), longest), dtype=np.int64)
        for number, row in enumerate(group):
            positions[number, : row.size] = row.positions()
        looks = np.stack([row.looks(longest) for row in group])[:, None]
        if cache is not None:
            looks = np.pad(looks, ((0, 0), (0, 0), (0, 0), (cache.length, 0)), constant_values=True)
        hidden = self._model(
            read,
            positions_BT=torch.from_numpy(positions).to(device),
            mask=torch.from_numpy(looks).to(device),
            cache=cache,
        )
        if cache is not None:
            cache.rewind(cache.length - longest)
        return hidden

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
        room = max(1, self._model.config.context - 1 - max_tokens)
        sampling = SamplingConfig(
            max_tokens=max_tokens, stop=stop, temperature=temperature, seed=seed
        )
        shortened = [self._shortened(prompt, room) for prompt in prompts]
        made = generate_texts(self._model, self.tokenizer, shortened, sampling)
        return [one.text for one in made]

    def _shortened(self, prompt: str, room: int) -> str:
        ids = self.tokenizer.encode(prompt)
        return prompt if len(ids) <= room else self.tokenizer.decode(ids[-room:])

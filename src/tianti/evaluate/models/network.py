"""A network of ours as one that answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tianti.evaluate.bits_per_byte import BATCH_TOKENS, score_documents
from tianti.evaluate.models.base import Likelihood, Request, Written
from tianti.evaluate.models.encoding import encode_requests, room_for_prompt
from tianti.evaluate.models.prefixes import Asked, Family, Row, batches, families
from tianti.files import MANIFEST, sha256_file
from tianti.generate.batch import generate_texts
from tianti.generate.config import SamplingConfig
from tianti.model.cache import KeyValueCache
from tianti.model.transformer import Transformer
from tianti.tokens.tokenizer import Tokenizer

# Scores of the vocabulary held at once.
_SCORES = 2**24
# A product in attention takes so many times as long as one with the weights.
_ATTENTION_SLOWNESS = 4
# Of a model directory: weights, whole or in parts, settings, and tokenizers of all forms.
_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def identity_of(folder: Path, *settings: object, weights: Path | None = None) -> str:
    """Gives a hash of a model directory's weights, settings and tokenizer, and of more settings.

    Args:
        folder: the directory.
        settings: whatever else decides its answers.
        weights: a file that stands for the weights, where they are not the directory's.
    """
    files = sorted(path for pattern in _MODEL_FILES for path in folder.glob(pattern))
    parts = [
        f"{path.name} {sha256_file(path)}"
        for path in files
        if path.name != MANIFEST and (weights is None or path.suffix != ".safetensors")
    ]
    if weights is not None:
        parts.append(sha256_file(weights))
    return hashlib.sha256(" ".join([*parts, *map(str, settings)]).encode()).hexdigest()[:16]


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
        settings: what else decides its answers.

    Attributes:
        training_text: the documents it was trained on, where it lies in their run.
    """

    scores_first_token = True

    def __init__(
        self,
        folder: Path,
        transformer: Transformer,
        tokenizer: Tokenizer,
        *,
        begin: bool = True,
        step: int | None = None,
        weights: Path | None = None,
        settings: Sequence[str] = (),
    ):
        self.name = folder.parent.name if folder.name == "model" else folder.name
        if step is not None:
            self.name += f"-{step}"
        self.identity = identity_of(folder, begin, *settings, weights=weights)
        corpus = folder.parent / "corpus" / "train"
        self.training_text = corpus if folder.name == "model" and corpus.is_dir() else None
        self.step = step
        self._model, self._begin = transformer, begin
        self.tokenizer = tokenizer
        self._budget = BATCH_TOKENS["cpu" if transformer.device.type == "cpu" else "gpu"]
        layer = sum(weight.numel() for weight in transformer.layers[0].parameters())
        self._worth = layer / (2 * transformer.config.attention_width) / _ATTENTION_SLOWNESS

    @property
    def context(self) -> int:
        """Gives how many tokens it reads at most."""
        return self._model.config.context

    @torch.no_grad()
    def likelihoods(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Gives the likelihoods of continuations, in order.

        Raises:
            UserError: a continuation alone is longer than the context.
        """
        encoded = encode_requests(
            requests,
            self._ids,
            self.tokenizer.end_of_text,
            self._model.config.context,
            always_begin=self._begin,
        )
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

    def _ids(self, text: str) -> np.ndarray:
        return self.tokenizer.encode_array(text).astype(np.int64)

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
        encoded = [self._ids(text) for text in texts]
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
    ) -> list[Written]:
        """Gives what the model goes on with; of a prompt that is too long its end is taken.

        Raises:
            UserError: new tokens alone fill the context.
        """
        room = room_for_prompt(self._model.config.context, max_tokens)
        sampling = SamplingConfig(
            max_tokens=max_tokens, stop=stop, temperature=temperature, top_p=1.0, seed=seed
        )
        asked = [self._asked(prompt, room) for prompt in prompts]
        starts = [ids for ids, _ in asked]
        made = generate_texts(
            self._model, self.tokenizer, prompts, sampling, starts=starts, ends=self._ends
        )
        return [Written(one.text, over) for one, (_, over) in zip(made, asked, strict=True)]

    @property
    def _ends(self) -> Sequence[int]:
        """Gives the tokens that end what it writes."""
        return (self.tokenizer.end_of_text,)

    def _asked(self, text: str, room: int) -> tuple[list[int], int]:
        """Gives the tokens to go on from, and how many of the text are left out: of one that is too
        long the end is taken."""
        ids = self.tokenizer.encode(text)
        return [self.tokenizer.end_of_text, *ids[-room:]], max(0, len(ids) - room)

"""A model of a family that is not ours, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tianti.errors import UserError, not_installed
from tianti.evaluate.bits_per_byte import BATCH_TOKENS, windows
from tianti.evaluate.models.base import Likelihood, Request, Written
from tianti.evaluate.models.encoding import encode_requests, room_for_prompt
from tianti.evaluate.models.network import identity_of
from tianti.messages import tr

_LONGEST = 4_096


class Foreign:
    """Any causal model that transformers knows, from a local directory.

    Code that a directory brings along is never run.

    Args:
        folder: the directory.
        device: where it computes.

    Raises:
        UserError: transformers is not installed, or cannot read the directory.
    """

    step: int | None = None
    scores_first_token = True

    def __init__(self, folder: Path, device: torch.device):
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise not_installed("transformers", "transformers", folder) from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                tr("transformers cannot read this model ({reason})", reason=error), where=folder
            ) from error
        model.to(device).eval()
        self._model, self._device = model, device
        self.name, self.identity = folder.name, identity_of(folder, "transformers")
        config = self._model.config
        self._context = min(getattr(config, "max_position_embeddings", _LONGEST), _LONGEST)
        self._vocabulary = int(config.get_text_config().vocab_size)
        begin = self._tokenizer.bos_token_id
        begin = self._tokenizer.eos_token_id if begin is None else begin
        if begin is None:
            raise UserError(tr("the tokenizer has no token that begins a text"), where=folder)
        self._begin: int = begin

    def _ids(self, text: str) -> np.ndarray:
        """Gives the tokens of a text.

        Raises:
            UserError: the tokenizer cannot write the text, or the model does not know its tokens:
                what is left of it would be judged in its place.
        """
        unknown = self._tokenizer.unk_token_id
        # Where end-of-text doubles as the unknown token, all bytes have tokens of their own.
        unknown = None if unknown == self._begin else unknown
        try:
            ids = np.array(self._tokenizer.encode(text, add_special_tokens=False), dtype=np.int64)
        except Exception as error:  # tokenizers raises bare exceptions
            raise self._cannot_write(text) from error
        strange = len(ids) and (ids.max() >= self._vocabulary or (ids == unknown).any())
        if strange or bool(text) != bool(len(ids)):
            raise self._cannot_write(text)
        return ids

    def _cannot_write(self, text: str) -> UserError:
        return UserError(
            tr("the model's tokenizer cannot write this text"),
            where=text[:60],
            remedy=tr("Leave such items out with the task's `where`, or take another model"),
        )

    def likelihoods(self, requests: Sequence[Request]) -> list[Likelihood]:
        """Gives the likelihoods of continuations, in order."""
        encoded = encode_requests(requests, self._ids, self._begin, self._context)
        scores = self._scores([(e.asked.read, e.asked.tokens[1:], e.asked.first) for e in encoded])
        return [
            Likelihood(nats, len(one.asked.labels), one.size, greedy, one.truncated)
            for (nats, greedy), one in zip(scores, encoded, strict=True)
        ]

    def texts(self, texts: Sequence[str]) -> list[Likelihood]:
        """Gives the likelihoods of whole texts, in windows that overlap by half of the context."""
        found = []
        for text in texts:
            ids = self._ids(text)
            cut = windows(
                0, ids, begin=self._begin, context=self._context, stride=self._context // 2
            )
            scores = self._scores([(w.ids, w.labels, w.first_scored) for w in cut])
            nats = sum(score[0] for score in scores)
            found.append(Likelihood(nats, len(ids), _size(text), greedy=False))
        return found

    @torch.no_grad()
    def _scores(
        self, rows: Sequence[tuple[np.ndarray, np.ndarray, int]]
    ) -> list[tuple[float, bool]]:
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place][0]))
        budget = BATCH_TOKENS["cpu" if self._device.type == "cpu" else "gpu"]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
        while order:
            longest = len(rows[order[0]][0])
            taken = order[: max(1, budget // longest)]
            order = order[len(taken) :]
            ids = np.full((len(taken), longest), self._begin, dtype=np.int64)
            mask = np.zeros((len(taken), longest), dtype=np.int64)
            for row, place in enumerate(taken):
                read = rows[place][0]
                ids[row, : len(read)], mask[row, : len(read)] = read, 1
            logits = self._model(
                torch.from_numpy(ids).to(self._device),
                attention_mask=torch.from_numpy(mask).to(self._device),
            ).logits.float()
            for row, place in enumerate(taken):
                read, labels, first = rows[place]
                wanted = torch.from_numpy(labels[first:]).to(self._device)
                scores = logits[row, first : len(read)]
                nats = F.cross_entropy(scores, wanted, reduction="sum").item()
                found[place] = nats, bool((scores.argmax(dim=-1) == wanted).all())
        return found

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
        room = room_for_prompt(self._context, max_tokens)
        # The directory's own settings of generation would judge each model by another measure.
        draw: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0}
        if temperature:
            draw |= {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        if stop:
            draw |= {"stop_strings": stop, "tokenizer": self._tokenizer}
        texts = []
        for prompt in prompts:
            torch.manual_seed(seed)
            known = self._ids(prompt)
            ids = torch.tensor([[self._begin, *known[-room:].tolist()]])
            made = self._model.generate(
                ids.to(self._device),
                attention_mask=torch.ones_like(ids).to(self._device),
                max_new_tokens=max_tokens,
                pad_token_id=self._begin,
                **draw,
            )
            text = self._tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
            for end in stop:
                text = text.split(end, 1)[0]
            texts.append(Written(text, max(0, len(known) - room)))
        return texts


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))

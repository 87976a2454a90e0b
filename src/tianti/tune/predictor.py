"""A tuned model, and what it says of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tianti.errors import UserError
from tianti.exchange.huggingface import CONFIG, load_transformer
from tianti.files import read_json
from tianti.generate.batch import generate_texts
from tianti.generate.beam import search_beams
from tianti.generate.config import SamplingConfig
from tianti.messages import tr
from tianti.tokens.tokenizer import Tokenizer
from tianti.tune.config import COLUMNS, OPTIONAL, READ, TASK, TOLD, TuneConfig
from tianti.tune.encode import Encoder
from tianti.tune.examples import Example, named
from tianti.tune.form import Form
from tianti.tune.tags import likeliest, spans_of
from tianti.tune.tokenizing import template_for

# Tokens of texts computed at once, padding included.
HELD_TOKENS = {"cpu": 8_192, "gpu": 131_072}
# Of more classes the best alone are told with their probabilities.
SHOWN_CLASSES = 20
# Examples that text is written for at once.
WRITTEN_AT_ONCE = 64


class Predictor:
    """A tuned model.

    Args:
        folder: of the model.
        device: where it computes.

    Attributes:
        form: of its examples.

    Raises:
        UserError: the folder holds no model that was tuned for a task.
    """

    def __init__(self, folder: Path, device: torch.device):
        self.form, self._reading = _form_of(folder)
        self._model = load_transformer(folder, device).eval()
        self.tokenizer = Tokenizer.load(folder)
        template = template_for(self.form.task, folder, self.tokenizer)
        if template is None and (self.form.task == "lm" or self.form.task not in READ):
            raise UserError(tr("the model has no chat template"), where=folder)
        self.encoder = Encoder(self.form, self.tokenizer, template)

    def reading(self, **changes: Any) -> TuneConfig:
        """Gives how files are read for it, as when it was tuned but for changes."""
        task = "instruct" if self.form.task in ("prefer", "reward", "lm") else self.form.task
        columns = self._reading.get("columns", {})
        if task != self.form.task:
            # Those that conversations have too.
            known = {*COLUMNS[task], *OPTIONAL[task]}
            columns = {ours: theirs for ours, theirs in columns.items() if ours in known}
        said = {
            "task": task,
            "train": "-",
            "labels": list(self.form.labels) or None,
            "several": self.form.several,
            "columns": columns,
            "max_tokens": self._reading.get("max_tokens", 256),
            "beams": self._reading.get("beams", 1),
        }
        return TuneConfig(**(said | changes))

    @torch.no_grad()
    def __call__(
        self,
        examples: Sequence[Example],
        *,
        max_tokens: int = 256,
        beams: int = 1,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> list[dict[str, Any]]:
        """Gives what is told or written of each example, in order.

        Args:
            examples: as `tianti.tune.examples.read_examples` gives them.
            max_tokens: most tokens written for one.
            beams: beginnings that a search for text goes on with.
            on_progress: told how many are finished.

        Returns:
            Of classes `label` (or `labels`) and `scores`, the probabilities; of numbers `value`; of
            entities `entities`; of text `text`.
        """
        if self.form.task == "align":
            states = self.embeddings([example["source"] for example in examples], on_progress)
            return [{"embedding": [round(x, 6) for x in state]} for state in states.tolist()]
        if self.form.task not in TOLD:
            return self._written(examples, max_tokens, beams, on_progress)
        if self.form.task == "tag":
            return self._tagged(examples, on_progress)
        return [self._told(scores) for scores in self.scores(examples, on_progress)]

    @torch.no_grad()
    def scores(
        self, examples: Sequence[Example], on_progress: Callable[[int], None] = lambda done: None
    ) -> torch.Tensor:
        """Gives the scores of the classes of texts, `(texts, classes)` float32 on the CPU, with
        what thresholds add to them."""
        encoded = []
        for example in examples:
            with named(example):
                if self.form.task == "reward":
                    encoded.append(self.encoder.conversation(example["messages"]))
                else:
                    encoded.append(self.encoder.told(example))
        found = self._model.logits(self._ends(encoded, on_progress)).cpu()
        return found + torch.tensor(self.form.offsets) if self.form.offsets else found

    def embeddings(
        self, texts: Sequence[str], on_progress: Callable[[int], None] = lambda done: None
    ) -> torch.Tensor:
        """Gives what texts mean as directions, `(texts, width)` float32 of length 1 on the CPU:
        their products are cosines."""
        encoded = [self.encoder.told({"text": text}) for text in texts]
        return torch.nn.functional.normalize(self._ends(encoded, on_progress).float(), dim=1).cpu()

    @torch.no_grad()
    def _ends(self, encoded: list[list[int]], on_progress: Callable[[int], None]) -> torch.Tensor:
        """Gives the state at the end of each text, `(texts, width)`."""
        found: torch.Tensor | None = None
        for group, hidden in self._hidden(encoded):
            ends = torch.tensor([len(encoded[n]) - 1 for n in group], device=hidden.device)
            if found is None:
                found = hidden.new_empty(len(encoded), hidden.shape[-1])
            found[group] = hidden[torch.arange(len(group), device=hidden.device), ends]
            on_progress(len(group))
        assert found is not None
        return found

    def _tagged(
        self, examples: Sequence[Example], on_progress: Callable[[int], None]
    ) -> list[dict[str, Any]]:
        encoded, offsets = [], []
        for example in examples:
            with named(example):
                ids, places = self.encoder.tagged(example)
            encoded.append(ids)
            offsets.append(places)
        found: list[dict[str, Any]] = [{}] * len(examples)
        for group, hidden in self._hidden(encoded):
            scores = self._model.logits(hidden).float().cpu()
            for place, number in enumerate(group):
                each = scores[place, : len(encoded[number])]
                found[number] = self._entities(examples[number]["text"], each, offsets[number])
            on_progress(len(group))
        return found

    @torch.no_grad()
    def _hidden(self, encoded: list[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Gives the final states of texts of about one length, `(texts, tokens, width)`."""
        device = self._model.device
        held = HELD_TOKENS["cpu" if device.type == "cpu" else "gpu"]
        order = sorted(range(len(encoded)), key=lambda n: len(encoded[n]), reverse=True)
        while order:
            longest = len(encoded[order[0]])
            group = order[: max(1, held // longest)]
            order = order[len(group) :]
            pad = self.tokenizer.padding
            rows = [encoded[n] + [pad] * (longest - len(encoded[n])) for n in group]
            apart = [[0] * len(encoded[n]) + [1] * (longest - len(encoded[n])) for n in group]
            hidden = self._model(
                torch.tensor(rows, device=device), segments_BT=torch.tensor(apart, device=device)
            )
            yield group, hidden

    def _told(self, scores: torch.Tensor) -> dict[str, Any]:
        if self.form.task in ("regress", "reward"):
            return {"value": float(scores[0]) * self.form.spread + self.form.center}
        labels = self.form.labels
        # Thresholds decide what is told, not how likely it is.
        plain = scores - torch.tensor(self.form.offsets) if self.form.offsets else scores
        if self.form.several:
            chosen = [label for label, score in zip(labels, scores, strict=True) if score > 0]
            return {"labels": chosen, "scores": _rounded(labels, plain.sigmoid().tolist())}
        chances = plain.softmax(0).tolist()
        order = sorted(range(len(labels)), key=lambda n: -chances[n])[:SHOWN_CLASSES]
        shown = _rounded([labels[n] for n in order], [chances[n] for n in order])
        return {"label": labels[int(scores.argmax())], "scores": shown}

    def _entities(self, text: str, scores: torch.Tensor, offsets: list[Any]) -> dict[str, Any]:
        tags = self.form.tags
        there = [number for number, offset in enumerate(offsets) if offset is not None]
        said = likeliest(scores[there].log_softmax(1).double().numpy(), tags)
        spans = spans_of([tags[tag] for tag in said], [offsets[n] for n in there])
        return {
            "entities": [
                {"start": start, "end": end, "type": kind, "text": text[start:end]}
                for start, end, kind in spans
            ]
        }

    def _written(
        self,
        examples: Sequence[Example],
        max_tokens: int,
        beams: int,
        on_progress: Callable[[int], None],
    ) -> list[dict[str, Any]]:
        room = min(max_tokens, self.form.context // 2)
        prompts = []
        for example in examples:
            with named(example):
                prompts.append(self.encoder.prompt(asked_of(example), room))
        # Those of one length together, some at a time, so that progress is seen.
        order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
        written: dict[int, str] = {}
        for start in range(0, len(order), WRITTEN_AT_ONCE):
            group = order[start : start + WRITTEN_AT_ONCE]
            made = self._goes_on([prompts[n] for n in group], max_tokens, beams, on_progress)
            written.update(zip(group, made, strict=True))
        return [{"text": written[number].strip()} for number in range(len(prompts))]

    def _goes_on(
        self,
        starts: list[list[int]],
        max_tokens: int,
        beams: int,
        on_progress: Callable[[int], None],
    ) -> list[str]:
        """Gives the texts that follow prompts."""
        model, tokenizer, ends = self._model, self.tokenizer, self.tokenizer.ends
        if beams > 1:
            found = search_beams(
                model, starts, ends, beams=beams, max_tokens=max_tokens, on_progress=on_progress
            )
            return [tokenizer.decode(ids) for ids in found]
        sampling = SamplingConfig(temperature=0.0, max_tokens=max_tokens)
        nothing = [""] * len(starts)
        made = generate_texts(
            model, tokenizer, nothing, sampling, on_progress, starts=starts, ends=ends
        )
        return [one.text for one in made]


def answered(example: Example, name: str) -> Example:
    """Gives one of an example's answers as a conversation that is to be rated."""
    said = {"role": "assistant", "content": example[name]}
    return {"messages": [*example["prompt"], said], "place": example.get("place")}


def asked_of(example: Example) -> list[dict[str, Any]]:
    """Gives a conversation up to where its last answer begins."""
    if "prompt" in example:
        return list(example["prompt"])
    messages = example["messages"]
    said = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    return list(messages[: said[-1]] if said else messages)


def _rounded(labels: Sequence[str], chances: Sequence[float]) -> dict[str, float]:
    return {label: round(chance, 6) for label, chance in zip(labels, chances, strict=True)}


def _form_of(folder: Path) -> tuple[Form, dict[str, Any]]:
    """Gives the form of a model's examples, and how they are read.

    Raises:
        UserError: it was tuned for nothing that is known.
    """
    path = folder / TASK
    if path.is_file():
        said = read_json(path)
        return Form.read(said), said
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    (name, *_) = config.get("architectures") or [""]
    # Where there are no names, transformers has these two.
    told = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    names = [label for _, label in sorted(told.items(), key=_number)]
    context = config.get("max_position_embeddings", 1024)
    if name.endswith("ForSequenceClassification"):
        kind = config.get("problem_type")
        if kind == "regression":
            return Form("regress", context), {}
        several = kind == "multi_label_classification"
        return Form("classify", context, tuple(names), several), {}
    if name.endswith("ForTokenClassification"):
        kinds = tuple(dict.fromkeys(tag[2:] for tag in names if tag != "O"))
        form = Form("tag", context, kinds)
        if form.tags == names:
            return form, {}
    raise UserError(
        tr("this model was not tuned for a task"),
        where=folder,
        remedy=tr("Tune it first (docs/tuning.md), or use tianti generate"),
    )


def _number(item: tuple[str, str]) -> int:
    return int(item[0])

"""Examples as tokens, and what is wanted at each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from tianti.errors import UserError
from tianti.messages import tr
from tianti.progress import Display
from tianti.tokens.chat import ChatEncoder, ChatTemplate, Message
from tianti.tokens.examples import IGNORED, Examples
from tianti.tokens.tokenizer import Tokenizer
from tianti.tune.config import READ
from tianti.tune.examples import ANSWERS, Example, named
from tianti.tune.form import Form
from tianti.tune.tags import Span

Encoded = tuple[list[int], list[int]]


@dataclass
class Encoder:
    """Turns examples of one task into tokens.

    Args:
        form: of the examples.
        tokenizer: of the model.
        template: of conversations, where the task has any.

    Attributes:
        cut: examples that were longer than the context, and were cut.
        unfit: entities that lie within others, or whose ends no token has.
    """

    form: Form
    tokenizer: Tokenizer
    template: ChatTemplate | None = None
    cut: int = 0
    unfit: int = 0
    _inner: Any = field(init=False)
    _chat: ChatEncoder | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # One of its own, because how long a text may be is a setting of the whole.
        self._inner = HuggingFaceTokenizer.from_str(self.tokenizer.inner.to_str())
        self._inner.encode_special_tokens = True
        self._inner.no_padding()
        if self.form.task in READ:
            # Of a pattern the text alone is cut.
            if self.form.pattern is None:
                self._inner.enable_truncation(self.form.context, strategy="longest_first")
        elif self.template is not None:
            self._chat = ChatEncoder(self.tokenizer.inner, self.template)

    def examples(
        self, examples: Sequence[Example], class_weights: Sequence[float] | None = None
    ) -> Examples:
        """Gives examples that are to be learnt from.

        Args:
            examples: as `tianti.tune.examples.read_examples` gives them.
            class_weights: what each class counts; 1 when not given.

        Raises:
            UserError: an example cannot be read by the tokenizer or its template, with its line.
        """
        rows: list[Encoded] = []
        weights: list[float] = []
        targets: list[Any] = []
        for number, example in enumerate(examples):
            if "completion" in example:
                other = _answer_to_another(examples, number)
                example = example | {"chosen": example["completion"], "rejected": other}
            with named(example):
                for texts, weight in self._encoded(example, class_weights):
                    rows += texts
                    weights.append(weight)
            if self.form.several:
                chosen = set(example["label"])
                targets.append([float(label in chosen) for label in self.form.labels])
            elif "good" in example:
                targets.append([float(example["good"])])
            elif self.form.task == "regress":
                # What a network says lies near 0 at first, whatever the numbers are.
                targets.append([(example["label"] - self.form.center) / self.form.spread])
        held = np.array(targets, dtype=np.float32) if targets else None
        return Examples.of(rows, weights, self.form.texts, held)

    def tell_cut(self, display: Display, examples: int) -> None:
        """Tells how many examples were cut, if any were.

        Args:
            display: shows it.
            examples: how many there were.
        """
        if self.cut:
            display.say(
                tr(
                    "{count} of {all} examples were longer than {context} tokens, and cut",
                    count=self.cut,
                    all=examples,
                    context=self.form.context,
                ),
                "yellow",
            )

    def _encoded(
        self, example: Example, class_weights: Sequence[float] | None
    ) -> list[tuple[list[Encoded], float]]:
        """Gives the units of an example, each of one text or several, with its weight."""
        task = self.form.task
        if task in ("classify", "regress"):
            ids = self.told(example)
            label = 0
            if task == "classify" and not self.form.several:
                label = self.form.labels.index(example["label"])
            weight = 1.0 if class_weights is None else class_weights[label]
            return [([(ids, [IGNORED] * (len(ids) - 1) + [label])], weight)]
        if task == "tag":
            ids, offsets = self.tagged(example)
            labels = self._tags(example, offsets)
            return [([(ids, labels)], float(sum(label != IGNORED for label in labels)))]
        if task == "lm":
            return self._text(example["text"])
        if task == "align":
            both = [self.told({"text": example[n]}) for n in ("source", "target")]
            return [([(ids, [IGNORED] * (len(ids) - 1) + [0]) for ids in both], 1.0)]
        if task == "reward":
            asked = [[*example["prompt"], _said_by_assistant(example[n])] for n in ANSWERS]
            both = [self.conversation(messages) for messages in asked]
            return [([(ids, [IGNORED] * (len(ids) - 1) + [0]) for ids in both], 1.0)]
        if task == "prefer":
            texts = [self._answer(example["prompt"], example[n]) for n in ANSWERS]
            return [(texts, 1.0)]
        ids, labels = self._said(example["messages"])
        return [([(ids, labels)], float(sum(label != IGNORED for label in labels)))]

    def told(self, example: Example) -> list[int]:
        """Gives the tokens of a text, or two, that a class or number is told of."""
        if self.form.pattern is not None:
            return self._patterned(example, self.form.pattern)
        encoding = self._inner.encode(example["text"], example.get("pair"))
        self.cut += bool(encoding.overflowing)
        if not encoding.ids:
            raise UserError(tr("{name} is empty", name="text"))
        return list(encoding.ids)

    def _patterned(self, example: Example, pattern: str) -> list[int]:
        texts = [example["text"].strip(), example.get("pair", "").strip()]
        if ("pair" in example) != ("{pair}" in pattern):
            raise UserError(
                tr("the pattern has {{pair}} where examples have a second text, and only there"),
                remedy=tr("Write it into tune.pattern, or leave the column out"),
            )

        def ids(cut: Sequence[str]) -> list[int]:
            encoding = self._inner.encode(pattern.format(text=cut[0], pair=cut[1]))
            found, marks = list(encoding.ids), list(encoding.special_tokens_mask)
            # What comes next is told: nothing that ends a text stands before it.
            while marks and marks.pop():
                found.pop()
            return found

        whole = ids(texts)
        if len(whole) <= self.form.context:
            return whole
        self.cut += 1
        # Of two the longer one is cut, and both where that is not enough.
        most = greatest(
            max(map(len, texts)),
            lambda length: len(ids([text[:length] for text in texts])) <= self.form.context,
        )
        if most:
            return ids([text[:most] for text in texts])
        raise UserError(
            tr("the pattern alone fills {context} tokens", context=self.form.context),
            remedy=tr("Raise tune.context"),
        )

    def tagged(self, example: Example) -> tuple[list[int], list[Span | None]]:
        """Gives the tokens of a text, and where each stands in it; None for those that do not."""
        encoding = self._inner.encode(example["text"])
        self.cut += bool(encoding.overflowing)
        text = example["text"]
        offsets: list[Span | None] = []
        for (start, end), special in zip(
            encoding.offsets, encoding.special_tokens_mask, strict=True
        ):
            while start < end and text[start].isspace():
                start += 1
            while start < end and text[end - 1].isspace():
                end -= 1
            offsets.append(None if special or start == end else (start, end))
        return list(encoding.ids), offsets

    def _tags(self, example: Example, offsets: Sequence[Span | None]) -> list[int]:
        tags = {tag: number for number, tag in enumerate(self.form.tags)}
        found = [IGNORED if offset is None else 0 for offset in offsets]
        outer = 0
        for start, end, kind in example["entities"]:
            if end <= outer:
                # A tag tells of one entity: the outer one.
                self.unfit += 1
                continue
            outer = end
            inside = [
                number
                for number, offset in enumerate(offsets)
                if offset is not None and offset[0] < end and offset[1] > start
            ]
            for place, number in enumerate(inside):
                found[number] = tags[f"{'I' if place else 'B'}-{kind}"]
            ends = [offsets[number] for number in (*inside[:1], *inside[-1:])]
            seen = max((offset[1] for offset in offsets if offset is not None), default=0)
            # What lies behind the cut is none of the tokenizer's.
            if end <= seen:
                self.unfit += not ends or (ends[0][0], ends[-1][1]) != (start, end)  # type: ignore[index]
        return found

    def _text(self, text: str) -> list[tuple[list[Encoded], float]]:
        end, context = self.tokenizer.end_of_text, self.form.context
        ids = [self.tokenizer.begin, *self.tokenizer.encode(text), end]
        units = []
        for start in range(0, len(ids) - 1, context):
            piece = ids[start : start + context + 1]
            units.append(([(piece[:-1], piece[1:])], float(len(piece) - 1)))
        return units

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """Gives the tokens of a conversation whose last answer is rated."""
        return self._fitted(messages, self.form.context)[0]

    def _fitted(self, messages: Sequence[Message], context: int) -> Encoded:
        """Gives a conversation that fits, and 1 for each token that an assistant says."""
        assert self._chat is not None
        encoded = self._chat.encode(messages)
        if len(encoded.ids) > context:
            self.cut += 1
            shorter = shortened(messages, lambda them: len(self._chat.encode(them).ids) <= context)  # type: ignore[union-attr]
            encoded = self._chat.encode(shorter)
        return encoded.ids[:context], [int(s) for s in encoded.supervised[:context]]

    def _said(self, messages: Sequence[Message]) -> Encoded:
        """Gives a conversation, where the tokens that an assistant says are wanted."""
        context = self.form.context + 1
        ids, supervised = self._fitted(messages, context)
        if not any(supervised[1:]):
            raise UserError(
                tr("nothing that an assistant says fits {context} tokens", context=context - 1),
                remedy=tr("Raise tune.context, or take this example out"),
            )
        labels = [i if s else IGNORED for i, s in zip(ids[1:], supervised[1:], strict=True)]
        return list(ids[:-1]), labels

    def _answer(self, prompt: Sequence[Message], answer: str) -> Encoded:
        """Gives a conversation, where the tokens of its last answer alone are wanted."""
        ids, labels = self._said([*prompt, _said_by_assistant(answer)])
        wanted = [number for number, label in enumerate(labels) if label != IGNORED]
        # What was said before stands apart from it: the last run of labels is the answer.
        start = next(
            (b for a, b in reversed(list(pairwise(wanted))) if b > a + 1),
            wanted[0],
        )
        return ids, [IGNORED if n < start else label for n, label in enumerate(labels)]

    def prompt(self, messages: Sequence[Message], room: int = 0) -> list[int]:
        """Gives the tokens after which the model is to speak.

        Args:
            messages: of the conversation.
            room: tokens that are to be left of the context.
        """
        assert self._chat is not None
        most = self.form.context - room
        ids = self._chat.encode_prompt(messages)
        if room and len(ids) > most:
            self.cut += 1
            shorter = shortened(
                messages,
                lambda them: len(self._chat.encode_prompt(them)) <= most,  # type: ignore[union-attr]
            )
            ids = self._chat.encode_prompt(shorter)
        return ids


def _said_by_assistant(answer: str) -> Message:
    return {"role": "assistant", "content": answer}


def shortened(
    messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]
) -> list[Message]:
    """Gives a conversation whose longest turn by others is cut at its end until all fits.

    Where that is not enough nothing of it is left, and the rest is for the caller to cut.

    Args:
        messages: of the conversation.
        fits: tells whether one fits.
    """
    others = [n for n, message in enumerate(messages) if message["role"] != "assistant"]
    if not others:
        return list(messages)
    longest = max(others, key=lambda n: len(messages[n]["content"]))
    text = messages[longest]["content"]

    def cut(length: int) -> list[Message]:
        turn = {**messages[longest], "content": text[:length]}
        return [*messages[:longest], turn, *messages[longest + 1 :]]

    return cut(greatest(len(text), lambda length: fits(cut(length))))


def greatest(most: int, fits: Callable[[int], bool]) -> int:
    """Gives the greatest length up to `most` that fits, 0 where none does, by bisection."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _answer_to_another(examples: Sequence[Example], number: int) -> str:
    """Gives what the next example with another prompt was answered; any where there is none."""
    here, count = examples[number]["prompt"], len(examples)
    for step in range(1, count):
        other = examples[(number + step) % count]
        if other["prompt"] != here:
            return other["completion"]
    return examples[(number + 1) % count]["completion"]


def counts_of(examples: Sequence[Example], labels: Sequence[str]) -> list[int]:
    """Gives how many examples each class has."""
    found: Counter[str] = Counter()
    for example in examples:
        label = example["label"]
        found.update(label if isinstance(label, list) else [label])
    return [found[label] for label in labels]

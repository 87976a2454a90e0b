"""Conversations as text and tokens, by the chat templates of Hugging Face's tokenizers.

A template is rendered by the same code for training and for use, in Jinja's sandbox. Which tokens
an assistant says is told from the template's `generation` marks or, where it has none, from
rendering the conversation up to each of its turns.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as HuggingFaceTokenizer

from tianti.errors import UserError
from tianti.messages import tr

Message = Mapping[str, Any]
Span = tuple[int, int]
BUILT_IN = Path(__file__).with_name("templates")
ASSISTANT = "assistant"
# Noncharacters: around what an assistant says, and within special tokens that are text.
_BEGIN, _END, _TEXT = "\ufdd0", "\ufdd1", "\ufdd2"


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Args:
        text: all of it.
        said: where in it an assistant speaks, from and to, in characters.
        literal: where in it people wrote what looks like a special token, and is text.
    """

    text: str
    said: tuple[Span, ...] = ()
    literal: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens.

    Args:
        ids: of the tokens.
        supervised: whether each is said by an assistant.
    """

    ids: list[int]
    supervised: list[bool]


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: what an assistant says."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        return f"{_BEGIN}{caller()}{_END}"


class ChatTemplate:
    """How a conversation becomes the text that a model reads.

    Args:
        source: of the template, in Jinja.
        special: tokens that it names, such as `bos_token` and `eos_token`.
        tokens: all special tokens; what people write is never one of them.

    Raises:
        UserError: it is no template.
    """

    def __init__(self, source: str, special: Mapping[str, str], tokens: Sequence[str] = ()):
        self.source, self.special = source, dict(special)
        self._tokens = [token for token in {*tokens, *special.values()} if len(token) > 1]
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(tr("the chat template is wrong: {reason}", reason=error)) from error

    @classmethod
    def built_in(cls, name: str, special: Mapping[str, str]) -> ChatTemplate:
        """Gives one that comes along.

        Args:
            name: `chatml`, `llama3`, `mistral`, `gemma`, `alpaca` or `vicuna`.
            special: see the class.

        Raises:
            UserError: there is none of that name.
        """
        known = sorted(path.stem for path in BUILT_IN.glob("*.jinja"))
        if name not in known:
            raise UserError(
                tr("there is no chat template {name!r}", name=name),
                remedy=tr("Known: {names}", names=", ".join(known)),
            )
        return cls((BUILT_IN / f"{name}.jinja").read_text("utf-8"), special)

    @cached_property
    def is_marked(self) -> bool:
        """Tells whether the template itself says what an assistant says."""
        return bool(re.search(r"\{%-?\s*generation\s*-?%\}", self.source))

    def render(self, messages: Sequence[Message], *, ask: bool = False, **more: Any) -> str:
        """Gives a conversation as text.

        Args:
            messages: each with `role` and `content`.
            ask: end where an assistant begins to speak.
            more: what else the template knows, such as `tools`.

        Raises:
            UserError: the conversation is empty, or the template refuses it.
        """
        return self.render_prompt(messages, ask=ask, **more).text

    def render_prompt(
        self, messages: Sequence[Message], *, ask: bool = True, **more: Any
    ) -> Rendered:
        """Gives the same, and where in it people wrote what looks like a special token."""
        return self._cleaned(re.sub(f"[{_BEGIN}{_END}]", "", self._rendered(messages, ask, more)))

    def render_marked(self, messages: Sequence[Message], **more: Any) -> Rendered:
        """Gives a conversation as text, and where in it an assistant speaks.

        Args:
            messages: see `render`.
            more: see there.

        Raises:
            UserError: see there; or where an assistant speaks cannot be told.
        """
        if self.is_marked:
            return self._by_marks(self._rendered(messages, False, more))
        whole, said = self._rendered(messages, False, more), []
        for number, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            # Nothing stands before the first word but what is there without it.
            before = self._rendered(messages[:number], True, more) if number else ""
            after = self._rendered(messages[: number + 1], False, more)
            if not (number and after.startswith(before) and whole.startswith(after)):
                raise UserError(
                    tr("the chat template does not say where turn {turn} begins", turn=number + 1),
                    remedy=tr("Put {mark} around what the assistant says in it", mark=_MARKS),
                )
            said.append((len(before), self._end(whole, len(before), len(after))))
        return self._cleaned(whole, said)

    def _rendered(self, messages: Sequence[Message], ask: bool, more: Mapping[str, Any]) -> str:
        if not messages:
            raise UserError(tr("the conversation is empty"))
        spoken = [self._as_text(message) for message in messages]
        known = self.special | {"messages": spoken, "add_generation_prompt": ask} | dict(more)
        try:
            return self._template.render(known)
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            raise UserError(tr("the chat template refuses this: {reason}", reason=error)) from error

    def _as_text(self, message: Message) -> Message:
        """Gives a message whose special tokens, if it has any, are text."""
        if not isinstance(message, Mapping) or "role" not in message:
            raise UserError(tr("a message has a role and a content"))
        content = message.get("content")
        if not isinstance(content, str):
            return message
        if marks := {*content} & {_BEGIN, _END, _TEXT}:
            raise UserError(
                tr("the text holds U+{code}, which is no character", code=f"{ord(min(marks)):04X}"),
                remedy=tr("Take it out"),
            )
        for token in self._tokens:
            content = content.replace(token, f"{token[0]}{_TEXT}{token[1:]}")
        return {**message, "content": content}

    def _by_marks(self, text: str) -> Rendered:
        plain, said = "", []
        for piece in re.split(f"({_BEGIN}[^{_END}]*{_END})", text):
            if piece.startswith(_BEGIN):
                said.append((len(plain), len(plain) + len(piece) - 2))
            plain += piece.strip(_BEGIN + _END)
        return self._cleaned(plain, said)

    def _cleaned(self, text: str, said: Sequence[Span] = ()) -> Rendered:
        """Gives a text without what tells written special tokens from the template's."""
        if _TEXT not in text:
            return Rendered(text, tuple(said))
        places = [match.start() for match in re.finditer(_TEXT, text)]
        literal = []
        for number, place in enumerate(places):
            rest = text[place - 1 :].replace(_TEXT, "")
            token = max((token for token in self._tokens if rest.startswith(token)), key=len)
            literal.append((place - 1 - number, place - 1 - number + len(token)))

        def moved(place: int) -> int:
            return place - sum(other < place for other in places)

        spans = tuple((moved(start), moved(end)) for start, end in said)
        return Rendered(text.replace(_TEXT, ""), spans, tuple(literal))

    def _end(self, whole: str, start: int, end: int) -> int:
        """Gives where a turn ends: behind a special token, not the white space after that."""
        turn = whole[start:end].rstrip()
        ends = any(turn.endswith(token) for token in self._tokens)
        return start + len(turn) if ends else end


_MARKS = "{% generation %}…{% endgeneration %}"


class ChatEncoder:
    """Conversations to tokens.

    Args:
        inner: the tokenizer, whose special tokens the template writes.
        template: of the conversations.
    """

    def __init__(self, inner: HuggingFaceTokenizer, template: ChatTemplate):
        # Two of its own, because whether special tokens are read is a setting of the whole.
        self._read, self._as_text = (HuggingFaceTokenizer.from_str(inner.to_str()) for _ in "12")
        self._read.encode_special_tokens = False
        self._as_text.encode_special_tokens = True
        added = inner.get_added_tokens_decoder().values()
        tokens = [token.content for token in added if token.special]
        self.template = ChatTemplate(template.source, template.special, tokens)

    def encode(self, messages: Sequence[Message], **more: Any) -> Encoded:
        """Gives a conversation as tokens, and which of them an assistant says.

        The template says all there is, the first token among it: nothing is added.

        Raises:
            UserError: see `ChatTemplate.render_marked`; or no token is said by an assistant.
        """
        rendered = self.template.render_marked(messages, **more)
        ids, offsets = self._tokens(rendered)
        supervised = _overlaps(offsets, rendered.said)
        if not any(supervised):
            raise UserError(tr("an assistant says nothing in this conversation"))
        return Encoded(ids, supervised)

    def encode_prompt(self, messages: Sequence[Message], **more: Any) -> list[int]:
        """Gives the tokens after which an assistant is to speak."""
        return self._tokens(self.template.render_prompt(messages, **more))[0]

    def _tokens(self, rendered: Rendered) -> tuple[list[int], list[Span]]:
        ids: list[int] = []
        offsets: list[Span] = []
        at = 0
        for start, end in (*rendered.literal, (len(rendered.text),) * 2):
            for encoder, stop in ((self._read, start), (self._as_text, end)):
                if stop > at:
                    found = encoder.encode(rendered.text[at:stop], add_special_tokens=False)
                    ids += found.ids
                    offsets += [(at + begin, at + last) for begin, last in found.offsets]
                    at = stop
        return ids, offsets


def _overlaps(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Tells of each token whether any of it lies in a span; both are in order."""
    found, number = [], 0
    for start, end in offsets:
        while number < len(spans) and spans[number][1] <= start:
            number += 1
        inside = number < len(spans) and end > spans[number][0] and end > start
        found.append(inside)
    return found


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)

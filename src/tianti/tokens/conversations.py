"""Conversations in the forms that data sets have them: OpenAI's, ShareGPT's, Alpaca's, pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tianti.errors import UserError
from tianti.messages import tr

# What speakers are called in ShareGPT's form, and elsewhere.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
MESSAGES, TURNS = ("messages", "conversation"), ("conversations",)
FORMS = "messages, conversations, instruction and output, prompt and completion"


def messages_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gives the conversation of a row of data, each message with `role` and `content`.

    Args:
        row: one of
            `messages`: `[{"role": …, "content": …}, …]` (OpenAI);
            `conversations`: `[{"from": …, "value": …}, …]` (ShareGPT), with `system` beside it;
            `instruction`, `input` and `output` (Alpaca), with `system` and `history`, pairs of
            earlier turns, beside them;
            `prompt` and `completion`, each text or messages.

    Raises:
        UserError: it is none of these, is empty, or a speaker is not known.
    """
    found = _read(row)
    if not found:
        raise UserError(tr("the conversation is empty"))
    return found


def _read(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    for name in (*MESSAGES, *TURNS):
        if isinstance(row.get(name), Sequence) and not isinstance(row[name], str):
            return _with_system(row, [_message(turn) for turn in row[name]])
    if "instruction" in row and "output" in row:
        return _with_system(row, _alpaca(row))
    if "prompt" in row and "completion" in row:
        both = [("user", row["prompt"]), ("assistant", row["completion"])]
        return _with_system(row, [turn for role, said in both for turn in _side(role, said)])
    raise UserError(
        tr("this is no conversation: it has {names}", names=", ".join(map(str, row)) or "–"),
        remedy=tr("Known forms: {names}", names=FORMS),
    )


def _with_system(row: Mapping[str, Any], turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system = row.get("system")
    if not system or (turns and turns[0]["role"] == "system"):
        return turns
    return [{"role": "system", "content": _text(system)}, *turns]


def _alpaca(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    earlier = [
        {"role": role, "content": _text(said)}
        for pair in row.get("history") or []
        for role, said in zip(("user", "assistant"), pair, strict=True)
    ]
    asked = "\n".join(_text(part) for part in (row["instruction"], row.get("input")) if part)
    turn = [{"role": "user", "content": asked}]
    return [*earlier, *turn, {"role": "assistant", "content": _text(row["output"])}]


def _side(role: str, said: Any) -> list[dict[str, Any]]:
    if isinstance(said, Sequence) and not isinstance(said, str):
        return [_message(turn) for turn in said]
    return [{"role": role, "content": _text(said)}]


def _message(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise UserError(tr("a message has a role and a content"))
    speaker = turn.get("role", turn.get("from"))
    role = ROLES.get(str(speaker).lower())
    if role is None:
        raise UserError(
            tr("the speaker {name!r} is not known", name=speaker),
            remedy=tr("Known: {names}", names=", ".join(ROLES)),
        )
    said = turn.get("content", turn.get("value"))
    kept = {name: turn[name] for name in ("name", "tool_calls", "tool_call_id") if turn.get(name)}
    if said is None and "tool_calls" in kept:
        return {"role": role, "content": "", **kept}
    return {"role": role, "content": _text(said), **kept}


def _text(value: Any) -> str:
    """Gives what is said; of content in parts, those that are text.

    Raises:
        UserError: it is no text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in value
    ):
        return "".join(_text(part.get("text")) for part in value)
    raise UserError(
        tr("text is wanted, this is {kind}", kind=type(value).__name__),
        remedy=tr("Pictures and sound in conversations are not read yet"),
    )

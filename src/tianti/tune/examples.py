"""The examples of a task as they come from files: checked, named where they are wrong."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tianti.errors import UserError
from tianti.evaluate.tasks.rows import Row, read_numbered_rows
from tianti.messages import tr
from tianti.tokens.conversations import messages_of
from tianti.tune.config import COLUMNS, GROUP, TuneConfig

Example = dict[str, Any]
# Columns that hold what is to be told or written.
WANTED = {
    *("label", "entities", "tags", "target", "summary", "answer", "answers", "output"),
    *("completion", "chosen", "rejected"),
}


ANSWERS = ("chosen", "rejected")
_GOOD = {"true": True, "1": True, "false": False, "0": False}


def read_examples(
    where: str | list[str], tune: TuneConfig, *, answered: bool = True
) -> list[Example]:
    """Reads files of examples.

    Args:
        where: the file, or several.
        tune: the task and what its columns are called.
        answered: whether what is wanted must be there; to predict, it need not.

    Returns:
        For each example the fields that its task has: `text`, `pair` and `label` (a text, a list
        of texts, or a number); `text` and `entities` (`[start, end, type]` in characters);
        `messages`; `prompt` (messages), `chosen` and `rejected`; or `text`. And `place`, the file
        and line it comes from.

    Raises:
        UserError: an example is wrong, with file and line; or there is none in a file.
    """
    found: list[Example] = []
    for path in tune.files(where):
        here = list(_examples(path, tune, answered))
        if not here:
            raise UserError(
                tr("there are no examples here"), where=path, remedy=tr("Check the path")
            )
        found += here
    if tune.task == "prefer":
        found = _by_preference(found, tune)
    return found


def _by_preference(examples: list[Example], tune: TuneConfig) -> list[Example]:
    """Gives pairs of answers, or single ones where those are what is learnt from.

    Raises:
        UserError: an answer is single where pairs are wanted.
    """
    if tune.preference != "kto":
        for example in examples:
            if "completion" in example:
                raise UserError(
                    tr("a pair is wanted, chosen and rejected: this is a single answer"),
                    where=example["place"],
                    remedy=tr("Set tune.preference to kto"),
                )
        return examples
    single = []
    for example in examples:
        if "chosen" not in example:
            single.append(example)
            continue
        same = {name: value for name, value in example.items() if name not in ANSWERS}
        single += [same | {"completion": example[n], "good": n == "chosen"} for n in ANSWERS]
    return single


def _examples(path: str, tune: TuneConfig, answered: bool) -> Iterator[Example]:
    make = _MAKERS[tune.task]
    for line, row in read_numbered_rows(path):
        here = f"{path}:{line}"
        try:
            named = _named(row, tune)
            if not answered:
                named = {name: value for name, value in named.items() if name not in WANTED}
            made = make(named, answered)
            if GROUP in tune.columns and (answered or GROUP in named):
                made[GROUP] = str(_there(named, GROUP))
            yield made | {"place": here}
        except UserError as error:
            raise UserError(error.what, where=here, remedy=error.remedy) from error
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            # A shape of data that nobody thought of.
            raise UserError(
                tr("this example cannot be read ({reason})", reason=error),
                where=here,
                remedy=tr("Compare it with docs/tuning.md"),
            ) from error


def _named(row: Row, tune: TuneConfig) -> Row:
    """Gives a row by the names that tasks know."""
    wanted = {name: tune.column(name) for name in {*COLUMNS[tune.task], *tune.columns}}
    for ours, theirs in tune.columns.items():
        if theirs not in row and ours != GROUP:
            raise UserError(
                tr("there is no column {name!r}", name=theirs),
                remedy=tr("It has: {names}", names=", ".join(map(str, row)) or "–"),
            )
    renamed = {ours: row[theirs] for ours, theirs in wanted.items() if theirs in row}
    taken = set(tune.columns.values())
    return {k: v for k, v in row.items() if k not in taken} | renamed


def _there(row: Row, name: str) -> Any:
    """Gives the value of a column.

    Raises:
        UserError: there is no such column.
    """
    if name not in row:
        raise UserError(
            tr("there is no column {name!r}", name=name),
            remedy=tr(
                "It has: {names}. Say which with tune.columns",
                names=", ".join(map(str, row)) or "–",
            ),
        )
    return row[name]


def _text(row: Row, name: str) -> str:
    value = _there(row, name)
    if not isinstance(value, str):
        raise UserError(
            tr("{name} is no text but {kind}", name=name, kind=type(value).__name__),
        )
    if not value.strip():
        raise UserError(tr("{name} is empty", name=name))
    return value


def _classified(row: Row, answered: bool) -> Example:
    found: Example = {"text": _text(row, "text")}
    if "pair" in row:
        found["pair"] = _text(row, "pair")
    if not answered:
        return found
    label = _there(row, "label")
    if isinstance(label, list | tuple):
        found["label"] = [_name(one) for one in label]
    else:
        found["label"] = _name(label)
    return found


def _name(label: Any) -> str:
    if isinstance(label, bool | int):
        return str(int(label)) if isinstance(label, bool) else str(label)
    if isinstance(label, str) and label.strip():
        return label
    raise UserError(tr("a label is a name, this is {value!r}", value=label))


def _measured(row: Row, answered: bool) -> Example:
    found: Example = {"text": _text(row, "text")}
    if "pair" in row:
        found["pair"] = _text(row, "pair")
    if answered:
        try:
            found["label"] = float(row["label"])
            if not math.isfinite(found["label"]):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise UserError(
                tr("a number is wanted, this is {value!r}", value=row.get("label"))
            ) from None
    return found


def _tagged(row: Row, answered: bool) -> Example:
    if "tokens" in row:
        return _from_tags(row, answered)
    found: Example = {"text": _text(row, "text")}
    if not answered:
        return found
    entities = []
    for entity in _there(row, "entities") or []:
        try:
            start, end, kind = _entity(entity)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                tr("an entity has start, end and type, this is {value!r}", value=entity),
                remedy='[{"start": 0, "end": 2, "type": "name"}]',
            ) from None
        if not 0 <= start < end <= len(found["text"]):
            raise UserError(
                tr(
                    "the entity {start}–{end} is not within the text of {length} characters",
                    start=start,
                    end=end,
                    length=len(found["text"]),
                )
            )
        entities.append([start, end, kind])
    # Of those within others the outer ones come first.
    found["entities"] = sorted(entities, key=lambda entity: (entity[0], -entity[1]))
    for (_, end, _), (start, last, _) in itertools.pairwise(found["entities"]):
        if start < end < last:
            raise UserError(tr("entities overlap at character {place}", place=start))
    return found


def _entity(entity: Any) -> tuple[int, int, str]:
    if isinstance(entity, Mapping):
        kind = entity.get("type", entity.get("label"))
        return int(entity["start"]), int(entity["end"]), _name(kind)
    start, end, kind = entity
    return int(start), int(end), _name(kind)


def _from_tags(row: Row, answered: bool) -> Example:
    """Gives an example whose text is given in words, each with a tag of the BIO scheme."""
    words = row["tokens"]
    if not isinstance(words, list) or not words or not all(isinstance(w, str) and w for w in words):
        raise UserError(tr("tokens is a list of words, this is {value!r}", value=words))
    text, places = "", []
    for word in words:
        # Chinese is written without blanks.
        blank = " " if text and text[-1].isascii() and word[:1].isascii() else ""
        places.append((len(text) + len(blank), len(text) + len(blank) + len(word)))
        text += blank + word
    tags = row.get("tags")
    if tags is None and not answered:
        return {"text": text}
    if not isinstance(tags, list) or len(tags) != len(words):
        raise UserError(tr("there are {words} words but not as many tags", words=len(words)))
    entities: list[list[Any]] = []
    for number, (tag, (start, end)) in enumerate(zip(tags, places, strict=True)):
        kind = str(tag)[2:]
        if tag == "O":
            continue
        if str(tag)[:2] not in ("B-", "I-") or not kind:
            raise UserError(tr("the tag {tag!r} is none of O, B-…, I-…", tag=tag))
        goes_on = number and tag[0] == "I" and str(tags[number - 1])[2:] == kind
        if goes_on and entities:
            entities[-1][1] = end
        else:
            entities.append([start, end, kind])
    return {"text": text, "entities": entities}


def _instructed(row: Row, answered: bool) -> Example:
    if answered:
        return {"messages": messages_of(row)}
    # What is to be said need not be there.
    filled = {"output": "", "completion": ""} | row if "messages" not in row else row
    messages = messages_of(filled)
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not messages:
        raise UserError(tr("the conversation is empty"))
    return {"messages": messages}


def _asked(question: str, answer: str | None) -> Example:
    turns = [{"role": "user", "content": question}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    return {"messages": turns}


def _written(source: str, target: str) -> Any:
    def make(row: Row, answered: bool) -> Example:
        wanted = _text(row, target) if answered or target in row else None
        return _asked(_text(row, source), wanted)

    return make


def _answered(row: Row, answered: bool) -> Example:
    # Text before the question, so that what several questions are about is computed once.
    context = f"{_text(row, 'context')}\n" if row.get("context") else ""
    found = _asked(context + _text(row, "question"), None)
    answers = row.get("answer", row.get("answers"))
    if answers is None:
        if answered:
            _text(row, "answer")
        return found
    several = answers if isinstance(answers, list) else [answers]
    texts = [one["text"] if isinstance(one, Mapping) else one for one in several]
    # SQuAD has all of them in one list.
    texts = [text for one in texts for text in (one if isinstance(one, list) else [one])]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(tr("{name} is empty", name="answer"))
    found["messages"].append({"role": "assistant", "content": texts[0]})
    return found | {"references": list(dict.fromkeys(texts))}


def _preferred(row: Row, answered: bool) -> Example:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(prompt, list):
        messages = messages_of({"messages": prompt, "system": row.get("system")})
    else:
        messages = messages_of({k: v for k, v in row.items() if k not in ("chosen", "rejected")})
    found: Example = {"prompt": messages}
    if not answered and "chosen" not in row:
        return found
    if "completion" in row and "chosen" not in row:
        # Tables have text alone.
        good = _GOOD.get(str(_there(row, "label")).strip().lower())
        if good is None:
            raise UserError(
                tr("an answer is good (true) or bad (false), this is {value!r}", value=row["label"])
            )
        return found | {"completion": _text(row, "completion"), "good": good}
    for name in ANSWERS:
        value = row.get(name)
        if isinstance(value, list):
            value = messages_of({"messages": value})[-1]["content"]
        if isinstance(value, Mapping):
            value = value.get("content", value.get("value"))
        found[name] = _text({name: value} if value is not None else row, name)
    return found


def _paired(row: Row, answered: bool) -> Example:
    found: Example = {"source": _text(row, "source")}
    return found | ({"target": _text(row, "target")} if answered else {})


def _plain(row: Row, answered: bool) -> Example:
    return {"text": _text(row, "text")}


_MAKERS = {
    "classify": _classified,
    "regress": _measured,
    "tag": _tagged,
    "instruct": _instructed,
    "translate": _written("source", "target"),
    "summarize": _written("text", "summary"),
    "answer": _answered,
    "prefer": _preferred,
    "reward": _preferred,
    "align": _paired,
    "lm": _plain,
}


@contextlib.contextmanager
def named(example: Example) -> Iterator[None]:
    """Has an error say which example it is about: its file and line."""
    try:
        yield
    except UserError as error:
        where = error.where or example.get("place")
        raise UserError(error.what, where=where, remedy=error.remedy) from error


def write_examples(path: Path, examples: list[Example]) -> None:
    """Writes examples, one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            file.write(json.dumps(example, ensure_ascii=False) + "\n")


def load_examples(path: Path) -> list[Example]:
    """Reads what `write_examples` wrote."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def text_of(example: Example) -> str:
    """Gives all the text of an example."""
    if "text" in example:
        return "\n".join((example["text"], example.get("pair", "")))
    if "source" in example:
        return "\n".join((example["source"], example.get("target", "")))
    said = [*example.get("messages", ()), *example.get("prompt", ())]
    parts = [message["content"] for message in said]
    answers = (example[n] for n in (*ANSWERS, "completion") if n in example)
    return "\n".join([*parts, *answers])

"""The tokenizer stage of a tuning: the base's, or one that is learnt from the examples."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, pre_tokenizers, processors

from tianti.errors import UserError
from tianti.files import read_json, write_json, write_text
from tianti.messages import tr
from tianti.progress import SILENT, Display
from tianti.tokens.chat import ChatTemplate
from tianti.tokens.further import with_further_tokens
from tianti.tokens.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, HAN, Tokenizer
from tianti.tune.config import COPY, FURTHER, READ, TuneConfig, TunedTokenizerConfig
from tianti.tune.encode import Encoder
from tianti.tune.examples import Example, load_examples, text_of
from tianti.tune.form import Form
from tianti.tune.prepare import LABELS, TRAIN

# What tokenizers of other families say besides `tokenizer.json`.
BESIDE = (
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json"),
    *("added_tokens.json", "merges.txt", "tokenizer.model"),
)
OLDER_FORMS = ("vocab.json", "merges.txt", "tokenizer.model")


def prepare_tokenizer(
    config: TunedTokenizerConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Takes the base's tokenizer, or learns one from the training examples.

    Args:
        config: base, or entries wanted.
        inputs: folder of `examples`.
        out: where to.
        display: shows progress.

    Returns:
        `vocab_size`; `tokens` of the training examples and `longest`, those of the longest text.

    Raises:
        UserError: the tokenizer cannot do what the task needs.
    """
    examples = load_examples(inputs["examples"] / TRAIN)
    tune, base = config.tune, config.base
    if base is None:
        with display.task("tokenizer", len(examples), "examples") as task:
            tokenizer = Tokenizer.train(
                (_counted(text, task) for text in map(text_of, examples)),
                config.vocab_size,
                han_alone=tune.task == "tag",
            )
        tokenizer.save(out)
    else:
        tokenizer = Tokenizer.load(base)
        for name in ("tokenizer.json", *BESIDE):
            # Of one that grows the older forms would say less.
            if (base / name).is_file() and not (tune.more_tokens and name in OLDER_FORMS):
                shutil.copyfile(base / name, out / name)
        if tune.more_tokens:
            tokenizer = _grown(tokenizer, examples, tune.more_tokens, out, display)
    marked = tune.task in READ and tune.task != "lm"
    if marked and tokenizer.is_own and _may_be_marked(tokenizer):
        _mark_ends(tokenizer, tune)
        write_text(out / "tokenizer.json", tokenizer.inner.to_str(pretty=False))
    template = choose_template(tune, base, tokenizer)
    if template is not None:
        _write_template(out, template.source)
    labels = tuple(read_json(inputs["examples"] / LABELS))
    form = Form(tune.task, 10**6, labels, tune.several, pattern=tune.pattern)
    encoder = Encoder(form, tokenizer, template)
    ends = encoder.examples([one for one in examples if COPY not in one]).text_ends
    return {
        "vocab_size": tokenizer.vocab_size,
        "tokens": int(ends[-1]),
        "longest": int(np.diff(ends, prepend=0).max()),
        "unfit_entities": encoder.unfit,
    }


def _write_template(out: Path, source: str) -> None:
    write_text(out / "chat_template.jinja", source)
    # Older readers look for it here.
    path = out / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    if "chat_template" in config:
        write_json(path, config | {"chat_template": source})


def _grown(
    tokenizer: Tokenizer, examples: list[Example], count: int, out: Path, display: Display
) -> Tokenizer:
    """Gives the tokenizer with further tokens, and writes it, and what they are made of."""
    with display.task("tokenizer", len(examples), "examples") as task:
        texts = (_counted(text, task) for text in map(text_of, examples))
        further = with_further_tokens(tokenizer, texts, count)
    write_text(out / "tokenizer.json", further.tokenizer.inner.to_str(pretty=False))
    write_json(out / FURTHER, {"first": tokenizer.vocab_size, "pieces": further.pieces})
    return further.tokenizer


def _counted(text: str, task: Any) -> str:
    task.advance(1)
    return text


def _may_be_marked(tokenizer: Tokenizer) -> bool:
    """Tells whether nothing is put around texts yet, or what an earlier tuning had put there."""
    there = tokenizer.inner.post_processor
    return there is None or isinstance(there, processors.TemplateProcessing)


def _mark_ends(tokenizer: Tokenizer, tune: TuneConfig) -> None:
    """Has a tokenizer of our own put the tokens around texts that a class is told of."""
    begin, middle, end = END_OF_TEXT, "<|im_start|>", "<|im_end|>"
    tokenizer.inner.post_processor = processors.TemplateProcessing(
        # What a pattern ends with is to be gone on from.
        single=f"{begin} $A {end}" if tune.pattern is None else f"{begin} $A",
        pair=f"{begin} $A {middle} $B {end}",
        special_tokens=[
            (token, tokenizer.inner.token_to_id(token)) for token in (begin, middle, end)
        ],
    )
    if tune.task == "tag":
        # An entity ends between characters that a merge would join.
        inner = tokenizer.inner
        alone = pre_tokenizers.Split(Regex(HAN), behavior="isolated")
        if "Han" not in str(inner.pre_tokenizer):
            inner.pre_tokenizer = pre_tokenizers.Sequence([alone, inner.pre_tokenizer])


def choose_template(
    tune: TuneConfig, base: Path | None, tokenizer: Tokenizer
) -> ChatTemplate | None:
    """Gives the template of a task's conversations; None where it has none.

    Raises:
        UserError: the base has no template and none is named.
    """
    if tune.task in READ:
        return None
    special = template_tokens(tokenizer)
    if tune.template is not None:
        return ChatTemplate.built_in(tune.template, special)
    source = None if base is None else template_of(base)
    # Every model that is pretrained here has that one, though it has seen no conversation yet.
    if source is not None and source != CHAT_TEMPLATE:
        return ChatTemplate(source, special)
    if tokenizer.is_own:
        written = tune.task in ("translate", "summarize", "answer")
        return ChatTemplate.built_in("plain" if written else "chatml", special)
    raise UserError(
        tr("the base has no chat template"),
        where=base,
        remedy=tr("Choose one with tune.template"),
    )


def template_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Gives the names of the tokens that templates write."""
    if tokenizer.is_own:
        return {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    return tokenizer.special


def template_for(task: str, folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """Gives the template in a folder that a task's conversations are written by; None without."""
    source = None if task in READ else template_of(folder)
    return None if source is None else ChatTemplate(source, template_tokens(tokenizer))


def conversation_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate:
    """Gives the chat template of a model.

    Raises:
        UserError: it has none.
    """
    source = template_of(folder)
    if source is None:
        raise UserError(tr("the model has no chat template"), where=folder)
    return ChatTemplate(source, template_tokens(tokenizer))


def template_of(folder: Path) -> str | None:
    """Gives the chat template of a model directory."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    config = folder / "tokenizer_config.json"
    found = read_json(config).get("chat_template") if config.is_file() else None
    return found if isinstance(found, str) else None

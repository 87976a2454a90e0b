"""Which documents get a changed copy, and what it is called."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pyarrow as pa

from tianti.corpus.augment import expand, noise
from tianti.corpus.config import Augmentation
from tianti.corpus.document import content_id
from tianti.corpus.language import detect_language

Change = Callable[[str, Random], str]
Rewriter = Callable[[list[str], str, str, int], list[str]]
_NOISE: dict[str, Callable[[str, float, Random], str]] = {
    "keyboard": noise.keyboard,
    "delete": noise.delete,
    "swap": noise.swap,
    "homophone": noise.homophone,
    "lookalike": noise.lookalike,
    "ocr": noise.ocr,
    "asr": noise.asr,
    "punctuation": noise.punctuation,
    "random_swap": expand.random_swap,
    "random_delete": expand.random_delete,
    "sentence_shuffle": expand.sentence_shuffle,
    "span_mask": expand.span_mask,
}


def augmented_copies(
    rows: pa.Table, steps: list[dict[str, Any]], rewriter: str | None = None
) -> tuple[pa.Table, pa.Table]:
    """Gives the changed copies of documents: those that come at any time, and the late ones.

    Which documents get a copy, and what it is, depends on the document's content and the seed
    alone. `augmented` names the kind of each copy, `meta` the document it was made of.

    Args:
        rows: training documents.
        steps: what is done, as plain values of `Augmentation`.
        rewriter: `module:function` that rewrites texts by a model.
    """
    made: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    originals = rows.to_pylist()
    for number, step in enumerate(steps):
        config = Augmentation.model_validate(step)
        chosen = [row for row in originals if _is_chosen(row, config, number)]
        texts = _changed(
            [row["text"] for row in chosen], [row["id"] for row in chosen], config, number, rewriter
        )
        for row, text in zip(chosen, texts, strict=True):
            if text.strip() and text != row["text"]:
                made[config.late].append(_copy(row, text, config.kind))
    tables = [pa.Table.from_pylist(made[late], schema=rows.schema) for late in (False, True)]
    return tables[0], tables[1]


def changed_copies(
    texts: Sequence[str], steps: Sequence[Augmentation], rewriter: str | None = None
) -> list[tuple[int, str, str]]:
    """Gives changed copies of texts that are no documents.

    Args:
        texts: such as those of examples.
        steps: what is done; which texts get a copy, and what it is, depends on text and seed alone.
        rewriter: see `augmented_copies`.

    Returns:
        Of each copy the number of its text, the kind of change, and itself.
    """
    found: list[tuple[int, str, str]] = []
    rows: list[dict[str, Any]] = [
        {"id": content_id(text), "text": text, "language": None} for text in texts
    ]
    for place, step in enumerate(steps):
        chosen = [n for n, row in enumerate(rows) if _is_chosen(row, step, place)]
        made = _changed(
            [texts[n] for n in chosen], [rows[n]["id"] for n in chosen], step, place, rewriter
        )
        for number, text in zip(chosen, made, strict=True):
            if text.strip() and text != texts[number]:
                found.append((number, step.kind, text))
    return found


def _is_chosen(row: dict[str, Any], config: Augmentation, number: int) -> bool:
    if Random(f"{config.seed}/{number}/{row['id']}").random() >= config.share:
        return False
    if config.languages is None:
        return True
    language = row["language"] or detect_language(row["text"]).code
    return language in config.languages


def _changed(
    texts: list[str],
    ids: list[str],
    config: Augmentation,
    number: int,
    rewriter: str | None,
) -> list[str]:
    if config.kind in ("paraphrase", "back_translate"):
        return _rewritten(texts, config, rewriter)
    out = []
    for text, identity in zip(texts, ids, strict=True):
        random = Random(f"{config.seed}/{number}/{identity}/text")
        out.append(_change(config)(text, random))
    return out


def _change(config: Augmentation) -> Change:
    if config.kind in ("synonym", "random_insert"):
        table = expand.load_synonyms(config.synonyms)
        by_words = expand.synonym if config.kind == "synonym" else expand.random_insert
        return lambda text, random: by_words(text, config.rate, random, table)
    return lambda text, random: _NOISE[config.kind](text, config.rate, random)


def _rewritten(texts: list[str], config: Augmentation, rewriter: str | None) -> list[str]:
    """Has a model say texts otherwise, or into another language and back."""
    assert rewriter is not None, "whoever starts the stage names what rewrites"
    module, name = rewriter.split(":")
    rewrite: Rewriter = getattr(importlib.import_module(module), name)
    if not texts:
        return []
    if config.kind == "paraphrase":
        assert config.model is not None
        return rewrite(texts, config.model, config.prompt, config.seed)
    assert config.there is not None
    assert config.back is not None
    abroad = rewrite(texts, config.there, config.prompt, config.seed)
    return rewrite(abroad, config.back, config.back_prompt or config.prompt, config.seed)


def _copy(row: dict[str, Any], text: str, kind: str) -> dict[str, Any]:
    meta = json.loads(row["meta"]) if row["meta"] else {}
    return {
        **row,
        "id": content_id(text),
        "text": text,
        "origin": f"{row['origin']}~{kind}",
        "augmented": kind,
        "meta": json.dumps(meta | {"augmented_from": row["id"]}, ensure_ascii=False),
    }

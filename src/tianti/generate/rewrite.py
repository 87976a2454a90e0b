"""Texts said otherwise by a model: paraphrase, or translation there and back."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tianti.generate.config import SamplingConfig

if TYPE_CHECKING:
    from tianti.model.transformer import Transformer
    from tianti.tokens.tokenizer import Tokenizer

REWRITER = "tianti.generate.rewrite:rewrite"
_SENTENCE = re.compile(r"[^.!?。！？\n]+(?:[.!?。！？]+[\"'”’」』)]*|$)\s*|\n+")
# Shorter or longer than this many times the original is no rendering of it.
_SHORTEST, _LONGEST = 0.3, 3.0


@functools.lru_cache(maxsize=2)
def _load(folder: str) -> tuple[Transformer, Tokenizer]:
    from tianti.device import choose_device
    from tianti.exchange.huggingface import load_transformer
    from tianti.tokens.tokenizer import Tokenizer

    path = Path(folder)
    path = path / "model" if (path / "model").is_dir() else path
    return load_transformer(path, choose_device("auto")).eval(), Tokenizer.load(path)


def rewrite(texts: list[str], model: str, prompt: str, seed: int) -> list[str]:
    """Gives each text with its sentences said by a model.

    Args:
        texts: what is to be said otherwise.
        model: its folder.
        prompt: what the model goes on from; `{text}` stands for the sentence. It writes one line.
        seed: of its sampling.
    """
    transformer, tokenizer = _load(model)
    sampling = SamplingConfig(temperature=0.7, max_tokens=128, seed=seed, stop=["\n"])
    return [_of_text(text, transformer, tokenizer, prompt, sampling) for text in texts]


def _of_text(
    text: str,
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig,
) -> str:
    from tianti.generate.engine import generate_text

    out = []
    for sentence in _SENTENCE.findall(text):
        said = sentence.strip()
        if not said:
            out.append(sentence)
            continue
        begin = prompt.replace("{text}", said)
        room = transformer.config.context - len(tokenizer.encode(begin))
        if room < 2:
            out.append(sentence)
            continue
        limited = sampling.model_copy(update={"max_tokens": min(room, 2 * len(said))})
        found = generate_text(transformer, tokenizer, begin, limited).text.strip()
        good = _SHORTEST * len(said) <= len(found) <= _LONGEST * len(said)
        out.append(sentence.replace(said, found) if good else sentence)
    return "".join(out)

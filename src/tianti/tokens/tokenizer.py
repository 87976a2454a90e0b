"""A byte-level BPE tokenizer: any bytes in, the same bytes out.

The pre-tokenisation pattern and the special tokens are Qwen2's (tokenizer.json of Qwen2 and
Qwen2.5), so that formats which recognise that family recognise this tokenizer. Unlike Qwen2's it
does not normalise: what is encoded is what is decoded, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer

from tianti.errors import Damaged, UserError
from tianti.files import read_json, write_json, write_text
from tianti.messages import tr

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HAN = r"\p{Han}"
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
_NO_TEXT = re.compile("[\ud800-\udfff]")
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
_INVALID_BYTE = re.compile("([\udc80-\udcff])")


def byte_alphabet() -> dict[int, str]:
    """Gives the character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in table)
    return table | {byte: chr(256 + index) for index, byte in enumerate(others)}


class Tokenizer:
    """Text to ids and back; on disk `tokenizer.json` with what transformers needs beside it.

    Args:
        inner: the tokenizer.
        special: names of special tokens by their part, such as `eos_token`, where they are not
            those of our own.
    """

    def __init__(self, inner: HuggingFaceTokenizer, special: dict[str, str] | None = None):
        self.inner = inner
        self.special = special or {}
        # Text that happens to contain `<|im_end|>` is text: only callers that build chats may
        # write special tokens.
        self.inner.encode_special_tokens = True

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, *, han_alone: bool = False) -> Tokenizer:
        """Learns merges from texts.

        Args:
            texts: training text.
            vocab_size: entries wanted, the 256 bytes and the special tokens included; fewer come
                out when the text has no more pairs to merge.
            han_alone: no token holds more than one Chinese character.
        """
        inner = HuggingFaceTokenizer(models.BPE(fuse_unk=False, byte_fallback=False))
        steps = [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        if han_alone:
            steps.insert(0, pre_tokenizers.Split(Regex(HAN), behavior="isolated"))
        inner.pre_tokenizer = pre_tokenizers.Sequence(steps)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=max(vocab_size, SMALLEST_VOCABULARY) - len(SPECIAL_TOKENS),
            initial_alphabet=sorted(byte_alphabet().values()),
            special_tokens=[],
            show_progress=False,
            max_token_length=64,
        )
        inner.train_from_iterator(texts, trainer)
        inner.add_special_tokens(
            [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS]
        )
        return cls(inner)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads the tokenizer of a model directory.

        Raises:
            UserError: there is none.
            Damaged: it cannot be read.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                tr("there is no tokenizer.json here"),
                where=folder,
                remedy=tr("Give the model/ folder of a run or a Hugging Face directory"),
            )
        read_json(path)
        try:
            return cls(HuggingFaceTokenizer.from_file(str(path)), special_tokens(folder))
        except Exception as error:
            raise Damaged(tr("file is damaged ({reason})", reason=error), where=path) from error

    def save(self, folder: Path, context: int | None = None) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` and the chat template."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "tokenizer.json", self.inner.to_str(pretty=False))
        write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        }
        if context:
            config["model_max_length"] = context
        write_json(folder / "tokenizer_config.json", config)

    @property
    def vocab_size(self) -> int:
        """Gives the number of entries, special tokens included."""
        return self.inner.get_vocab_size(with_added_tokens=True)

    @cached_property
    def is_own(self) -> bool:
        """Tells whether it has the special tokens of those that are trained here."""
        return all(self.inner.token_to_id(token) is not None for token in SPECIAL_TOKENS)

    @cached_property
    def end_of_text(self) -> int:
        """Gives the id of the token that ends every document; of our own it begins them too."""
        name = END_OF_TEXT if self.is_own else self.special.get("eos_token", END_OF_TEXT)
        token = self.inner.token_to_id(name)
        if token is None:
            raise UserError(tr("the tokenizer has no token {token}", token=name))
        return token

    @cached_property
    def begin(self) -> int:
        """Gives the id of the token that begins every document."""
        name = None if self.is_own else self.special.get("bos_token")
        token = None if name is None else self.inner.token_to_id(name)
        return self.end_of_text if token is None else token

    @cached_property
    def padding(self) -> int:
        """Gives the id that fills rows up."""
        name = None if self.is_own else self.special.get("pad_token")
        token = None if name is None else self.inner.token_to_id(name)
        return self.end_of_text if token is None else token

    @cached_property
    def ends(self) -> list[int]:
        """Gives the ids that end what an assistant says, end-of-text the first."""
        names = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")
        found = [self.inner.token_to_id(name) for name in names]
        others = [token for token in found if token is not None and token != self.end_of_text]
        return [self.end_of_text, *others]

    @cached_property
    def _id_of_byte(self) -> list[int]:
        ids = [self.inner.token_to_id(name) for _, name in sorted(byte_alphabet().items())]
        if None in ids:
            raise UserError(tr("the tokenizer has no token {token}", token="byte"))
        return [index for index in ids if index is not None]

    @cached_property
    def _bytes_of_id(self) -> list[bytes]:
        value_of = {character: byte for byte, character in byte_alphabet().items()}
        added = set(self.inner.get_added_tokens_decoder())
        by_byte = "ByteLevel" in str(self.inner.decoder)
        found = []
        for index in range(self.vocab_size):
            token = self.inner.id_to_token(index) or ""
            if index in added:
                found.append(token.encode())
            elif by_byte:
                found.append(bytes(value_of[character] for character in token))
            else:
                # SentencePiece: a mark for a blank, and bytes that are no text by their number.
                byte = _BYTE_TOKEN.fullmatch(token)
                text = token.replace("\u2581", " ").encode()
                found.append(bytes([int(byte[1], 16)]) if byte else text)
        return found

    @cached_property
    def _fast(self) -> tiktoken.Encoding | None:
        """The same vocabulary in tiktoken, four times as fast; None where ids could differ."""
        return fast_encoding(json.loads(self.inner.to_str()))

    def encode(self, text: str) -> list[int]:
        """Gives the ids of a text; special tokens written in it are plain text."""
        if _NO_TEXT.search(text):
            return self.encode_bytes(text.encode("utf-8", "surrogatepass"))
        return self.inner.encode(text, add_special_tokens=False).ids

    def encode_array(self, text: str) -> np.ndarray:
        """Gives the ids of a text as `encode` does, as an array of uint32, faster."""
        if self._fast is None:
            return np.asarray(self.encode(text), np.uint32)
        try:
            return self._fast.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            # Lone surrogates. It is a ValueError too, so it must come first.
            return np.asarray(self.encode_bytes(text.encode("utf-8", "surrogatepass")), np.uint32)
        except ValueError:
            # A million blanks in a row overflow tiktoken's regular expressions.
            return np.asarray(self.inner.encode(text, add_special_tokens=False).ids, np.uint32)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Gives the ids of any bytes: valid UTF-8 as text, every other byte as its own token."""
        ids: list[int] = []
        for piece in _valid_runs(data):
            if isinstance(piece, str):
                ids.extend(self.inner.encode(piece, add_special_tokens=False).ids)
            else:
                ids.append(self._id_of_byte[piece])
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Gives the bytes that ids stand for, special tokens as their names."""
        return b"".join(self._bytes_of_id[index] for index in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Gives text; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")


def special_tokens(folder: Path) -> dict[str, str]:
    """Gives the names of special tokens that a model directory tells."""
    path = folder / "tokenizer_config.json"
    said = read_json(path) if path.is_file() else {}
    found = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = said.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def fast_encoding(written: dict[str, Any]) -> tiktoken.Encoding | None:
    """Gives the tiktoken encoding of a `tokenizer.json`; None where its ids could differ.

    It must be what `Tokenizer.train` makes: byte-level BPE over Qwen2's pattern, without
    normalisation, ids in the order of the merges.
    """
    model = written["model"]
    steps = (written["pre_tokenizer"] or {}).get("pretokenizers", [])
    plain = (
        model["type"] == "BPE"
        and written["normalizer"] is None
        and not model.get("ignore_merges")
        and not model.get("dropout")
        and len(steps) == 2
        and steps[0].get("pattern") == {"Regex": QWEN2_PATTERN}
        and steps[0].get("behavior") == "Isolated"
        and not steps[0].get("invert")
        and steps[1]["type"] == "ByteLevel"
        and not steps[1]["add_prefix_space"]
        and not steps[1]["use_regex"]
    )
    if not plain:
        return None
    vocabulary = model["vocab"]
    merged = [vocabulary.get("".join(pair)) for pair in model["merges"]]
    alphabet = byte_alphabet()
    in_order = merged == list(range(256, 256 + len(merged))) and sorted(
        vocabulary.get(character, -1) for character in alphabet.values()
    ) == list(range(256))
    if not in_order:
        return None
    byte_of = {character: byte for byte, character in alphabet.items()}
    special = {token["content"]: token["id"] for token in written["added_tokens"]}
    ranks = {
        bytes(byte_of[character] for character in token): index
        for token, index in vocabulary.items()
        if token not in special
    }
    return tiktoken.Encoding(
        "tianti", pat_str=QWEN2_PATTERN, special_tokens=special, mergeable_ranks=ranks
    )


def _valid_runs(data: bytes) -> Iterator[str | int]:
    """Splits bytes into runs of valid UTF-8 and single bytes that are not."""
    # Python decodes an invalid byte b to the lone surrogate U+DC00 + b, which no valid text holds.
    for piece in _INVALID_BYTE.split(data.decode("utf-8", "surrogateescape")):
        if _INVALID_BYTE.fullmatch(piece):
            yield ord(piece) - 0xDC00
        elif piece:
            yield piece

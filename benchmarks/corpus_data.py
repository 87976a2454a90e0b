"""The text that corpus.py measures on: mixed documents with known copies, made from a seed.

Data is read from `TIANTI_DATA` (default ../shared/data) and from what the machine carries: Python
sources and /usr/share/doc. So sizes and counts differ between machines, ratios hardly.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import site
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("TIANTI_DATA", ROOT.parent / "shared" / "data"))
SHARES = {"english": 0.45, "code": 0.3, "chinese": 0.25}
COPIES = 0.18
SHARD_BYTES = 8_000_000
NGRAM = 5
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")


def words_of(text: str) -> list[str]:
    """Gives the words of a text: runs of letters and digits in lower case, each 汉字 one."""
    return _WORD.findall(text.lower())


def shingles(text: str) -> set[tuple[str, ...]]:
    """Gives the set of a text's word n-grams; of a shorter text, all its words as one."""
    words = words_of(text)
    return {tuple(words[at : at + NGRAM]) for at in range(max(len(words) - NGRAM + 1, 1))}


def jaccard(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    """Gives the share of n-grams that two texts have in common."""
    return len(left & right) / len(left | right)


def lines_of(path: Path) -> Iterator[str]:
    """Gives the lines of a gzip or zstd file."""
    import pyarrow as pa

    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
        return
    with pa.CompressedInputStream(str(path), "zstd") as stream:
        yield from io.TextIOWrapper(stream, encoding="utf-8")


def records(name: str, *, split: str = "*") -> Iterator[dict[str, Any]]:
    """Gives the rows of a data set."""
    for path in sorted((DATA / name).glob(f"{split}.jsonl.*")):
        for line in lines_of(path):
            yield json.loads(line)


def passages(text: str, size: int) -> Iterator[str]:
    """Cuts a text at paragraph ends into pieces of about a size."""
    piece: list[str] = []
    chars = 0
    for paragraph in text.split("\n\n"):
        piece.append(paragraph)
        chars += len(paragraph)
        if chars >= size:
            yield "\n\n".join(piece)
            piece, chars = [], 0
    if piece:
        yield "\n\n".join(piece)


def books() -> Iterator[str]:
    """Gives passages of English books."""
    for number, row in enumerate(records("en_books")):
        yield from passages(row["text"], 2000 + 500 * (number % 5))


def wikipedia() -> Iterator[str]:
    """Gives the articles of WikiText-2."""
    for path in sorted((DATA / "wikitext2").glob("wiki.*.tokens.gz")):
        yield from re.split(r"(?m)^(?= = [^=])", "".join(lines_of(path)))


def files_under(*folders: str | Path, endings: tuple[str, ...]) -> Iterator[str]:
    """Gives the UTF-8 text files of folders, long ones in pieces."""
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if not path.name.endswith(endings) or not path.is_file():
                continue
            try:
                raw = path.read_bytes()
                text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
            except (OSError, UnicodeDecodeError, EOFError):
                continue
            if len(text) < 2_000_000:
                yield from passages(text, 4000)


def english() -> Iterator[str]:
    """Gives English prose: books, reviews, news, encyclopedia, answers, abstracts, chats."""
    yield from books()
    yield from (row["text"] for row in records("imdb"))
    yield from (row["text"] for row in records("ag_news_10k"))
    yield from (row["text"] for row in records("r8"))
    yield from wikipedia()
    for row in records("alpaca_en_zh", split="train"):
        yield "\n".join(filter(None, (row["en_instruction"], row["en_input"], row["en_output"])))
    yield from (" ".join(row["source"]) for row in records("scitldr_a"))
    yield from (row["dialogue"] for row in records("samsum"))
    yield from files_under("/usr/share/doc", endings=(".txt", ".gz", "README", "NEWS", ".md"))


def code() -> Iterator[str]:
    """Gives Python sources: the standard library, then installed packages."""
    yield from files_under(sysconfig.get_paths()["stdlib"], endings=(".py",))
    yield from files_under(*site.getsitepackages(), endings=(".py", ".pyi", ".h"))


def chinese() -> Iterator[str]:
    """Gives Chinese text: articles, encyclopedia, dialogue, abstracts, answers, reviews, titles."""
    for row in records("zh_tech_lctt"):
        yield from passages(row["text"], 2500)
    for name in ("cmrc2018", "c3"):
        yield from dict.fromkeys(row["context"] for row in records(name))
    yield from (row["abstract"] for row in records("csl_title"))
    for row in records("alpaca_en_zh", split="train"):
        yield "\n".join(filter(None, (row["zh_instruction"], row["zh_input"], row["zh_output"])))
    yield from (row["text"] for row in records("chnsenticorp"))
    yield from (row["text"] for row in records("tnews"))


def web_pages() -> Iterator[str]:
    """Gives the whole text of news pages, menus and footers with it, and their main text."""
    import pyarrow as pa
    from resiliparse.extract.html2text import extract_plain_text

    path = DATA / "html_article_extraction" / "article_extraction_benchmark.tar.zst"
    with (
        pa.CompressedInputStream(str(path), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and ".html" in member.name:
                raw = file.read()
                html = (gzip.decompress(raw) if member.name.endswith(".gz") else raw).decode()
                yield extract_plain_text(html, main_content=False)
                yield extract_plain_text(html, main_content=True)


def for_filters(each: int, seed: int) -> list[tuple[str, str]]:
    """Gives `(source, text)` of English documents of many kinds, junk among them.

    Args:
        each: documents of a source, at most.
        seed: which ones.
    """
    from tianti.corpus.python_docs import python_docs

    sources: dict[str, Iterable[str]] = {
        "books": books(),
        "imdb": (row["text"] for row in records("imdb", split="test")),
        "news": (row["text"] for row in records("ag_news_10k")),
        "wikitext2": wikipedia(),
        "alpaca": (row["en_output"] for row in records("alpaca_en_zh", split="train")),
        "abstracts": (" ".join(row["source"]) for row in records("scitldr_a")),
        "chats": (row["dialogue"] for row in records("samsum")),
        "pages": web_pages(),
        "python docs": (document.text for document in python_docs()),
        "package docs": files_under("/usr/share/doc", endings=(".txt", ".gz", "README", ".md")),
        "code": files_under(sysconfig.get_paths()["stdlib"] + "/asyncio", endings=(".py",)),
    }
    out = []
    for name, texts in sources.items():
        pool = [text for text in texts if text.strip() and len(text) < 500_000]
        random.Random(f"{seed} {name}").shuffle(pool)
        out += [(name, text) for text in pool[:each]]
    return out


@dataclass(frozen=True)
class Copy:
    """What is known of a document that was made from another.

    Args:
        id: of the copy.
        original: id of what it was made from.
        kind: `exact`, `words` (edited throughout) or `block` (cut short or added to).
        language: of the original: a key of `SHARES`.
        jaccard: of the n-gram sets of both.
        words: of the shorter one.
    """

    id: str
    original: str
    kind: str
    language: str
    jaccard: float
    words: int


def _edited(text: str, rate: float, words: list[str], dice: random.Random) -> str:
    """Replaces, deletes or adds words at a rate, in equal parts."""
    out = []
    at = 0
    for match in _WORD.finditer(text):
        out.append(text[at : match.start()])
        at = match.end()
        if dice.random() >= rate:
            out.append(match[0])
            continue
        kind = dice.randrange(3)
        gap = "" if match[0][0] > "\u3000" else " "
        out.append(("", dice.choice(words), match[0] + gap + dice.choice(words))[kind])
    out.append(text[at:])
    return "".join(out)


def _blocked(text: str, similarity: float, other: str, dice: random.Random) -> str:
    """Cuts a text short or adds a foreign passage, to about a similarity."""
    if dice.random() < 0.5:
        return text[: max(round(len(text) * similarity), 1)]
    extra = other[: round(len(text) * (1 / similarity - 1))]
    return text + "\n" + extra if dice.random() < 0.5 else extra + "\n" + text


def _copy(text: str, pool: list[str], words: list[str], dice: random.Random) -> tuple[str, str]:
    """Gives a copy and its kind, its similarity drawn from 0.3 to 1, most of it above 0.8."""
    place = dice.random()
    if place < 1 / 3:
        return text, "exact"
    low, high = (0.8, 1.0) if dice.random() < 0.6 else (0.3, 0.8)
    similarity = dice.uniform(low, high)
    if place < 0.8:
        # A share s of n-grams without an edit makes a similarity of s / (2 - s).
        rate = 1 - (2 * similarity / (1 + similarity)) ** (1 / NGRAM)
        again, kind = _edited(text, rate, words, dice), "words"
    else:
        again, kind = _blocked(text, similarity, dice.choice(pool), dice), "block"
    return again, kind if again != text else "exact"


def build(out: Path, megabytes: int, seed: int = 1) -> Path:
    """Writes `corpus/*.jsonl` (id, text) and `copies.jsonl`, unless they are there.

    Args:
        out: parent of the folder that is made.
        megabytes: of text.
        seed: which documents, copies and order.

    Returns:
        The folder.
    """
    folder = out / f"corpus-{megabytes}mb-{seed}"
    if (folder / "copies.jsonl").is_file():
        return folder
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    dice = random.Random(seed)
    rows: list[tuple[str, str]] = []
    copies: list[Copy] = []
    for language, texts in (("english", english()), ("code", code()), ("chinese", chinese())):
        _add(rows, copies, language, list(texts), megabytes * 1e6 * SHARES[language], dice)
    dice.shuffle(rows)
    _write_shards(folder / "corpus", rows)
    lines = "".join(json.dumps(copy.__dict__) + "\n" for copy in copies)
    (folder / "copies.jsonl").write_text(lines, "utf-8")
    return folder


def _add(
    rows: list[tuple[str, str]],
    copies: list[Copy],
    language: str,
    pool: list[str],
    num_bytes: float,
    dice: random.Random,
) -> None:
    """Adds documents of one language until there are enough bytes, with copies of some."""
    pool = [text for text in pool if text.strip()]
    dice.shuffle(pool)
    words = [word for text in pool[:500] for word in words_of(text)]
    copied = COPIES / (1 - COPIES)
    for text in pool:
        if num_bytes <= 0:
            return
        name = f"{len(rows):07d}"
        rows.append((name, text))
        num_bytes -= len(text.encode())
        if dice.random() >= copied:
            continue
        again, kind = _copy(text, pool, words, dice)
        if not again.strip():
            continue
        share = 1.0 if kind == "exact" else jaccard(shingles(text), shingles(again))
        length = min(len(words_of(text)), len(words_of(again)))
        copies.append(Copy(f"{len(rows):07d}", name, kind, language, share, length))
        rows.append((f"{len(rows):07d}", again))
        num_bytes -= len(again.encode())


def _write_shards(folder: Path, rows: list[tuple[str, str]]) -> None:
    shard: list[str] = []
    size = number = 0
    for index, (name, text) in enumerate(rows):
        shard.append(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
        size += len(text.encode())
        if size >= SHARD_BYTES or index == len(rows) - 1:
            (folder / f"{number:05d}.jsonl").write_text("".join(shard), "utf-8")
            shard, size, number = [], 0, number + 1


def read_corpus(folder: Path) -> dict[str, str]:
    """Gives the texts of a corpus that `build` wrote, by id, in order."""
    texts = {}
    for path in sorted((folder / "corpus").glob("*.jsonl")):
        for line in path.read_text("utf-8").split("\n"):
            if line:
                row = json.loads(line)
                texts[row["id"]] = row["text"]
    return texts


def read_copies(folder: Path) -> list[Copy]:
    """Gives what is known of the copies in a corpus."""
    lines = (folder / "copies.jsonl").read_text("utf-8").splitlines()
    return [Copy(**json.loads(line)) for line in lines]

"""Measures what prepares a corpus against gold: `python benchmarks/corpus_accuracy.py`.

Four sections, each with Markdown tables: main text of web pages, languages, private data, and
byte-level BPE encoders. Data is read from `TIANTI_DATA` (default ../shared/data; each set has a
SOURCE.md). Rates are per second of processor time where the head says `CPU`, so that neighbours on
the machine count for little; the others are wall time and are noisy on a shared machine.

The section `tokenizers` compares with rustbpe, tiktoken and kitoken where they can be imported:
`pip install --no-deps --target DIR rustbpe tiktoken kitoken regex`, then `PYTHONPATH=DIR`.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import random
import re
import statistics
import string
import sysconfig
import tarfile
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("TIANTI_DATA", ROOT.parent / "shared" / "data"))
SEED = 20250101
Encoder = Callable[[str], Any]


# ---- reading and showing ----


def unpacked(path: Path) -> bytes:
    """Gives the bytes of a .gz or .zst file."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    return pyarrow.input_stream(str(path), compression="zstd").read()


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Gives the objects of a compressed .jsonl file."""
    # Not splitlines: U+0085 and U+2028 stand inside some strings.
    return (json.loads(line) for line in unpacked(path).decode().split("\n") if line)


def show(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints a Markdown table; floats as fractions of three digits."""
    head = list(head)
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in row) + " |")
    print()


# ---- html ----


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """Counts the 4-grams of words; a text of fewer than four words is one shingle."""
    words = re.findall(r"\w+", text)
    grams = (tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)))
    return Counter(gram for gram in grams if gram)


def overlap(gold: str, found: str) -> tuple[float, float, float]:
    """Gives true positives, false positives and false negatives of a page, as shares of their sum.

    As evaluate.py of scrapinghub/article-extraction-benchmark (4a3bc97) defines them.
    """
    want, have = shingles(gold), shingles(found)
    counts = ((want & have).total(), (have - want).total(), (want - have).total())
    total = sum(counts) or 1
    return counts[0] / total, counts[1] / total, counts[2] / total


def ratio(hits: float, errors: float, other_errors: float) -> float:
    """Gives precision, or recall with the errors swapped; 1 where there is no error at all."""
    if errors == other_errors == 0:
        return 1.0
    return hits / (hits + errors) if hits + errors else 0.0


def scores(pages: list[tuple[float, float, float]]) -> dict[str, float]:
    """Gives mean precision and recall over pages and the F1 of those two means."""
    precision = statistics.mean(ratio(tp, fp, fn) for tp, fp, fn in pages if tp + fp > 0)
    recall = statistics.mean(ratio(tp, fn, fp) for tp, fp, fn in pages if tp + fn > 0)
    f1 = 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}


def html_pages() -> dict[str, tuple[bytes, str]]:
    """Gives page and gold text by id."""
    packed = unpacked(DATA / "html_article_extraction" / "article_extraction_benchmark.tar.zst")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    gold = json.loads(files["ground-truth.json"])
    return {key: (files[f"html/{key}.html"], row["articleBody"]) for key, row in gold.items()}


def html() -> dict[str, Any]:
    """Main text of 181 news pages, by 4-gram shingles."""
    from tianti.corpus.readers.web import extract_html

    pages = html_pages()
    results: dict[str, Any] = {}
    for extractor in ("fast", "quality"):
        extract_html(next(iter(pages.values()))[0], extractor)  # imports
        start = time.process_time()
        found = {key: extract_html(page, extractor) for key, (page, _) in pages.items()}
        rate = len(pages) / (time.process_time() - start)
        counts = {key: overlap(gold, found[key]) for key, (_, gold) in pages.items()}
        # Settings were chosen on the pages whose id is even.
        for part, wanted in (("all", (0, 1)), ("even ids", (0,)), ("odd ids", (1,))):
            chosen = [count for key, count in counts.items() if int(key[-1], 16) % 2 in wanted]
            results[f"{extractor}, {part}"] = {"n": len(chosen), "rate": rate, **scores(chosen)}
    show(
        ("extractor, pages", "n", "precision", "recall", "F1", "pages/s CPU"),
        (
            (name, row["n"], row["precision"], row["recall"], row["f1"], f"{row['rate']:.0f}")
            for name, row in results.items()
        ),
    )
    return results


# ---- language ----

# The set calls Bokmål nb; the detectors, and we, call it no.
GOLD_CODES = {"nb": "no"}
MUST = ("zh", "en", "ja", "ko")


def language() -> dict[str, Any]:
    """Languages of sentences, word pairs and single words in 75 languages."""
    from tianti.corpus.language import detect_language

    results: dict[str, Any] = {}
    for kind in ("sentences", "word-pairs", "single-words"):
        rows = list(rows_of(DATA / "lid_lingua75" / f"{kind}.jsonl.zst"))
        detect_language("so that models are loaded before the clock starts 好")
        start = time.process_time()
        named = [detect_language(row["text"]).code for row in rows]
        seconds = time.process_time() - start
        said: dict[str, Counter[str]] = defaultdict(Counter)
        for row, code in zip(rows, named, strict=True):
            said[GOLD_CODES.get(row["lang"], row["lang"])][code] += 1
        accuracy = {code: said[code][code] / said[code].total() for code in sorted(said)}
        results[kind] = {
            "n": len(rows),
            "accuracy": accuracy,
            "mean": statistics.mean(accuracy.values()),
            "texts_per_cpu_second": len(rows) / seconds,
            "mb_per_cpu_second": sum(len(row["text"].encode()) for row in rows) / seconds / 1e6,
            "confused_with": {code: said[code].most_common(4) for code in said},
        }
    show(
        ("texts", "n", "languages", "mean", *MUST, "languages ≥ 95 %", "texts/s CPU", "MB/s CPU"),
        (
            (
                kind,
                row["n"],
                len(row["accuracy"]),
                row["mean"],
                *(row["accuracy"][code] for code in MUST),
                sum(value >= 0.95 for value in row["accuracy"].values()),
                f"{row['texts_per_cpu_second']:.0f}",
                f"{row['mb_per_cpu_second']:.1f}",
            )
            for kind, row in results.items()
        ),
    )
    sentences = results["sentences"]
    good = [code for code, value in sentences["accuracy"].items() if value >= 0.95]
    print(f"At least 95 % of sentences: {', '.join(good)}.\n")
    show(
        ("language below 95 %", "accuracy", "said to be"),
        (
            (code, value, ", ".join(f"{c} {n}" for c, n in sentences["confused_with"][code]))
            for code, value in sorted(sentences["accuracy"].items(), key=lambda item: item[1])
            if value < 0.95
        ),
    )
    return results


# ---- privacy ----

PRESIDIO_KINDS = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "IP_ADDRESS": "ip",
    "CREDIT_CARD": "bank_card",
    "US_SSN": "id_card",
}
CHINESE_SENTENCES = (
    "{}",
    "我的{name}是{}，请查收。",
    "{name}：{}",
    "请在{}之后回复，谢谢！",
    "客户登记（{name}{}）已完成",
    "备注 {} 已核对。",
)


def privacy() -> dict[str, Any]:
    """Private data in English templates and in generated Chinese sentences."""
    results = {"presidio": presidio(), "chinese": chinese()}
    show(
        ("presidio kind", "gold", "recall", "finds", "precision"),
        (
            (kind, row["gold"], row["recall"], row["finds"], row["precision"])
            for kind, row in results["presidio"].items()
        ),
    )
    show(
        ("generated Chinese", "must be found as", "n", "found"),
        (
            (name, row["kind"] or "nothing", row["n"], row["found"])
            for name, row in results["chinese"].items()
        ),
    )
    return results


def presidio() -> dict[str, dict[str, Any]]:
    """Recall and precision by kind; a find counts where it shares a character with gold."""
    from tianti.corpus.privacy import find_private

    gold, hits, finds, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    missed: dict[str, list[str]] = defaultdict(list)
    wrong: dict[str, list[str]] = defaultdict(list)
    for row in rows_of(DATA / "pii_presidio" / "synth_dataset_v2.jsonl.gz"):
        spans = [
            (PRESIDIO_KINDS[span["type"]], span["start"], span["end"])
            for span in row["spans"]
            if span["type"] in PRESIDIO_KINDS
        ]
        found = [(span.kind, span.start, span.end) for span in find_private(row["text"])]
        for seen, others, total, agreed, failed in (
            (spans, found, gold, hits, missed),
            (found, spans, finds, right, wrong),
        ):
            for kind, start, end in seen:
                total[kind] += 1
                if any(k == kind and s < end and start < e for k, s, e in others):
                    agreed[kind] += 1
                else:
                    failed[kind].append(row["text"][max(0, start - 30) : end + 15])
    return {
        kind: {
            "gold": gold[kind],
            "recall": hits[kind] / gold[kind] if gold[kind] else "–",
            "finds": finds[kind],
            "precision": right[kind] / finds[kind] if finds[kind] else "–",
            "missed": missed[kind],
            "wrong": wrong[kind],
        }
        for kind in sorted(gold | finds)
    }


def digits(draw: random.Random, count: int) -> str:
    """Gives random digits."""
    return "".join(draw.choices(string.digits, k=count))


def identity(draw: random.Random, right: bool) -> str:
    """Gives a Chinese identity number (GB 11643), or one whose last character is wrong."""
    area = draw.choice(("110105", "310115", "440305", "510107", "330106", "420111", "610113"))
    day = datetime.date(1940, 1, 1) + datetime.timedelta(draw.randrange(30_000))
    head = f"{area}{day:%Y%m%d}{digits(draw, 3)}"
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(head))
    wanted = "10X98765432"[total % 11]
    return head + (wanted if right else draw.choice([c for c in "0123456789X" if c != wanted]))


def card(draw: random.Random, right: bool) -> str:
    """Gives a bank card number with the sum of Luhn (ISO/IEC 7812), or one without."""
    prefix = draw.choice(("622202", "621700", "622848", "436742", "521899", "625965"))
    head = prefix + digits(draw, 12 if prefix.startswith("62") and draw.random() < 0.5 else 9)
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(head)))
    wanted = -total % 10
    last = wanted if right else draw.choice([d for d in range(10) if d != wanted])
    number = f"{head}{last}"
    if draw.random() < 0.3:
        return " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    return number


def mobile(draw: random.Random) -> str:
    """Gives a mobile number of mainland China in one of the ways it is written."""
    head, middle, tail = (
        f"1{draw.choice('3456789')}{digits(draw, 1)}",
        digits(draw, 4),
        digits(draw, 4),
    )
    style = draw.choice(
        ("{}{}{}", "{} {} {}", "{}-{}-{}", "+86{}{}{}", "+86 {} {} {}", "86-{}{}{}")
    )
    return style.format(head, middle, tail)


def isbn(draw: random.Random) -> str:
    """Gives an ISBN-13 with its check digit, with hyphens or without."""
    head = "9787" + digits(draw, 8)
    last = -sum(int(d) * (1 + 2 * (i % 2)) for i, d in enumerate(head)) % 10
    if draw.random() < 0.5:
        return f"{head}{last}"
    return f"{head[:3]}-{head[3]}-{head[4:7]}-{head[7:]}-{last}"


def some_date(draw: random.Random) -> str:
    """Gives a date, with or without its time, in one of the ways it is written."""
    seconds = draw.randrange(600_000_000, 1_800_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    styles = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%Y.%m.%d", "%Y年%m月%d日", "%Y-%m-%d %H:%M:%S")
    return moment.strftime(draw.choice((*styles, "%Y%m%d%H%M%S")))


# What to generate, what it must be found as, and what it is called in a sentence.
CHINESE_KINDS: dict[str, tuple[str | None, str, Callable[[random.Random], str]]] = {
    "identity number": ("id_card", "身份证号", lambda d: identity(d, True)),
    "mobile number": ("phone", "手机号", mobile),
    "landline": ("phone", "电话", lambda d: f"0{d.choice((10, 21, 755, 571))}-8{digits(d, 7)}"),
    "bank card": ("bank_card", "银行卡号", lambda d: card(d, True)),
    "identity number, wrong sum": (None, "编号", lambda d: identity(d, False)),
    "bank card, wrong sum": (None, "编号", lambda d: card(d, False)),
    "order number, 12 to 20 digits": (
        None,
        "订单号",
        lambda d: d.choice("123456789") + digits(d, d.randrange(11, 20)),
    ),
    "order number, date first": (
        None,
        "订单号",
        lambda d: f"2024{d.randrange(1, 13):02}18{digits(d, 10)}",
    ),
    "date or time": (None, "时间", some_date),
    "time stamp": (None, "时间戳", lambda d: f"17{digits(d, d.choice((8, 11)))}"),
    "version": (None, "版本", lambda d: ".".join(str(d.randrange(40)) for _ in range(3))),
    "version of four, large last": (
        None,
        "版本",
        lambda d: f"v{d.randrange(20)}.0.{d.randrange(1000, 30000)}.1",
    ),
    "ISBN": (None, "书号", isbn),
    "decimal": (None, "数值", lambda d: f"{d.randrange(10)}.{digits(d, d.randrange(9, 18))}"),
    "price": (None, "价格", lambda d: f"¥{d.randrange(1, 9999):,}.{digits(d, 2)}"),
}


def chinese(count: int = 300) -> dict[str, dict[str, Any]]:
    """Gives the share of generated values found, by what was generated; fixed seed."""
    from tianti.corpus.privacy import find_private

    draw = random.Random(SEED)
    results: dict[str, dict[str, Any]] = {}
    for name, (kind, called, make) in CHINESE_KINDS.items():
        found, failed = 0, []
        for _ in range(count):
            value = make(draw)
            text = draw.choice(CHINESE_SENTENCES).format(value, name=called)
            start = text.index(value)
            hit = any(
                (kind is None or span.kind == kind)
                and span.start < start + len(value)
                and start < span.end
                for span in find_private(text)
            )
            found += hit
            if hit is (kind is None):
                failed.append(text)
        results[name] = {"kind": kind, "n": count, "found": found / count, "failed": failed[:20]}
    return results


# ---- tokenizers ----


def limited(texts: Iterable[str], size: int) -> Iterator[str]:
    """Gives texts until they make up so many bytes."""
    total = 0
    for text in texts:
        if not text:
            continue
        yield text
        total += len(text.encode())
        if total >= size:
            return


def english() -> Iterator[str]:
    """Gives whole books, then paragraphs of Wikipedia."""
    yield from (row["text"] for row in rows_of(DATA / "en_books" / "train.jsonl.zst"))
    yield from unpacked(DATA / "wikitext2" / "wiki.train.tokens.gz").decode().split("\n \n")


def chinese_texts() -> Iterator[str]:
    """Gives technical articles, then headlines, then translated instructions."""
    yield from (row["text"] for row in rows_of(DATA / "zh_tech_lctt" / "train.jsonl.zst"))
    yield from (row["text"] for row in rows_of(DATA / "tnews" / "train.jsonl.gz"))
    for row in rows_of(DATA / "alpaca_en_zh" / "train.jsonl.zst"):
        yield "\n".join(str(value) for key, value in row.items() if key.startswith("zh_"))


def code() -> Iterator[str]:
    """Gives the sources of the standard library, then of the packages installed here."""
    for folder in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_path(folder)).rglob("*.py")):
            yield path.read_bytes().decode("utf-8", "replace")


def mixed_texts(size: int) -> list[str]:
    """Gives so many bytes of text, a third each of English, Chinese and Python."""
    texts = [t for kind in (english, chinese_texts, code) for t in limited(kind(), size // 3)]
    random.Random(SEED).shuffle(texts)
    return texts


def odd_texts() -> dict[str, str]:
    """Gives texts on which encoders disagree or break."""
    draw = random.Random(SEED)
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    return {
        "every code point, alone on a line": "\n".join(points),
        "every code point after a letter": " a".join(points),
        "every code point after '": "b'".join(points),
        "combining marks": "\u0301\u0302 a\u0301 \u0301\u0301 e\u0301\u0300x \n\u0301",
        "emoji with joiners": "👨‍👩‍👧‍👦👩🏽‍💻 🏳️‍🌈 \u200d\u200d ‍👨‍ x",
        "mixed newlines": "a\r\n\r\nb\n\r c\r d\n\n\n e \r \n  \r\n\t\n x \u2028 y\u2029z\x85w\v\f",
        "control characters": "".join(map(chr, range(33)))
        + "\x7f\x9f\ufeff\ufffe\uffff a\0b\0\0 c",
        "special tokens in text": "hi <|im_end|>\n<|im_start|>user <|endoftext|>x<|im_end",
        "contractions": "I'm WE'LL don'T 'ſ x'ſ it'S 're'RE ’s K'k",
        "random code points": "".join(draw.choices(points, k=200_000)),
        **{f"1 MB of {c!r}": c * (1_000_000 // len(c.encode())) for c in "a中1.!\n"},
        "1 MB of random letters": "".join(draw.choices(string.ascii_lowercase, k=1_000_000)),
        "100,000 spaces": " " * 100_000 + "x",
        "1.1 million spaces": " " * 1_100_000 + "x",
    }


def installed(name: str) -> str | None:
    """Gives the version of a package, None where it is not installed."""
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"


def load_encoders(folder: Path) -> dict[str, Encoder]:
    """Gives an encoder of the same tokenizer for each library there is."""
    from tokenizers import Tokenizer

    from tianti.tokens.tokenizer import QWEN2_PATTERN, SPECIAL_TOKENS, byte_alphabet

    path = folder / "tokenizer.json"
    reference = Tokenizer.from_file(str(path))
    reference.encode_special_tokens = True
    encoders: dict[str, Encoder] = {
        "tokenizers": lambda text: (
            reference.encode_batch_fast([text], add_special_tokens=False)[0].ids
        )
    }
    if installed("tiktoken"):
        import tiktoken

        value = {character: byte for byte, character in byte_alphabet().items()}
        vocabulary = json.loads(path.read_text("utf-8"))["model"]["vocab"]
        encoding = tiktoken.Encoding(
            "tianti",
            pat_str=QWEN2_PATTERN,
            mergeable_ranks={
                bytes(value[character] for character in token): rank
                for token, rank in vocabulary.items()
                if token not in SPECIAL_TOKENS
            },
            # Without any its encode_to_numpy stops at every character to look for one.
            special_tokens={t: reference.token_to_id(t) for t in SPECIAL_TOKENS},
        )
        encoders["tiktoken"] = encoding.encode_ordinary
        encoders["tiktoken to numpy"] = lambda text: encoding.encode_to_numpy(
            text, disallowed_special=()
        )
    if installed("kitoken"):
        import kitoken

        other = kitoken.Kitoken.from_tokenizers_file(str(path))
        encoders["kitoken"] = lambda text: other.encode(text, False)
    return encoders


def encoded_in_child(name: str, folder: Path, text: str) -> list[int] | str:
    """Encodes a text in a process of its own; gives what went wrong if it did."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context, initializer=_silence) as pool:
            return pool.submit(_encode, name, folder, text).result()
    except BrokenProcessPool:
        return "ends the process"


def _silence() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _encode(name: str, folder: Path, text: str) -> list[int] | str:
    try:
        return [int(index) for index in load_encoders(folder)[name](text)]
    except BaseException as error:  # noqa: BLE001 - a panic of Rust is a BaseException
        return f"raises {type(error).__name__}"


def train_both(texts: list[str], vocab_size: int, folder: Path) -> dict[str, Any]:
    """Trains with our trainer and with rustbpe; saves ours."""
    from tianti.tokens.tokenizer import QWEN2_PATTERN, SPECIAL_TOKENS, Tokenizer, byte_alphabet

    wall, cpu = time.perf_counter(), time.process_time()
    Tokenizer.train(texts, vocab_size).save(folder)
    results: dict[str, Any] = {
        "tokenizers": {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    }
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    merged = [left + right for left, right in model["merges"]]
    ranks = [model["vocab"][token] for token in merged]
    results["ids_in_merge_order"] = ranks == list(range(256, 256 + len(merged)))
    if installed("rustbpe"):
        import rustbpe

        value = {character: byte for byte, character in byte_alphabet().items()}
        ours = [bytes(value[character] for character in token) for token in merged]
        other = rustbpe.Tokenizer()
        wall, cpu = time.perf_counter(), time.process_time()
        size = vocab_size - len(SPECIAL_TOKENS)
        other.train_from_iterator(iter(texts), size, pattern=QWEN2_PATTERN)
        results["rustbpe"] = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
        }
        pairs = sorted(other.get_mergeable_ranks(), key=lambda pair: pair[1])
        theirs = [bytes(token) for token, rank in pairs if rank >= 256]
        results["same_merges_until"] = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours)
        )
        results["tokens_shared"] = len({*ours} & {*theirs}) / len(ours)
    return results


def differing(texts: list[str], encoders: dict[str, Encoder]) -> dict[str, int]:
    """Gives on how many texts the ids of each encoder differ from those of the first."""
    first, *_ = encoders.values()
    counts = dict.fromkeys(encoders, 0)
    for text in texts:
        reference = np.asarray(first(text))
        for name, encode in encoders.items():
            counts[name] += not np.array_equal(reference, np.asarray(encode(text)))
    return counts


def encoding_rates(
    texts: list[str], encoders: dict[str, Encoder], rounds: int = 5
) -> dict[str, dict[str, list[float]]]:
    """Gives MB/s of each round, encoders taking turns so that neighbours disturb all alike.

    `cpu` and `wall` are of one thread, `wall_2_threads` of two; ids come out as numpy arrays.
    """
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    results: dict[str, dict[str, list[float]]] = {
        name: {"cpu": [], "wall": [], "wall_2_threads": []} for name in encoders
    }
    for _ in range(rounds):
        for name, encode in encoders.items():

            def one(text: str, encode: Encoder = encode) -> None:
                np.asarray(encode(text), dtype=np.uint32)

            wall, cpu = time.perf_counter(), time.process_time()
            for text in texts:
                one(text)
            results[name]["cpu"].append(megabytes / (time.process_time() - cpu))
            results[name]["wall"].append(megabytes / (time.perf_counter() - wall))
            wall = time.perf_counter()
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(one, texts))
            results[name]["wall_2_threads"].append(megabytes / (time.perf_counter() - wall))
    return results


def median_and_range(values: list[float]) -> str:
    """Shows a median with the least and the most."""
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def odd_cases(folder: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """Says of each odd text how each encoder does against tokenizers."""
    results: dict[str, dict[str, str]] = {}
    for case, text in odd_texts().items():
        reference = encoded_in_child("tokenizers", folder, text)
        results[case] = {}
        for name in names:
            found = encoded_in_child(name, folder, text)
            if isinstance(found, str):
                results[case][name] = found
            else:
                results[case][name] = "same" if found == reference else "other ids"
    return results


def tokenizers(megabytes: int, vocab_size: int = 32_000) -> dict[str, Any]:
    """Byte-level BPE: time to train, speed to encode, and whether ids are the same."""
    texts = mixed_texts(megabytes * 1_000_000)
    size = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trained = train_both(texts, vocab_size, folder)
        encoders = load_encoders(folder)
        unlike = differing(texts, encoders)
        rates = encoding_rates(texts[::8], encoders)
        others = [name for name in encoders if name != "tokenizers"]
        odd = odd_cases(folder, others) if others else {}
    print(f"{len(texts)} texts, {size:.0f} MB, {vocab_size} entries.")
    missing = [name for name in ("rustbpe", "tiktoken", "kitoken") if not installed(name)]
    print(f"Not installed, so not compared: {', '.join(missing) or 'none'}.\n")
    show(
        ("trainer", "seconds", "seconds CPU"),
        (
            (name, f"{row['wall']:.0f}", f"{row['cpu']:.0f}")
            for name, row in trained.items()
            if isinstance(row, dict)
        ),
    )
    facts = {key: value for key, value in trained.items() if not isinstance(value, dict)}
    print("; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()) + ".\n")
    show(
        ("encoder", "MB/s CPU", "MB/s", "MB/s, 2 threads", "texts of other ids"),
        (
            (name, *(median_and_range(values) for values in row.values()), unlike[name])
            for name, row in rates.items()
        ),
    )
    if odd:
        show(("odd text", *others), ((case, *row.values()) for case, row in odd.items()))
    versions = {n: installed(n) for n in ("tokenizers", "rustbpe", "tiktoken", "kitoken")}
    return {
        "mb": size,
        "training": trained,
        "differing": unlike,
        "encoding": rates,
        "odd": odd,
        "versions": versions,
    }


# ---- command ----

SECTIONS = ("html", "language", "privacy", "tokenizers")


def sections(text: str) -> list[str]:
    """Reads the names of sections, separated by commas."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(SECTIONS)):
        raise argparse.ArgumentTypeError(f"no section {unknown[0]}; there are {','.join(SECTIONS)}")
    return names


def main() -> None:
    """Runs the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=sections, default=list(SECTIONS), help="names, with commas")
    parser.add_argument("--json", type=Path, help="file for all figures, failures included")
    parser.add_argument("--megabytes", type=int, default=100, help="text for tokenizers (100)")
    options = parser.parse_args()
    run: dict[str, Callable[[], dict[str, Any]]] = {
        "html": html,
        "language": language,
        "privacy": privacy,
        "tokenizers": lambda: tokenizers(options.megabytes),
    }
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores of {platform.machine()}",
    }
    for name in options.only:
        print(f"## {name}\n\n{results['date']}, {results['machine']}.\n", flush=True)
        results[name] = run[name]()
        if options.json:
            text = json.dumps(results, ensure_ascii=False, indent=1)
            options.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""Files of every format, damaged at random: each ends in documents or in reasons, and nowhere else.

`TIANTI_MUTATIONS` is the number of damaged files: 300 in `make test`, 10,000 in the long form. They
are read in a process of their own, so that one that kills or blocks it is named like any other.
`python -m tests.faults.test_mutated_inputs FOLDER 17 18` reads number 17 alone and leaves it there.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import faulthandler
import functools
import gzip
import io
import json
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpus.test_readers import (
    PACK,
    PAGE,
    SAMPLES,
    SENTENCE,
    ZH,
    answer_of,
    epub_of,
    link,
    pdf_of,
    read,
    tar_of,
    warc_record,
    zip_of,
)
from tianti.corpus.config import CorpusConfig, Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.prepare import prepare
from tianti.corpus.readers.opening import MAX_RECORD_BYTES
from tianti.corpus.sources import read_source
from tianti.corpus.stage import prepare_config

MUTATIONS = int(os.environ.get("TIANTI_MUTATIONS", "300"))
# Of a file of some kilobytes; both are far above what reading one takes.
SECONDS, MEMORY = 60, 1 << 30


# Seeds


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    table = {"text": [ZH, SENTENCE] * 20, "n": list(range(40)), "image": [b"\x89PNG"] * 40}
    pq.write_table(pa.table(table), sink, row_group_size=10)
    return sink.getvalue().to_pybytes()


@functools.cache
def seeds() -> dict[str, bytes]:
    """Gives sound files by name."""
    jsonl = "".join(
        json.dumps({"text": f"{n} {ZH} {SENTENCE}", "meta": {"n": [n, 1.5, None]}}) + "\n"
        for n in range(20)
    )
    rows = [["text", "n"], *([f'"{n}", {SENTENCE}\n{ZH}', str(n)] for n in range(20))]
    table = io.StringIO()
    csv.writer(table).writerows(rows)
    web = b"".join(
        [
            warc_record("warcinfo", b"software: none\r\n"),
            answer_of(PAGE.encode()),
            answer_of(PACK[".gz"](PAGE.encode()), Content_Encoding="gzip"),
            answer_of(b"5\r\nhello\r\n0\r\n\r\n", mime="text/plain", Transfer_Encoding="chunked"),
            warc_record("conversion", ZH.encode(), Content_Type="text/plain"),
        ]
    )
    files = {
        "a.txt": f"{SENTENCE}\n\n{ZH}\n".encode() * 5,
        "a.md": ("# T\n\n" + ZH * 5).encode("gb18030"),
        "utf16.txt": (ZH * 5).encode("utf-16"),
        "a.jsonl": jsonl.encode(),
        "a.csv": table.getvalue().encode(),
        "a.tsv": table.getvalue().replace(",", "\t").encode("utf-8-sig"),
        "a.parquet": _parquet(),
        "a.html": PAGE.encode(),
        "a.warc": web,
        "a.epub": epub_of({"a": SENTENCE, "b": ZH}),
        "a.pdf": pdf_of([SENTENCE, "The end."]),
        "a.py": b"# SPDX-License-Identifier: MIT\nprint('one')\n",
    }
    inner = {"one.txt": ZH.encode(), "two.jsonl": jsonl.encode()[:900], "p.html": PAGE.encode()}
    inner["in.zip"] = zip_of({"three.txt": b"three"})
    return files | {"a.zip": zip_of(inner), "a.tar": tar_of(inner)}


# Damage


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 1, 3, 20])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = chance.randbytes(chance.choice([1, 3, 100, 5000]))


def _repeat(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    block = data[start : start + chance.choice([1, 10, 512, 2000])]
    data[start:start] = block * chance.choice([1, 2, 50])


def _remove(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.choice([1, 7, 512])]


def _zero(data: bytearray, chance: random.Random) -> None:
    at, size = chance.randrange(len(data)), chance.choice([1, 4, 512])
    data[at : at + size] = bytes(len(data[at : at + size]))


TOKENS = [b"\0", b"\xff\xfe", b"\r", b"\n", b'"', b"\\ud800", b"-1", b"9" * 30, b"1e999", b"NaN"]
TOKENS += [b"\xff" * 4, b"\x7f\xff\xff\xff", b"{", b"[" * 3000, b"<div>" * 3000, b"\xed\xa0\x80"]


def _token(data: bytearray, chance: random.Random) -> None:
    token, at = chance.choice(TOKENS), chance.randrange(len(data))
    data[at : at + chance.choice([0, len(token)])] = token


def _number(data: bytearray, chance: random.Random) -> None:
    """Changes one of the numbers that say how long something is."""
    digits = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if digits:
        data[chance.choice(digits)] = chance.choice(b"0123456789-x")


def _splice(data: bytearray, chance: random.Random) -> None:
    other = chance.choice(list(seeds().values()))
    at = chance.randrange(len(data))
    data[at:] = other[chance.randrange(len(other)) :]


DAMAGES = [_flip, _cut, _insert, _repeat, _remove, _zero, _token, _number, _splice]


def mutated(number: int) -> tuple[str, bytes]:
    """Gives name and bytes of a damaged file; the same for the same number."""
    chance = random.Random(number)
    if SAMPLES and chance.random() < 0.2:
        path = chance.choice(SAMPLES)
        return f"{number}-{path.name}", _damaged(path.read_bytes()[:50_000], chance)
    name, data = chance.choice(list(seeds().items()))
    ending = chance.choice(list(PACK)) if chance.random() < 0.6 else ""
    inside = not ending or chance.random() < 0.4
    data = PACK[ending](_damaged(data, chance) if inside else data)
    if not inside:
        data = _damaged(data * chance.choice([1, 1, 2]), chance)
    return f"{number}-{name}{ending}", data


def _damaged(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for damage in chance.choices(DAMAGES, k=chance.choice([1, 1, 2, 4])):
        if out:
            damage(out, chance)
    return bytes(out)


# What must be so


def decompressed(path: Path) -> bytes | None:
    """Gives the bytes of a file, told without the readers; None where they cannot be had whole."""
    data = path.read_bytes()
    marks = {b"\x1f\x8b\x08": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"\x04\x22\x4d\x18": ".lz4"}
    ending = path.suffix if path.suffix in PACK else ""
    ending = ending or next((e for mark, e in marks.items() if data.startswith(mark)), "")
    if not ending:
        return data
    try:
        if ending == ".gz":
            return gzip.decompress(data) if data else None
        if ending in (".bz2", ".xz"):
            return _joined(data, bz2.BZ2Decompressor if ending == ".bz2" else _xz)
        with pa.CompressedInputStream(
            pa.py_buffer(data), {".zst": "zstd", ".lz4": "lz4"}[ending]
        ) as s:
            return s.read() if data else None
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
        return None


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=300 << 20)


def _joined(
    data: bytes, decompressor: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]
) -> bytes | None:
    out, ended = b"", False
    while data.strip(b"\0") or not ended:
        part = decompressor()
        out += part.decompress(data)
        ended = part.eof
        if not ended:
            return None
        data = part.unused_data
    return out


def items_expected(name: str, data: bytes) -> int | None:
    """Gives how many documents and reasons a file must give, None where that is not plain."""
    if name.endswith(".jsonl"):
        return sum(not line.isspace() and line != b"" for line in data.split(b"\n"))
    if name.endswith((".html", ".epub", ".pdf", ".txt", ".md", ".py")):
        return 1
    if name.endswith((".csv", ".tsv")):
        return _csv_rows(data)
    if name.endswith(".parquet"):
        try:
            return len(pq.ParquetFile(pa.BufferReader(data)).read().to_pylist())
        except (pa.ArrowException, OSError, ValueError):
            return None
    return None


def _csv_rows(data: bytes) -> int | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    lines = io.StringIO(text, newline="")
    head = lines.readline()
    rows = csv.reader(lines, delimiter=max((",", "\t", ";"), key=head.count))
    count = 0
    while True:
        try:
            count += bool(next(rows))
        except csv.Error:
            count += 1
        except StopIteration:
            return count


def members_expected(name: str, data: bytes) -> list[str] | None:
    """Gives the names of the members of a sound archive."""
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return [i.filename for i in archive.infolist() if i.filename and not i.is_dir()]
        if name.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                names = [i.name for i in archive if not i.isdir()]
            # A block of zeros ends it; where there is none, its library ends it in silence.
            ended = data[archive.offset : archive.offset + 512] == bytes(512)
            return names if ended else [*names, "and no end"]
    except Exception:  # noqa: BLE001 - whatever a damaged archive makes of its library
        return None
    return None


class Written:
    """What Python writes, makes, moves or links while it is watched."""

    CHANGES = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.truncate")

    def __init__(self) -> None:
        self.watched = False
        self.found: list[str] = []
        sys.addaudithook(self._see)

    def __enter__(self) -> None:
        self.watched, self.found = True, []

    def __exit__(self, *_: object) -> None:
        self.watched = False

    def _see(self, event: str, values: tuple) -> None:
        if not self.watched:
            return
        changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        opened = event == "open" and isinstance(values[2], int) and values[2] & changing
        if (opened and str(values[0]) != os.devnull) or event in self.CHANGES:
            self.found.append(f"{event} {values}")


def problem_with(path: Path, written: Written) -> str | None:
    """Reads a damaged file and gives what is wrong with how that went."""
    kind = None if ".py" not in path.name else "code" if path.suffix == ".py" else "text"
    source = Source(path=str(path), format=kind)
    with written:
        items = read(path, format=kind)
    if written.found:
        return f"it wrote: {written.found}"
    documents = sum(isinstance(item, Document) for item in items)
    bad = [item for item in items if isinstance(item, BadInput)]
    if stranger := next((i for i in items if not i.origin.startswith(str(path))), None):
        return f"an origin names another file: {stranger.origin}"
    if unsaid := next((item for item in bad if not item.reason), None):
        return f"no reason: {unsaid}"
    if (wrong := _unaccounted(path, items)) is not None:
        return wrong
    manifests = prepare(
        prepare_config(CorpusConfig(sources=[source])), path.parent / "out", workers=1
    )
    said = {name: sum(m[name] for m in manifests) for name in ("documents", "bad_inputs")}
    shutil.rmtree(path.parent / "out")
    if said != {"documents": documents, "bad_inputs": len(bad)}:
        return f"prepared {said}, read {documents} documents and {len(bad)} bad inputs"
    return None


def _unaccounted(path: Path, items: list[Document | BadInput]) -> str | None:
    """Gives what part of a file neither became a document nor has a reason."""
    # A table whose head line is bad is read no further.
    where = (str(path), f"{path}:1")
    broken = any(isinstance(item, BadInput) and item.origin in where for item in items)
    data = decompressed(path)
    if data is None:
        return None if broken else "its compression is broken and nothing says so"
    name = path.name
    if path.suffix in PACK:
        name = path.name.removesuffix(path.suffix)
        if name.endswith((".parquet", ".zip")):
            # They are read from their end, which what is compressed does not have.
            return None if broken else "it was read from its end"
    expected = items_expected(name, data)
    if expected is not None and len(items) != expected:
        return f"{len(items)} items, {expected} expected"
    for member in members_expected(name, data) or ():
        here = f"{path}!{member}"
        empty = member.endswith(("jsonl", ".csv", ".tsv"))
        if not broken and not empty and not any(item.origin.startswith(here) for item in items):
            return f"the member {member!r} is gone"
    return None


# The process that reads


def _read_in_turn(folder: Path, numbers: range) -> None:
    """Prints each number before it is read and, if something is wrong with it, what."""
    written = Written()
    for number in numbers:
        print(json.dumps({"number": number}), flush=True)
        name, data = mutated(number)
        path = folder / name
        path.write_bytes(data)
        before = _forget_peak_memory()
        with _bounded_time():
            try:
                problem = problem_with(path, written)
            except Exception:  # noqa: BLE001 - it is what this looks for
                problem = traceback.format_exc()
        if problem is None and (memory := _peak_memory() - before) > MEMORY:
            problem = f"it took {memory >> 20} MiB"
        if problem is not None:
            print(json.dumps({"number": number, "name": name, "problem": problem}), flush=True)
        elif len(numbers) > 1:
            path.unlink()


def _read_one(path: Path) -> None:
    """Prints what became of one file."""
    written = Written()
    said: dict = {"documents": 0, "chars": 0, "reasons": []}
    with _bounded_time(), written:
        for item in read_source(Source(path=str(path))):
            if isinstance(item, BadInput):
                said["reasons"].append(item.reason[:2000])
            else:
                said["documents"] += 1
                said["chars"] += len(item.text)
    print(json.dumps({**said, "memory": _peak_memory(), "written": written.found}))


@contextlib.contextmanager
def _bounded_time() -> Iterator[None]:
    """Ends the process where one file takes too long, and says where it was."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def _peak_memory() -> int:
    """Gives the most this process held; unlike `ru_maxrss`, not what its parent did before it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def _forget_peak_memory() -> int:
    """Lets the peak begin anew at what is held now, and gives that."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_memory()


def in_child(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs this file as a program."""
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.test_mutated_inputs", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def problems(folder: Path, count: int) -> Iterator[str]:
    """Gives what is wrong with each damaged file that something is wrong with."""
    start = 0
    while start < count:
        done = in_child(folder, start, count)
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        yield from (f"{s['name']}: {s['problem']}" for s in said if "problem" in s)
        assert said, done.stderr
        start = said[-1]["number"] + 1
        if done.returncode:
            yield f"{mutated(start - 1)[0]} ended the process: {done.returncode} {done.stderr}"


@pytest.mark.slow
def test_every_damaged_file_ends_in_documents_or_reasons(tmp_path):
    found = list(problems(tmp_path, MUTATIONS))
    assert not found, f"{len(found)} of {MUTATIONS}:\n" + "\n".join(found[:20])


# Attacks, and what only looks like one

MIB = 1 << 20


def zeros(ending: str) -> bytes:
    """A gigabyte of zeros, compressed."""
    return PACK[ending](bytes(16 * MIB)) * 64


def zip_of_zeros(members: int, size: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(members):
            with archive.open(f"{number}.txt", "w") as member:
                for _ in range(size // MIB):
                    member.write(bytes(MIB))
    return file.getvalue()


def zips_in_zips(depth: int) -> bytes:
    data = zip_of({"a.txt": b"a"})
    for _ in range(depth):
        data = zip_of({"a.zip": data})
    return data


TOO_MUCH = "grows more than|holds more than|longer than|field larger than"
ATTACKS: dict[str, tuple[Callable[[], bytes], str | None]] = {
    **{
        f"zeros.{name}.gz": (functools.partial(zeros, ".gz"), TOO_MUCH)
        for name in ("txt", "jsonl", "csv", "html", "epub", "pdf")
    },
    **{f"zeros.txt{e}": (functools.partial(zeros, e), TOO_MUCH) for e in (".bz2", ".xz", ".zst")},
    "zeros.warc.gz": (functools.partial(zeros, ".gz"), ""),
    "zeros.tar.gz": (functools.partial(zeros, ".gz"), ""),
    "zeros.csv": (lambda: bytes(300 * MIB), ""),
    "large member.zip": (lambda: zip_of_zeros(1, 1 << 30), TOO_MUCH),
    "large members.zip": (lambda: zip_of_zeros(10, 60 * MIB), "grows|holds"),
    "zips in zips.zip": (lambda: zips_in_zips(600), ""),
    "chapters.epub": (
        lambda: epub_of({"a": "word " * 600_000}, order=["a"] * 100),
        "holds more than",
    ),
    "arrays.jsonl": (lambda: b'{"text": ' + b"[" * 100_000 + b"\n", "not JSON"),
    "elements.html": (lambda: b"<div>" * 200_000, None),
    "attributes.html": (lambda: b"<a " + b"x=1 " * MIB + b">a</a>", None),
    "elements.epub": (
        lambda: zip_of({"META-INF/container.xml": b"<a>" * MIB + b"</a>" * MIB}),
        "not a readable EPUB",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_made_to_harm_takes_bounded_time_and_memory(tmp_path, name):
    make, reason = ATTACKS[name]
    (tmp_path / name).write_bytes(make())
    done = in_child(tmp_path / name)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["memory"] < MEMORY
    assert said["chars"] <= 512 * MIB
    assert said["written"] == []
    assert all(len(found) < 1000 for found in said["reasons"])
    if reason is not None:
        assert any(re.search(reason, found) for found in said["reasons"]), said


def test_a_line_too_long_is_named_and_the_next_one_read(tmp_path):
    lines = [b'{"text": "' + b"x" * (MAX_RECORD_BYTES + 2 * MIB) + b'"}', b'{"text": "good"}', b""]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    bad, good = read(tmp_path / "a.jsonl")
    assert isinstance(bad, BadInput)
    assert "longer than 64 MiB" in bad.reason
    assert good.text == "good"
    assert good.origin.endswith("a.jsonl:2")


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_what_leads_out_of_an_archive_is_neither_read_nor_written(tmp_path, name):
    inside, outside = tmp_path / "in", tmp_path / "secret.txt"
    inside.mkdir()
    outside.write_text("secret")
    names = ["../secret.txt", str(outside), "a/../../secret.txt", "..\\secret.txt", "C:/x.txt"]
    members: dict = dict.fromkeys(names, b"new")
    if name == "a.tar":
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE)
        members |= {
            f"l{n}.txt": link(f"l{n}.txt", str(outside), kind) for n, kind in enumerate(kinds)
        }
    data = (zip_of if name == "a.zip" else tar_of)(members)
    (inside / name).write_bytes(data)
    said = json.loads(in_child(inside / name).stdout)
    assert said["documents"] == 0
    assert len(said["reasons"]) == len(members)
    assert said["written"] == []
    assert outside.read_text() == "secret"
    assert sorted(tmp_path.rglob("*")) == [inside, inside / name, outside]


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    faulthandler.enable()
    if len(sys.argv) == 2:
        _read_one(Path(sys.argv[1]))
    else:
        _read_in_turn(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))

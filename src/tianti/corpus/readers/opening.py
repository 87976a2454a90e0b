"""Files as streams of bytes: local or remote, decompressed, with a guard against bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

from tianti.messages import tr

COMPRESSIONS = {".gz", ".zst", ".lz4", ".bz2", ".xz"}
# What one record may hold, and when a compressed file counts as a bomb: text shrinks twentyfold at
# most, a thousandfold only where it says nothing.
MAX_RECORD_BYTES = 64 << 20
BOMB_BYTES = 256 << 20
BOMB_RATIO = 200
_BLOCK = 1 << 20
_MEGABYTES = 8 << 20
# What xz -9 needs, four times: a damaged head asks for anything up to 4 GiB.
_XZ_MEMORY = 256 << 20
_MARKS = ((b"\x1f\x8b\x08", ".gz"), (b"\x28\xb5\x2f\xfd", ".zst"), (b"\x04\x22\x4d\x18", ".lz4"))


class BrokenFile(Exception):
    """A file whose bytes cannot be had whole: torn, altered or a bomb."""

    def __init__(self, reason: str, remedy: str | None = None):
        self.reason = reason
        self.remedy = remedy or tr("Fetch or compress it again")
        super().__init__(reason)


def grows_too_much() -> BrokenFile:
    """Gives the error of a bomb."""
    return BrokenFile(
        tr("the compressed file grows more than {ratio} times", ratio=BOMB_RATIO),
        tr("If it is meant, decompress it and give the plain file"),
    )


@dataclass(frozen=True)
class Piece:
    """A file, part of a file, or a member of an archive.

    Args:
        path: a path or a URL.
        start: first byte, in a file that is read in parts.
        stop: byte after the last, or None for all.
        data: the bytes, where they were read from an archive.
    """

    path: str
    start: int = 0
    stop: int | None = None
    data: bytes | None = None

    @property
    def suffixes(self) -> list[str]:
        """The endings of its name in lower case, that of a compression left out."""
        suffixes = [suffix.lower() for suffix in PurePosixPath(self.path).suffixes]
        return suffixes[:-1] if self.compression else suffixes

    @property
    def compression(self) -> str | None:
        """The ending that names a compression, if there is one."""
        suffix = PurePosixPath(self.path).suffix.lower()
        return suffix if suffix in COMPRESSIONS else None


def open_piece(piece: Piece) -> IO[bytes]:
    """Opens a piece for reading, decompressed.

    Raises:
        OSError: it cannot be opened. `BrokenFile` may come while reading.
    """
    raw = _open_raw(piece)
    compression = piece.compression
    if compression is None and piece.start == 0:
        # Names lie: what a crawler calls a.warc.gz.bad is compressed all the same.
        head = raw.read(4)
        raw.seek(0)
        compression = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if compression is None:
        return raw
    return io.BufferedReader(_Decompressed(raw, compression), _BLOCK)


def _open_raw(piece: Piece) -> IO[bytes]:
    if piece.data is not None:
        return io.BytesIO(piece.data)
    if "://" in piece.path:
        import fsspec

        return cast(IO[bytes], fsspec.open(piece.path, "rb").open())
    file = open(piece.path, "rb")  # noqa: SIM115 - whoever reads it closes it
    file.seek(piece.start)
    return file


class _Decompressed(io.RawIOBase):
    """The decompressed bytes of a stream; what breaks is told as `BrokenFile`."""

    def __init__(self, raw: IO[bytes], compression: str):
        self._counted = _Counted(raw)
        self._given = 0
        self._stream = _decompressor(io.BufferedReader(self._counted, _BLOCK), compression)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, OSError, ValueError) as e:
            raise BrokenFile(
                tr("the compressed file is broken or cut short ({reason})", reason=e)
            ) from e
        buffer[: len(data)] = data
        self._given += len(data)
        if self._given > max(BOMB_BYTES, BOMB_RATIO * self._counted.taken):
            raise grows_too_much()
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._counted.close()
        super().close()


class _Counted(io.RawIOBase):
    """A stream that knows how many of its bytes were taken."""

    def __init__(self, raw: IO[bytes]):
        self._raw = raw
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.taken += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Joined:
    """Streams of bzip2 or xz, one after the other; what follows and is none is an error.

    Python's own classes end in silence there, and with them all that a damaged head hides.
    """

    def __init__(self, raw: io.BufferedReader, start: Callable[[], Any]):
        self._raw, self._start = raw, start
        self._part = start()

    def read(self, size: int) -> bytes:
        while True:
            data = b""
            if self._part.eof:
                # Zeros may lie between and behind streams of xz.
                data = (self._part.unused_data or self._raw.read(_BLOCK)).lstrip(b"\0")
                while not data:
                    if not (data := self._raw.read(_BLOCK)):
                        return b""
                    data = data.lstrip(b"\0")
                self._part = self._start()
            elif self._part.needs_input and not (data := self._raw.read(_BLOCK)):
                raise EOFError(tr("no end"))
            if out := self._part.decompress(data, size):
                return out

    def close(self) -> None:
        self._raw.close()


def _decompressor(raw: io.BufferedReader, compression: str) -> Any:
    if not raw.peek(1):
        raise BrokenFile(
            tr("the compressed file is broken or cut short ({reason})", reason=tr("no end"))
        )
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if compression == ".bz2":
        return _Joined(raw, bz2.BZ2Decompressor)
    if compression == ".xz":
        return _Joined(raw, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    import pyarrow as pa

    codec = "zstd" if compression == ".zst" else "lz4"
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec)


def read_all(piece: Piece, limit: int = MAX_RECORD_BYTES) -> bytes:
    """Gives all bytes of a piece that is one record.

    Raises:
        BrokenFile: it holds more than `limit` bytes, or is torn.
    """
    with open_piece(piece) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise BrokenFile(
            tr("it holds more than {limit} MiB", limit=limit >> 20), tr("Cut it into several files")
        )
    return data


def read_blocks(piece: Piece) -> Iterator[tuple[int, memoryview | None]]:
    """Gives whole lines, some megabytes of them together.

    Yields:
        Byte where they begin and the lines, which are good until the next ones are asked for; None
        in place of a line that is longer than a record may be. A file that breaks gives what comes
        before.
    """
    at, skipped, filled = piece.start, 0, 0
    with open_piece(piece) as stream:
        left = None if piece.stop is None else piece.stop - piece.start
        buffer = bytearray(_MEGABYTES)
        ended = False
        while not ended:
            view = memoryview(buffer)
            broken: BrokenFile | OSError | None = None
            try:
                # In steps, because of what is decompressed a step is lost where it breaks.
                while filled < len(buffer):
                    room = min(_BLOCK, len(buffer) - filled)
                    room = room if left is None else min(room, left)
                    count = stream.readinto(view[filled : filled + room]) if room else 0  # type: ignore[attr-defined]
                    filled += count
                    left = None if left is None else left - count
                    if not count:
                        ended = True
                        break
            except (BrokenFile, OSError) as error:
                broken = error
            begin = 0
            if skipped:
                begin = buffer.find(b"\n", 0, filled) + 1
                skipped += begin or filled
                if begin:
                    yield at, None
                    at, skipped = at + skipped, 0
                else:
                    begin = filled
            first = buffer.find(b"\n", begin, filled) + 1 if filled > MAX_RECORD_BYTES else 0
            if first - begin > MAX_RECORD_BYTES:
                yield at, None
                at, begin = at + first - begin, first
            cut = max(buffer.rfind(b"\n", begin, filled) + 1, begin)
            if cut > begin:
                yield at, view[begin:cut]
                at += cut - begin
            held = filled - cut
            if held >= MAX_RECORD_BYTES:
                skipped, held = held, 0
            size = 2 * len(buffer) if held == len(buffer) else _MEGABYTES
            if size > len(buffer) or (size < len(buffer) and held < size):
                grown = bytearray(size)
                grown[:held] = view[filled - held : filled]
                buffer = grown
            elif cut and held:
                buffer[:held] = view[filled - held : filled]
            filled = held
            if broken is not None:
                raise broken
    if skipped or filled:
        yield at, None if skipped else memoryview(buffer)[:filled]


def read_lines(piece: Piece) -> Iterator[tuple[int, int, bytes | None]]:
    """Gives the lines of a piece without holding it whole.

    Yields:
        Number from 1, byte where it begins, and the line without its end; None in place of a line
        that is longer than a record may be.
    """
    at, number = piece.start, 0
    rest: list[bytes] = []
    held = skipped = 0
    with open_piece(piece) as stream:
        left = None if piece.stop is None else piece.stop - piece.start
        while left is None or left > 0:
            block = stream.read(_BLOCK if left is None else min(_BLOCK, left))
            if not block:
                break
            left = None if left is None else left - len(block)
            first, *whole = block.split(b"\n")
            rest.append(first)
            held += len(first)
            for line in whole:
                number += 1
                long = skipped or held >= MAX_RECORD_BYTES
                yield number, at, None if long else rest[0] if len(rest) == 1 else b"".join(rest)
                at += held + 1 + skipped
                rest, held, skipped = [line], len(line), 0
            if held >= MAX_RECORD_BYTES:
                skipped += held
                rest, held = [], 0
    if held or skipped:
        long = skipped or held >= MAX_RECORD_BYTES
        yield number + 1, at, None if long else b"".join(rest)


def file_size(path: str) -> int:
    """Gives the bytes of a local or remote file."""
    if "://" not in path:
        return os.stat(path).st_size
    import fsspec

    filesystem, inner = fsspec.core.url_to_fs(path)
    return int(filesystem.size(inner) or 0)

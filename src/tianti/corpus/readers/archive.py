"""Archives of files: ZIP and tar; members are read in memory and never written out."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, cast

from tianti.corpus.document import BadInput
from tianti.corpus.readers.books import ZIP_ERRORS, read_member
from tianti.corpus.readers.opening import (
    BOMB_BYTES,
    BOMB_RATIO,
    MAX_RECORD_BYTES,
    BrokenFile,
    Piece,
    grows_too_much,
    open_piece,
)
from tianti.messages import tr


def members(piece: Piece) -> Iterator[Piece | BadInput]:
    """Gives the files of an archive, in its order; what is unsafe or broken is named."""
    if piece.suffixes[-1:] == [".zip"]:
        yield from _zip_members(piece)
    else:
        yield from _tar_members(piece)


def _refused(archive: str, name: str) -> BadInput | None:
    """Gives why a member is not read: a name that leads out of the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    leads_out = path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1])
    if path.parts and not leads_out:
        return None
    return BadInput(
        f"{archive}!{name}",
        tr("its name leads out of the archive"),
        tr("Such archives are attacks or mistakes: leave it"),
    )


def _zip_members(piece: Piece) -> Iterator[Piece | BadInput]:
    try:
        with open_piece(piece) as stream, zipfile.ZipFile(cast(IO[bytes], stream)) as archive:
            room = max(BOMB_BYTES, BOMB_RATIO * sum(i.compress_size for i in archive.infolist()))
            for info in archive.infolist():
                if (room := room - info.file_size) < 0:
                    raise grows_too_much()
                if info.filename.endswith("/"):
                    continue
                refused = _refused(piece.path, info.filename)
                yield refused or _member(archive, piece.path, info)
    except (ValueError, *ZIP_ERRORS) as error:
        yield _broken(piece.path, error)


def _member(archive: zipfile.ZipFile, path: str, info: zipfile.ZipInfo) -> Piece | BadInput:
    origin = f"{path}!{info.filename}"
    try:
        return Piece(origin, data=read_member(archive, info))
    except BrokenFile as error:
        return BadInput(origin, error.reason, error.remedy)
    except ZIP_ERRORS as error:
        return _broken(origin, error)


class _StrictInfo(tarfile.TarInfo):
    """A member whose head must be sound: else tarfile ends there, as if the archive did."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _tar_members(piece: Piece) -> Iterator[Piece | BadInput]:
    try:
        with (
            open_piece(piece) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictInfo) as archive,
        ):
            for info in archive:
                if info.isdir():
                    continue
                name = f"{piece.path}!{info.name}"
                if (refused := _refused(piece.path, info.name)) is not None:
                    yield refused
                elif not info.isfile():
                    yield BadInput(
                        name, tr("a link or device, not a file"), tr("Such members are not read")
                    )
                elif info.size > MAX_RECORD_BYTES:
                    yield BadInput(
                        name,
                        tr("it holds more than {limit} MiB", limit=MAX_RECORD_BYTES >> 20),
                        tr("Cut it into several files"),
                    )
                elif (file := archive.extractfile(info)) is not None:
                    data = file.read()
                    if len(data) < info.size:
                        yield _broken(name, tr("no end"))
                    else:
                        yield Piece(name, data=data)
            # What breaks the compression behind the end is told too.
            while stream.read(1 << 20):
                pass
    except (tarfile.TarError, EOFError, ValueError) as error:
        yield _broken(piece.path, error)


def _broken(origin: str, reason: object) -> BadInput:
    return BadInput(
        origin,
        tr("the archive is broken or cut short here ({reason})", reason=reason),
        tr("Fetch or compress it again"),
    )

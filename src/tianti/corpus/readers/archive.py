"""Archives of files: ZIP and tar; members are read in memory and never written out."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, cast

from tianti.corpus.document import BadInput
from tianti.corpus.readers.books import read_member
from tianti.corpus.readers.opening import MAX_RECORD_BYTES, BrokenFile, Piece, open_piece
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
    if not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]:
        return None
    return BadInput(
        f"{archive}!{name}",
        tr("its name leads out of the archive"),
        tr("Such archives are attacks or mistakes: leave it"),
    )


def _zip_members(piece: Piece) -> Iterator[Piece | BadInput]:
    try:
        with open_piece(piece) as stream, zipfile.ZipFile(cast(IO[bytes], stream)) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                refused = _refused(piece.path, info.filename)
                yield refused or _member(archive, piece.path, info.filename)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        yield _broken(piece.path, error)


def _member(archive: zipfile.ZipFile, path: str, name: str) -> Piece | BadInput:
    try:
        return Piece(f"{path}!{name}", data=read_member(archive, name))
    except BrokenFile as error:
        return BadInput(f"{path}!{name}", error.reason, error.remedy)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        return _broken(f"{path}!{name}", error)
    except Exception as error:
        import zlib

        if isinstance(error, zlib.error):
            return _broken(f"{path}!{name}", error)
        raise


def _tar_members(piece: Piece) -> Iterator[Piece | BadInput]:
    try:
        with open_piece(piece) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
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
    except (tarfile.TarError, EOFError, ValueError) as error:
        yield _broken(piece.path, error)


def _broken(origin: str, reason: object) -> BadInput:
    return BadInput(
        origin,
        tr("the archive is broken or cut short here ({reason})", reason=reason),
        tr("Fetch or compress it again"),
    )

"""Files that are never half-written: write beside, fsync, rename; and their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tianti.errors import Damaged, from_os_error, os_errors_named
from tianti.messages import tr

MANIFEST = "manifest.json"
_CHUNK = 1 << 20


@contextlib.contextmanager
def atomic_open(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a file that appears at `path` complete and durable, or not at all.

    Raises:
        UserError: the disk is full, the folder cannot be written to, ….
    """
    encoding = None if "b" in mode else "utf-8"
    with os_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, mode, encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        fsync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Writes text atomically."""
    with atomic_open(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, readable by people."""
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """Gives JSON that UTF-8 can hold: characters as they are, halves of pairs escaped.

    Names of files that are not UTF-8 are strings with such halves in Python.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def read_json(path: Path) -> Any:
    """Reads a JSON file of ours.

    Raises:
        Damaged: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise Damaged(tr("file is missing"), where=path) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise Damaged(tr("file is damaged (not JSON)"), where=path) from error


def file_stamp(path: Path) -> tuple[int, int]:
    """Gives size and time of a file: what a cache of its content must be keyed by too."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def sha256_file(path: Path) -> str:
    """Gives the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with os_errors_named(path), open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Makes renames inside a folder durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Makes every file below a folder durable."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            fsync_folder(path)
    fsync_folder(folder)


def publish_folder(partial: Path, final: Path) -> None:
    """Puts a finished folder in its place; what stood there before goes only then."""
    with os_errors_named(final):
        fsync_tree(partial)
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            os.rename(final, old)
        os.rename(partial, final)
        fsync_folder(final.parent)
        shutil.rmtree(old, ignore_errors=True)


def describe_files(folder: Path, skip: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Gives `{relative path: {"bytes": size, "sha256": digest}}` for every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): describe_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in skip
    }


def describe_file(path: Path) -> dict[str, Any]:
    """Gives `bytes` and `sha256` of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Writes JSON with a checksum of itself, atomically."""
    # As it will be read: JSON knows no tuples and no numbers as names.
    plain = json.loads(json_text(values))
    write_json(path, plain | {"checksum": _seal_of(plain)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads what `write_sealed` wrote.

    Raises:
        Damaged: the file is missing, torn or altered.
    """
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("checksum", None) != _seal_of(values):
        raise Damaged(tr("file is damaged (checksum differs)"), where=path)
    return values


def _seal_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check_files(folder: Path, files: dict[str, dict[str, Any]], *, hashes: bool) -> None:
    """Compares a folder with its description; the first file that differs is an error.

    Args:
        folder: where the files lie.
        files: what `describe_files` gave.
        hashes: compare content too, not sizes alone.

    Raises:
        Damaged: a file is missing, has another size or other content.
    """
    for error in damaged_files(folder, files, hashes=hashes):
        raise error


def damaged_files(
    folder: Path, files: dict[str, dict[str, Any]], *, hashes: bool
) -> Iterator[Damaged]:
    """Gives the files of a folder that are not what its description says.

    Args:
        folder: where the files lie.
        files: what `describe_files` gave.
        hashes: compare content too, not sizes alone.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            yield Damaged(tr("file is missing"), where=path)
        elif path.stat().st_size != expected["bytes"]:
            yield Damaged(tr("file is damaged (size differs from its manifest)"), where=path)
        elif hashes and sha256_file(path) != expected["sha256"]:
            yield Damaged(tr("file is damaged (checksum differs from its manifest)"), where=path)


def write_array(path: Path, array: Any) -> None:
    """Writes the bytes of a NumPy array (its own `tofile` hides why a write failed)."""
    with os_errors_named(path), open(path, "wb") as file:
        file.write(array.tobytes())


class _Writing:
    """A file of which NumPy sees only that it can be written to: it then says why that failed."""

    def __init__(self, file: IO[bytes]):
        self.write = file.write


def save_npy(path: Path, array: Any) -> None:
    """Writes an array as `.npy`, atomically."""
    import numpy as np

    with atomic_open(path) as file:
        np.lib.format.write_array(_Writing(file), array, allow_pickle=False)  # type: ignore[arg-type]


def save_npz(path: Path, **arrays: Any) -> None:
    """Writes arrays as `.npz`, atomically."""
    import numpy as np

    with atomic_open(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def write_tensors(
    path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file.

    Args:
        path: the file.
        tensors: contiguous torch tensors by name.
        metadata: text that the header carries.

    Raises:
        UserError: the disk is full, ….
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with os_errors_named(path):
            save_file(tensors, path, metadata)
            # safetensors makes files that their owner alone may read.
            os.chmod(path, 0o666 & ~_umask())
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise from_os_error(OSError(int(number[1]) if number else 0, str(error)), path) from error

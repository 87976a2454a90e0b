"""The one error type for what the user can mend, and how operating-system errors become it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from tianti.messages import current_language, tr


class UserError(Exception):
    """Something the user can mend: shown as one line without a traceback, exit code 2.

    Args:
        what: what failed, in the reader's language.
        where: the file, recipe path or value it concerns.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None):
        self.what, self.where, self.remedy = what, where, remedy
        line = what if where is None else f"{where}: {what}"
        full_stop = "。" if current_language() == "zh-CN" else ". "
        super().__init__(line if remedy is None else f"{line}{full_stop}{remedy}")


def not_installed(package: str, extra: str, where: object = None) -> UserError:
    """Gives the error for a library of an extra that is missing, with the line that installs it."""
    return UserError(
        tr("{package} is not installed", package=package),
        where=where,
        remedy=f"pip install 'tianti[{extra}]'",
    )


class Damaged(UserError):
    """A file that is not what its manifest says: torn, flipped or missing."""


ANY_OTHER_REMEDY = "Check this file or folder"
_REMEDIES = {
    errno.ENOSPC: (
        "the disk is full",
        "Free some space and run the same command again: it goes on from what is finished",
    ),
    errno.EDQUOT: (
        "the disk quota is used up",
        "Free some space and run the same command again: it goes on from what is finished",
    ),
    errno.EROFS: ("the folder is read-only", "Choose another place with --out"),
    errno.EACCES: ("permission denied", "Check the rights of this file or folder"),
    errno.ENOENT: ("no such file or folder", "Check the path"),
    errno.EISDIR: ("this is a folder, a file is needed", "Check the path"),
    errno.ENOTDIR: ("this is a file, a folder is needed", "Check the path"),
    errno.EFBIG: (
        "the file would be larger than is allowed here",
        "Raise the limit (ulimit -f) or choose another place with --out",
    ),
    errno.EIO: ("the disk reports an input/output error", "Check the disk"),
}


def from_os_error(error: OSError, path: Path | str | None = None) -> UserError:
    """Gives the `UserError` that says what an `OSError` on `path` means and what to do."""
    what, remedy = _REMEDIES.get(error.errno or 0, (error.strerror or str(error), ANY_OTHER_REMEDY))
    return UserError(tr(what), where=path or error.filename or "-", remedy=tr(remedy))


@contextlib.contextmanager
def os_errors_named(path: Path | str) -> Iterator[None]:
    """Turns an `OSError` raised inside into a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path) from error

"""How freed memory is kept."""

from __future__ import annotations

import ctypes
import functools
import sys

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Lets freed blocks of any size be used again, where the C library is glibc.

    It hands each block of some megabytes back to the system, which clears every page again before
    it is given out anew: work on arrays of one size, batch after batch, spends a tenth of its time
    so. What is kept is at most what was in use at once.

    Returns:
        Whether the C library could be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)) & bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))

"""How long texts are: bytes, characters, and how much of them is Chinese."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tianti.corpus.kernels import kernel, text_buffers

NAMES = ("bytes", "chars", "visible", "cjk_bytes")


def measures(texts: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
    """Gives of each text its UTF-8 `bytes`, its `chars`, those between its outer blanks
    (`visible`), and its bytes of Chinese characters (`cjk_bytes`); int64 each."""
    data, offsets = text_buffers(texts)
    lengths = _lengths(data, offsets)
    found = {"bytes": pa.array(np.diff(offsets))}
    return found | {name: pa.array(lengths[:, n]) for n, name in enumerate(NAMES[1:])}


@kernel
def _lengths(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Gives for each text its characters, those between its outer blanks, and bytes of 汉字."""
    out = np.zeros((len(offsets) - 1, 3), np.int64)
    for text in range(len(out)):
        start, stop = offsets[text], offsets[text + 1]
        chars = han = 0
        # Over a slice from its start these loops become wide instructions.
        piece = data[start:stop]
        for at in range(len(piece)):
            chars += (piece[at] & np.uint8(0xC0)) != np.uint8(0x80)
        if chars < len(piece):
            after = piece[1:]
            for at in range(len(after)):
                # U+3400 to U+9FFF are E3 90 80 to E9 BF BF.
                lead = np.uint8(piece[at] - np.uint8(0xE4)) < np.uint8(6)
                han += lead | ((piece[at] == np.uint8(0xE3)) & (after[at] >= np.uint8(0x90)))
        outer = 0
        first, last = start, stop
        while first < last and data[first] <= 0x20:
            first += 1
            outer += 1
        while last > first and data[last - 1] <= 0x20:
            last -= 1
            outer += 1
        out[text, 0] = chars
        out[text, 1] = chars - outer
        out[text, 2] = 3 * han
    return out

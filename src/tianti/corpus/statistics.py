"""Statistics of documents that the quality rules look at, in one pass over their bytes.

The definitions are those of datatrove's filters, so that its published thresholds mean the same
here. Words are told as spaCy's English rules do, nearly: punctuation stands alone, contractions are
parted (do|n't), abbreviations keep their stops; a Chinese character is a word. `reference.py` among
the tests says the same in plain Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.kernels import code_point, kernel, mix, text_buffers, width
from tianti.corpus.rules import STATISTICS as NAMES
from tianti.corpus.words import (
    ALPHA,
    TERMINALS,
    WORD,
    before,
    is_blank,
    is_digit,
    is_punctuation,
    split_words,
    word_hash,
)

_INDEX = {name: index for index, name in enumerate(NAMES)}
_BASE = np.uint64(0x9E3779B97F4A7C15)
_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
# The commonest particles, prepositions and pronouns: real Chinese prose is full of them.
_FUNCTION_CHARS = (
    "的一是不了在有人我他这为之来以个中上们到说就和也要对于而与着那得可其或从被把很还让"
)


def _sorted_points(text: str) -> np.ndarray:
    return np.array(sorted({ord(character) for character in text}), np.int64)


_TERMINAL_POINTS = _sorted_points(TERMINALS)
_FUNCTION_POINTS = _sorted_points(_FUNCTION_CHARS)


_STOP_HASHES = np.array([word_hash(word) for word in _STOP_WORDS], np.uint64)


def _rare_letters() -> np.ndarray:
    """Gives of the rarest letter of each of C4's phrases its lower case, of other bytes 0."""
    table = np.zeros(256, np.uint8)
    for letter in "{jkvfp":
        table[[ord(letter), ord(letter.upper())]] = ord(letter)
    return table


_RARE = _rare_letters()


def document_statistics(texts: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
    """Gives the columns `NAMES` of texts, float32 each; a share of nothing is NaN."""
    data, offsets = text_buffers(texts)
    table = _statistics(data, offsets, _TERMINAL_POINTS, _FUNCTION_POINTS, _STOP_HASHES)
    return {name: pa.array(table[:, index]) for name, index in _INDEX.items()}


@kernel
def _contains(points: np.ndarray, point: int) -> bool:
    low, high = 0, len(points)
    while low < high:
        middle = (low + high) >> 1
        if points[middle] < point:
            low = middle + 1
        else:
            high = middle
    return low < len(points) and points[low] == point


@kernel
def _is_line_end(point: int) -> bool:
    """Where str.splitlines cuts; a carriage return before a newline is counted with it."""
    return 10 <= point <= 13 or 0x1C <= point <= 0x1E or point in (0x85, 0x2028, 0x2029)


@kernel
def _slot(table: np.ndarray, key: Any, mask: int) -> Any:
    """Gives the place of a key in an open-addressing table, or the free one where it would go."""
    place = np.int64(key & np.uint64(mask))
    while table[place] != 0 and table[place] != key:
        place = (place + 1) & mask
    return place


@kernel
def _lengthen(grams: np.ndarray, hashes: np.ndarray, count: int, n: int) -> None:
    """Makes the hashes of n-grams from those of one word less, in place."""
    for index in range(count - n + 1):
        value = grams[index] * _BASE + hashes[index + n - 1]
        grams[index] = value ^ (value >> np.uint64(32))


@kernel
def _top_gram(
    grams: np.ndarray,
    ends: np.ndarray,
    count: int,
    n: int,
    table: np.ndarray,
    tally: np.ndarray,
    mask: int,
) -> tuple[int, int]:
    """Gives how often the commonest n-gram comes, and the characters of all its occurrences,
    blanks between words too."""
    table[: mask + 1] = np.uint64(0)
    best, best_first = 0, 0
    for index in range(count - n + 1):
        value = grams[index] | np.uint64(1)
        place = _slot(table, value, mask)
        if table[place] == 0:
            table[place] = value
            tally[place, 0] = 0
            tally[place, 1] = index
        tally[place, 0] += 1
        # Of equally common ones the first that came, as Counter.most_common has it.
        if tally[place, 0] > best or (tally[place, 0] == best and tally[place, 1] < best_first):
            best, best_first = tally[place, 0], tally[place, 1]
    return best, (n - 1 + ends[best_first + n] - ends[best_first]) * best


@kernel
def _repeated_gram_chars(
    grams: np.ndarray, ends: np.ndarray, count: int, n: int, table: np.ndarray, mask: int
) -> int:
    """Gives the characters in n-grams seen before, counted without overlap."""
    table[: mask + 1] = np.uint64(0)
    chars = 0
    index = 0
    while index < count - n + 1:
        value = grams[index] | np.uint64(1)
        place = _slot(table, value, mask)
        if table[place] == 0:
            table[place] = value
            index += 1
        else:
            chars += ends[index + n] - ends[index]
            index += n
    return chars


@kernel
def _repeated_pieces(
    data: np.ndarray,
    start: int,
    stop: int,
    newlines: int,
    table: np.ndarray,
    mask: int,
) -> tuple[int, int, int, int]:
    """Gives the pieces of a text cut at runs of newlines, how many repeat an earlier one, the
    characters of these, and of those among them that are not blank.

    Args:
        newlines: how many in a row cut, at least.
    """
    table[: mask + 1] = np.uint64(0)
    pieces = repeated = repeated_chars = full_chars = 0
    at = start
    while at <= stop:
        value = np.uint64(7)
        chars = 0
        blank = True
        run = 0
        while at < stop:
            byte = data[at]
            if byte == 0x0A:
                run = 1
                while at + run < stop and data[at + run] == 0x0A:
                    run += 1
                if run >= newlines:
                    break
                for _ in range(run):
                    value = (value + np.uint64(11)) * _BASE
                chars += run
                at += run
                run = 0
                continue
            value = (value + np.uint64(byte) + np.uint64(1)) * _BASE
            if byte & 0xC0 != 0x80:
                chars += 1
                if blank and byte > 0x20:
                    blank = byte >= 0x80 and is_blank(code_point(data, at))
            at += 1
        pieces += 1
        value = mix(value) | np.uint64(1)
        place = _slot(table, value, mask)
        if table[place] == 0:
            table[place] = value
        else:
            repeated += 1
            repeated_chars += chars
            full_chars += 0 if blank else chars
        # A text that ends in a cut has an empty piece after it.
        if at >= stop and run == 0:
            break
        at += max(run, 1)
    return pieces, repeated, repeated_chars, full_chars


@kernel
def _matches(data: np.ndarray, at: int, stop: int, word: bytes) -> bool:
    """Tells whether ASCII letters stand at a place, in either case."""
    if at + len(word) > stop:
        return False
    for index in range(len(word)):
        byte = data[at + index]
        if 0x41 <= byte <= 0x5A:
            byte |= 0x20
        if byte != word[index]:
            return False
    return True


@kernel
def _phrases(data: np.ndarray, start: int, stop: int) -> int:
    """Gives what stands in a line: 1 lorem ipsum, 2 JavaScript, 4 a curly bracket, 8 a notice.

    Looks around the rarest letter of each phrase.
    """
    found = 0
    for at in range(start, stop):
        letter = _RARE[data[at]]
        if letter == 0:
            continue
        if letter == 0x7B:
            found |= 4
        elif letter == 0x6B:
            if (
                (at - 8 >= start and _matches(data, at - 8, stop, b"uses cookies"))
                or (at - 10 >= start and _matches(data, at - 10, stop, b"use of cookies"))
                or (at - 7 >= start and _matches(data, at - 7, stop, b"use cookies"))
                or (at - 3 >= start and _matches(data, at - 3, stop, b"cookie policy"))
            ):
                found |= 8
        elif letter == 0x6A:
            if _matches(data, at, stop, b"javascript"):
                found |= 2
        elif letter == 0x76:
            if at - 3 >= start and _matches(data, at - 3, stop, b"privacy policy"):
                found |= 8
        elif letter == 0x66:
            if at - 7 >= start and _matches(data, at - 7, stop, b"terms of use"):
                found |= 8
        elif at - 7 >= start and _matches(data, at - 7, stop, b"lorem ipsum"):
            found |= 1
    return found


@kernel
def _sentences(
    points: np.ndarray, starts: np.ndarray, word: int, count: int, stop: int, terminals: np.ndarray
) -> int:
    """Gives the sentences among the words from `word` on that begin before `stop`.

    As spaCy's sentencizer: the first word that is no punctuation after an end mark begins one.
    """
    sentences = 1
    ended = False
    while word < count and starts[word] < stop:
        point = points[word]
        if point and _contains(terminals, point):
            ended = True
        elif ended and not is_punctuation(point):
            sentences += 1
            ended = False
        word += 1
    return sentences


@kernel
def _strip(data: np.ndarray, start: int, stop: int) -> tuple[int, int]:
    while start < stop:
        point = code_point(data, start)
        if not is_blank(point):
            break
        start += width(data[start])
    while stop > start:
        at = before(data, start, stop)
        if not is_blank(code_point(data, at)):
            break
        stop = at
    return start, stop


@kernel
def _c4_line(
    data: np.ndarray,
    start: int,
    stop: int,
    points: np.ndarray,
    starts: np.ndarray,
    word: int,
    count: int,
    terminals: np.ndarray,
) -> tuple[int, int]:
    """Gives the sentences of a line that C4 keeps, and what drops the document.

    Returns:
        Sentences, 0 for a line that is left out; and 1 for lorem ipsum, 2 for a curly bracket.
    """
    start, stop = _strip(data, start, stop)
    words = longest = size = 0
    at = start
    while at < stop:
        byte = data[at]
        blank = byte <= 0x20
        if byte >= 0x80:
            blank = is_blank(code_point(data, at))
        if blank:
            size = 0
        else:
            if size == 0:
                words += 1
            size += 1
            longest = max(longest, size)
        at += width(byte)
    if longest > 1000:
        return 0, 0
    # A citation at the end of the line hides its end mark.
    searching = True
    while searching and stop > start and data[stop - 1] == 0x5D:
        opening = stop - 2
        while opening > start and is_digit(data[opening]):
            opening -= 1
        if opening >= start and data[opening] == 0x5B:
            stop = opening
        elif stop - 6 >= start and _matches(data, stop - 6, stop, b"[edit]"):
            stop -= 6
        elif stop - 17 >= start and _matches(data, stop - 17, stop, b"[citation needed]"):
            stop -= 17
        else:
            searching = False
    if stop <= start:
        return 0, 0
    last = data[stop - 1]
    if last not in (0x2E, 0x3F, 0x21, 0x22, 0x27):
        return 0, 0
    if stop - start >= 3 and last == 0x2E and data[stop - 2] == 0x2E and data[stop - 3] == 0x2E:
        return 0, 0
    if words < 3:
        return 0, 0
    found = _phrases(data, start, stop)
    if found & 1:
        return 0, 1
    if found & 2:
        return 0, 0
    if found & 4:
        return 0, 2
    if found & 8:
        return 0, 0
    while word < count and starts[word] < start:
        word += 1
    return _sentences(points, starts, word, count, stop, terminals), 0


@kernel
def _line_statistics(
    data: np.ndarray,
    start: int,
    stop: int,
    points: np.ndarray,
    starts: np.ndarray,
    count: int,
    terminals: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fills in what is told line by line: bullets, ellipses and C4's rules."""
    lines = bullets = ellipses = sentences = 0
    dropped = word = 0
    begin = start
    at = start
    while at < stop or begin < stop:
        ending = False
        size = 1
        if at < stop:
            byte = data[at]
            point = np.int64(byte)
            if byte >= 0x80:
                size = width(byte)
                point = np.int64(code_point(data, at))
            ending = (byte < 0x20 or byte >= 0x80) and _is_line_end(point)
            if point == 13 and at + 1 < stop and data[at + 1] == 10:
                size = 2
        if at >= stop or ending:
            lines += 1
            first, last = _strip(data, begin, at)
            if first < last:
                if data[first] == 0x2D or (
                    data[first] == 0xE2 and data[first + 1] == 0x80 and data[first + 2] == 0xA2
                ):
                    bullets += 1
                if last - first >= 3 and (
                    (data[last - 1] == 0x2E and data[last - 2] == 0x2E and data[last - 3] == 0x2E)
                    or (
                        data[last - 1] == 0xA6 and data[last - 2] == 0x80 and data[last - 3] == 0xE2
                    )
                ):
                    ellipses += 1
                if dropped == 0:
                    while word < count and starts[word] < first:
                        word += 1
                    found, dropped = _c4_line(
                        data, first, last, points, starts, word, count, terminals
                    )
                    sentences += found
            begin = at + size
        at += size
    out[4] = bullets / lines if lines else np.nan
    out[5] = ellipses / lines if lines else np.nan
    out[25] = sentences
    out[26] = 1.0 if dropped == 1 else 0.0
    out[27] = 1.0 if dropped == 2 else 0.0


@kernel
def _full_line_statistics(
    data: np.ndarray, start: int, stop: int, terminals: np.ndarray, out: np.ndarray
) -> int:
    """Fills in FineWeb's shares of lines that hold something; gives the number of newlines."""
    lines = ended = short = newlines = chars = 0
    blank = True
    last = np.int64(0)
    at = start
    while at <= stop:
        if at == stop or data[at] == 0x0A:
            if not blank:
                lines += 1
                ended += _contains(terminals, last)
                short += chars <= 30
            if at < stop:
                newlines += 1
            chars = 0
            blank = True
            at += 1
            continue
        byte = data[at]
        if byte < 0x80:
            last = np.int64(byte)
            blank = blank and byte <= 0x20
            at += 1
        else:
            last = np.int64(code_point(data, at))
            blank = blank and is_blank(last)
            at += width(byte)
        chars += 1
    out[21] = ended / lines if lines else np.nan
    out[22] = short / lines if lines else np.nan
    return newlines


@kernel
def _chinese_statistics(
    data: np.ndarray,
    start: int,
    stop: int,
    terminals: np.ndarray,
    functions: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fills in what the Chinese rules look at."""
    han = visible = stops = function = 0
    at = start
    while at < stop:
        byte = data[at]
        if byte < 0x80:
            visible += byte > 0x20
            stops += byte in (0x21, 0x3F, 0x2C, 0x3B)
            at += 1
            continue
        point = code_point(data, at)
        at += width(byte)
        if is_blank(point):
            continue
        visible += 1
        if 0x3400 <= point <= 0x9FFF or 0x20000 <= point <= 0x3FFFF:
            han += 1
            function += _contains(functions, point)
        elif point in (0x3001, 0xFF0C, 0xFF1B, 0xFF1A, 0x2026) or _contains(terminals, point):
            stops += 1
    out[28] = han
    out[29] = han / visible if visible else np.nan
    out[30] = han / max(stops, 1)
    out[31] = function / han if han else np.nan


@kernel
def _ellipses(piece: np.ndarray) -> int:
    """Gives how often three stops, or the one character for them, come."""
    dots = at = 0
    while at + 2 < len(piece):
        first = piece[at]
        if first == 0x2E and piece[at + 1] == 0x2E and piece[at + 2] == 0x2E:
            dots += 1
            at += 2
        elif first == 0xE2 and piece[at + 1] == 0x80 and piece[at + 2] == 0xA6:
            dots += 1
        at += 1
    return dots


@kernel
def _statistics(
    data: np.ndarray,
    offsets: np.ndarray,
    terminals: np.ndarray,
    functions: np.ndarray,
    stop_hashes: np.ndarray,
) -> np.ndarray:
    num_texts = len(offsets) - 1
    out = np.full((num_texts, 32), np.nan, np.float32)
    longest = 1
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    size = 16
    while size < 2 * longest:
        size *= 2
    hashes = np.empty(longest + 1, np.uint64)
    lengths = np.empty(longest + 1, np.int32)
    kinds = np.empty(longest + 1, np.uint8)
    points = np.empty(longest + 1, np.int32)
    starts = np.empty(longest + 1, np.int64)
    table = np.empty(size, np.uint64)
    tally = np.empty((size, 2), np.int32)
    grams = np.empty(longest + 1, np.uint64)
    ends = np.empty(longest + 2, np.int64)
    for text in range(num_texts):
        start, stop = offsets[text], offsets[text + 1]
        row = out[text]
        if stop == start:
            row[0] = 0
            continue
        count = split_words(data, start, stop, hashes, lengths, kinds, points, starts)
        mask = 15
        while mask + 1 < 2 * (count + 1):
            mask = 2 * mask + 1
        piece = data[start:stop]
        chars = marks = 0
        for at in range(len(piece)):
            chars += (piece[at] & 0xC0) != 0x80
            marks += piece[at] == 0x23
        dots = _ellipses(piece)
        symbols = length = alpha = found = 0
        for index in range(count):
            if kinds[index] & WORD:
                length += lengths[index]
            else:
                symbols += 1
            alpha += kinds[index] & ALPHA != 0
            if lengths[index] <= 4:
                for word in range(len(stop_hashes)):
                    if hashes[index] == stop_hashes[word]:
                        found |= 1 << word
        words = count - symbols
        row[0] = words
        row[1] = length / words if words else np.nan
        row[2] = marks / count if count else np.nan
        row[3] = dots / count if count else np.nan
        row[6] = alpha / count if count else np.nan
        distinct = 0
        while found:
            distinct += found & 1
            found >>= 1
        row[7] = distinct
        _line_statistics(data, start, stop, points, starts, count, terminals, row)
        newlines = _full_line_statistics(data, start, stop, terminals, row)
        line_mask = 15
        while line_mask + 1 < 2 * (newlines + 2):
            line_mask = 2 * line_mask + 1
        inner, outer = _strip(data, start, stop)
        pieces, repeated, repeated_chars, _ = _repeated_pieces(
            data, inner, outer, 2, table, line_mask
        )
        row[8] = repeated / pieces if pieces else np.nan
        row[9] = repeated_chars / chars
        pieces, repeated, repeated_chars, full_chars = _repeated_pieces(
            data, start, stop, 1, table, line_mask
        )
        row[10] = repeated / pieces if pieces else np.nan
        row[11] = repeated_chars / chars
        row[23] = full_chars / max(chars - newlines, 1)
        row[24] = newlines / count if count else np.nan
        ends[0] = 0
        for index in range(count):
            grams[index] = hashes[index]
            ends[index + 1] = ends[index] + lengths[index]
        # What does not come twice as n words does not as more.
        best = 2
        for n in range(2, 5):
            if count < n:
                break
            if best > 1:
                _lengthen(grams, hashes, count, n)
                best, top = _top_gram(grams, ends, count, n, table, tally, mask)
            else:
                top = n - 1 + ends[n]
            row[10 + n] = top / chars
        repeats = best - 1
        for n in range(5, 11):
            if repeats > 0:
                _lengthen(grams, hashes, count, n)
                repeats = _repeated_gram_chars(grams, ends, count, n, table, mask)
            row[10 + n] = repeats / chars
        _chinese_statistics(data, start, stop, terminals, functions, row)
    return out

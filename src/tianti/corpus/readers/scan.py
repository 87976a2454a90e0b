"""A scanner of JSON lines: objects of plain fields, taken apart where they lie.

It is strict where the parser is and gives up early: of what it is not sure it says so, and the
parser looks at that line again.
"""

from __future__ import annotations

import numpy as np

from tianti.corpus.kernels import kernel

# What the scanner says of a line. Of a loose one the fields beside the text are yet to be parsed,
# because they are nested, escaped or not in one form.
BLANK, PLAIN, LOOSE, UNSURE = 0, 1, 2, 3
# Bytes copied at a time: buffers need so much room behind them.
STEP = 32
MAX_FIELDS = 64
_QUOTE, _BACKSLASH, _NEWLINE, _COMMA, _COLON = 0x22, 0x5C, 0x0A, 0x2C, 0x3A
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = 0x7B, 0x7D, 0x5B, 0x5D
_LITERALS = np.frombuffer(b"truefalsenull", np.uint8)


def _escapes() -> np.ndarray:
    """Gives what stands for what after a backslash, 0 where nothing does."""
    table = np.zeros(256, np.uint8)
    for letter, meant in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
        table[letter] = meant
    return table


_ESCAPES = _escapes()


@kernel
def scan_lines(
    data: np.ndarray,
    start: int,
    name: np.ndarray,
    bounds: np.ndarray,
    states: np.ndarray,
    text: np.ndarray,
    text_bounds: np.ndarray,
    rest: np.ndarray,
    rest_bounds: np.ndarray,
) -> int:
    """Takes lines apart, as many as there is room for, and gives their number.

    Args:
        data: bytes of whole lines, uint8.
        start: where the first line begins.
        name: of the field that holds the text, UTF-8.
        bounds: `(lines + 1,)` int64, where each line begins.
        states: `(lines,)` uint8.
        text: the texts one after another, as UTF-8; nothing for a line that is not sure.
        text_bounds: `(lines + 1,)` int64, where each text begins.
        rest: the objects of the other fields, compact and sorted by name unless they are loose.
        rest_bounds: `(lines + 1,)` int64, where each of these begins.
    """
    fields = np.empty((MAX_FIELDS, 4), np.int64)
    stop = len(data)
    at, count, put, laid = start, 0, 0, 0
    while at < stop and count < len(states):
        bounds[count] = at
        state, end, after = _text_and_fields(data, at, stop, name, text, put, fields)
        if state in (PLAIN, LOOSE):
            put = after
            if end[1]:
                loose, laid = _lay(data, fields, end[1], rest, laid)
                if loose:
                    state = LOOSE
            at = end[0]
        while at < stop and data[at] != _NEWLINE:
            at += 1
        at += 1
        states[count] = state
        count += 1
        text_bounds[count], rest_bounds[count] = put, laid
    bounds[count] = min(at, stop)
    return count


@kernel
def _text_and_fields(
    data: np.ndarray,
    at: int,
    stop: int,
    name: np.ndarray,
    text: np.ndarray,
    put: int,
    fields: np.ndarray,
) -> tuple[int, tuple[int, int], int]:
    """Gives the state of a line, (where it ends, number of other fields), and the end of the text.

    Writes where name and value of each other field begin and end.
    """
    nothing = (at, 0)
    at = _after_blanks(data, at, stop)
    if at >= stop or data[at] == _NEWLINE:
        return BLANK, nothing, put
    if data[at] != _OPEN:
        return UNSURE, nothing, put
    at += 1
    state, count, found = PLAIN, 0, False
    while True:
        at = _after_blanks(data, at, stop)
        if at >= stop or data[at] != _QUOTE:
            return UNSURE, nothing, put
        first = at + 1
        last, plain = _string_end(data, first, stop)
        if last < 0 or not plain:
            return UNSURE, nothing, put
        at = _after_blanks(data, last + 1, stop)
        if at >= stop or data[at] != _COLON:
            return UNSURE, nothing, put
        at = _after_blanks(data, at + 1, stop)
        if at >= stop:
            return UNSURE, nothing, put
        if _compare(data, first, last, name, 0, len(name)) == 0:
            if found or data[at] != _QUOTE:
                return UNSURE, nothing, put
            found = True
            at, put = _unescape(data, at + 1, stop, text, put)
            if at < 0:
                return UNSURE, nothing, put
        else:
            if count == MAX_FIELDS:
                return UNSURE, nothing, put
            begin = at
            at, plain = _value_end(data, at, stop)
            if at < 0:
                return UNSURE, nothing, put
            if not plain:
                state = LOOSE
            fields[count, 0], fields[count, 1] = first, last
            fields[count, 2], fields[count, 3] = begin, at
            count += 1
        at = _after_blanks(data, at, stop)
        if at >= stop:
            return UNSURE, nothing, put
        if data[at] == _CLOSE:
            break
        if data[at] != _COMMA:
            return UNSURE, nothing, put
        at += 1
    at = _after_blanks(data, at + 1, stop)
    if not found or (at < stop and data[at] != _NEWLINE):
        return UNSURE, nothing, put
    return state, (at, count), put


@kernel
def _after_blanks(data: np.ndarray, at: int, stop: int) -> int:
    while at < stop and (data[at] == 0x20 or data[at] == 0x09 or data[at] == 0x0D):
        at += 1
    return at


@kernel
def _string_end(data: np.ndarray, at: int, stop: int) -> tuple[int, bool]:
    """Gives where the quote is that ends a string, or -1, and whether it is free of escapes."""
    plain = True
    while at < stop:
        byte = data[at]
        if byte == _QUOTE:
            return at, plain
        if byte < 0x20:
            break
        if byte == _BACKSLASH:
            plain = False
            at += 1
        at += 1
    return -1, plain


@kernel
def _value_end(data: np.ndarray, at: int, stop: int) -> tuple[int, bool]:
    """Gives where a value ends, or -1, and whether it is written as it would be written again."""
    first = data[at]
    if first == _QUOTE:
        end, plain = _string_end(data, at + 1, stop)
        return (end + 1 if end >= 0 else -1), plain
    if first in (_OPEN, _OPEN_LIST):
        depth = 0
        while at < stop:
            byte = data[at]
            if byte == _QUOTE:
                at, _ = _string_end(data, at + 1, stop)
                if at < 0:
                    return -1, False
            elif byte in (_OPEN, _OPEN_LIST):
                depth += 1
            elif byte in (_CLOSE, _CLOSE_LIST):
                depth -= 1
                if depth == 0:
                    return at + 1, False
            elif byte == _NEWLINE:
                break
            at += 1
        return -1, False
    begin = at
    while at < stop and data[at] > 0x20 and data[at] != _COMMA and data[at] != _CLOSE:
        at += 1
    return (at if at > begin else -1), _is_number_or_name(data, begin, at)


@kernel
def _is_number_or_name(data: np.ndarray, begin: int, end: int) -> bool:
    """Tells whether this is a whole number of at most 15 digits, true, false or null."""
    if (
        _compare(data, begin, end, _LITERALS, 0, 4) == 0
        or _compare(data, begin, end, _LITERALS, 4, 9) == 0
        or _compare(data, begin, end, _LITERALS, 9, 13) == 0
    ):
        return True
    digits = begin + 1 if data[begin] == 0x2D else begin
    for at in range(digits, end):
        if not 0x30 <= data[at] <= 0x39:
            return False
    # A zero goes before no digit and behind no sign.
    return 1 <= end - digits <= 15 and (data[digits] != 0x30 or end - begin == 1)


@kernel
def _unescape(data: np.ndarray, at: int, stop: int, text: np.ndarray, put: int) -> tuple[int, int]:
    """Writes what a string means; gives where it ends behind the quote, or -1, and the writing."""
    while True:
        while at + STEP <= stop:
            # Most of a text needs no second look; without a sign the compiler makes this wide.
            here, there = np.uint64(at), np.uint64(put)
            odd = False
            for offset in range(np.uint64(STEP)):
                byte = data[here + offset]
                odd |= (byte == np.uint8(_QUOTE)) | (byte == np.uint8(_BACKSLASH))
                odd |= byte < np.uint8(0x20)
                text[there + offset] = byte
            if odd:
                break
            at += STEP
            put += STEP
        while at < stop and data[at] >= 0x20 and data[at] != _QUOTE and data[at] != _BACKSLASH:
            text[put] = data[at]
            at += 1
            put += 1
        if at + 1 >= stop or data[at] < 0x20:
            return -1, put
        if data[at] == _QUOTE:
            return at + 1, put
        if _ESCAPES[data[at + 1]]:
            text[put] = _ESCAPES[data[at + 1]]
            at += 2
            put += 1
            continue
        point = _escaped_unit(data, at, stop)
        at += 6
        if 0xD800 <= point < 0xDC00:
            low = _escaped_unit(data, at, stop)
            at += 6
            if not 0xDC00 <= low < 0xE000:
                return -1, put
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
        elif point < 0 or 0xDC00 <= point < 0xE000:
            return -1, put
        put = _encode(point, text, put)


@kernel
def _escaped_unit(data: np.ndarray, at: int, stop: int) -> int:
    r"""Gives the number in `\uXXXX`, or -1 where there is none."""
    if at + 6 > stop or data[at] != _BACKSLASH or data[at + 1] != 0x75:
        return -1
    value = 0
    for place in range(at + 2, at + 6):
        byte = int(data[place])
        if 0x30 <= byte <= 0x39:
            digit = byte - 0x30
        elif 0x61 <= byte | 0x20 <= 0x66:
            digit = (byte | 0x20) - 0x57
        else:
            return -1
        value = value << 4 | digit
    return value


@kernel
def _encode(point: int, text: np.ndarray, put: int) -> int:
    """Writes a character as UTF-8 and gives where it ends."""
    if point < 0x80:
        text[put] = point
        return put + 1
    if point < 0x800:
        text[put] = 0xC0 | point >> 6
        text[put + 1] = 0x80 | point & 0x3F
        return put + 2
    if point < 0x10000:
        text[put] = 0xE0 | point >> 12
        text[put + 1] = 0x80 | point >> 6 & 0x3F
        text[put + 2] = 0x80 | point & 0x3F
        return put + 3
    text[put] = 0xF0 | point >> 18
    text[put + 1] = 0x80 | point >> 12 & 0x3F
    text[put + 2] = 0x80 | point >> 6 & 0x3F
    text[put + 3] = 0x80 | point & 0x3F
    return put + 4


@kernel
def _compare(
    one: np.ndarray, begin: int, end: int, other: np.ndarray, first: int, last: int
) -> int:
    """Gives less than, equal to or more than 0, as the bytes of one come before the other's."""
    for offset in range(min(end - begin, last - first)):
        left, right = int(one[begin + offset]), int(other[first + offset])
        if left != right:
            return left - right
    return (end - begin) - (last - first)


@kernel
def _lay(
    data: np.ndarray, fields: np.ndarray, count: int, rest: np.ndarray, laid: int
) -> tuple[bool, int]:
    """Writes fields as an object, sorted by name; tells whether a name comes twice."""
    twice = False
    for number in range(1, count):
        place = number
        while place:
            order = _compare(
                data, fields[place - 1, 0], fields[place - 1, 1],
                data, fields[place, 0], fields[place, 1],
            )  # fmt: skip
            twice |= order == 0
            if order <= 0:
                break
            for column in range(4):
                held = fields[place, column]
                fields[place, column] = fields[place - 1, column]
                fields[place - 1, column] = held
            place -= 1
    for number in range(count):
        rest[laid] = _COMMA if number else _OPEN
        laid += 1
        # With the quotes around it.
        laid = _copy(data, fields[number, 0] - 1, fields[number, 1] + 1, rest, laid)
        rest[laid] = _COLON
        laid = _copy(data, fields[number, 2], fields[number, 3], rest, laid + 1)
    rest[laid] = _CLOSE
    return twice, laid + 1


@kernel
def _copy(data: np.ndarray, begin: int, end: int, rest: np.ndarray, laid: int) -> int:
    for at in range(begin, end):
        rest[laid + at - begin] = data[at]
    return laid + end - begin

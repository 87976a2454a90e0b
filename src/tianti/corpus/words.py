"""Words of a text, as spaCy's English rules tell them: the published thresholds count these.

Runs without blanks are cut from the head, from the tail, then inside; contractions are parted
(do|n't), known abbreviations keep their stop. A Chinese character or kana is a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tianti.corpus.kernels import code_point, is_cjk, is_separator, kernel, mix, width

WORD, ALPHA = 1, 2
# datatrove's terminal punctuation: lines that end in one of these end a sentence.
TERMINALS = (
    ".?!。？！．｡‼⁇⁈⁉‽⸮⸼﹒﹖﹗؟۔؞܀܁܂।॥၊။።፧፨᙮។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫։߹࠷࠹࠽࠾᜵᜶؝᭽᭾⹓⹔"
)
# The other signs that count as symbols, not as words, in datatrove.
_SIGNS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
_BASE = np.uint64(0x9E3779B97F4A7C15)
_ABBREVIATIONS = """Adm Ala Apr Ariz Ark Aug Bros Calif Co Colo Conn Corp Dec Del Dr Feb Fla Ga Gen
Gov Ia Id Ill Inc Ind Jan Jr Jul Jun Kan Kans Ky La Ltd Mar Mass Md Messrs Mich Minn Miss Mo Mont
Mr Mrs Ms Mt Neb Nebr Nev Nov Oct Okla Ore Pa Prof Rep Rev Sen Sep Sept St Tenn Va Wash Wis co vs
"""
_UNITS = """km m dm cm mm ha nm yd in ft kg g mg t lb oz mph kmh hPa Pa mbar mb MB kb KB gb GB tb TB
T G M K am pm"""
_CONTRACTIONS = "'s 'S 'm 'd 'll 're 've n't 'em 'Cause '' 'M 'D 'LL 'RE 'VE N'T"
_FACES = ":) :( :] :[ :* :/ :> :| ;) =) =( =/ =[ =] =| (: (; (= ): )= [: [= ]: ]= '' :} 8)"
_FACES += " :D :P :p :O :o :x :X :3 :0 ;D =D =3 <3"


def word_hash(text: str) -> np.uint64:
    """Gives the hash of a word as `split_words` writes it."""
    data = np.frombuffer(text.encode(), np.uint8)
    with np.errstate(over="ignore"):
        return np.uint64(_hash(data, 0, len(data)))


@kernel
def _hash(data: np.ndarray, start: int, stop: int) -> Any:
    value = np.uint64(0)
    at = start
    while at < stop:
        byte = data[at]
        point = np.int64(byte) if byte < 0x80 else np.int64(code_point(data, at))
        value = (value + np.uint64(point) + np.uint64(1)) * _BASE
        at += width(byte)
    return mix(value)


def _table(words: str) -> np.ndarray:
    return np.sort(np.array([word_hash(word) for word in words.split()], np.uint64))


_ABBREVIATION_HASHES = _table(_ABBREVIATIONS)
_UNIT_HASHES = _table(_UNITS)
_CONTRACTION_HASHES = _table(_CONTRACTIONS)
_FACE_CODES = np.sort(
    np.array([ord(face[0]) << 8 | ord(face[1]) for face in _FACES.split()], np.int64)
)
_CANNOT = word_hash("cannot")


def _ascii(text: str) -> np.ndarray:
    marks = np.zeros(128, np.bool_)
    marks[[ord(character) for character in text]] = True
    return marks


def _kinds() -> np.ndarray:
    """Gives for every code point of the basic plane `WORD` where it is none of datatrove's signs,
    and `ALPHA` where Python calls it a letter."""
    kinds = np.array([ALPHA * chr(point).isalpha() for point in range(1 << 16)], np.uint8)
    kinds |= WORD
    controls = [*range(9), *range(11, 32), *range(127, 160)]
    kinds[[*controls, *(ord(sign) for sign in _SIGNS + TERMINALS if ord(sign) < 1 << 16)]] &= ALPHA
    return kinds


_KINDS = _kinds()
# Of every byte: `ALPHA` for an ASCII letter, `WORD` for a digit.
_CLASSES = np.zeros(256, np.uint8)
_CLASSES[0x30:0x3A] = WORD
_CLASSES[0x41:0x5B] = _CLASSES[0x61:0x7B] = ALPHA
_HEADS = _ascii("\"'`,:;!?()[]{}<>_#*&%=$")
_TAILS = _ascii("\"'`,:;!?()[]{}<>_#*&")
_PUNCTUATION = _ascii("!\"#%&'()*,-./:;?@[\\]_{}")


@kernel
def before(data: np.ndarray, start: int, stop: int) -> int:
    """Gives where the last character before `stop` begins."""
    at = stop - 1
    while at > start and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


@kernel
def is_blank(point: int) -> bool:
    """Tells what Python's str.isspace does, of the characters that texts hold."""
    return (
        point == 0x20
        or 9 <= point <= 13
        or 0x1C <= point <= 0x1F
        or point in (0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
        or 0x2000 <= point <= 0x200A
    )


@kernel
def is_digit(byte: int) -> bool:
    """Tells whether a byte is an ASCII digit."""
    return 0x30 <= byte <= 0x39


@kernel
def is_punctuation(point: int) -> bool:
    """Tells whether a single character is punctuation, not a letter or symbol; 0 is neither."""
    if point < 0x80:
        return _PUNCTUATION[point] if point > 0 else False
    return is_separator(point) and not (
        0x2190 <= point <= 0x2BFF
        or point in (0xA2, 0xA3, 0xA4, 0xA5, 0xA9, 0xAE, 0xB0, 0xB1, 0x20AC)
    )


@kernel
def _is_upper(byte: int) -> bool:
    return 0x41 <= byte <= 0x5A


@kernel
def _is_lower(byte: int) -> bool:
    return 0x61 <= byte <= 0x7A


@kernel
def _is_letter_at(data: np.ndarray, at: int) -> bool:
    byte = data[at]
    if byte < 0x80:
        return _is_lower(byte) or _is_upper(byte)
    return not is_separator(code_point(data, at))


@kernel
def _is_in(table: np.ndarray, value: int) -> bool:
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) >> 1
        if table[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < len(table) and table[low] == value


@kernel
def _kind_of(point: int) -> int:
    if point < 0x10000:
        return _KINDS[point]
    # Beyond the basic plane: letters of old scripts and rare Chinese characters; else pictures.
    letters = point < 0x1D000 or 0x1D400 <= point < 0x1F000 or point >= 0x20000
    return WORD | ALPHA if letters else WORD


@kernel
def _emit(
    data: np.ndarray,
    start: int,
    stop: int,
    hashes: np.ndarray,
    lengths: np.ndarray,
    kinds: np.ndarray,
    points: np.ndarray,
    starts: np.ndarray,
    count: int,
) -> int:
    """Writes one word: hash, characters, kind, the character where it is one, and its place."""
    value = np.uint64(0)
    chars = 0
    kind = 0
    point = np.int64(0)
    at = start
    while at < stop:
        byte = data[at]
        if byte < 0x80:
            point = np.int64(byte)
            at += 1
        else:
            point = np.int64(code_point(data, at))
            at += width(byte)
        kind |= _kind_of(point)
        value = (value + np.uint64(point) + np.uint64(1)) * _BASE
        chars += 1
    hashes[count] = mix(value)
    lengths[count] = chars
    kinds[count] = kind
    points[count] = point if chars == 1 else 0
    starts[count] = start
    return count + 1


@kernel
def _keeps_stop(data: np.ndarray, start: int, at: int) -> bool:
    """Tells whether the word before a stop at `at` keeps it: U.S., J., Mr. do."""
    if at == start:
        return False
    last = data[at - 1]
    if is_digit(last):
        return False
    for inside in range(start, at - 1):
        if data[inside] == 0x2E and at - start <= 8:
            return True
    if at - start == 1 and last < 0x80:
        return _is_upper(last) or _is_lower(last)
    if _is_upper(last):
        return not (at - 2 >= start and _is_upper(data[at - 2]))
    return at - start <= 6 and _is_in(_ABBREVIATION_HASHES, _hash(data, start, at))


@kernel
def _head_end(data: np.ndarray, at: int, stop: int) -> int:
    """Gives where punctuation at the head of a run ends; `at` where there is none."""
    byte = data[at]
    if _CLASSES[byte]:
        return at
    if byte >= 0x80:
        point = code_point(data, at)
        if is_separator(point) and point not in (0xB0, 0xB1, 0x2212):
            return at + width(byte)
        return at
    if byte == 0x2E:
        end = at
        while end < stop and data[end] == 0x2E:
            end += 1
        return end if end - at >= 2 or end == stop else at
    if byte == 0x2B:
        return at + 1 if at + 1 == stop or not is_digit(data[at + 1]) else at
    return at + 1 if _HEADS[byte] else at


@kernel
def _tail_start(data: np.ndarray, start: int, stop: int) -> int:
    """Gives where what is parted from the tail of a run begins; `stop` where nothing is."""
    at = before(data, start, stop)
    byte = data[at]
    if byte >= 0x80:
        point = code_point(data, at)
        parted = is_separator(point) and point not in (0xB0, 0xB1, 0x2212)
        return at if parted else stop
    if byte == 0x2E:
        first = at
        while first > start and data[first - 1] == 0x2E:
            first -= 1
        if stop - first >= 2:
            return first
        return stop if _keeps_stop(data, start, at) else at
    if _TAILS[byte]:
        return at
    if byte in (0x25, 0x2B) and at > start and is_digit(data[at - 1]):
        return at
    if _CLASSES[byte] != ALPHA:
        return stop
    return _letters_tail(data, start, stop)


@kernel
def _letters_tail(data: np.ndarray, start: int, stop: int) -> int:
    """Gives where a contraction or, after a digit, a unit at the tail begins; else `stop`."""
    last = data[stop - 1] | 0x20
    # 's, 'm, 'd; n't.
    if last == 0x73 or last == 0x6D or last == 0x64 or last == 0x74:
        one = _apostrophe(data, start, stop - 2)
        if one >= 0:
            if last != 0x74:
                return one
            if one - 1 > start and data[one - 1] | 0x20 == 0x6E:
                return one - 1
    # 'll, 're, 've.
    if last == 0x6C or last == 0x65:
        two = _apostrophe(data, start, stop - 3)
        if two >= 0:
            first = data[stop - 2] | 0x20
            if (first == 0x6C and last == 0x6C) or (last == 0x65 and first in (0x72, 0x76)):
                return two
    at = stop - 1
    while at > start and stop - at < 5 and _CLASSES[data[at - 1]] == ALPHA:
        at -= 1
    if at > start and is_digit(data[at - 1]) and _is_in(_UNIT_HASHES, _hash(data, at, stop)):
        return at
    return stop


@kernel
def _apostrophe(data: np.ndarray, start: int, at: int) -> int:
    """Gives where an apostrophe that ends at `at` begins, straight or curly; -1 for none."""
    if at <= start:
        return -1
    if data[at] == 0x27:
        return at
    if at - 2 > start and data[at] == 0x99 and data[at - 1] == 0x80 and data[at - 2] == 0xE2:
        return at - 2
    return -1


@kernel
def _split_run(
    data: np.ndarray,
    start: int,
    stop: int,
    hashes: np.ndarray,
    lengths: np.ndarray,
    kinds: np.ndarray,
    points: np.ndarray,
    starts: np.ndarray,
    count: int,
    tails: np.ndarray,
) -> int:
    """Writes the words of a run without blanks; `tails` is room for their places."""
    first = data[start]
    small = (first == 0x27 or first | 0x20 == 0x6E) and stop - start <= 6
    if small and _is_in(_CONTRACTION_HASHES, _hash(data, start, stop)):
        return _emit(data, start, stop, hashes, lengths, kinds, points, starts, count)
    begun = count
    while start < stop:
        end = _head_end(data, start, stop)
        if end == start:
            break
        count = _emit(data, start, end, hashes, lengths, kinds, points, starts, count)
        start = end
    num_tails = 0
    end = stop
    while start < end and num_tails < len(tails):
        cut = _tail_start(data, start, end)
        if cut == end:
            break
        tails[num_tails] = cut
        num_tails += 1
        end = cut
    if end - start == 6 and _hash(data, start, end) == _CANNOT:
        count = _emit(data, start, start + 3, hashes, lengths, kinds, points, starts, count)
        count = _emit(data, start + 3, end, hashes, lengths, kinds, points, starts, count)
    else:
        count = _split_inside(data, start, end, hashes, lengths, kinds, points, starts, count)
    for index in range(num_tails - 1, -1, -1):
        upto = tails[index - 1] if index else stop
        count = _emit(data, tails[index], upto, hashes, lengths, kinds, points, starts, count)
    if count - begun < 2:
        return count
    return _join_faces(begun, lengths, points, count, hashes, kinds, starts)


@kernel
def _join_faces(
    begun: int,
    lengths: np.ndarray,
    points: np.ndarray,
    count: int,
    hashes: np.ndarray,
    kinds: np.ndarray,
    starts: np.ndarray,
) -> int:
    """Joins the two signs of a face such as `:)`, which spaCy takes for one word."""
    kept = begun
    index = begun
    while index < count:
        joined = (
            index + 1 < count
            and 0 < points[index] < 128
            and 0 < points[index + 1] < 128
            and _is_in(_FACE_CODES, np.int64(points[index]) << 8 | np.int64(points[index + 1]))
        )
        if joined:
            value = hashes[index] + hashes[index + 1]
            hashes[kept], lengths[kept], points[kept] = value, 2, 0
            kinds[kept] = kinds[index] | kinds[index + 1]
            starts[kept] = starts[index]
            index += 2
        else:
            hashes[kept], lengths[kept], points[kept] = hashes[index], lengths[index], points[index]
            kinds[kept], starts[kept] = kinds[index], starts[index]
            index += 1
        kept += 1
    return kept


@kernel
def _cut_inside(data: np.ndarray, start: int, at: int, stop: int) -> int:
    """Gives how many bytes at `at`, inside a run, are a word by themselves; 0 for none."""
    byte = data[at]
    size = width(byte)
    if byte >= 0x80:
        point = code_point(data, at)
        if point == 0x2026:
            return size
        if point not in (0x2013, 0x2014) or at == start or at + size >= stop:
            return 0
        previous = before(data, start, at)
        return size if _is_letter_at(data, previous) and _is_letter_at(data, at + size) else 0
    if at == start or at + 1 >= stop:
        return 0
    if byte == 0x2E and data[at + 1] == 0x2E:
        end = at + 1
        while end < stop and data[end] == 0x2E:
            end += 1
        return end - at
    last, after = data[at - 1], data[at + 1]
    previous = before(data, start, at)
    if byte == 0x2D or byte == 0x7E:
        end = at + 1
        while end < stop and byte == 0x2D and data[end] == 0x2D and end - at < 3:
            end += 1
        if end >= stop:
            return 0
        letters = _is_letter_at(data, end) and (_is_letter_at(data, previous) or is_digit(last))
        numbers = end == at + 1 and is_digit(last) and (is_digit(after) or after == 0x2D)
        return end - at if letters or numbers else 0
    if byte in (0x2A, 0x5E, 0x2B):
        return 1 if is_digit(last) and (is_digit(after) or after == 0x2D) else 0
    if byte == 0x2C:
        return 1 if _is_letter_at(data, previous) and _is_letter_at(data, at + 1) else 0
    if byte in (0x3A, 0x3C, 0x3E, 0x3D, 0x2F):
        letters = _is_letter_at(data, previous) or is_digit(last)
        return 1 if letters and _is_letter_at(data, at + 1) else 0
    if byte == 0x2E:
        return 1 if _is_lower(last) and _is_upper(after) else 0
    return 0


@kernel
def _split_inside(
    data: np.ndarray,
    start: int,
    stop: int,
    hashes: np.ndarray,
    lengths: np.ndarray,
    kinds: np.ndarray,
    points: np.ndarray,
    starts: np.ndarray,
    count: int,
) -> int:
    """Writes the words of a run without outer punctuation."""
    begin = start
    at = start
    while at < stop:
        byte = data[at]
        if _CLASSES[byte]:
            at += 1
            continue
        size = width(byte)
        cut = size if byte >= 0x80 and is_cjk(code_point(data, at)) else 0
        if cut == 0:
            cut = _cut_inside(data, start, at, stop)
        if cut:
            if at > begin:
                count = _emit(data, begin, at, hashes, lengths, kinds, points, starts, count)
            count = _emit(data, at, at + cut, hashes, lengths, kinds, points, starts, count)
            begin = at + cut
            at = begin
        else:
            at += size
    if stop > begin:
        count = _emit(data, begin, stop, hashes, lengths, kinds, points, starts, count)
    return count


@kernel
def split_words(
    data: np.ndarray,
    start: int,
    stop: int,
    hashes: np.ndarray,
    lengths: np.ndarray,
    kinds: np.ndarray,
    points: np.ndarray,
    starts: np.ndarray,
) -> int:
    """Writes the words of a text, an entry each in every array, and gives their number.

    Args:
        data: UTF-8 bytes.
        start: where the text begins.
        stop: where it ends.
        hashes: 64-bit hashes.
        lengths: characters.
        kinds: `WORD` where there is more than punctuation, with `ALPHA` where there is a letter.
        points: the character of a word of one, else 0.
        starts: where the word begins.
    """
    tails = np.empty(32, np.int64)
    count = 0
    at = start
    begin = -1
    # Most runs are letters alone and need no looking into.
    letters = True
    while at < stop:
        byte = data[at]
        size = 1
        blank = byte <= 0x20
        if byte >= 0x80:
            size = width(byte)
            blank = is_blank(code_point(data, at))
        if not blank:
            if begin < 0:
                begin = at
                letters = True
            letters = letters and _CLASSES[byte] == ALPHA
        elif begin >= 0:
            count = _any_run(
                data, begin, at, letters, hashes, lengths, kinds, points, starts, count, tails
            )
            begin = -1
        at += size
    if begin >= 0:
        count = _any_run(
            data, begin, stop, letters, hashes, lengths, kinds, points, starts, count, tails
        )
    return count


@kernel
def _any_run(
    data: np.ndarray,
    start: int,
    stop: int,
    letters: bool,
    hashes: np.ndarray,
    lengths: np.ndarray,
    kinds: np.ndarray,
    points: np.ndarray,
    starts: np.ndarray,
    count: int,
    tails: np.ndarray,
) -> int:
    """Writes the words of a run; one of `letters` alone is one word."""
    if not letters:
        return _split_run(data, start, stop, hashes, lengths, kinds, points, starts, count, tails)
    value = np.uint64(0)
    for at in range(start, stop):
        value = (value + np.uint64(data[at]) + np.uint64(1)) * _BASE
    value = mix(value)
    if stop - start == 6 and value == _CANNOT:
        return _split_run(data, start, stop, hashes, lengths, kinds, points, starts, count, tails)
    hashes[count] = value
    lengths[count] = stop - start
    kinds[count] = WORD | ALPHA
    points[count] = data[start] if stop - start == 1 else 0
    starts[count] = start
    return count + 1

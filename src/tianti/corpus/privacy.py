"""Finds what must not be learned about people: addresses, numbers and secrets of fixed shape.

Each find is checked where its kind has a check: Luhn's sum for bank cards, the sum of ISO 7064 for
Chinese identity numbers, ranges for IP addresses and dates.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

KINDS = ("email", "phone", "ip", "id_card", "bank_card", "secret", "url_credentials")


@dataclass(frozen=True, slots=True)
class Span:
    """A find: `text[start:end]`, in characters."""

    start: int
    end: int
    kind: str
    text: str


_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][\w.+%'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"[A-Za-z]{2,24}(?![\w-])",
    re.ASCII,
)
_URL_CREDENTIALS = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://([^\s/:@]{1,64}:[^\s/@]{1,128})@", re.I)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])", re.ASCII)
_CN_ID = re.compile(r"(?<![0-9A-Za-z])[1-9]\d{16}[0-9Xx](?![0-9A-Za-z])")
_US_ID = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}[- ](?!00)\d{2}[- ](?!0000)\d{4}(?![\d-])")
_CARD = re.compile(r"(?<![\d.-])(?:1800|2131|2[2-7]\d\d|[3-6]\d{3})(?:[ -]?\d){8,15}(?![\d-])")
_CN_MOBILE = re.compile(
    r"(?<![\d.+-])(?:(?:\+|00)?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?![\d-]|\.\d)"
)
_CN_LANDLINE = re.compile(
    r"(?<![\d-])(?:\+?86[- ]?)?\(?0(?:10|2\d|[3-9]\d{2})\)?[- ]\d{7,8}(?![\d-])"
)
_PHONE = re.compile(
    r"(?<![\w.+/=])(?<!\d{4}[ -])(?<![A-Za-z]-)(?:"
    r"\+\d{1,3}[-. ]?(?:\(\d{1,4}\)[-. ]?)?\d{1,4}(?:[-. ]?\d{2,4}){2,4}"  # +44 20 7946 0958
    r"|(?:00\d{1,3}[-. ])(?:\(\d{1,4}\)[-. ]?)?\d{1,4}(?:[-. ]\d{2,4}){2,4}"  # 0044 …
    r"|(?:1[-. ])?\(\d{3}\) ?\d{3}[-. ]\d{4}"  # (555) 123-4567
    r"|(?:1[-. ])?\d{3}[-.]\d{3}[-.]\d{4}"  # 555-123-4567
    r"|\(0\d{1,4}\) ?\d{3,4}[- ]?\d{3,4}"  # (020) 7946 0958
    r"|0\d{1,4}[- ]\d{3,4}[- ]\d{3,4}"  # 020 7946 0958
    r"|0\d{2,3} \d{2,3} \d{2} \d{2}(?: \d{2})?"  # 044 668 18 00
    r"|0\d{4} \d{3} \d{3}"  # 07700 063 966
    r"|\(\d{2,4}\) ?\d{3,4}-\d{3,4}"  # (37) 788-063
    r"|0\d(?:[. ]\d{2}){4}"  # 03.93.92.16.85
    r"|\d{2}(?:-\d{2}){3}"  # 60-56-85-91
    r")(?:(?: ?(?:x|ext\.?) ?\d{1,5})?)(?!\w|[.-]\d)",
    re.ASCII,
)
# A bare number is a phone number only where the words before it say so.
_NAMED_PHONE = re.compile(
    r"(?i)(?:(?<![a-z])(?:phone|tel(?:ephone|efon|\.)?|mobile|cell(?:phone)?|fax|whatsapp"
    r"|call(?:ing)?|contact|reach|text me"
    # Numbers of other things are no phone numbers.
    r"|(?<!licen[cs]e )(?<!account )(?<!order )(?<!card )(?<!serial )(?<!tracking )"
    r"(?<!passport )number)(?![a-z])"
    r"|电话|手机|联系方式|微信|传真|热线)[^\d\n]{0,30}?\n?(?<![A-Za-z0-9])"
    r"(?P<value>(?:\+|00)?\(?\d(?:[-. ()]{0,2}\d){6,14})(?!\w|[.-]\d)"
)
_SECRETS = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}"  # AWS
    r"|LTAI[0-9A-Za-z]{12,26}"  # Alibaba Cloud
    r"|AKID[0-9A-Za-z]{32}"  # Tencent Cloud
    r"|gh[pousr]_[0-9A-Za-z]{36,255}|github_pat_[0-9A-Za-z_]{60,255}"
    r"|glpat-[0-9A-Za-z_-]{20,}"
    r"|sk-(?:ant-|proj-)?[0-9A-Za-z_-]{20,200}"
    r"|hf_[0-9A-Za-z]{30,64}"
    r"|AIza[0-9A-Za-z_-]{35}"
    r"|xox[abprs]-[0-9A-Za-z-]{10,}"
    r"|[sr]k_(?:live|test)_[0-9A-Za-z]{16,}"
    r"|npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{50,}"
    r"|eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{10,}"  # JSON Web Token
    r")(?![A-Za-z0-9_-])"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{1,8000}?-----END (?:[A-Z]+ )*PRIVATE KEY-----"
)
_ASSIGNED = re.compile(
    r"(?i)(?<![a-z])(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token|密码|口令)(?![a-z])"
    r"['\"]?\s{0,3}(?::|=|：|是)\s{0,3}['\"]?(?P<value>[^\s'\"，。；,;<>{}()$]{8,128})"
)
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def find_private(text: str, kinds: tuple[str, ...] = KINDS) -> list[Span]:
    """Gives what was found, in order and without overlaps: the longer of two that overlap.

    Args:
        text: any text.
        kinds: which of `KINDS` to look for.
    """
    digits = any(character.isdigit() for character in text)
    found: list[Span] = []
    for kind in kinds:
        if kind in _NEED_DIGITS and not digits:
            continue
        found.extend(_FINDERS[kind](text))
    return _without_overlaps(found)


def redact(text: str, kinds: tuple[str, ...] = KINDS) -> tuple[str, list[Span]]:
    """Gives the text with each find replaced by a tag such as `<EMAIL>`, and the finds."""
    spans = find_private(text, kinds)
    parts, at = [], 0
    for span in spans:
        parts.append(text[at : span.start])
        parts.append(f"<{span.kind.upper()}>")
        at = span.end
    return "".join(parts) + text[at:], spans


def _without_overlaps(found: list[Span]) -> list[Span]:
    kept: list[Span] = []

    # What stands in an address before its host is no e-mail address, however long it reads on. Of
    # equal length the kind that has a check goes first.
    def order(span: Span) -> tuple[bool, int, int, int]:
        in_address = span.kind == "url_credentials"
        return not in_address, span.start - span.end, -_RANK.get(span.kind, 0), span.start

    for span in sorted(found, key=order):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda s: s.start)


_RANK = {"secret": 9, "id_card": 8, "bank_card": 7, "email": 6, "ip": 5, "phone": 1}


def _matches(
    kind: str, pattern: re.Pattern[str], text: str, check: Callable[[str], bool] | None = None
) -> Iterator[Span]:
    for match in pattern.finditer(text):
        if check is None or check(match[0]):
            yield Span(match.start(), match.end(), kind, match[0])


def _emails(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from _matches("email", _EMAIL, text)


def _phones(text: str) -> Iterator[Span]:
    yield from _matches("phone", _CN_MOBILE, text)
    yield from _matches("phone", _CN_LANDLINE, text)
    yield from _matches("phone", _PHONE, text, _is_phone)
    for match in _NAMED_PHONE.finditer(text):
        value = match["value"]
        if _is_phone(value) and not is_bank_card(value):
            yield Span(match.start("value"), match.end("value"), "phone", value)


def _is_phone(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    decimal = re.fullmatch(r"\d+\.\d+", text) is not None
    return 7 <= digits <= 19 and not decimal and not _is_date(text)


def _is_date(text: str) -> bool:
    return re.fullmatch(r"(?:19|20)\d\d[-. ]\d{1,2}[-. ]\d{1,2}", text) is not None


def _ips(text: str) -> Iterator[Span]:
    yield from _matches("ip", _IPV4, text, _is_ip)
    if ":" in text:
        yield from _matches("ip", _IPV6, text, lambda found: len(found) > 6 and _is_ip(found))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _id_cards(text: str) -> Iterator[Span]:
    yield from _matches("id_card", _CN_ID, text, is_chinese_id)
    yield from _matches("id_card", _US_ID, text)


def is_chinese_id(text: str) -> bool:
    """Tells whether 18 characters are a Chinese identity number, by date and ISO 7064 sum."""
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    if not 1850 <= born.year <= 2100:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, text[:17], strict=True))
    return "10X98765432"[total % 11] == text[17].upper()


def _bank_cards(text: str) -> Iterator[Span]:
    yield from _matches("bank_card", _CARD, text, is_bank_card)


def is_bank_card(text: str) -> bool:
    """Tells whether 12 to 19 digits fulfil Luhn's sum (ISO/IEC 7812) and are not all the same."""
    digits = [int(character) for character in text if character.isdigit()]
    if not 12 <= len(digits) <= 19 or len(set(digits)) < 2:
        return False
    # Few issuers have numbers of other than 16 digits.
    if len(digits) not in _CARD_LENGTHS.get(digits[0], ()):
        return False
    pairs = enumerate(reversed(digits))
    doubled = [d if i % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for i, d in pairs]
    return sum(doubled) % 10 == 0


_CARD_LENGTHS = {
    1: (15,),
    2: (15, 16),
    3: (14, 15, 16),
    4: (13, 16, 19),
    5: (12, 13, 16),
    6: (12, 13, 16, 17, 18, 19),
}


def _secrets(text: str) -> Iterator[Span]:
    yield from _matches("secret", _SECRETS, text)
    if "PRIVATE KEY" in text:
        yield from _matches("secret", _PRIVATE_KEY, text)
    for match in _ASSIGNED.finditer(text):
        yield Span(match.start("value"), match.end("value"), "secret", match["value"])


def _url_credentials(text: str) -> Iterator[Span]:
    if "://" in text:
        for match in _URL_CREDENTIALS.finditer(text):
            yield Span(match.start(1), match.end(1), "url_credentials", match[1])


_NEED_DIGITS = {"phone", "id_card", "bank_card"}
_FINDERS: dict[str, Callable[[str], Iterator[Span]]] = {
    "email": _emails,
    "phone": _phones,
    "ip": _ips,
    "id_card": _id_cards,
    "bank_card": _bank_cards,
    "secret": _secrets,
    "url_credentials": _url_credentials,
}

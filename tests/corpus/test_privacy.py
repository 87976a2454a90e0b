from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tianti.corpus.privacy import KINDS, find_private, is_bank_card, is_chinese_id, redact

# The numbers are made up; those with a check fulfil it.
FOUND = {
    "email": ["write to ann.b+c@mail.example.co.uk now", "邮箱：zhang_san@qq.com，谢谢"],
    "phone": [
        "call (555) 123-4567 today",
        "+44 20 7946 0958 is it",
        "手机13812345678联系",
        "电话：+86 138-1234-5678",
        "座机 010-62345678 转 8",
    ],
    "ip": ["from 192.168.10.254 to", "at 2001:db8:85a3::8a2e:370:7334 too"],
    "id_card": ["身份证号11010519491231002X。", "ssn 536-90-4399."],
    "bank_card": ["card 4111 1111 1111 1111 ok", "卡号：6222021234567890128"],
    "secret": [
        "AKIAIOSFODNN7EXAMPLE in the log",
        "token ghp_" + "a1B2" * 9,
        "password = hunter2hunter2",
        "密码：abcd12345678",
    ],
    "url_credentials": ["https://user:pa55word@host.example/x"],
}
NOT_FOUND = [
    "version 1.2.3.4.5 of 2024-11-25, order 20241125-0001",
    "ISBN 978-7-302-51234-5, 3.14159265358979",
    "sum 1234567890123456 of 110105194912310021",
    "at 12:30:45, 300.1.1.1, 第13812345678901234号",
    "foo@bar, @someone, a@b",
    "price: 12,345,678.90 in 1999 2000 2001",
]


@pytest.mark.parametrize("kind", FOUND)
def test_each_kind_is_found_and_replaced_by_its_tag(kind):
    for text in FOUND[kind]:
        clean, spans = redact(text, (kind,))
        assert spans, text
        assert f"<{kind.upper()}>" in clean, text
        assert all(text[span.start : span.end] == span.text for span in spans)
        assert {span.kind for span in find_private(text)} >= {kind}, text


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it_stays(text):
    assert redact(text)[0] == text


def test_checks_of_numbers():
    assert is_chinese_id("11010519491231002X")
    assert not is_chinese_id("110105194912310021")
    assert not is_chinese_id("11010519491331002X")
    assert is_bank_card("4111 1111 1111 1111")
    assert not is_bank_card("4111 1111 1111 1112")
    assert not is_bank_card("0000 0000 0000 0000")


@given(st.text(max_size=300))
def test_spans_do_not_overlap_and_the_rest_is_untouched(text):
    clean, spans = redact(text, KINDS)
    rest, at = [], 0
    for span in spans:
        assert span.start >= at
        rest.append(text[at : span.start])
        at = span.end
    assert "".join(part for part in [*rest, text[at:]]) == _without_tags(clean, spans)


def _without_tags(clean, spans):
    for span in spans:
        clean = clean.replace(f"<{span.kind.upper()}>", "", 1)
    return clean

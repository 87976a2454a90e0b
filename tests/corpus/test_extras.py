"""A library of an extra that is missing is named with the line that installs it."""

from __future__ import annotations

import sys

import pytest

from tianti.corpus.augment import chinese, expand
from tianti.corpus.clean import _chinese_converter
from tianti.corpus.config import Source
from tianti.corpus.document import BadInput
from tianti.corpus.engine import run_tasks
from tianti.corpus.readers.web import extract_html
from tianti.corpus.sources import read_source
from tianti.errors import UserError


@pytest.mark.parametrize(
    ("module", "extra", "call"),
    [
        ("jieba", "chinese", lambda: expand._segmented("今天下雨")),
        ("pypinyin", "chinese", chinese._sounds.__wrapped__),
        ("opencc", "chinese", lambda: _chinese_converter.__wrapped__("simplified")),
        ("trafilatura", "web", lambda: extract_html(b"<p>text</p>", "quality")),
    ],
)
def test_what_is_missing_is_named_with_its_extra(monkeypatch, module, extra, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"is not installed.*tianti\[{extra}\]"):
        call()


def test_a_missing_reader_of_books_is_named_for_each_book(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    (item,) = read_source(Source(path=str(tmp_path / "a.pdf")))
    assert isinstance(item, BadInput)
    assert "pypdfium2 is not installed" in item.reason
    assert "tianti[books]" in item.remedy


def test_a_missing_ray_is_named_before_anything_is_started(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ray is not installed.*tianti\[ray\]"):
        run_tasks("json:dumps", [{"name": "a"}], runner="ray")

"""Further tokens: shorter texts, and taken apart what they were before."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tianti.errors import UserError
from tianti.tokens.further import with_further_tokens
from tianti.tokens.tokenizer import Tokenizer

ENGLISH = ["the cat sat on the mat", "a good cat, a bad cat", "it was good"] * 20
CHINESE = ["今天天气很好。", "今天天气不好，明天天气好", "天气预报说明天下雨", "很好很好"] * 5


def own():
    return Tokenizer.train(ENGLISH, 300)


def metaspace():
    inner = HuggingFaceTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    letters = sorted({c for text in CHINESE for c in text})
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", *[f"<0x{n:02X}>" for n in range(256)]],
        initial_alphabet=letters,
        show_progress=False,
    )
    inner.train_from_iterator(ENGLISH, trainer)
    return Tokenizer(inner)


def apart(ids, first, pieces):
    return [p for i in ids for p in (pieces[i - first] if i >= first else [i])]


@pytest.mark.parametrize("make", [own, metaspace])
def test_texts_become_shorter_and_are_the_same_when_taken_apart(make):
    before = make()
    made = with_further_tokens(before, CHINESE, 30)
    first, after = before.vocab_size, made.tokenizer
    assert after.vocab_size == first + len(made.pieces)
    assert len(made.pieces) > 10
    for text in [*CHINESE, *ENGLISH, "unseen 没见过 天气 text"]:
        now, was = after.encode(text), before.encode(text)
        assert apart(now, first, made.pieces) == was
        assert after.decode(now) == before.decode(was)
    if make is metaspace:
        names = [after.inner.id_to_token(first + n) for n in range(len(made.pieces))]
        assert not any("<0x" in name or "\u2581" in name[1:].strip("\u2581") for name in names)
    assert len(after.encode(CHINESE[1])) < 0.6 * len(before.encode(CHINESE[1]))
    # What was known is cut as before.
    assert all(after.encode(text) == before.encode(text) for text in ENGLISH)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="今天气很好 abc，。\U0001f600", max_size=30))
def test_any_text_comes_back(text):
    made = GROWN
    ids = made.tokenizer.encode(text)
    assert made.tokenizer.decode(ids) == text
    assert apart(ids, BASE.vocab_size, made.pieces) == BASE.encode(text)


BASE = own()
GROWN = with_further_tokens(BASE, CHINESE, 40)


def test_merges_are_those_of_a_plain_loop():
    made = with_further_tokens(BASE, CHINESE, 12)
    words = []
    for text in CHINESE:
        encoding = BASE.inner.encode(text, add_special_tokens=False)
        of_word = {}
        for index, number in zip(encoding.ids, encoding.word_ids, strict=True):
            of_word.setdefault(number, []).append(index)
        words += of_word.values()
    first = BASE.vocab_size
    for number in range(12):
        counts = Counter(pair for word in words for pair in pairwise(word))
        most = max(counts.values())
        best = min(pair for pair, count in counts.items() if count == most)
        assert apart(best, first, made.pieces) == made.pieces[number]
        merged = []
        for word in words:
            out = []
            for index in word:
                if out and (out[-1], index) == best:
                    out[-1] = first + number
                else:
                    out.append(index)
            merged.append(out)
        words = merged


def test_bytes_that_stand_for_text_are_not_joined():
    inner = HuggingFaceTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<unk>", *[f"<0x{n:02X}>" for n in range(256)]]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    inner.train_from_iterator(ENGLISH, trainer)
    before = Tokenizer(inner)
    texts = ["the cat is 中文 on the cat", "the cat 中文 the cat"] * 4
    made = with_further_tokens(before, texts, 20)
    assert made.pieces
    for text in texts:
        ids = made.tokenizer.encode(text)
        assert made.tokenizer.inner.decode(ids, skip_special_tokens=False).strip() == text
        assert apart(ids, before.vocab_size, made.pieces) == before.encode(text)
    names = [
        made.tokenizer.inner.id_to_token(before.vocab_size + n) for n in range(len(made.pieces))
    ]
    # No token reaches into the next word.
    assert not any("\u2581" in name[1:] for name in names)


def test_what_has_a_name_already_is_not_named_again():
    vocabulary = {"a": 0, "b": 1, "ab": 2, "c": 3}
    inner = HuggingFaceTokenizer(models.BPE(vocabulary, [], unk_token=None))
    made = with_further_tokens(Tokenizer(inner), ["abc", "abc", "bc"], 3)
    names = made.tokenizer.inner.get_vocab()
    assert {name: names[name] for name in vocabulary} == vocabulary
    assert made.pieces[0] == [1, 3]
    assert len(names) == 4 + len(made.pieces)


def test_nothing_to_merge_is_nothing_more():
    made = with_further_tokens(BASE, ["今"], 5)
    assert made.pieces == []
    assert made.tokenizer.vocab_size == BASE.vocab_size


def test_a_tokenizer_without_merges_is_refused():
    inner = HuggingFaceTokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    with pytest.raises(UserError, match="no merges"):
        with_further_tokens(Tokenizer(inner), CHINESE, 5)

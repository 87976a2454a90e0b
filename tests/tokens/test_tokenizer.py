from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tianti.errors import Damaged, UserError
from tianti.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, byte_alphabet

SHARED: dict[str, Tokenizer] = {}


@pytest.fixture(autouse=True)
def _share(tokenizer):
    SHARED["tokenizer"] = tokenizer


@given(st.binary(max_size=200))
def test_any_bytes_come_back(data):
    tokenizer = SHARED["tokenizer"]
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(st.text(max_size=200))
def test_any_text_comes_back(text):
    tokenizer = SHARED["tokenizer"]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(alphabet=st.characters(), max_size=20).map(lambda text: text + "\ud800"))
def test_text_with_half_a_surrogate_pair_is_encoded_too(text):
    tokenizer = SHARED["tokenizer"]
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode("utf-8", "surrogatepass")


def test_special_tokens_written_in_text_are_text(tokenizer):
    text = "a<|endoftext|>b<|im_start|>"
    ids = tokenizer.encode(text)
    special = {tokenizer.inner.token_to_id(token) for token in SPECIAL_TOKENS}
    assert not special & set(ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text])[0] == ids


def test_the_vocabulary_is_bytes_merges_and_special_tokens_last(tokenizer):
    assert tokenizer.vocab_size == 500
    names = [tokenizer.inner.id_to_token(index) for index in range(500)]
    assert tuple(names[-3:]) == SPECIAL_TOKENS
    assert set(byte_alphabet().values()) <= set(names)
    assert tokenizer.end_of_text == 497


def test_numbers_are_single_digits_and_words_carry_their_space(tokenizer):
    pieces = [tokenizer.decode([index]) for index in tokenizer.encode("the year 2026")]
    assert pieces[-4:] == ["2", "0", "2", "6"]
    assert not any(" " in piece[1:] for piece in pieces)


def test_batches_and_single_texts_agree(tokenizer, texts):
    assert tokenizer.encode_batch(texts[:70]) == [tokenizer.encode(text) for text in texts[:70]]


def test_saving_and_loading_changes_nothing(tokenizer, tmp_path, texts):
    tokenizer.save(tmp_path, context=64)
    loaded = Tokenizer.load(tmp_path)
    assert [loaded.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]


def test_transformers_reads_the_same_tokenizer(tokenizer, tmp_path, texts):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in texts:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    assert theirs.eos_token_id == tokenizer.end_of_text
    chat = theirs.apply_chat_template(
        [{"role": "user", "content": "你好"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"


def test_a_missing_or_broken_tokenizer_is_told(tmp_path):
    with pytest.raises(UserError, match="no tokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(Damaged, match=r"tokenizer\.json: file is damaged"):
        Tokenizer.load(tmp_path)

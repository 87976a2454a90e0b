from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tianti.errors import Damaged, UserError
from tianti.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, byte_alphabet, fast_encoding

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
    assert tokenizer.encode_array(text).tolist() == ids


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


ODD = {
    "combining": "e\u0301\u0301 ก็ กำ \u0300x",
    "joined": "👩‍👩‍👧‍👦🏳️‍🌈 \u200d",
    "newlines": "a\r\n\r\rb\n \n\t\n  c \u2028d\x85e",
    "controls": "".join(map(chr, range(0x20))) + "\x7f\x80\x9f",
    "contractions": "I'LL we'Re 'S DON'T ‘s ’s ſ's",
    "numbers": "１２３ ½ Ⅷ ٣ 3.14 1_000",
    "special": "<|im_end|><|endoftext|> <|im_start|>user",
    "letters": "a" * 20_000 + "中" * 20_000,
    "blanks": " " * 20_000 + "x" + "\n" * 20_000,
    "surrogate": "a\ud800b",
    "astral": "𠀀𠮷𝒳𝟘🀄",
}


def test_the_fast_encoder_is_in_use(tokenizer):
    assert tokenizer._fast is not None


@pytest.mark.parametrize("name", ODD)
def test_fast_ids_are_those_of_the_reference_on_odd_text(tokenizer, name):
    assert tokenizer.encode_array(ODD[name]).tolist() == tokenizer.encode(ODD[name])


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_fast_ids_are_those_of_the_reference(text):
    tokenizer = SHARED["tokenizer"]
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


def test_fast_ids_are_those_of_the_reference_on_real_text(tokenizer, english_texts, texts):
    for text in [*english_texts, *texts]:
        assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


@pytest.mark.slow
def test_more_blanks_than_the_fast_encoder_can_take_go_to_the_reference(tokenizer):
    text = "a" + " " * 1_100_000 + "b"
    assert tokenizer.decode(tokenizer.encode_array(text).tolist()) == text


def changed(tokenizer, change):
    written = json.loads(tokenizer.inner.to_str())
    change(written)
    return written


@pytest.mark.parametrize(
    "change",
    [
        lambda written: written.update(normalizer={"type": "NFC"}),
        lambda written: written["model"].update(ignore_merges=True),
        lambda written: written["model"]["merges"].reverse(),
        lambda written: written.update(pre_tokenizer={"type": "ByteLevel"}),
        lambda written: written["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
    ],
)
def test_another_kind_of_tokenizer_is_left_to_the_reference(tokenizer, change):
    assert fast_encoding(changed(tokenizer, lambda written: None)) is not None
    assert fast_encoding(changed(tokenizer, change)) is None


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

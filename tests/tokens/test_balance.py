from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tianti.corpus.config import BalanceConfig
from tianti.corpus.table import SCHEMA, TableWriter
from tianti.errors import UserError
from tianti.tokens.balance import balance
from tianti.tokens.config import TokenizerStageConfig, TokensStageConfig
from tianti.tokens.rarity import DocumentRarity, document_rarity, rarity_table, token_counts
from tianti.tokens.shards import TokenSplit, write_shards
from tianti.tokens.stage import build_tokens, train_tokenizer


def shares(found):
    return {name: row["share_after"] for name, row in found.kinds.items()}


@pytest.fixture
def mixed(rng):
    """20,000 documents: 90 % English, 8 % Chinese, 2 % code by number, lengths of real texts."""
    kinds = rng.choice(["en", "zh", "code"], 20_000, p=[0.9, 0.08, 0.02]).tolist()
    return kinds, np.maximum(rng.lognormal(5.5, 1.2, 20_000).astype(np.int64), 2)


@pytest.mark.parametrize(
    "weights", [{"en": 0.5, "zh": 0.4, "code": 0.1}, {"en": 3, "zh": 1, "code": 1}]
)
def test_weights_hold_in_tokens_within_one_percent(mixed, weights):
    found = balance(BalanceConfig(weights=weights, max_epochs=50), *mixed, None)
    total = sum(weights.values())
    for name, weight in weights.items():
        assert shares(found)[name] == pytest.approx(weight / total, rel=0.01)
    # What need not repeat comes once at least, and some kind comes exactly once.
    assert min(row["epochs"] for row in found.kinds.values()) == pytest.approx(1, rel=1e-3)


def test_a_temperature_lifts_what_there_is_little_of(mixed):
    kinds, tokens = mixed
    found = balance(BalanceConfig(temperature=2.0, max_epochs=50), kinds, tokens, None)
    sizes = np.array([tokens[np.array(kinds) == name].sum() for name in ("en", "zh", "code")])
    wanted = sizes**0.5 / (sizes**0.5).sum()
    got = [shares(found)[name] for name in ("en", "zh", "code")]
    assert got == pytest.approx(wanted.tolist(), rel=0.01)
    one = balance(BalanceConfig(temperature=1.0), kinds, tokens, None)
    assert (one.repeats == 1).all()


def test_caps_hold_and_shares_hold_all_the_same(mixed):
    weights = {"en": 0.4, "zh": 0.3, "code": 0.3}
    found = balance(BalanceConfig(weights=weights, max_epochs=3), *mixed, None)
    assert found.repeats.max() <= 3
    for name, weight in weights.items():
        assert shares(found)[name] == pytest.approx(weight, rel=0.01)
    own = BalanceConfig(weights=weights, max_epochs={"code": 2})
    found = balance(own, *mixed, None)
    assert found.kinds["code"]["epochs"] == pytest.approx(2, rel=0.01)


def test_weights_that_do_not_fit_are_told(mixed):
    for weights in ({"en": 1, "fr": 1}, {"en": 1}):
        with pytest.raises(UserError, match="weights do not fit"):
            balance(BalanceConfig(weights=weights), *mixed, None)
    with pytest.raises(UserError, match="negative"):
        balance(BalanceConfig(weights={"en": 1, "zh": -1, "code": 1}), *mixed, None)
    none = balance(BalanceConfig(weights={"en": 1, "zh": 0, "code": 1}), *mixed, None)
    assert none.kinds["zh"]["tokens_after"] == 0


def test_rare_documents_come_more_often(mixed, rng):
    _, tokens = mixed
    rarity = DocumentRarity(rng.random(len(tokens)))
    config = BalanceConfig(rare={"share": 0.1, "epochs": 3})
    found = balance(config, ["all"] * len(tokens), tokens, rarity)
    rare = rarity.rarest(0.1, tokens)
    assert tokens[rare].sum() == pytest.approx(0.1 * tokens.sum(), rel=0.01)
    per_epoch = (found.repeats * tokens)[rare].sum() / tokens[rare].sum()
    rest = (found.repeats * tokens)[~rare].sum() / tokens[~rare].sum()
    assert per_epoch / rest == pytest.approx(3, rel=0.02)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500)), min_size=3, max_size=60),
    st.integers(1, 6),
)
@settings(max_examples=60)
def test_whole_repeats_stay_within_one_document_of_the_share(rows, cap):
    kinds = [kind for kind, _ in rows] + ["a", "b", "c"]
    tokens = np.array([size for _, size in rows] + [1, 1, 1])
    found = balance(BalanceConfig(temperature=3.0, max_epochs=cap), kinds, tokens, None)
    total = sum(row["tokens_after"] for row in found.kinds.values())
    assert found.repeats.max() <= cap
    for name, row in found.kinds.items():
        longest = tokens[np.array(kinds) == name].max()
        # The total itself moves by what the other kinds are rounded by.
        assert abs(row["tokens_after"] - row["share_wanted"] * total) <= longest + tokens.max()


def split_of(folder, documents, size=40):
    write_shards(folder, [(ids, len(ids)) for ids in documents], vocab_size=size, end_of_text=0)
    return TokenSplit.open(folder)


def test_a_document_is_as_rare_as_the_tenth_of_its_tokens_that_surprise_most(tmp_path, tokenizer):
    documents = [[1] * 20, [1] * 18 + [2, 3], [1] * 10, [2] * 10]
    split = split_of(tmp_path / "s", documents)
    counts = token_counts(split)
    assert counts.tolist()[:4] == [0, 48, 11, 1]
    surprisal = -np.log2(counts / counts.sum(), where=counts > 0, out=np.zeros(40))
    scores = document_rarity(split, tokenizer, "token").scores
    by_hand = [np.sort(surprisal[ids])[-max(1, len(ids) // 10) :].mean() for ids in documents]
    assert scores == pytest.approx(by_hand, rel=1e-5)
    assert token_counts(split, np.array([0, 2, 1, 3])).tolist()[:4] == [0, 46, 32, 2]


def test_rare_shapes_are_told_from_common_ones(tmp_path, tokenizer):
    common = ["The dog walked home." for _ in range(60)]
    odd = "WALKED 77 the, DOG home?!"
    documents = [(tokenizer.encode(text), 1) for text in [*common, odd]]
    end = tokenizer.end_of_text
    write_shards(tmp_path / "s", documents, vocab_size=tokenizer.vocab_size, end_of_text=end)
    split = TokenSplit.open(tmp_path / "s")
    scores = document_rarity(split, tokenizer, "shape").scores
    assert scores[-1] == scores.max()
    assert scores[-1] > scores[0] + 1


def test_the_table_says_what_was_rare_before_and_after(tokenizer):
    before = np.zeros(tokenizer.vocab_size, np.int64)
    before[300], before[301], before[302] = 999_000, 990, 10
    after = before.copy()
    after[302] = 40
    table = rarity_table(before, after, tokenizer)
    assert [band["entries"] for band in table["bands"]] == [0, 1, 0, 1, 1]
    assert table["raised"][0]["before"] == 10
    assert table["raised"][0]["after"] == 40
    assert sum(band["after"] for band in table["bands"]) == pytest.approx(1)


def write_part(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with TableWriter(path) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=SCHEMA))


def test_shards_hold_documents_as_often_as_they_come(tmp_path, texts):
    corpus = tmp_path / "corpus"
    rows = [
        {"id": str(n), "text": text, "source": "zh" if n >= 40 else "en", "origin": str(n)}
        for n, text in enumerate(texts)
    ]
    for part in range(4):
        write_part(corpus / "train" / f"{part:06d}.parquet", rows[part::4])
    for split in ("validation", "test"):
        write_part(corpus / split / "000000.parquet", rows[:3])
    inputs = {"corpus": corpus, "tokenizer": tmp_path / "tokenizer"}
    train_tokenizer(TokenizerStageConfig(400, 10**9), inputs, tmp_path / "tokenizer")
    plain = build_tokens(TokensStageConfig(), inputs, tmp_path / "plain")
    config = TokensStageConfig(BalanceConfig(weights={"en": 0.8, "zh": 0.2}, max_epochs=20))
    found = build_tokens(config, inputs, tmp_path / "tokens")
    kinds = found["balance"]["kinds"]
    # Few and long documents: to within one of them.
    assert kinds["zh"]["share_after"] == pytest.approx(0.2, rel=0.05)
    assert found["validation"] == plain["validation"]
    split = TokenSplit.open(tmp_path / "tokens" / "train", verify=True)
    assert (
        split.num_tokens
        == found["train"]["tokens"]
        == sum(kind["tokens_after"] for kind in kinds.values())
    )
    every = TokenSplit.open(tmp_path / "plain" / "train")
    wanted = {tuple(every.document(n)) for n in range(every.num_documents)}
    got = {tuple(split.document(n)) for n in range(split.num_documents)}
    assert got == wanted
    assert not (tmp_path / "tokens" / ".unbalanced").exists()
    json.dumps(found)


@pytest.mark.parametrize("moment", ["write_shards", "rarity_table", "write_json", "read_json"])
def test_balancing_that_was_killed_goes_on(tmp_path, texts, monkeypatch, moment):
    corpus = tmp_path / "corpus"
    for split in ("train", "validation", "test"):
        rows = [
            {"id": str(n), "text": text, "source": "zh" if n >= 40 else "en"}
            for n, text in enumerate(texts)
        ]
        write_part(corpus / split / "000000.parquet", rows)
    inputs = {"corpus": corpus, "tokenizer": tmp_path / "tokenizer"}
    train_tokenizer(TokenizerStageConfig(400, 10**9), inputs, tmp_path / "tokenizer")
    config = TokensStageConfig(BalanceConfig(weights={"en": 1, "zh": 1}, max_epochs=20))
    expected = build_tokens(config, inputs, tmp_path / "undisturbed")

    def killed(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"tianti.tokens.stage.{moment}", killed)
        with pytest.raises(KeyboardInterrupt):
            build_tokens(config, inputs, tmp_path / "out")
    assert build_tokens(config, inputs, tmp_path / "out") == expected
    for path in (tmp_path / "undisturbed").rglob("*"):
        other = tmp_path / "out" / path.relative_to(tmp_path / "undisturbed")
        assert not path.is_file() or other.read_bytes() == path.read_bytes()


def test_another_tokenizer_in_the_same_place_is_seen(tmp_path, texts):
    corpus = tmp_path / "corpus"
    for split in ("train", "validation", "test"):
        rows = [{"id": str(n), "text": text, "source": "s"} for n, text in enumerate(texts)]
        write_part(corpus / split / "000000.parquet", rows)
    inputs = {"corpus": corpus, "tokenizer": tmp_path / "tokenizer"}
    totals = []
    for entries in (300, 500):
        config = TokenizerStageConfig(entries, 10**9)
        train_tokenizer(config, {"corpus": corpus}, tmp_path / "tokenizer")
        totals.append(build_tokens(TokensStageConfig(), inputs, tmp_path / f"o{entries}")["train"])
    assert totals[1]["tokens"] < totals[0]["tokens"]


def test_shards_that_are_whole_are_not_made_again(tmp_path, texts, monkeypatch):
    corpus = tmp_path / "corpus"
    for split in ("train", "validation", "test"):
        for part in range(3):
            rows = [{"id": str(n), "text": t, "source": "s"} for n, t in enumerate(texts[part::3])]
            write_part(corpus / split / f"{part:06d}.parquet", rows)
    inputs = {"corpus": corpus, "tokenizer": tmp_path / "tokenizer"}
    train_tokenizer(TokenizerStageConfig(400, 10**9), inputs, tmp_path / "tokenizer")
    build_tokens(TokensStageConfig(), inputs, tmp_path / "undisturbed")
    from tianti.tokens import encode

    calls = []
    real = encode.write_shard

    def counted(folder, number, *arguments, **named):
        calls.append((folder.name, number))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(folder, number, *arguments, **named)

    monkeypatch.setattr(encode, "write_shard", counted)
    with pytest.raises(KeyboardInterrupt):
        build_tokens(TokensStageConfig(), inputs, tmp_path / "out")
    build_tokens(TokensStageConfig(), inputs, tmp_path / "out")
    assert len(calls) == 9 + 1
    for path in (tmp_path / "undisturbed").rglob("*"):
        if path.is_file():
            other = tmp_path / "out" / path.relative_to(tmp_path / "undisturbed")
            assert other.read_bytes() == path.read_bytes()

from __future__ import annotations

import pyarrow as pa
import pytest

from tianti.corpus.table import SCHEMA, TableWriter, read_texts
from tianti.tokens.config import TokenizerStageConfig, TokensStageConfig
from tianti.tokens.shards import TokenSplit
from tianti.tokens.stage import _evenly, build_tokens, train_tokenizer
from tianti.tokens.tokenizer import Tokenizer


def write_texts(path, texts, split):
    rows = [
        {"id": str(n), "text": text, "source": "s", "origin": "o", "split": split}
        for n, text in enumerate(texts)
    ]
    with TableWriter(path) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=SCHEMA))


@pytest.fixture
def corpus(tmp_path, texts):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, part in (("train", texts[:80]), ("validation", texts[80:90]), ("test", texts[90:])):
        (folder / split).mkdir()
        write_texts(folder / split / "0.parquet", part, split)
    return folder


def test_shards_hold_the_documents_of_every_split(corpus, tmp_path):
    inputs = {"corpus": corpus, "tokenizer": tmp_path / "tokenizer"}
    made = train_tokenizer(TokenizerStageConfig(400, 10**9), inputs, tmp_path / "tokenizer")
    assert made["vocab_size"] == 400
    assert made["training_bytes"] == sum(
        len(text.encode()) for text in read_texts(corpus / "train")
    )
    totals = build_tokens(TokensStageConfig(), inputs, tmp_path / "tokens")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    for split in ("train", "validation", "test"):
        texts = list(read_texts(corpus / split))
        shards = TokenSplit.open(tmp_path / "tokens" / split, verify=True)
        assert [tokenizer.decode(shards.document(n)) for n in range(len(texts))] == texts
        assert shards.document_bytes.tolist() == [len(text.encode()) for text in texts]
        assert totals[split]["documents"] == len(texts)


def test_the_tokenizer_learns_from_training_text_alone(corpus, tmp_path):
    write_texts(corpus / "test" / "0.parquet", ["qzxqzx " * 5000], "test")
    inputs = {"corpus": corpus}
    train_tokenizer(TokenizerStageConfig(400, 10**9), inputs, tmp_path / "tokenizer")
    assert len(Tokenizer.load(tmp_path / "tokenizer").encode("qzxqzx")) >= 5


def test_part_of_a_table_is_taken_evenly(tmp_path):
    path = tmp_path / "t.parquet"
    write_texts(path, [f"{n:06d}" * 20 for n in range(1000)], "train")
    taken = [int(text[:6]) for text in _evenly(path, 30_000)]
    assert 150 <= len(taken) <= 350
    assert taken[0] < 10
    assert taken[-1] > 990
    assert len(list(_evenly(path, 10**9))) == 1000

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tianti.corpus.lsh import (
    Banding,
    Signatures,
    agreement,
    banding,
    candidate_pairs,
    join,
    near_duplicate_clusters,
    roots_of,
)
from tianti.corpus.minhash import HASHES, shingle_hashes, signatures

WORD = re.compile("[\u3400-\u9fff]|[a-z0-9]+")


def shingles(text, ngram=5):
    words = WORD.findall(text.lower())
    return {tuple(words[n : n + ngram]) for n in range(len(words) - ngram + 1)}


def jaccard(one, two):
    a, b = shingles(one), shingles(two)
    return len(a & b) / len(a | b)


def english(rng, words=200):
    return " ".join(f"word{n}" for n in rng.integers(0, 5000, words))


def chinese(rng, characters=200):
    return "".join(chr(0x4E00 + n) for n in rng.integers(0, 3000, characters))


def edited(text, rng, edits, kind):
    parts = text.split(" ") if kind is english else list(text)
    for place in rng.choice(len(parts), edits, replace=False):
        parts[place] = "other" if kind is english else "某"
    return (" " if kind is english else "").join(parts)


def saved(tmp_path, *tables):
    paths = []
    for number, table in enumerate(tables):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], np.ascontiguousarray(table.T))
    return Signatures(paths)


@pytest.mark.parametrize("kind", [english, chinese])
def test_equal_entries_estimate_the_jaccard_similarity(kind, rng):
    errors = []
    for edits in (1, 2, 4, 8, 12, 20):
        for _ in range(5):
            one = kind(rng)
            two = edited(one, rng, edits, kind)
            left, right = signatures(pa.array([one, two]))
            errors.append((left == right).mean() - jaccard(one, two))
    # The standard deviation of one estimate is at most 0.5 / √108 = 0.048.
    assert abs(np.mean(errors)) < 3 * 0.048 / np.sqrt(len(errors))
    assert np.max(np.abs(errors)) < 4 * 0.048


@pytest.mark.parametrize("kind", [english, chinese])
def test_pairs_of_the_wanted_similarity_are_found(kind, rng, tmp_path):
    texts, pairs = [], []
    for _ in range(150):
        one = kind(rng)
        # Five edits in 200 words leave a Jaccard similarity of about 0.78 to 0.82.
        two = edited(one, rng, 4, kind)
        if jaccard(one, two) >= 0.8:
            pairs.append((len(texts), len(texts) + 1))
        texts += [one, two]
    table = saved(tmp_path, signatures(pa.array(texts)))
    roots = near_duplicate_clusters(table, banding(0.8))
    assert len(pairs) > 50
    assert sum(roots[a] == roots[b] for a, b in pairs) >= 0.98 * len(pairs)
    # Texts of different pairs share nothing.
    assert len(set(roots.tolist())) >= 150


@pytest.mark.parametrize("words", [300, 3_000, 30_000, 300_000])
def test_texts_that_share_nothing_do_not_agree_however_long_they_are(words, rng):
    one, two = english(rng, words), english(rng, words)
    left, right = signatures(pa.array([one, two]))
    # Chance makes one entry in some thousands equal.
    assert (left == right).mean() < 0.03


def test_short_texts_do_not_agree_by_chance():
    texts = [f"{n} short text of its own" for n in range(3000)]
    table = signatures(pa.array(texts))
    agreed = [(table[n] == table[n + 1 :]).mean(axis=1).max(initial=0) for n in range(0, 3000, 7)]
    assert max(agreed) < 0.1
    assert len({row.tobytes() for row in table}) == len(texts)


@pytest.mark.parametrize("words", [3_000, 100_000])
def test_long_texts_are_told_by_what_they_share(words, rng):
    one = english(rng, words)
    two = edited(one, rng, words // 25, english)
    left, right = signatures(pa.array([one, two]))
    assert (left == right).mean() == pytest.approx(jaccard(one, two), abs=0.15)


def test_case_and_punctuation_do_not_tell_texts_apart():
    one = "The quick brown fox, it seems, jumps over the lazy dog and then over another one again."
    two = one.upper().replace(",", " —").replace(".", "!")
    left, right = signatures(pa.array([one, two]))
    assert (left == right).all()


def test_short_texts_are_compared_as_a_whole():
    texts = ["Yes, I will.", "yes i will", "Yes, I shall.", "今天下雨", "今天下雪", ""]
    table = signatures(pa.array(texts))
    assert (table[0] == table[1]).all()
    assert (table[0] == table[2]).mean() < 0.2
    assert (table[3] == table[4]).mean() < 0.2


@given(st.lists(st.text(max_size=80), max_size=8), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_text_has_one_signature_whatever_stands_beside_it(texts, ngram):
    together = signatures(pa.array(texts, pa.large_string()), ngram)
    assert together.shape == (len(texts), HASHES)
    for text, row in zip(texts, together, strict=True):
        assert (signatures(pa.array([text]), ngram)[0] == row).all()
        assert len(shingle_hashes(np.frombuffer(text.encode(), np.uint8), ngram)) >= 1


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_the_banding_finds_99_of_100_pairs_of_its_similarity(similarity):
    cut = banding(similarity)
    assert cut.bands * cut.rows <= HASHES
    assert 1 - (1 - similarity**cut.rows) ** cut.bands >= 0.99
    assert similarity - 0.15 < cut.threshold < similarity


def test_bands_of_several_files_are_those_of_one(rng, tmp_path):
    table = rng.integers(0, 4, (30, HASHES)).astype(np.uint16)
    (tmp_path / "one").mkdir()
    whole = saved(tmp_path / "one", table)
    parts = saved(tmp_path, table[:7], table[7:8], table[8:])
    for band in range(5):
        assert (whole.band(band, 4) == parts.band(band, 4)).all()


@given(st.lists(st.integers(0, 5), max_size=40))
def test_equal_keys_are_joined_by_the_candidate_pairs(keys):
    numbers = np.arange(len(keys))
    left, right = candidate_pairs(np.array(keys, np.uint64), numbers)
    parents = numbers.copy()
    join(parents, left, right)
    roots = roots_of(parents, numbers).tolist()
    for a in range(len(keys)):
        for b in range(len(keys)):
            assert (roots[a] == roots[b]) == (keys[a] == keys[b])


def test_clusters_join_what_is_alike_in_a_chain_and_leave_out_who_takes_no_part(tmp_path):
    table = np.zeros((4, HASHES), np.uint16)
    table[1, :10], table[2, :20], table[3] = 1, 1, 7
    signs = saved(tmp_path, table)
    cut = Banding(12, 9, 0.85)
    assert near_duplicate_clusters(signs, cut).tolist() == [0, 0, 0, 3]
    assert agreement(signs, np.array([0]), np.array([2]))[0] == (HASHES - 20) / HASHES
    eligible = np.array([True, False, True, True])
    assert near_duplicate_clusters(signs, cut, eligible).tolist() == [0, 1, 2, 3]


TWIN = """
import hashlib, json, sys
import numpy as np, pyarrow as pa
from tianti.corpus.clean import _what_is_needed
from tianti.corpus.decontaminate import runs_of
from tianti.corpus.kernels import COMPILED, text_buffers
from tianti.corpus.learned import _features, _scores
from tianti.corpus.lines import line_hashes
from tianti.corpus.minhash import signatures
from tianti.corpus.measures import _lengths
from tianti.corpus.statistics import document_statistics
texts = json.loads(sys.stdin.read())
column = pa.array(texts, pa.large_string())
data, offsets = text_buffers(column)
out = {
    "minhash": signatures(column),
    "statistics": np.stack([c.to_numpy() for c in document_statistics(column).values()]),
    "lengths": _lengths(data, offsets),
    "needed": _what_is_needed(data, offsets, True),
    "runs": runs_of(data, offsets, 5, 8)[0],
    "lines": line_hashes(column).hashes,
    "scores": _scores(data, offsets, np.linspace(-1, 1, (1 << 20) + 1).astype(np.float32)),
}
digests = {name: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()
           for name, a in out.items()}
print(json.dumps({"compiled": COMPILED, "digests": digests}))
"""


@pytest.mark.slow
def test_without_numba_every_kernel_gives_the_same_bytes(english_texts):
    texts = [
        english_texts[3][:600],
        "第一章。春眠不觉晓，处处闻啼鸟。\n夜来风雨声…… a-b don't U.S. 3km/h（ok）\n\n- x\n• y...",
        "",
        "naïve café 😀 “quoted” — ‘it’s’\r\nlorem ipsum {x} javascript [1]",
    ]
    answers = {}
    for kernels in ("numba", "python"):
        done = subprocess.run(
            [sys.executable, "-c", TWIN],
            input=json.dumps(texts),
            env=os.environ | {"TIANTI_KERNELS": kernels},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        answers[kernels] = json.loads(done.stdout)
    assert answers["numba"]["compiled"]
    assert not answers["python"]["compiled"]
    assert answers["numba"]["digests"] == answers["python"]["digests"]
    assert hashlib.sha256(b"").hexdigest() not in answers["numba"]["digests"].values()

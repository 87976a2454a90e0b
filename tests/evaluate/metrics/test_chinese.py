"""What other tools get wrong: Chinese that is equal has 100, Chinese that shares nothing 0."""

from __future__ import annotations

import numpy as np
import pytest

from tianti.evaluate.metrics.answers import exact_match, token_f1
from tianti.evaluate.metrics.diversity import Distinct, compression_ratio, repetition, self_bleu
from tianti.evaluate.metrics.rouge import rouge
from tianti.evaluate.metrics.text import script, words
from tianti.evaluate.metrics.translation import bleu, chrf

SAME = ["好", "你好", "春眠不觉晓，处处闻啼鸟。", "GPU训练", "東京タワー", "naïve café"]


@pytest.mark.parametrize("text", SAME)
def test_equal_texts_have_100(text):
    one = np.ones(1)
    assert bleu([text], [[text]])(one) == pytest.approx(100)
    assert chrf([text], [[text]])(one) == pytest.approx(100)
    assert exact_match(text, [text], chinese=True) == 1
    assert token_f1(text, [text], chinese=True) == 1
    found = rouge(text, [text])
    assert found["rouge1"] == found["rougeL"] == found["rougeLsum"] == pytest.approx(100)
    if len(words(text)) > 1:
        assert found["rouge2"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("one", "other"), [("春眠不觉晓", "处处闻啼鸟"), ("今天天气好", "他去了北京"), ("abc", "春眠")]
)
def test_texts_that_share_nothing_have_0(one, other):
    weights = np.ones(1)
    assert bleu([one], [[other]])(weights) == 0
    assert chrf([one], [[other]])(weights) == 0
    assert exact_match(one, [other], chinese=True) == 0
    assert token_f1(one, [other], chinese=True) == 0
    assert set(rouge(one, [other]).values()) == {0}


def test_sharing_one_foreign_word_is_not_being_equal():
    found = rouge("GPU很贵，没有人买", ["我们用GPU训练模型"])
    assert 0 < found["rouge1"] < 30


def test_words_and_scripts():
    assert words("ＧＰＵ用于AI训练，naïve_3.5") == (
        *("gpu", "用", "于", "ai", "训", "练", "naïve", "3", "5"),
    )
    assert words("ภาษา")[0] == "ภ"
    assert script(["今天天气很好"]) == "zh"
    assert script(["東京タワーへ行く"]) == "ja"
    assert script(["A word of 中文 in English text"]) == script([""]) == "other"


def test_varied_texts_are_told_from_monotonous_ones():
    monotonous, varied = (
        ["好的好的好的好的好的"] * 3,
        ["春眠不觉晓到处", "闻啼鸟夜来风雨", "声花落知多少啊"],
    )
    ones = np.ones(3)
    for n in (1, 2):
        assert Distinct(varied, n)(ones) == 1
    assert Distinct(monotonous, 1)(ones) == pytest.approx(2 / 30)
    assert repetition(monotonous)(ones) == pytest.approx(5 / 7)
    assert repetition(varied)(ones) == 0
    assert compression_ratio(["好的" * 100])(np.ones(1)) > 5
    assert self_bleu(monotonous) == pytest.approx([100] * 3)
    assert max(self_bleu(varied)) < 1
    assert self_bleu(["alone"]) == []

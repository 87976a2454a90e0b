from __future__ import annotations

import pytest

from tianti.errors import UserError
from tianti.search.space import Choices, Range, parse_space


def test_what_is_searched_and_what_holds_for_all_trials():
    space, fixed = parse_space(
        [
            "train.learning_rate=0.001..0.1",
            "train.batch_tokens=2k..16k",
            "train.dropout=0..0.3",
            "model.depth=2..4",
            "train.optimizer=muon,adamw",
            "tokenizer.vocab_size=500,1000",
            "train.decay_embeddings=true,false",
            "train.budget=100 steps",
            "corpus.sources=[{path: a,b}]",
        ]
    )
    assert fixed == ["train.budget=100 steps", "corpus.sources=[{path: a,b}]"]
    assert space == {
        "train.learning_rate": Range(0.001, 0.1, log=True),
        "train.batch_tokens": Range(2000, 16000, log=True),
        "train.dropout": Range(0.0, 0.3, log=False),
        "model.depth": Range(2, 4, log=False),
        "train.optimizer": Choices(("muon", "adamw")),
        "tokenizer.vocab_size": Choices((500, 1000)),
        "train.decay_embeddings": Choices((True, False)),
    }
    assert isinstance(space["train.dropout"].low, float)
    assert isinstance(space["train.batch_tokens"].low, int)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "no setting is searched"),
        (["train.budget=5m"], "no setting is searched"),
        (["train.learning_rate=0.1..0.01"], "lower end"),
        (["train.learning_rate=low..high"], "not a range"),
        (["train.learning_rate=0.1..0.2..0.3"], "not a range"),
        (["train.optimizer=muon,"], "two or more different"),
        (["train.optimizer=muon,muon"], "two or more different"),
        (["train.optimizer=muon,adamw", "train.optimizer=muon,adamw"], "searched twice"),
        (["train.budget=1m,2m"], "all get the same"),
        (["corpus.cut=1000,2000"], "cannot be compared"),
        (["seed=1..5"], "cannot be compared"),
    ],
)
def test_what_cannot_be_searched_is_said(items, said):
    with pytest.raises(UserError, match=said):
        parse_space(items)


def test_a_value_is_in_the_space_or_not():
    assert Range(1, 4, False).holds(4)
    assert not Range(1, 4, False).holds(2.5)
    assert not Range(0.0, 0.3, False).holds(None)
    assert not Range(0.0, 0.3, False).holds("muon")
    assert Choices(("muon", 2)).holds(2)

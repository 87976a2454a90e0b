from __future__ import annotations

import itertools

import pytest
import torch

from tests.conftest import random_model
from tianti.errors import UserError
from tianti.exchange.huggingface import save_transformer
from tianti.generate.beam import search_beams

END = 3


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    pairs = []
    for seed in (0, 1):
        model = random_model(seed, vocab_size=40, context=32).eval()
        with torch.no_grad():
            # Texts that differ, and that end now and then.
            model.output_weight.mul_(8)
        folder = tmp_path_factory.mktemp("beam")
        save_transformer(model, folder, eos_token_id=END, pad_token_id=END)
        pairs.append((model, transformers.AutoModelForCausalLM.from_pretrained(folder).eval()))
    return pairs


def _until(ends, ids):
    return list(itertools.takewhile(lambda token: token not in ends, ids))


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("beams", [2, 4])
def test_texts_are_those_of_transformers(both, beams, penalty):
    starts = [[5, 10, 2], [7], [11, 30, 8, 1, 20], [6, 6]]
    longest, ended = max(map(len, starts)), 0
    for model, theirs in both:
        # Some of what it says anyway, so that texts do end.
        said = search_beams(model, starts, [END], beams=beams, max_tokens=12)
        ends = sorted({END, *(ids[7] for ids in said[:2])})
        ours = search_beams(model, starts, ends, beams=beams, max_tokens=12, length_penalty=penalty)
        rows = torch.tensor([[END] * (longest - len(ids)) + ids for ids in starts])
        there = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in starts])
        found = theirs.generate(
            rows,
            attention_mask=there,
            num_beams=beams,
            do_sample=False,
            max_new_tokens=12,
            length_penalty=penalty,
            eos_token_id=ends,
            pad_token_id=END,
        )[:, longest:].tolist()
        expected = [_until(ends, ids) for ids in found]
        assert ours == expected
        ended += sum(len(ids) < 12 for ids in ours)
    assert ended > 0


def test_one_beam_takes_the_likeliest_token_each_time(both):
    model, _ = both[0]
    ids = [5, 9, 2]
    for token in search_beams(model, [ids], [END, 9], beams=1, max_tokens=9)[0]:
        assert model.logits(model(torch.tensor([ids])))[0, -1].argmax() == token
        ids = [*ids, token]


def test_with_all_beginnings_the_best_of_all_texts_is_found():
    model = random_model(2, vocab_size=6).eval()
    start, most = [1, 4], 3

    def score(ids):
        logits = model.logits(model(torch.tensor([start + ids])))[0].log_softmax(-1)
        return sum(logits[len(start) - 1 + n, token].item() for n, token in enumerate(ids))

    texts = [
        [*ids, END] if ends else list(ids)
        for count in range(most + 1)
        for ids in itertools.product([0, 1, 2, 4, 5], repeat=count)
        for ends in ([True] if count < most else [False])
    ]
    best = max(texts, key=score)
    found = search_beams(model, [start], [END], beams=250, max_tokens=most, length_penalty=0.0)
    assert found == [[token for token in best if token != END]]


def test_prompts_together_give_what_each_gives_alone(both):
    model, _ = both[1]
    starts = [[5, 9, 2, 8, 8, 1], [7], [11, 30]]
    options = {"beams": 3, "max_tokens": 10}
    alone = [search_beams(model, [ids], [END, 9], **options)[0] for ids in starts]
    assert search_beams(model, starts, [END, 9], **options) == alone


def test_the_text_stays_within_the_context(both):
    model, _ = both[0]
    start = [5] * (model.config.context - 2)
    (found,) = search_beams(model, [start], [39], beams=2, max_tokens=50)
    assert len(found) <= 3
    with pytest.raises(UserError, match="Shorten"):
        search_beams(model, [[5] * model.config.context], [END], beams=2, max_tokens=5)

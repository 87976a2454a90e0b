"""Further tokens start from what is known, and change nothing for the others."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import random_model
from tests.model.test_experts import SIGMOID
from tianti.model.vocabulary import extend_vocabulary

PIECES = [[3, 5], [7], [1, 1, 90]]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("start", ["pieces", "mean"])
@pytest.mark.parametrize("changes", [{}, SIGMOID], ids=["dense", "experts"])
@torch.no_grad()
def test_earlier_tokens_keep_their_scores(tied, start, changes):
    model = random_model(tied_embeddings=tied, **changes).eval()
    for experts in model.mixtures().values():
        experts.bias.copy_(torch.linspace(-0.3, 0.3, len(experts.bias)))
    extended = extend_vocabulary(model, PIECES, start)
    assert extended.config.vocab_size == 100
    assert extended.config.num_parameters() == sum(p.numel() for p in extended.parameters())
    ids = torch.randint(0, 97, (2, 20))
    before, after = model.logits(model(ids)), extended.logits(extended(ids))
    torch.testing.assert_close(after[..., :97], before)
    for weight in {extended.embedding.weight, extended.output_weight}:
        old = weight[:97]
        expected = [old[parts].mean(0) if start == "pieces" else old.mean(0) for parts in PIECES]
        torch.testing.assert_close(weight[97:], torch.stack(expected))
    if start == "pieces":
        # The score of a mean is the mean of the scores.
        torch.testing.assert_close(
            after[..., 97], before[..., [3, 5]].mean(-1), rtol=1e-4, atol=1e-4
        )


@torch.no_grad()
def test_rows_that_no_token_had_are_taken():
    model = random_model().eval()
    extended = extend_vocabulary(model, PIECES[:2], first=93)
    assert extended.config.vocab_size == 97
    weight, before = extended.embedding.weight, model.embedding.weight
    torch.testing.assert_close(weight[93], before[[3, 5]].mean(0))
    torch.testing.assert_close(weight[94], before[7])
    assert torch.equal(weight[:93], before[:93])
    assert torch.equal(weight[95:], before[95:])
    assert extend_vocabulary(model, PIECES, first=95).config.vocab_size == 98
    with pytest.raises(ValueError, match="of 93 tokens"):
        extend_vocabulary(model, [[93]], first=93)


def test_nothing_more_is_the_same_network():
    model = random_model()
    again = extend_vocabulary(model, [])
    assert all(map(torch.equal, again.parameters(), model.parameters()))


@pytest.mark.parametrize("pieces", [[[]], [[97]], [[-1]]])
def test_pieces_that_are_not_there_are_refused(pieces):
    with pytest.raises(ValueError, match="further token 0"):
        extend_vocabulary(random_model(), pieces)

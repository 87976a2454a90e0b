"""What is asked begins where it does for all options of an item."""

from __future__ import annotations

import numpy as np
import pytest

from tianti.errors import UserError
from tianti.evaluate.models.base import Request
from tianti.evaluate.models.encoding import encode_requests

PIECES = ["很好", "好", "很", "坏", "话", "，", " a", "a", "b"]


def encode(text: str) -> np.ndarray:
    """Takes the longest piece at each place."""
    ids = []
    while text:
        place = next(n for n, piece in enumerate(PIECES) if text.startswith(piece))
        ids.append(place)
        text = text[len(PIECES[place]) :]
    return np.array(ids, dtype=np.int64)


def said(one):
    return "".join(PIECES[n] for n in one.asked.labels)


def test_options_answer_for_the_same_characters():
    apart = encode_requests([Request("话，很", "好"), Request("话，很", "坏")], encode, 99, 20)
    assert [said(one) for one in apart] == ["很好", "坏"]
    together = encode_requests(
        [Request("话，很", "好", 0), Request("话，很", "坏", 0), Request("话，很", "坏", 1)],
        encode,
        99,
        20,
    )
    assert [said(one) for one in together] == ["很好", "很坏", "坏"]
    assert [one.size for one in together] == [3, 3, 3]


@pytest.mark.parametrize("always", [True, False])
def test_a_blank_goes_to_what_is_asked_and_a_text_has_a_beginning(always):
    one, alone = encode_requests(
        [Request("b ", "a"), Request("", "ab")], encode, 99, 20, always_begin=always
    )
    assert said(one) == " a"
    assert one.asked.tokens.tolist() == [*([99] if always else []), 8, 6]
    assert alone.asked.tokens.tolist() == [99, 7, 8]


def test_of_a_long_context_the_end_is_taken():
    [one] = encode_requests([Request("b" * 9, "a")], encode, 99, 4)
    assert one.asked.tokens.tolist() == [8, 8, 8, 8, 7]
    assert (one.truncated, said(one)) == (6, "a")
    for continuation in ("", "a" * 5):
        with pytest.raises(UserError, match="cannot be scored"):
            encode_requests([Request("b", continuation)], encode, 99, 4)

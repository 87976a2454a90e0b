"""Conversations in every form that data sets have them."""

from __future__ import annotations

import pytest

from tianti.errors import UserError
from tianti.tokens.conversations import messages_of

ASKED, SAID = {"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}
SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [ASKED, SAID]}, [ASKED, SAID]),
        ({"messages": [SYSTEM, ASKED, SAID], "id": 7}, [SYSTEM, ASKED, SAID]),
        ({"conversations": TURNS}, [ASKED, SAID]),
        ({"conversations": TURNS, "system": "Be brief."}, [SYSTEM, ASKED, SAID]),
        (
            {"conversations": [{"from": "system", "value": "Be brief."}, *TURNS]},
            [SYSTEM, ASKED, SAID],
        ),
        ({"instruction": "问", "output": "答"}, [ASKED, SAID]),
        ({"instruction": "问", "input": "", "output": "答", "history": []}, [ASKED, SAID]),
        (
            {"instruction": "译", "input": "问", "output": "答", "system": "Be brief."},
            [SYSTEM, {"role": "user", "content": "译\n问"}, SAID],
        ),
        (
            {"instruction": "问", "output": "答", "history": [["问", "答"], ["问", "答"]]},
            [ASKED, SAID] * 3,
        ),
        ({"prompt": "问", "completion": "答"}, [ASKED, SAID]),
        ({"prompt": [SYSTEM, ASKED], "completion": [SAID]}, [SYSTEM, ASKED, SAID]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "问"}]}, SAID]},
            [ASKED, SAID],
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [{"a": 1}]}]},
            [ASKED, {"role": "assistant", "content": "", "tool_calls": [{"a": 1}]}],
        ),
    ],
)
def test_every_form_is_read(row, expected):
    assert messages_of(row) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "conversation is empty"),
        ({"conversations": []}, "conversation is empty"),
        ({"text": "…", "label": 1}, "no conversation: it has text, label"),
        ({}, "this is no conversation"),
        ({"messages": [{"role": "narrator", "content": "…"}]}, "speaker 'narrator' is not known"),
        ({"messages": [{"content": "…"}]}, "speaker None is not known"),
        ({"messages": ["hello"]}, "a message has a role and a content"),
        ({"messages": [{"role": "user", "content": 5}]}, "text is wanted, this is int"),
        ({"messages": [{"role": "user"}]}, "text is wanted, this is NoneType"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "text is wanted, this is list",
        ),
        ({"instruction": "问", "output": None}, "text is wanted"),
    ],
)
def test_what_is_none_is_refused(row, message):
    with pytest.raises(UserError, match=message):
        messages_of(row)

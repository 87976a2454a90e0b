"""Conversations as text and tokens, beside labels by hand, and transformers on the same."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from tianti.errors import UserError
from tianti.tokens.chat import ChatEncoder, ChatTemplate
from tianti.tokens.tokenizer import Tokenizer

TALK = [
    {"role": "user", "content": "How do you do?"},
    {"role": "assistant", "content": "Well, thank you 😀!"},
    {"role": "user", "content": "用中文再说一遍。"},
    {"role": "assistant", "content": "我很好，谢谢你！👩‍🚀"},
]
SYSTEM = {"role": "system", "content": "Be brief."}
FIRST, SECOND = TALK[1]["content"], TALK[3]["content"]
SPECIAL = {
    "chatml": {"eos_token": "<|im_end|>"},
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "mistral": {"bos_token": "<s>", "eos_token": "</s>"},
    "gemma": {"bos_token": "<bos>", "eos_token": "<end_of_turn>"},
    "alpaca": {"eos_token": "</s>"},
    "vicuna": {"eos_token": "</s>"},
}
OTHERS = ["<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "[INST]"]
# By hand: what the talk is as text, and what in it the assistant says.
WRITTEN = {
    "chatml": (
        "<|im_start|>user\nHow do you do?<|im_end|>\n"
        "<|im_start|>assistant\nWell, thank you 😀!<|im_end|>\n"
        "<|im_start|>user\n用中文再说一遍。<|im_end|>\n"
        "<|im_start|>assistant\n我很好，谢谢你！👩‍🚀<|im_end|>\n",
        [f"{FIRST}<|im_end|>", f"{SECOND}<|im_end|>"],
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHow do you do?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nWell, thank you 😀!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n用中文再说一遍。<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n我很好，谢谢你！👩‍🚀<|eot_id|>",
        [f"{FIRST}<|eot_id|>", f"{SECOND}<|eot_id|>"],
    ),
    "mistral": (
        "<s>[INST] How do you do?[/INST] Well, thank you 😀!</s>"
        "[INST] 用中文再说一遍。[/INST] 我很好，谢谢你！👩‍🚀</s>",
        [f" {FIRST}</s>", f" {SECOND}</s>"],
    ),
    "gemma": (
        "<bos><start_of_turn>user\nHow do you do?<end_of_turn>\n"
        "<start_of_turn>model\nWell, thank you 😀!<end_of_turn>\n"
        "<start_of_turn>user\n用中文再说一遍。<end_of_turn>\n"
        "<start_of_turn>model\n我很好，谢谢你！👩‍🚀<end_of_turn>\n",
        [f"{FIRST}<end_of_turn>", f"{SECOND}<end_of_turn>"],
    ),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately"
        " completes the request.\n\n"
        "### Instruction:\nHow do you do?\n\n### Response:\nWell, thank you 😀!</s>\n\n"
        "### Instruction:\n用中文再说一遍。\n\n### Response:\n我很好，谢谢你！👩‍🚀</s>",
        [f"{FIRST}</s>", f"{SECOND}</s>"],
    ),
    "vicuna": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant"
        " gives helpful, detailed, and polite answers to the user's questions."
        " USER: How do you do? ASSISTANT: Well, thank you 😀!</s>"
        " USER: 用中文再说一遍。 ASSISTANT: 我很好，谢谢你！👩‍🚀</s>",
        [f" {FIRST}</s>", f" {SECOND}</s>"],
    ),
}


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer.train(
        ["How do you do? Well, thank you! 我很好 谢谢 ASSISTANT: USER:"] * 9, 400
    )
    tokens = {token for special in SPECIAL.values() for token in special.values()} | {*OTHERS}
    made.inner.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in sorted(tokens)]
    )
    return made


def template(name: str) -> ChatTemplate:
    return ChatTemplate.built_in(name, SPECIAL[name])


def said(tokenizer, encoded) -> list[str]:
    """Gives each run of tokens that is supervised, as text."""
    runs: list[list[int]] = []
    before = False
    for index, counts in zip(encoded.ids, encoded.supervised, strict=True):
        if counts:
            runs = runs if before else [*runs, []]
            runs[-1].append(index)
        before = counts
    return [tokenizer.inner.decode(run, skip_special_tokens=False) for run in runs]


@pytest.mark.parametrize("name", WRITTEN)
def test_text_and_what_the_assistant_says_are_as_labelled_by_hand(tokenizer, name):
    text, spoken = WRITTEN[name]
    assert template(name).render(TALK) == text
    encoder = ChatEncoder(tokenizer.inner, template(name))
    encoded = encoder.encode(TALK)
    assert tokenizer.inner.decode(encoded.ids, skip_special_tokens=False) == text
    assert said(tokenizer, encoded) == spoken


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("system", [False, True])
def test_transformers_gives_the_same_tokens_and_mask(tokenizer, name, system):
    transformers = pytest.importorskip("transformers")
    other = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.inner, chat_template=template(name).source, **SPECIAL[name]
    )
    # In its tokenizer special tokens that are written are read.
    other.backend_tokenizer.encode_special_tokens = False
    talk = [SYSTEM, *TALK] if system else TALK
    expected = other.apply_chat_template(
        talk, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
    )
    encoded = ChatEncoder(tokenizer.inner, template(name)).encode(talk)
    assert encoded.ids == expected["input_ids"]
    assert [int(counts) for counts in encoded.supervised] == expected["assistant_masks"]
    assert template(name).render(talk) == other.apply_chat_template(talk, tokenize=False)


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "vicuna"])
def test_without_marks_the_same_is_told_from_beginnings(tokenizer, name):
    marked = template(name)
    plain = ChatTemplate(
        marked.source.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", ""),
        SPECIAL[name],
        OTHERS,
    )
    assert not plain.is_marked
    one, other = (ChatEncoder(tokenizer.inner, made).encode(TALK) for made in (marked, plain))
    assert one == other


@pytest.mark.parametrize("name", WRITTEN)
def test_a_prompt_is_the_beginning_of_what_is_trained_on(tokenizer, name):
    encoder = ChatEncoder(tokenizer.inner, template(name))
    whole = template(name).render(TALK)
    assert whole.startswith(template(name).render(TALK[:3], ask=True))
    ids = encoder.encode_prompt(TALK[:3])
    assert encoder.encode(TALK).ids[: len(ids)] == ids


@pytest.mark.parametrize("name", WRITTEN)
def test_a_text_begins_once(tokenizer, name):
    begin = SPECIAL[name].get("bos_token")
    if begin is None:
        pytest.skip("nothing marks the beginning")
    ids = ChatEncoder(tokenizer.inner, template(name)).encode(TALK).ids
    assert ids.count(tokenizer.inner.token_to_id(begin)) == 1
    assert ids[0] == tokenizer.inner.token_to_id(begin)


@pytest.mark.parametrize("name", WRITTEN)
def test_special_tokens_that_people_write_are_text(tokenizer, name):
    end = SPECIAL[name]["eos_token"]
    talk = [
        {"role": "user", "content": f"Say {end}{end} now, <|im_start|>"},
        {"role": "assistant", "content": f"I say {end}, too"},
    ]
    encoded = ChatEncoder(tokenizer.inner, template(name)).encode(talk)
    plain = [
        dict(message, content=message["content"].replace(end, "X").replace("<|im_start|>", "X"))
        for message in talk
    ]
    expected = ChatEncoder(tokenizer.inner, template(name)).encode(plain).ids
    for token in (end, "<|im_start|>"):
        number = tokenizer.inner.token_to_id(token)
        assert encoded.ids.count(number) == expected.count(number)
    assert tokenizer.inner.decode(encoded.ids, skip_special_tokens=False) == template(name).render(
        talk
    )
    assert said(tokenizer, encoded)[-1].strip() == f"I say {end}, too{end}"


def test_what_cannot_be_trained_on_is_refused(tokenizer):
    encoder = ChatEncoder(tokenizer.inner, template("chatml"))
    with pytest.raises(UserError, match="conversation is empty"):
        encoder.encode([])
    with pytest.raises(UserError, match="an assistant says nothing"):
        encoder.encode(TALK[:1])
    with pytest.raises(UserError, match="a message has a role"):
        encoder.encode([{"content": "?"}])
    with pytest.raises(UserError, match="refuses this"):
        encoder.encode([{"role": "user"}])
    with pytest.raises(UserError, match=r"holds U\+FDD0, which is no character"):
        encoder.encode([{"role": "user", "content": "a\ufdd0b\ufdd1"}, TALK[1]])
    with pytest.raises(UserError, match="must speak in turn"):
        ChatEncoder(tokenizer.inner, template("mistral")).encode([TALK[0], TALK[0]])
    with pytest.raises(UserError, match="only system, user and assistant"):
        ChatEncoder(tokenizer.inner, template("vicuna")).encode([{"role": "tool", "content": "1"}])
    with pytest.raises(UserError, match="there is no chat template 'chatlm'") as refused:
        ChatTemplate.built_in("chatlm", {})
    assert "chatml" in refused.value.remedy
    with pytest.raises(UserError, match="chat template is wrong"):
        ChatTemplate("{% for %}", {})


def test_a_template_that_changes_what_it_said_before_is_refused(tokenizer):
    # As those that leave earlier thoughts out.
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content if loop.last else '' }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    encoder = ChatEncoder(tokenizer.inner, ChatTemplate(source, {}))
    with pytest.raises(UserError, match="does not say where turn 2 begins") as refused:
        encoder.encode(TALK)
    assert "{% generation %}" in refused.value.remedy


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append({'role': 'user'}) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_a_template_reaches_nothing_outside(source):
    with pytest.raises(UserError, match="refuses this"):
        ChatTemplate(source, {}).render(TALK)


def test_days_tools_and_loops_are_known():
    source = (
        "{{ strftime_now('%Y')[:2] }}{{ tools | tojson }}"
        "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}"
        "{% endfor %}"
    )
    assert ChatTemplate(source, {}).render(TALK, tools=[{"名": 1}]) == '20[{"名": 1}]user'

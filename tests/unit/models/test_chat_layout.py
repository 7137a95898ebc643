"""Prompts and replies under the chat templates of several families, against transformers' own rendering."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.models.chat_layout import DATE, find_end_tokens
from compass_ray.models.chat_template import IGNORE_INDEX, EncodedExample, encode_conversation, encode_messages
from compass_ray.models.errors import ModelError
from compass_ray.texts import is_blank
from tests.unit.models.chat_styles import END_OF_TURN, STYLES, make_chat_tokenizer

TOKENIZERS = {style: make_chat_tokenizer(style) for style in STYLES}
SYSTEM = {"role": "system", "content": "Answer briefly."}
CONVERSATION = [
    {"role": "user", "content": "What is the capital of Kenya?"},
    {"role": "assistant", "content": "Nairobi"},
    {"role": "user", "content": "And of Uganda?"},
    {"role": "assistant", "content": "Kampala"},
]
TRIMS = {"llama3": None, "gemma": None, "qwen3": "\n", "smollm3": "\n"}
PINNED = {"enable_thinking": False, "date_string": DATE.strftime("%d %b %Y")}


class _FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _FixedClock:
        return cls(DATE.year, DATE.month, DATE.day)


@pytest.fixture
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The date of the oracle."""
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", _FixedClock)


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def trained_text(tokenizer: Any, example: EncodedExample) -> str:
    return str(tokenizer.decode([label for label in example.labels if label != IGNORE_INDEX]))


@pytest.mark.usefixtures("fixed_clock")
@pytest.mark.parametrize("length", [2, 4])
def test_ids_and_labels_are_those_of_transformers(style: str, length: int) -> None:
    tokenizer, messages = TOKENIZERS[style], CONVERSATION[:length]
    example = encode_conversation(tokenizer, messages, 1000)
    rendered = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True, tokenize=True, **PINNED
    )
    ids, mask = rendered["input_ids"], rendered["assistant_masks"]
    assert list(example.input_ids) == ids[: len(example)]
    assert [label != IGNORE_INDEX for label in example.labels] == [bool(each) for each in mask[: len(example)]]
    assert not any(mask[len(example) :])


@pytest.mark.usefixtures("fixed_clock")
def test_prompt_of_serving_is_that_of_training_and_of_transformers(style: str) -> None:
    tokenizer = TOKENIZERS[style]
    served = encode_messages(tokenizer, CONVERSATION[:3], 1000)
    example = encode_conversation(tokenizer, CONVERSATION, 1000, loss_turns="last")
    prompt = tokenizer.apply_chat_template(CONVERSATION[:3], add_generation_prompt=True, tokenize=True, **PINNED)["input_ids"]
    assert list(example.input_ids[: example.prompt_length]) == served == list(prompt)


def test_loss_on_the_last_reply_or_on_all(style: str) -> None:
    tokenizer, end = TOKENIZERS[style], END_OF_TURN[style]
    every = trained_text(tokenizer, encode_conversation(tokenizer, CONVERSATION, 1000))
    last = trained_text(tokenizer, encode_conversation(tokenizer, CONVERSATION, 1000, loss_turns="last"))
    space = " " if style == "mistral" else ""
    assert (every, last) == (f"{space}Nairobi{end}{space}Kampala{end}", f"{space}Kampala{end}")


def test_system_prompt_is_kept_or_moves_to_the_user(style: str) -> None:
    tokenizer = TOKENIZERS[style]
    served = tokenizer.decode(encode_messages(tokenizer, [SYSTEM, *CONVERSATION[:3]], 1000))
    example = encode_conversation(tokenizer, [SYSTEM, *CONVERSATION], 1000, loss_turns="last")
    assert tokenizer.decode(example.input_ids[: example.prompt_length]) == served
    assert served.count("Answer briefly.") == 1
    assert ("Answer briefly.\n\nWhat is the capital" in served) == (style in ("gemma", "mistral"))


def test_end_of_turn_is_the_special_token_after_a_reply(style: str) -> None:
    tokenizer = TOKENIZERS[style]
    assert find_end_tokens(tokenizer) == {tokenizer.convert_tokens_to_ids(END_OF_TURN[style])}


def test_current_date_is_always_the_same(style: str) -> None:
    tokenizer = TOKENIZERS[style]
    text = tokenizer.decode(encode_messages(tokenizer, CONVERSATION[:1], 1000))
    assert str(datetime.date.today().year) not in text
    assert ("26 Jul" in text) == (style in ("llama3", "smollm3"))


def test_opening_that_only_a_reply_shows_belongs_to_the_prompt() -> None:
    tokenizer = make_chat_tokenizer(
        "{% for m in messages %}<turn>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n</think>\n{% endif %}{{ m.content }}"
        "</turn>{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
    )
    example = encode_conversation(tokenizer, CONVERSATION[:2], 1000)
    assert trained_text(tokenizer, example) == "Nairobi</turn>"
    served = encode_messages(tokenizer, CONVERSATION[:1], 1000)
    assert list(example.input_ids[: example.prompt_length]) == served
    assert tokenizer.decode(served).endswith("<turn>assistant\n<think>\n</think>\n")


def test_prompt_does_not_open_reasoning_that_no_reply_closes() -> None:
    tokenizer = make_chat_tokenizer(
        "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}</turn>{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant\n<think>\n{% endif %}"
    )
    assert tokenizer.decode(encode_messages(tokenizer, CONVERSATION[:1], 1000)).endswith("</turn><turn>assistant\n")


def test_reasoning_of_a_reply_is_removed_where_the_template_knows_it() -> None:
    reasoned = [CONVERSATION[0], {"role": "assistant", "content": "<think>\nKenya.\n</think>\n\nNairobi"}]
    assert trained_text(TOKENIZERS["qwen3"], encode_conversation(TOKENIZERS["qwen3"], reasoned, 1000)) == "Nairobi<|im_end|>"
    kept = trained_text(TOKENIZERS["chatml"], encode_conversation(TOKENIZERS["chatml"], reasoned, 1000))
    assert kept == f"{reasoned[1]['content']}<|im_end|>"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("", "does not show the content of a message of role 'user'"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "role 'assistant'"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "does not show the content"),
        ("{% for m in messages %}{{ m.content }}, {{ m.content }}{% endfor %}", "twice or in another order"),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "twice or in another order"),
        ("{% for m in messages %}{{ m.content.split() | join(' ') + ' ' }}{% endfor %}", "does not show the content"),
        ("{% for m in messages %}{{ m.content.lstrip('\n ') + ' ' + m.content[:0] }}{% endfor %}", None),
        ("{% for m in messages %}{{ m.content.replace(' \n', '\n') }}{% endfor %}", "changes the white space"),
        ("{{ 1 / 0 }}{% for m in messages %}{{ m.content }}{% endfor %}", "rejects messages"),
    ],
)
def test_faults_of_a_template_are_named(template: str, fault: str | None) -> None:
    tokenizer = make_chat_tokenizer(template or "{# nothing #}")
    if fault is None:
        assert encode_messages(tokenizer, CONVERSATION[:1], 100)
        return
    with pytest.raises(ModelError, match=fault):
        encode_conversation(tokenizer, CONVERSATION[:2], 100)


def test_several_templates_need_a_default() -> None:
    tokenizer = make_chat_tokenizer("chatml")
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tools": "-"}
    assert encode_messages(tokenizer, CONVERSATION[:1], 100)
    tokenizer.chat_template = {"rag": "-", "tools": "-"}
    with pytest.raises(ModelError, match="none is named 'default'"):
        encode_messages(tokenizer, CONVERSATION[:1], 100)


def test_conversations_that_are_too_long_lose_early_turns_but_not_the_system_prompt() -> None:
    tokenizer = TOKENIZERS["chatml"]
    full = encode_conversation(tokenizer, [SYSTEM, *CONVERSATION], 1000)
    one = encode_conversation(tokenizer, [SYSTEM, *CONVERSATION[2:]], 1000)
    assert encode_conversation(tokenizer, [SYSTEM, *CONVERSATION], len(full) - 1) == one
    bare = encode_conversation(tokenizer, CONVERSATION[2:], 1000)
    assert encode_conversation(tokenizer, [SYSTEM, *CONVERSATION], len(one) - 1) == bare


texts = st.text(min_size=1, max_size=12).filter(lambda text: not is_blank(text) and "think" not in text)
conversations = st.builds(
    lambda system, turns: [
        *([{"role": "system", "content": system}] if system else []),
        *({"role": role, "content": text} for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)),
    ],
    st.none() | texts,
    st.lists(st.tuples(texts, texts), min_size=1, max_size=4),
)


@settings(max_examples=60)
@given(st.sampled_from(sorted(STYLES)), conversations)
def test_labels_are_the_replies_and_prompts_are_prefixes(style: str, messages: list[dict[str, str]]) -> None:
    tokenizer, space, end = TOKENIZERS[style], " " if style == "mistral" else "", END_OF_TURN[style]
    example = encode_conversation(tokenizer, messages, 10_000)
    replies = [m["content"] for m in messages if m["role"] == "assistant"]
    if style in TRIMS:
        trim = TRIMS[style]
        replies = [reply.strip() if trim is None else reply.lstrip(trim) for reply in replies]
    assert trained_text(tokenizer, example) == "".join(f"{space}{reply}{end}" for reply in replies)
    served = encode_messages(tokenizer, messages[:-1], 10_000)
    assert list(example.input_ids[: len(served)]) == served
    assert all(label == token for label, token in zip(example.labels, example.input_ids, strict=True) if label != IGNORE_INDEX)


@settings(max_examples=60)
@given(conversations, st.integers(2, 80), st.sampled_from(["all", "last"]))
def test_a_truncated_reply_never_ends(messages: list[dict[str, str]], limit: int, loss_turns: Any) -> None:
    tokenizer = TOKENIZERS["chatml"]
    example = encode_conversation(tokenizer, messages, limit, loss_turns=loss_turns)
    assert len(example) <= limit
    text = trained_text(tokenizer, example)
    assert text
    if text.endswith("<|im_end|>"):
        assert text.endswith(messages[-1]["content"] + "<|im_end|>")
    else:
        assert "<|im_end|>" not in text


@pytest.mark.real_models
@pytest.mark.slow
@pytest.mark.parametrize(("name", "end"), [("gemma-3-270m", "<end_of_turn>"), ("smollm2-135m-instruct", "<|im_end|>")])
def test_real_tokenizers_give_the_ids_of_transformers(real_models: Path, name: str, end: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_models / name)
    texts = ["Mji mkuu wa Kenya ni upi?", " Nairobi. ", "ケニアの首都は？\n\n1 + 2 =", "3\n\n", "የኬንያ ዋና ከተማ?", "ናይሮቢ 🙂"]
    roles = ("user", "assistant") * 3
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    for turns in ([SYSTEM, *messages], messages, messages[:2], messages[:4]):
        example = encode_conversation(tokenizer, turns, 10_000)
        rendered = list(tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"])
        assert list(example.input_ids) == rendered[: len(example)]
        served = encode_messages(tokenizer, turns[:-1], 10_000)
        assert served == tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, tokenize=True)["input_ids"]
        assert list(example.input_ids[: len(served)]) == served
        trim = str.strip if name.startswith("gemma") else str
        replies = [trim(turn["content"]) + end for turn in turns if turn["role"] == "assistant"]
        assert trained_text(tokenizer, example) == "".join(replies)
    assert find_end_tokens(tokenizer) == {tokenizer.convert_tokens_to_ids(end)}

"""Chat templates in the styles of known families, written for these tests, and tokenizers with them."""

from __future__ import annotations

from typing import Any

from tests.unit.tiny_models import make_tokenizer

CHATML = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% set seen = namespace(user=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set seen.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% if loop.index0 > seen.user %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% generation %}{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>{% endgeneration %}\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
"""An empty block of reasoning opens the last reply, also in prompts without reasoning. Earlier turns have none."""
SMOLLM3 = (
    "{% set given = messages[0].content if messages[0].role == 'system' else '' %}"
    "<|im_start|>system\nDate: {{ strftime_now('%d %B %Y') }}\n"
    "{{ given.replace('/no_think', '').rstrip() }}<|im_end|>\n"
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n' }}{% generation %}{{ m.content.lstrip('\n') }}<|im_end|>"
    "{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\n\n</think>\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content | trim %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "<|start|>system<|stop|>\n\nToday: {{ date_string }}\n\n{{ first }}<|eot|>"
    "{% for m in rest %}<|start|>{{ m.role }}<|stop|>\n\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content | trim }}<|eot|>{% endgeneration %}{% else %}{{ m.content | trim }}<|eot|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<turn>{% if m.role == 'assistant' %}model\n{% generation %}{{ m.content | trim }}</turn>{% endgeneration %}"
    "{% else %}{{ m.role }}\n{{ m.content | trim }}</turn>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
"""Rejects a system role, trims, and ends a turn with another token than the text."""
MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set given = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {% if loop.last and given is defined %}{{ given + '\n\n' }}{% endif %}{{ m.content }}[/INST]"
    "{% else %}{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
"""Shows a system prompt only while no reply follows, and starts a reply with a space."""
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
"""Ends the text after the last turn with another token than the turn."""
STYLES = {
    "chatml": CHATML, "qwen3": QWEN3, "smollm3": SMOLLM3, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "phi": PHI,
}  # fmt: skip
END_OF_TURN = {
    "chatml": "<|im_end|>", "qwen3": "<|im_end|>", "smollm3": "<|im_end|>", "llama3": "<|eot|>", "gemma": "</turn>",
    "mistral": "<eos>", "phi": "<|end|>",
}  # fmt: skip
_SPECIAL = (
    "<bos>", "<eos>", "<|start|>", "<|stop|>", "<|eot|>", "<turn>", "</turn>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>",
    "<|system|>", "<|end|>",
)  # fmt: skip


def make_chat_tokenizer(style: str) -> Any:
    """A byte-level tokenizer with the template and special tokens of a style."""
    tokenizer = make_tokenizer(STYLES.get(style, style))
    tokenizer.add_tokens(list(_SPECIAL), special_tokens=True)
    tokenizer.bos_token, tokenizer.eos_token = "<bos>", "<eos>"
    return tokenizer

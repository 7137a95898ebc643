"""The base model of the preset real-tiny: what it reads, and that the ordinary loaders take it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.paper import real_tiny
from compass_ray.config import TrainConfig
from compass_ray.models.base_model import load_base

SENTENCES = {code: [f"{code} sentence {i}." for i in range(real_tiny.HELD_OUT + 20)] for code in ("sw", "hi", "ru")}
LINES = {code: [f"{code} line {i}" for i in range(10)] for code in SENTENCES}


def test_examples_are_lines_and_pairs_of_the_same_sentence_and_none_is_held_out() -> None:
    known = {code: sentences[real_tiny.HELD_OUT :] for code, sentences in SENTENCES.items()}
    found = list(islice(real_tiny.make_examples(LINES, known, np.random.default_rng(0)), 400))
    pairs = [text for text in found if "<|assistant|>" in text]
    assert len(pairs) == 200
    for text in pairs:
        question, answer = text.removeprefix("<|user|>").removesuffix("<|end|>").split("<|end|><|assistant|>")
        assert question.split()[0] != answer.split()[0]
        assert question.split()[2] == answer.split()[2]
        assert int(question.split()[2].rstrip(".")) >= real_tiny.HELD_OUT
    assert {text.split()[0] for text in found if text not in pairs} == {*LINES}


def test_languages_are_those_of_the_preset_s_pool() -> None:
    assert {"id", "ms", "hi", "ne", "sw", "yo", "ru", "uk"} <= {*real_tiny.pretraining_languages()}


def test_a_model_of_two_steps_is_loaded_as_any_other(tmp_path: Path) -> None:
    bits = real_tiny.build(tmp_path, LINES, SENTENCES, steps=2, seed=0)
    assert bits.keys() == SENTENCES.keys()
    assert all(0 < value < 20 for value in bits.values())
    base = load_base(TrainConfig(base_model=str(tmp_path)))
    prompt = base.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>x<|end|><|assistant|>"

"""Canary questions: their order, their prompts, and the length of replies."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig, parse_config
from compass_ray.continual.controller.canary_eval import CanaryItem, load_canary_items, max_reply_tokens
from tests.unit.fakes import BASE

QUESTION = CanaryItem("Mji mkuu wa Kenya?", ("Lagos", "Nairobi"), 1)


def config(scoring: str = "option", seed: int = 0) -> RunConfig:
    return parse_config({"languages": ["sw"], "train": {"base_model": BASE}, "evaluate": {"scoring": scoring}, "seed": seed})


def _run(folder: Path, count: int) -> RunDir:
    run = RunDir(str(folder))
    row = {"language": "sw", "subject": None, "options": ["a", "b"], "answer": 1}
    items = [{**row, "item_id": str(n), "question": f"{n}?"} for n in range(count)]
    writer = run.guide("sw").begin(Identity("pool", {}, {}))
    writer.write_table("test.parquet", pa.Table.from_pylist(items, schema=schemas.ITEMS))
    writer.publish()
    return run


def test_all_items_are_asked_in_an_order_that_depends_on_the_seed(tmp_path: Path) -> None:
    run = _run(tmp_path, 50)
    first, again, other = (load_canary_items(config(seed=seed), run, "sw") for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(int(each.text[:-1]) for each in first) == list(range(50)) != [int(each.text[:-1]) for each in first]
    assert {(each.options, each.answer_index) for each in first} == {(("a", "b"), 1)}


def test_a_run_without_a_test_set_has_none(tmp_path: Path) -> None:
    assert load_canary_items(config(), RunDir(str(tmp_path)), "sw") == ()


@pytest.mark.parametrize(
    ("scoring", "prompt", "right", "wrong"),
    [
        ("option", "Mji mkuu wa Kenya?", "Nairobi.", "B"),
        ("letter", "Mji mkuu wa Kenya?\nA. Lagos\nB. Nairobi", "B. Nairobi", "Nairobi"),
    ],
)
def test_a_question_is_asked_and_scored_as_in_the_evaluation(scoring: str, prompt: str, right: str, wrong: str) -> None:
    assert QUESTION.to_prompt(scoring) == prompt  # type: ignore[arg-type]
    assert [QUESTION.is_correct(reply, scoring) for reply in (right, wrong)] == [True, False]  # type: ignore[arg-type]


def test_a_letter_needs_few_tokens() -> None:
    assert max_reply_tokens(config("letter")) < max_reply_tokens(config("option")) == config().serve.max_tokens

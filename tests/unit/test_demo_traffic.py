"""The questions at the end of the demo: one in each of at most three scripts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig, load_run_config
from compass_ray.config.serving import IdentifierConfig
from compass_ray.demo_traffic import _QUESTIONS, pick_questions
from compass_ray.serving.routing import scripts


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(str(tmp_path / "run"))
    for code in load_run_config("atlas").languages:
        writer = run.guide(code).begin(Identity("pool", {}, {}))
        row = {"row_id": "0", "prompt": f"guide prompt of {code}", "language": code, "subject": None}
        writer.write_table("guide.parquet", pa.Table.from_pylist([row], schema=schemas.GUIDES))
        writer.publish()
    return run


def config(languages: list[str], model: str) -> RunConfig:
    return load_run_config("atlas", languages=languages, overrides=[f"train.base_model={model}"])


def test_each_question_is_in_another_script(run: RunDir) -> None:
    assert [code for code, _ in pick_questions(config(["ru", "uk", "sw", "hi", "ko"], "organisation/model"), run)] == [
        "ru",
        "sw",
        "hi",
    ]


def test_a_real_model_is_asked_a_question_of_everyday_life(run: RunDir) -> None:
    [(_, hindi), (_, amharic)] = pick_questions(config(["hi", "am"], "organisation/model"), run)
    assert hindi.endswith("?")
    assert amharic == "guide prompt of am"


def publish_pool(run: RunDir, prompts: dict[str, str]) -> None:
    """A pool of one row for each prompt, with its language."""
    writer = run.pool.begin(Identity("pool", {}, {}))
    rows = [{"row_id": prompt, "prompt": prompt, "language": code} for prompt, code in prompts.items()]
    writer.write_table("rows.parquet", pa.Table.from_pylist(rows))
    writer.publish()


NAIROBI, DAR_ES_SALAAM = "Mji huu uko katika nchi gani: Nairobi?", "Mji huu uko katika nchi gani: Dar es Salaam?"


@pytest.mark.parametrize(
    ("prompts", "question"),
    [
        ({DAR_ES_SALAAM: "sw", NAIROBI: "sw", "Kenya – sarafu?": "sw"}, NAIROBI),
        ({NAIROBI: "hi", "a row of the user": "sw"}, "guide prompt of sw"),
    ],
    ids=["the first full question of the atlas", "no question of the atlas"],
)
def test_a_model_of_the_package_is_asked_what_its_rows_answer(run: RunDir, prompts: dict[str, str], question: str) -> None:
    publish_pool(run, prompts)
    assert pick_questions(config(["sw"], "atlas"), run) == [("sw", question)]


@pytest.mark.parametrize("code", _QUESTIONS)
def test_every_question_is_long_enough_to_be_identified_and_in_its_script(code: str) -> None:
    question = _QUESTIONS[code]
    assert scripts.count_letters(question) >= IdentifierConfig().min_letters
    assert scripts.is_written_in(question, code)

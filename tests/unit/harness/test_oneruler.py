"""OneRuler as a task: all tasks and lengths are made for the tokenizer, evaluated, and measured by task and depth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.config.harness import LongContextConfig
from compass_ray.harness.oneruler import oneruler_rows, process_results
from compass_ray.harness.planned_tasks import HarnessTask, identify, plan
from compass_ray.records.harness import HarnessRecord
from compass_ray.stages.harness import HarnessWorker, find_pending
from tests import former_run

PARTS = {
    "task": "Memorize.\n<text>\n{context}\n</text>\n",
    "needle_numbers": 'The special magic number for "{key}" is: {value} ',
    "question_single_numbers": 'Which for "{query1}"?',
    "question_multi_numbers": 'Which for "{query1}" and "{query2}"?',
    "please_list": "List all.",
    "if_no_numbers": 'Else "none".\n',
    "answer_prefix": "Answer:",
    "answer_numbers": "<Answer> here </Answer>",
    "none": "none",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("prompt/sw", "books/sw", "vocab/dictionaries/Swahili"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "prompt/sw/niah.txt").write_text(json.dumps(PARTS), "utf-8")
    (tmp_path / "prompt/sw/cwe.txt").write_text("<List> {context} </List>", "utf-8")
    (tmp_path / "books/sw/book.txt").write_text(" ".join(f"Sentence {n} says so." for n in range(30)), "utf-8")
    nouns = "\n".join(["sw\tdefinition", *(f"{noun}\tx" for noun in ("tufaha", "mto", "wingu", "jiwe", "mkate", "farasi"))])
    (tmp_path / "vocab/100_noun_list_translated.tsv").write_text(nouns, "utf-8")
    words = "\n".join(["words,pos", *(f"neno{n},noun" for n in range(300))])
    (tmp_path / "vocab/dictionaries/Swahili/Swahili.csv").write_text(words, "utf-8")
    return tmp_path


def test_every_task_and_length_is_made(folder: Path) -> None:
    settings = LongContextConfig(tokens=(900, 1200), items=2)
    rows = oneruler_rows(folder, "sw", settings, 0, lambda text: len(text.split())).to_pylist()
    subjects = [row["subject"] for row in rows]
    assert set(subjects) == {f"{task}_{tokens}" for task in settings.tasks for tokens in settings.tokens}
    assert len(rows) == 2 * 7 * 2
    for row in rows:
        reply = " ".join(row["answers"])
        scores = process_results(row, [reply])
        assert set(scores.values()) == {1.0}
        needles = {"single": 1, "multi_key": 4, "multi_value": 4, "multi_query": 2, "none": 4}
        assert len(row["depths"]) == needles.get(row["subject"].rpartition("_")[0], 0)


def test_the_depth_of_a_needle_is_where_it_is(folder: Path) -> None:
    settings = LongContextConfig(tokens=(900,), tasks=("single",), items=20)
    for row in oneruler_rows(folder, "sw", settings, 0, lambda text: len(text.split())).to_pylist():
        text = row["question"].split("<text>\n")[1].split("\n</text>")[0]
        found = text.index("The special magic number") / len(text)
        assert found == pytest.approx(row["depths"][0], abs=0.03)


def _worker(run: RunDir, config: RunConfig, folder: Path) -> tuple[HarnessWorker, HarnessTask]:
    (task,) = plan(config, run, tasks=["oneruler"], methods=["base"], data={"oneruler": str(folder)})
    return HarnessWorker(run.uri, config.model_dump(mode="json")), task


def test_a_run_is_evaluated(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed; make setup installs it")
    run = former_run.extract(tmp_path / "former")
    changes = ["evaluate.long_context={tokens: [300], tasks: [single, none], items: 2}", "evaluate.harness.batch_size=2"]
    config = with_overrides(run.read_config(), changes)
    worker, task = _worker(run, config, folder)
    worker.base.model.config.max_position_embeddings = 1024
    worker.evaluate(task, identify(config, run, task))
    artifact = run.harness("base", "sw", "oneruler")
    record, items = HarnessRecord.read(artifact), artifact.read_table("items.parquet")
    assert (record.items, record.metric, record.chance) == (4, "score,none", None)
    assert {"single_300,none", "none_300,none"} <= set(record.metrics)
    assert any(name.startswith("single_300_depth_") for name in record.metrics)
    assert items["reply"].null_count == 0
    assert record.truncated == 0
    assert "- test.parquet\n" in artifact.read_bytes("oneruler_sw.yaml").decode()
    assert artifact.exists("test.parquet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{tokens: [400], tasks: [single]}", r"prompts of 400 tokens need a context of \d+, but the model has 512"),
        ("{tokens: [20, 200], tasks: [single]}", "20 tokens are too few for a book"),
        ("{tokens: [350], tasks: [common_words_hard]}", "350 tokens are too few for a list|too few for a list of 350"),
    ],
)
def test_lengths_are_checked_before_a_model_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, message: str
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setattr("compass_ray.models.base_model.load_base", lambda config: pytest.fail("a model was loaded"))
    run = former_run.extract(tmp_path / "former")
    config = with_overrides(run.read_config(), [f"evaluate.long_context={settings}"])
    wanted = plan(config, run, tasks=["oneruler"], methods=["base"], data={"oneruler": str(folder)})
    with pytest.raises(ConfigError, match=message):
        find_pending(config, run, wanted)


def test_a_missing_folder_of_oneruler_is_said(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    run = former_run.extract(tmp_path / "former")
    config = with_overrides(run.read_config(), ["evaluate.long_context={tokens: [200]}"])
    wanted = plan(config, run, tasks=["oneruler"], methods=["base"], data={"oneruler": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match="nowhere: no prompt or no book in 'sw'"):
        find_pending(config, run, wanted)

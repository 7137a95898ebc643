"""A run on conversations, from their file to an adapter, its anchors and the explanation of a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass_ray import pipeline
from compass_ray.artifacts import RunDir
from compass_ray.config import load_run_config
from compass_ray.report.explain import explain_row
from compass_ray.sources.atlas import SMALL, atlas_pool
from tests.ray.in_process import no_workers

SYSTEM = {"role": "system", "content": "Be brief."}


def _write_conversations(file: Path) -> None:
    """Two rows of the atlas in each conversation, and one conversation that cannot be trained on."""
    rows = atlas_pool(SMALL).select(["inputs", "targets", "language_code"]).to_pylist()
    turns = [[{"role": "user", "content": row["inputs"]}, {"role": "assistant", "content": row["targets"]}] for row in rows]
    pairs = [i for i in range(0, len(rows) - 1, 2) if rows[i]["language_code"] == rows[i + 1]["language_code"]]
    lines = [{"messages": [SYSTEM, *turns[i], *turns[i + 1]], "language": rows[i]["language_code"]} for i in pairs]
    lines.append({"messages": [*turns[0], {"role": "tool", "content": "-"}], "language": "swh"})
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")


@pytest.mark.slow
def test_conversations_are_trained_and_explained(tmp_path: Path, ray_cluster: object) -> None:
    _write_conversations(tmp_path / "chat.jsonl")
    source = json.dumps([{"path": str(tmp_path / "chat.jsonl")}])
    settings = ["languages=[sw]", "select.methods=[compass]", f"pool.sources={source}"]
    config, run = load_run_config("atlas-test", overrides=settings), RunDir(str(tmp_path / "run"))
    run.write_config(config)
    with no_workers():
        pipeline.run_all(config, run)
    pool = {row["row_id"]: row for row in run.pool.read_table("rows.parquet").to_pylist()}
    assert all(len(row["messages"]) == 5 and row["messages"][-2]["content"] == row["prompt"] for row in pool.values())
    assert run.pool.read_table("rejected.parquet")["reason"].to_pylist() == ["turn 3 has the role 'tool'"]
    history = run.adapter("sw", "v0001").read_json("history.json")
    assert history["epochs"][-1]["validation_loss"] > 0
    anchors = run.adapter("sw", "v0001").read_table("anchors.parquet")["row_id"].to_pylist()
    assert anchors
    assert set(anchors) <= pool.keys()
    lines = explain_row(run, "sw", anchors[0]).lines()
    assert lines[1] == "system: Be brief."
    assert [line.partition(":")[0] for line in lines[2:6]] == ["user", "assistant"] * 2

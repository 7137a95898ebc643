"""Prompts of eight subjects, one cluster for each, as arrays and as a run with clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig, parse_config
from compass_ray.evaluation.simulation.drift.streams import PromptBank

SUBJECTS = tuple("abcdefgh")
ROWS = 12
"""Own rows of the pool for each subject."""


@pytest.fixture
def config() -> RunConfig:
    return parse_config({"languages": ["sw"], "drift": {"window": 100, "check_every": 20, "cooldown": 100, "permutations": 400}})


@pytest.fixture
def prompts() -> PromptBank:
    """Subject i is in cluster i; the last two clusters are one coarse cluster."""
    by_subject = {subject: np.array([cluster, cluster]) for cluster, subject in enumerate(SUBJECTS)}
    return PromptBank(by_subject, by_subject, np.array([0, 1, 2, 3, 4, 5, 6, 6]))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Rows of two languages, guide prompts and test questions of every subject. Some rows have no subject."""
    made = RunDir(str(tmp_path / "run"))
    clusters = made.clusters.begin(Identity("cluster", {}, {}))
    clusters.write_mappable("assignments.arrow", _assignments())
    clusters.write_array("coarse.npy", np.arange(len(SUBJECTS), dtype=np.int32))
    clusters.publish()
    guide = made.guide("sw").begin(Identity("pool", {}, {}))
    texts = [f"{subject} {cluster} {i}" for i in range(20) for cluster, subject in enumerate(SUBJECTS)]
    rows = {"row_id": texts, "prompt": texts, "language": ["sw"] * len(texts), "subject": [text[0] for text in texts]}
    guide.write_table("guide.parquet", pa.table(rows | {"options": [None] * len(texts)}, schema=schemas.GUIDES))
    items = [
        {"item_id": f"{t} test", "language": "sw", "subject": t[0], "question": t, "options": ["x", "y"], "answer": 0}
        for t in texts
    ]
    guide.write_table("test.parquet", pa.Table.from_pylist(items, schema=schemas.ITEMS))
    guide.publish()
    return made


def _assignments() -> pa.Table:
    rows = [
        {
            "row_id": f"{language}-{cluster}-{i}",
            "position": 0,
            "prompt_key": 0,
            "language": language,
            "subject": subject if i else None,
            "cluster": cluster,
            "coarse": cluster,
            "proto": 1.0,
            "margin": 1.0,
        }
        for cluster, subject in enumerate(SUBJECTS)
        for language in ("sw", "hi")
        for i in range(ROWS)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.ASSIGNMENTS)

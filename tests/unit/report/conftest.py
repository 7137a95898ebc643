"""An artificial run: four languages of four scripts, a drift in one, and a prompt with markup."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.records.decisions import DriftRecord, GateDecisionRecord, PromotionRecord
from compass_ray.records.updates import GateRecord

LANGUAGES = ("sw", "hi", "ar", "am")
SUBJECTS = tuple(f"subject {i}" for i in range(8))
LOW = ("subject 1", "subject 4")
FAMILIES = {subject: "numbers" if index < 3 else "words" for index, subject in enumerate(SUBJECTS)}
SETTINGS: dict[str, Any] = {"languages": LANGUAGES, "evaluate": {"resamples": 400}}
ITEMS = 160
CLUSTERS = 16
EVIL = "<script>alert('x')</script> & \"quoted\" $x^2$"
PROMPTS = {
    "sw": "Mji mkuu wa Kenya ni upi?",
    "hi": "केन्या की मुद्रा क्या है?",
    "ar": "ما هي عملة كينيا؟",
    "am": "የኬንያ ገንዘብ ምንድን ነው?",
    "bul": "Коя е валутата на Кения?",
    "fr": "Quelle est la monnaie du Kenya ?",
}
ACCURACY = {"zero_shot": 0.27, "target": 0.42, "random": 0.45, "compass": 0.56}


def write_artifact(artifact: Artifact, files: dict[str, Any]) -> None:
    """Write one complete artifact. The file suffix determines the format."""
    writer = artifact.begin(Identity(artifact.name.split("/")[0], {"seed": 0}, {"name": artifact.name}))
    for name, content in files.items():
        kinds = {
            ".arrow": writer.write_mappable,
            ".parquet": writer.write_table,
            ".npy": writer.write_array,
            ".json": writer.write_json,
        }
        kinds[name[name.rindex(".") :]](name, content)
    writer.publish({"seconds": 12.5}, versions={"ray": "2.60.0"}, device="cpu")


def pool_position(code: str, number: int) -> int:
    return list(PROMPTS).index(code) * 100 + number


def vectors(rows: int, *key: int) -> np.ndarray:
    """Embeddings float32 (rows, 6); many rows of a cluster are near duplicates."""
    rng = np.random.default_rng([7, *key])
    middles = np.random.default_rng(3).normal(size=(CLUSTERS, 6))
    found = middles[np.arange(rows) % CLUSTERS] + 0.45 * rng.normal(size=(rows, 6))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def scored(method: str, language: str, skill: float | None = None) -> pa.Table:
    rng = np.random.default_rng([ord(c) for c in method + language])
    right = rng.random(ITEMS) < (ACCURACY.get(method, 0.5) if skill is None else skill)
    answer = rng.integers(0, 4, ITEMS)
    predicted = np.where(right, answer, (answer + 1) % 4)
    numbers = rng.permutation(ITEMS).tolist()
    return pa.table(
        {
            "item_id": [f"{language}-{i:04d}" for i in numbers],
            "subject": [SUBJECTS[i % len(SUBJECTS)] for i in range(ITEMS)],
            "answer": answer,
            "predicted": predicted,
            "log_probs": [[-1.0, -2.0, -3.0, -4.0]] * ITEMS,
            "sample_id": [f"item {i}" for i in numbers],
            "family": [None] * ITEMS,
            "thinned": [None] * ITEMS,
            "log_prob_sums": np.where(np.arange(4) == predicted[:, None], -4.0, -12.0).tolist(),
            "end_log_probs": [[-0.5] * 4] * ITEMS,
            "tokens": [[3] * 4] * ITEMS,
            "characters": [[6] * 4] * ITEMS,
            "bytes": [[8] * 4] * ITEMS,
            "truncated": [False] * ITEMS,
        }
    ).cast(schemas.SCORED)


def by_item(table: pa.Table) -> pa.Table:
    """The table with subjects and families determined by item id, so that methods agree on them."""
    subjects = [SUBJECTS[int(item.split("-")[1]) % len(SUBJECTS)] for item in table["item_id"].to_pylist()]
    columns = {
        "subject": subjects,
        "family": [FAMILIES[subject] for subject in subjects],
        "thinned": [s in LOW for s in subjects],
    }
    for name, values in columns.items():
        table = table.set_column(schemas.SCORED.get_field_index(name), schemas.SCORED.field(name), pa.array(values))
    return table


def selected(language: str) -> pa.Table:
    rng = np.random.default_rng(len(language))
    others = [code for code in PROMPTS if code != language]
    rows = [
        {
            "row_id": f"{language}-own-{i}",
            "role": "target",
            "language": language,
            "cluster": pool_position(language, i) % CLUSTERS,
            "order": -1,
            "weight": 1.0,
        }
        for i in range(100)
    ]
    for i in range(80):
        source = others[int(rng.integers(len(others)) * rng.random())]
        rows.append(
            {
                "row_id": f"{source}-own-{i}",
                "role": "auxiliary",
                "language": source,
                "cluster": pool_position(source, i) % CLUSTERS,
                "order": i,
                "score": 0.71,
                "proto": 0.82,
                "boundary": 0.31,
                "neighbours": i % 3,
                "weight": 1.0,
            }
        )
    return pa.Table.from_pylist(rows, schema=schemas.SELECTED)


def allocation(language: str) -> dict[str, Any]:
    return {
        "language": language,
        "method": "compass",
        "budget": 80,
        "unfilled": 0,
        "low_subjects": list(LOW),
        "js_before": 0.41,
        "js_after": 0.12,
        "noise": {"target": 10, "auxiliary": 30, "guide": 4},
        "clusters": [
            {
                "cluster": k,
                "n_target": 20 if k < 5 else 0,
                "n_aux": 40 + k,
                "n_eval": (3 * k) % 17 + (k == 9) * 10,
                "weight": 0.0 if (3 * k) % 17 == 0 else 1 / 15,
                "quota": 5,
                "selected": 5,
            }
            for k in range(CLUSTERS)
        ],
    }


def sweep() -> dict[str, Any]:
    cells = [
        {
            "parameters": {"min_cluster_size": size, "min_samples": samples},
            "score": 0.3 - abs(size - 10) / 100 - samples / 200,
            "n_clusters": 60 - size,
            "noise_share": 0.08,
            "chosen": (size, samples) == (10, 1),
        }
        for size in (5, 10, 15, 20)
        for samples in (1, 5, 10)
    ]
    clusters = [
        {
            "cluster": k,
            "coarse": k // 2,
            "size": 60 + k,
            "languages": {"sw": 20, "hi": 10, "bul": 30 + k},
            "subject": None if k == 3 else ("ገንዘብ" if k == 6 else SUBJECTS[k % 8]),
            "examples": [
                {
                    "row_id": f"{code}-own-{k}",
                    "prompt": EVIL if code == "fr" else PROMPTS[code],
                    "language": code,
                }
                for code in ("ar", "fr", "am")
            ],
        }
        for k in range(CLUSTERS)
    ]
    return {"method": "hdbscan", "backend": "cpu", "cells": cells, "clusters": clusters}


def history(scale: float) -> dict[str, Any]:
    epochs = [
        {
            "epoch": e,
            "train_loss": scale * 2 * 0.7**e,
            "validation_loss": scale * (1.9 * 0.75**e + 0.02 * e * e),
            "seconds": 4.0,
        }
        for e in range(1, 7)
    ]
    return {"epochs": epochs, "best_epoch": 5, "rows": 171, "tokens": 5432, "seconds": 24.5}


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


CHECKS = [
    {
        "language": "sw",
        "prompts": n,
        "divergence": 0.04 + 0.0001 * n if n < 400 else 0.11 + 0.0004 * (n - 400) if n < 600 else 0.05,
        "p_value": 0.4 if n < 400 else 0.0005,
        "threshold": 0.1,
        "drifted": 400 <= n < 600,
        "version": "v0001" if n < 600 else "v0002",
        "time": 1.7e9 + n,
    }
    for n in range(50, 801, 50)
]
GATE = GateRecord(
    from_version="v0001",
    accepted=True,
    reason=f"accepted: lower loss on the window {EVIL}",
    window_before=1.25,
    window_after=1.125,
    anchors_before=0.5,
    anchors_after=0.5625,
)
DECISIONS = [
    DriftRecord(language="sw", time=1.7e9 + 450, prompts=450, from_version="v0001", reason="p = 0.0005, twice in a row"),
    GateDecisionRecord.model_validate(
        {**GATE.to_json(), "language": "sw", "time": 1.7e9 + 560, "prompts": 300, "to": "v0002", "promotion": "immediate"}
    ),
    PromotionRecord(language="sw", time=1.7e9 + 560, from_version="v0001", to_version="v0002", reason="better"),
]
UPDATE = {
    "language": "sw",
    "from": "v0001",
    "to": "v0002",
    "old": {"items": 100, "before": 0.52, "after": 0.51},
    "new": {"items": 60, "before": 0.3, "after": 0.45, "chance": 0.25},
    "old_subjects": ["subject 0", "subject 1"],
    "new_subjects": ["subject 5"],
    "gate": GATE.to_json(),
}


@pytest.fixture
def publish() -> Callable[[Artifact, dict[str, Any]], None]:
    """Writes one complete artifact."""
    return write_artifact


@pytest.fixture
def evil() -> str:
    """A prompt with markup."""
    return EVIL


@pytest.fixture
def config() -> RunConfig:
    return RunConfig.model_validate(SETTINGS)


@pytest.fixture
def small() -> RunConfig:
    """The same run for one language: a page with few plots."""
    return RunConfig.model_validate({**SETTINGS, "languages": ["sw"]})


@pytest.fixture
def empty(tmp_path: Path) -> RunDir:
    """A run without artifacts."""
    return RunDir(str(tmp_path / "empty-run"))


@pytest.fixture(scope="session")
def complete_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with everything that a report shows. Created once; tests must not change it."""
    made = RunDir(str(tmp_path_factory.mktemp("report") / "demo-run"))
    return fill(made, RunConfig.model_validate(SETTINGS))


@pytest.fixture
def run(complete_run: RunDir, tmp_path: Path) -> RunDir:
    """A copy of the complete run that a test can change."""
    shutil.copytree(complete_run.path, tmp_path / "demo-run", ignore=shutil.ignore_patterns("report"))
    return RunDir(str(tmp_path / "demo-run"))


def write_guide(made: RunDir, code: str, seed: int) -> None:
    """Guide prompts with embeddings, and a test question that is also the prompt of some pool rows."""
    guide = [{"row_id": f"{code}-guide-{i}", "prompt": f"{code} guide {i}?", "language": code} for i in range(5)]
    item = {"item_id": "0", "language": code, "question": f"  {EVIL.upper()}", "options": ["a", "b", "c", "d"], "answer": 0}
    prompts = pa.Table.from_pylist(guide, schema=schemas.GUIDES)
    items = pa.Table.from_pylist([item], schema=schemas.ITEMS)
    write_artifact(made.guide(code), {"guide.parquet": prompts, "test.parquet": items})
    embedded = [{"row_id": g["row_id"], "embedding": v} for g, v in zip(guide, vectors(5, seed), strict=True)]
    part = pa.Table.from_pylist(embedded, schema=schemas.embeddings_schema(6))
    write_artifact(made.guide_embeddings(code), {"part-00000.parquet": part})


def fill(made: RunDir, config: RunConfig) -> RunDir:
    """Write every artifact of the artificial run."""
    made.write_config(config)
    pool = [
        {
            "row_id": f"{code}-own-{i}",
            "prompt": EVIL if i == 1 else text,
            "response": "-",
            "language": code,
            "source": "made",
        }
        for code, text in PROMPTS.items()
        for i in range(100)
    ]
    write_artifact(made.pool, {"rows.parquet": pa.Table.from_pylist(pool, schema=schemas.POOL)})
    assignments = [
        {"position": i, "prompt_key": i, "cluster": i % CLUSTERS, "coarse": 0, "proto": 0.5, "margin": 0.1, **r}
        for i, r in enumerate(pool)
    ]
    found = pa.Table.from_pylist(assignments, schema=schemas.ASSIGNMENTS)
    middles = np.random.default_rng(3).normal(size=(CLUSTERS, 6)).astype(np.float32)
    stored = vectors(len(pool)).astype(np.float16)
    clustering = {"assignments.arrow": found, "vectors.npy": stored, "centroids.npy": middles, "sweep.json": sweep()}
    write_artifact(made.clusters, clustering)
    for index, code in enumerate(LANGUAGES):
        write_guide(made, code, index)
        write_artifact(
            made.selection("compass", code),
            {"rows.parquet": selected(code), "allocation.json": allocation(code)},
        )
        for version, scale in (("target", 1.2), ("random", 1.1), ("v0001", 1.0)):
            write_artifact(made.adapter(code, version), {"history.json": history(scale + index / 10)})
        for method in ACCURACY:
            results = {"language": code, "method": method, "low_subjects": list(LOW)}
            write_artifact(
                made.evaluation(method, code),
                {"items.parquet": by_item(scored(method, code)), "results.json": results},
            )
        made.set_live(code, {"version": "v0002" if code == "sw" else "v0001", "fingerprint": "0123456789abcdef"})
    write_artifact(made.adapter("sw", "v0002"), {"history.json": history(0.9)})
    write_artifact(made.change("sw", "v0002"), {"results.json": UPDATE})
    made.write_monitor("checks.jsonl", lines(CHECKS))
    made.write_monitor("decisions.jsonl", lines([each.to_json() for each in DECISIONS]))
    return made

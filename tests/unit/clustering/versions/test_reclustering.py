"""Full re-clustering: what it writes, what it leaves unchanged, and that it can be resumed after any kill."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import registry
from compass_ray.artifacts import ConflictError, Identity, RunDir, jsonl_log
from compass_ray.clustering import load_clusterer
from compass_ray.clustering.versions import INITIAL_CLUSTERING, read_active, set_active
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.continual import recluster as reclustering
from compass_ray.continual.recluster import recluster
from compass_ray.core.distribution import cluster_counts
from compass_ray.monitoring.references import read_reference
from compass_ray.monitoring.retained_traffic import embed_rows, read_retained_traffic
from compass_ray.records.references import ReferenceRecord
from compass_ray.row_selection import PoolView
from tests.unit.clustering.versions.made_run import WORDS, encode, make_run, prompts_of, write_version, write_window

pytestmark = pytest.mark.usefixtures("inline")

NEW = prompts_of(WORDS[4:], 40, seed=5000)
"""Of words that no row of the pool has."""


def _entries(prompts: list[str], language: str = "sw", **more: Any) -> list[dict[str, Any]]:
    return [
        {"language": language, "row_id": f"p{i}", "prompt": p, "cluster": 0, "coarse": 0, "time": float(i), **more}
        for i, p in enumerate(prompts)
    ]


def _hashes(folder: str) -> dict[str, str]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def traffic(run: RunDir) -> RunDir:
    """The run, with ``v0001`` live and a retained window of new subjects."""
    registry.promote(run, "sw", "v0001")
    write_window(run, "sw", _entries(NEW), "windows/sw-000000040.parquet")
    return run


def test_without_traffic_there_is_nothing_to_do(run: RunDir, config: RunConfig, inline: list[str]) -> None:
    found = recluster(config, run)
    assert not found.changed
    assert found.summarize()[0].startswith("nothing to do: clustering clusters is up to date")
    assert (inline, read_active(run).name, run.reclusterings()) == ([], INITIAL_CLUSTERING, [])


def test_the_new_clusters_are_fitted_with_traffic_and_contain_only_pool_rows(traffic: RunDir, config: RunConfig) -> None:
    before = _hashes(traffic.clusters.path)
    found = recluster(with_overrides(config, ["cluster.n_clusters=[6]"]), traffic, reason="stale")
    assert (found.name, found.before, found.prompts) == ("c0002", INITIAL_CLUSTERING, 40)
    with traffic.reclustering("c0002").local_folder() as folder:
        clusterer = load_clusterer(folder)
    truth = [WORDS.index(prompt.split()[0]) for prompt in NEW]
    assert {word: set(clusterer.assign(encode(NEW))[np.array(truth) == word]) for word in (4, 5)} == {
        word: {label} for word, label in zip((4, 5), clusterer.assign(encode([f"{w} 1" for w in WORDS[4:]])), strict=True)
    }
    rows = PoolView.read(traffic.reclustering("c0002"))
    assert sorted(rows.row_id.to_pylist()) == sorted(traffic.pool.read_table("rows.parquet")["row_id"].to_pylist())
    assert rows.n_clusters == 6
    assert len(set(rows.cluster.tolist())) == 4  # two clusters contain only traffic
    assert _hashes(traffic.clusters.path) == before
    assert traffic.reclustering("c0002").verify().inputs["embeddings"] == traffic.clusters.require().inputs["embeddings"]


def test_the_decision_is_recorded_for_every_language(traffic: RunDir, config: RunConfig) -> None:
    recluster(config, traffic, reason="stale")
    told = [line for line in jsonl_log.read(traffic, "decisions.jsonl") if line["kind"] == "recluster"]
    assert [(line["language"], line["clusters"], line["reason"]) for line in told] == [
        ("sw", "c0002", "stale"),
        ("de", "c0002", "stale"),
    ]


def test_a_second_re_clustering_does_nothing_without_new_traffic(traffic: RunDir, config: RunConfig, inline: list[str]) -> None:
    assert recluster(config, traffic).name == "c0002"
    inline.clear()
    assert not recluster(config, traffic).changed
    assert inline == []
    write_window(traffic, "de", _entries(NEW, "de"), "windows/de-000000040.parquet")
    found = recluster(config, traffic)
    assert (found.name, found.before, found.prompts) == ("c0003", "c0002", 80)
    assert read_active(traffic).history == (INITIAL_CLUSTERING, "c0002")


def test_deleted_traffic_does_not_cause_a_re_clustering(traffic: RunDir, config: RunConfig) -> None:
    recluster(config, traffic)
    traffic.delete_monitor("windows/sw-000000040.parquet")
    assert not recluster(config, traffic).changed
    assert read_active(traffic).name == "c0002"


def test_the_reference_counts_the_guide_set_in_the_new_clusters(traffic: RunDir, config: RunConfig) -> None:
    recluster(config, traffic)
    found = read_reference(traffic, "c0002", "sw", "v0001")
    assert found
    with traffic.reclustering("c0002").local_folder() as folder:
        labels = load_clusterer(folder).assign(traffic.guide_embeddings("sw").read_embeddings())
    coarse = traffic.reclustering("c0002").read_array("coarse.npy")
    assert list(found.guide_counts) == np.bincount(coarse[labels], minlength=coarse.max() + 2).tolist()
    now = {row["row_id"]: row["cluster"] for row in _assignments(traffic, "c0002")}
    rows = traffic.selection("compass", "sw").read_table("rows.parquet").to_pylist()
    assert list(found.trained_fine) == cluster_counts([now[row["row_id"]] for row in rows], len(coarse)).tolist()
    added = [coarse[now[row["row_id"]]] for row in rows if row["role"] == "auxiliary"]
    assert list(found.selected_counts) == np.bincount(added, minlength=coarse.max() + 2).tolist()
    assert read_reference(traffic, INITIAL_CLUSTERING, "sw", "v0001") == ReferenceRecord.read(traffic.adapter("sw", "v0001"))


def _assignments(run: RunDir, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run.reclustering(name).map_table("assignments.arrow").to_pylist()
    return rows


@pytest.mark.parametrize("retained", ["prompt", "embedding", "half", "few", "nothing"])
def test_an_update_s_reference_counts_its_retained_window(traffic: RunDir, config: RunConfig, retained: str) -> None:
    entries = _entries(NEW[:20])
    for i, entry in enumerate(entries):
        prompt = entry.pop("prompt") if retained != "prompt" else None
        if prompt and (retained == "embedding" or (retained == "half" and i % 2) or (retained == "few" and i < 3)):
            entry["embedding"] = _packed(encode([prompt])[0])
    write_window(traffic, "sw", entries, "windows/sw-000000020.parquet")
    _leave_update(traffic, config, "windows/sw-000000020.parquet")
    registry.promote(traffic, "sw", "v0002")
    references = recluster(config, traffic).references
    reference = read_reference(traffic, "c0002", "sw", "v0002")
    assert reference
    with traffic.reclustering("c0002").local_folder() as folder:
        clusterer = load_clusterer(folder)
    window = {"prompt": NEW[:20], "embedding": NEW[:20], "half": NEW[1:20:2]}.get(retained)
    embeddings = encode(window) if window else traffic.guide_embeddings("sw").read_embeddings()
    coarse = traffic.reclustering("c0002").read_array("coarse.npy")
    assert list(reference.guide_counts) == np.bincount(coarse[clusterer.assign(embeddings)], minlength=coarse.max() + 2).tolist()
    assert references["sw@v0002"] == reference.asked_of
    assert references["sw@v0001"] == "the guide set"  # still reachable by a rollback
    assert ("of this version's window are retained" in str(reference.asked_of)) == (window is None)


def _packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def _leave_update(run: RunDir, config: RunConfig, file: str) -> None:
    first = run.selection("compass", "sw")
    rows = run.pool.read_table("rows.parquet").to_pylist()
    used = set(first.read_table("rows.parquet")["row_id"].to_pylist())
    added = [row["row_id"] for row in rows if row["language"] == "de" and row["row_id"] not in used][:8]
    table = first.read_table("rows.parquet").slice(0, len(added))
    writer = run.selection("v0002", "sw").begin(Identity("update", {}, {}))
    at = table.schema.get_field_index("row_id")
    writer.write_table("rows.parquet", table.set_column(at, table.schema.field(at), pa.array(added)))
    writer.write_json("allocation.json", first.read_json("allocation.json"))
    writer.write_json("window.json", {"file": file, "prompts": 20})
    writer.publish()
    write_version(run, config, "sw", "v0002", before="v0001")


class KilledError(Exception):
    """Simulates the end of the process."""


def _killed(*_: object, **__: object) -> None:
    raise KilledError


@pytest.mark.parametrize("step", ["ensure_reference", "set_active", "_record"])
def test_killed_after_the_fit_it_finishes_without_another_fit(
    traffic: RunDir, config: RunConfig, inline: list[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reclustering, step, _killed)
        with pytest.raises(KilledError):
            recluster(config, traffic)
    in_use_then = read_active(traffic).name
    assert in_use_then == ("c0002" if step == "_record" else INITIAL_CLUSTERING)
    inline.clear()
    finished = traffic.reclustering("c0002").require().provenance["finished"]
    write_window(traffic, "de", _entries(NEW, "de"), "windows/de-000000040.parquet")
    if in_use_then == INITIAL_CLUSTERING:
        assert recluster(config, traffic).name == "c0002"
        assert "_fit" not in inline
    assert traffic.reclustering("c0002").require().provenance["finished"] == finished
    assert traffic.reference("c0002", "sw", "v0001").verify()


def test_an_unused_clustering_with_other_settings_is_not_reused(
    traffic: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reclustering, "set_active", _killed)
        with pytest.raises(KilledError):
            recluster(config, traffic)
    other = with_overrides(config, ["cluster.n_clusters=[6]"])
    assert recluster(other, traffic).name == "c0003", "other settings"
    assert recluster(config, traffic).name == "c0004", "older than the one in use"


def test_killed_during_the_fit_a_partial_clustering_is_never_used(
    traffic: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recluster(config, traffic)
    made = _hashes(traffic.reclustering("c0002").path)
    shutil.rmtree(Path(traffic.path) / "serving")
    (Path(traffic.reclustering("c0002").path) / "manifest.json").unlink()
    (Path(traffic.reclustering("c0002").path) / "vectors.npy").write_bytes(b"half")
    assert read_active(traffic).name == INITIAL_CLUSTERING
    registry.promote(traffic, "sw", "v0001")
    assert recluster(config, traffic).name == "c0002"
    assert _hashes(traffic.reclustering("c0002").path)["vectors.npy"] == made["vectors.npy"]


def test_one_of_two_concurrent_runs_is_rejected(traffic: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(run: RunDir, found: Any, name: str, *, reason: str) -> None:
        set_active(run, read_active(run), name, reason="the other")
        set_active(run, found, name, reason=reason)

    monkeypatch.setattr(reclustering, "set_active", meanwhile)
    with pytest.raises(ConflictError, match="another process changed"):
        recluster(config, traffic)
    assert (traffic.active_clustering_pointer().read() or {})["reason"] == "the other"


def test_per_language_clusters_are_rejected(run: RunDir, config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.scope is per_language"):
        recluster(with_overrides(config, ["cluster.scope=per_language"]), run)


def test_a_prompt_counts_once_in_all_stores(traffic: RunDir) -> None:
    write_window(traffic, "sw", _entries(NEW[:20]), "windows/sw-000000020.parquet")
    write_window(traffic, "sw", [{**_entries(NEW[:1])[0], "time": 99.0}], "windows/sw-000000099.parquet")
    found = read_retained_traffic(traffic, ["sw"], 1000)
    assert len(found) == 41
    assert found["time"].to_pylist()[:2] == [99.0, 39.0]
    assert len(read_retained_traffic(traffic, ["sw"], 7)) == 7
    assert len(read_retained_traffic(traffic, ["de"], 7)) == 0
    np.testing.assert_array_equal(embed_rows(found, encode).vectors[1:], encode(NEW[::-1]))


def test_a_run_on_an_object_store_is_re_clustered(s3_uri: str, config: RunConfig) -> None:
    run = make_run(f"{s3_uri}/run", config)
    registry.promote(run, "sw", "v0001")
    write_window(run, "sw", _entries(NEW), "windows/sw-000000040.parquet")
    found = recluster(config, run)
    assert (found.name, read_active(run).name, found.references) == ("c0002", "c0002", {"sw@v0001": "the guide set"})
    assert run.reclustering("c0002").verify()
    assert not recluster(config, run).changed

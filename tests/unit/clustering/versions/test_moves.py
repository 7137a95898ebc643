"""Windows are re-assigned with their clusters, in a running monitor and in one restarted after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir, jsonl_log
from compass_ray.clustering import load_clusterer
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.clustering.versions import INITIAL_CLUSTERING, CentroidUpdate, ClusterSpace, read_active, set_active
from compass_ray.config import RunConfig
from compass_ray.continual.recluster import recluster
from compass_ray.monitoring.cluster_assigner import PromptAssigner, make_assigner_loader
from compass_ray.monitoring.language_monitor import Phase
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Observation
from compass_ray.monitoring.window_store import read_window
from tests.unit.clustering.versions.made_run import WORDS, Embedder, config_of, encode, prompts_of, write_window

pytestmark = pytest.mark.usefixtures("inline")

ASKED = prompts_of(WORDS[:2], 20, seed=7000)
NEW = prompts_of(WORDS[4:], 20, seed=8000)


def _monitor(run: RunDir, config: RunConfig) -> TrafficMonitor:
    assigner = PromptAssigner(Embedder(), ClusterSpace(read_active(run).name), make_assigner_loader(run))
    return TrafficMonitor(run, config, assigner, lambda: 1000.0)


def _ask(monitor: TrafficMonitor, prompts: Sequence[str], language: str = "sw", start: int = 0) -> None:
    seen = [Observation(f"{language}{start + i}", language, p, "v0001", 0.5, 900.0 + i) for i, p in enumerate(prompts)]
    assert monitor.record(seen).stored == len(prompts)


def _recluster(run: RunDir, config: RunConfig) -> None:
    """Fit and activate another clustering."""
    entries = [
        {"language": "de", "row_id": f"p{i}", "prompt": p, "cluster": 0, "coarse": 0, "time": float(i)} for i, p in enumerate(NEW)
    ]
    write_window(run, "de", entries, "windows/de-000000020.parquet")
    assert recluster(config, run).changed


def _labels(run: RunDir, name: str, prompts: Sequence[str]) -> list[int]:
    with run.reclustering(name).local_folder() as folder:
        return load_clusterer(folder).assign(encode(prompts)).tolist()


def _window(monitor: TrafficMonitor, language: str = "sw") -> list[int]:
    return [entry["cluster"] for entry in monitor.log.language_state(language).window]


def _state(monitor: TrafficMonitor) -> dict[str, Any]:
    return {code: watch.snapshot() for code, watch in monitor.log.states.items()}


@pytest.fixture
def live(run: RunDir) -> RunDir:
    registry.promote(run, "sw", "v0001")
    return run


@pytest.mark.parametrize("retention", ["text", "embedding"])
def test_a_window_is_reassigned_from_its_retained_data(live: RunDir, retention: str) -> None:
    config = config_of(retention=retention)
    monitor = _monitor(live, config)
    _ask(monitor, ASKED)
    assert _window(monitor) == _labels(live, INITIAL_CLUSTERING, ASKED)
    _recluster(live, config)
    monitor.sync_clusters()
    assert _window(monitor) == _labels(live, "c0002", ASKED)
    assert monitor.log.language_state("sw").space_id == "c0002"
    fine = live.reclustering("c0002").read_array("coarse.npy")
    assert [entry["coarse"] for entry in monitor.log.language_state("sw").window] == fine[_window(monitor)].tolist()


@pytest.mark.parametrize("retention", ["none", "hash"])
def test_a_window_without_retained_data_is_emptied_and_fills_again(live: RunDir, retention: str) -> None:
    config = config_of(retention=retention)
    monitor = _monitor(live, config)
    _ask(monitor, ASKED)
    _recluster(live, config)
    monitor.sync_clusters()
    assert _window(monitor) == []
    _ask(monitor, ASKED[:5], start=20)
    assert _window(monitor) == _labels(live, "c0002", ASKED[:5])
    assert monitor.status()["languages"]["sw"]["prompts"] == 25


def test_checks_compare_window_and_reference_in_the_new_clusters(live: RunDir, config: RunConfig) -> None:
    monitor = _monitor(live, config)
    _ask(monitor, ASKED)
    _recluster(live, config)
    monitor.sync_clusters()
    _ask(monitor, prompts_of(WORDS[:2], 20, seed=9000), start=20)
    checks = [line for line in jsonl_log.read(live, "checks.jsonl") if line["language"] == "sw"]
    assert [line["prompts"] for line in checks] == [20, 30, 40]
    assert checks[-1]["divergence"] == pytest.approx(0.0, abs=1e-6)  # half of the prompts in each


def test_a_monitor_killed_at_any_moment_has_the_same_state_again(live: RunDir, config: RunConfig) -> None:
    monitor = _monitor(live, config)
    _ask(monitor, ASKED)
    _ask(monitor, ASKED[:7], "de")
    _recluster(live, config)
    monitor.sync_clusters()
    _ask(monitor, ASKED[7:12], start=40)
    before = _state(monitor)
    again = _monitor(live, config)
    assert _state(again) == before
    again.sync_clusters()  # no change
    assert _state(again) == before
    again.log.compact()
    assert _state(_monitor(live, config)) == before


def test_a_monitor_killed_before_reassignment_does_it_with_the_next_prompt(live: RunDir, config: RunConfig) -> None:
    _ask(_monitor(live, config), ASKED)
    _recluster(live, config)
    again = _monitor(live, config)
    _ask(again, ASKED[:1], start=20)
    assert _window(again) == _labels(live, "c0002", [*ASKED[1:], ASKED[0]])


def test_a_ready_window_is_stored_in_the_new_clusters(live: RunDir, config: RunConfig) -> None:
    monitor = _monitor(live, config)
    _ask(monitor, prompts_of(WORDS[2:4], 40, seed=100))
    _ask(monitor, prompts := prompts_of(WORDS[2:4], 20, seed=200), start=40)
    [offered] = monitor.ready()
    assert set(read_window(live, offered)["place"].to_pylist()) == {INITIAL_CLUSTERING}
    _recluster(live, config)
    monitor.sync_clusters()
    [again] = monitor.ready()
    assert again.file != offered.file  # a window is identified by its file
    found = read_window(live, again)
    assert set(found["place"].to_pylist()) == {"c0002"}
    assert Counter(found["cluster"].to_pylist()) == Counter(_labels(live, "c0002", found["prompt"].to_pylist()))
    assert set(found["prompt"].to_pylist()) <= {*prompts, *prompts_of(WORDS[2:4], 40, seed=100)}


def test_a_ready_window_without_retained_data_is_collected_again(live: RunDir) -> None:
    config = config_of(retention="none")
    monitor = _monitor(live, config)
    _ask(monitor, prompts_of(WORDS[2:4], 60, seed=100))
    assert monitor.ready()
    _recluster(live, config)
    monitor.sync_clusters()
    assert monitor.ready() == []
    assert monitor.log.language_state("sw").phase is Phase.COLLECTING
    _ask(monitor, prompts_of(WORDS[2:4], 19, seed=300), start=60)
    assert monitor.ready() == []
    _ask(monitor, prompts_of(WORDS[2:4], 1, seed=400), start=79)
    assert len(monitor.ready()) == 1


def test_a_missing_clustering_does_not_stop_traffic(live: RunDir, config: RunConfig) -> None:
    _recluster(live, config)
    (Path(live.reclustering("c0002").path) / "clusterer.npz").write_bytes(b"damaged")
    assigner = PromptAssigner(Embedder(), ClusterSpace(INITIAL_CLUSTERING), make_assigner_loader(live))
    monitor = TrafficMonitor(live, config, assigner, lambda: 1000.0)
    _ask(monitor, ASKED)
    assert _window(monitor) == _labels(live, INITIAL_CLUSTERING, ASKED)
    assert monitor.log.recent_checks == {}  # no comparison across clusterings


def write_moved_version(run: RunDir, version: str, eta: float) -> KMeansClusterer:
    """Write a version whose update moved the centroids to the window, as training does."""
    with run.clusters.local_folder() as folder:
        fitted = load_clusterer(folder)
    assert isinstance(fitted, KMeansClusterer)
    moved = CentroidUpdate.from_window(fitted, encode(NEW), eta)
    coarse = run.clusters.read_array("coarse.npy")
    writer = run.adapter("sw", version).begin(Identity("train", run.adapter("sw", "v0001").require().config | {"v": version}, {}))
    writer.write_bytes("adapter_model.safetensors", version.encode())
    counts = np.bincount(coarse, weights=moved.counts[:-1], minlength=coarse.max() + 2).astype(int).tolist()
    writer.write_json("reference.json", {"clusters": INITIAL_CLUSTERING, "guide_counts": counts, "selected_counts": counts})
    writer.write_array("centres.npy", moved.centres)
    writer.write_array("centroids.npy", moved.centroids)
    writer.publish()
    return fitted.with_centroids(moved.centres, moved.centroids)


def test_only_one_language_uses_the_centroids_of_its_live_version(live: RunDir, config: RunConfig) -> None:
    moved = write_moved_version(live, "v0002", 0.9)
    border = prompts_of(["maji lugha", "mlima fedha", "maji", "lugha"], 20, seed=50)
    assert (moved.assign(encode(border)) != np.array(_labels(live, INITIAL_CLUSTERING, border))).any()
    monitor = _monitor(live, config)
    _ask(monitor, border)
    registry.promote(live, "sw", "v0002")
    monitor.reset_reference("sw", "v0002")
    _ask(monitor, border[:10], start=20)
    _ask(monitor, border, "de")
    assert _window(monitor) == moved.assign(encode([*border[10:], *border[:10]])).tolist()
    assert _window(monitor, "de") == _labels(live, INITIAL_CLUSTERING, border)
    registry.roll_back(live, "sw")
    _ask(monitor, border, start=30)  # the check of these prompts detects the rollback
    monitor.sync_clusters()
    assert _window(monitor) == _labels(live, INITIAL_CLUSTERING, border)


def test_a_window_and_a_reference_with_different_centroids_are_not_compared(live: RunDir, config: RunConfig) -> None:
    monitor = _monitor(live, config)
    _ask(monitor, ASKED)
    write_moved_version(live, "v0002", 0.9)
    registry.promote(live, "sw", "v0002")
    _ask(monitor, ASKED[:10], start=20)
    assert monitor.log.language_state("sw").version == "v0002"
    assert [line["prompts"] for line in jsonl_log.read(live, "checks.jsonl")] == [20]
    _ask(monitor, ASKED[:10], start=30)
    assert [line["version"] for line in jsonl_log.read(live, "checks.jsonl")] == ["v0001", "v0002"]


def test_a_re_clustering_drops_moved_centroids(live: RunDir, config: RunConfig) -> None:
    write_moved_version(live, "v0002", 0.9)
    registry.promote(live, "sw", "v0002")
    monitor = _monitor(live, config)
    _ask(monitor, ASKED[:3])
    assert monitor.log.language_state("sw").space_id.startswith("clusters:")
    run_before = read_active(live)
    _clusters_copied(live)
    set_active(live, run_before, "c0002", reason="stale")
    monitor.sync_clusters()
    assert monitor.log.language_state("sw").space_id == "c0002"
    assert _window(monitor) == _labels(live, "c0002", ASKED[:3])


def _clusters_copied(run: RunDir) -> None:
    """A complete clustering of the same rows."""
    writer = run.reclustering("c0002").begin(Identity("cluster", {}, dict(run.clusters.require().inputs)))
    for file in run.clusters.files():
        writer.write_bytes(file, run.clusters.read_bytes(file))
    writer.publish({"clusters": 4, "noise_share": 0.0})


def test_a_temporary_storage_error_leaves_the_window_unchanged(
    live: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = _monitor(live, config)
    _ask(monitor, ASKED)
    _recluster(live, config)
    with monkeypatch.context() as patch:
        patch.setattr(monitor.reassigner.assigner, "preload", _away)
        monitor.sync_clusters()
        _ask(monitor, ASKED[:3], start=20)
    assert monitor.log.language_state("sw").space_id == INITIAL_CLUSTERING
    assert _window(monitor) == _labels(live, INITIAL_CLUSTERING, [*ASKED[3:], *ASKED[:3]])
    monitor.sync_clusters()
    assert _window(monitor) == _labels(live, "c0002", [*ASKED[3:], *ASKED[:3]])


def _away(place: ClusterSpace) -> None:
    raise OSError("the store is away")


def test_texts_that_the_encoder_rejects_are_removed_from_the_window(
    live: RunDir, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = _monitor(live, config)
    _ask(monitor, ASKED)
    _recluster(live, config)
    with monkeypatch.context() as patch:
        patch.setattr(monitor.reassigner.assigner, "embed", _away)
        monitor.sync_clusters()
    assert (_window(monitor), monitor.log.language_state("sw").space_id) == ([], "c0002")
    _ask(monitor, ASKED[:3], start=20)
    assert _window(monitor) == _labels(live, "c0002", ASKED[:3])

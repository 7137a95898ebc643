"""The window of an update in the cluster space of its parent version, and the centroids that it moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir, jsonl_log
from compass_ray.clustering.kmeans import KMeansClusterer
from compass_ray.clustering.versions import (
    INITIAL_CLUSTERING,
    ClusterSpace,
    TrainedRows,
    load_space_clusterer,
    read_active,
    set_active,
)
from compass_ray.config import ConfigError, RunConfig, with_overrides
from compass_ray.continual.update.spec import UpdateSpec
from compass_ray.continual.update.window_clusters import ClusteredWindow, cluster_window
from compass_ray.continual.update.windows import Window, load_ready_window, read_window
from compass_ray.monitoring.observations import WindowReady
from compass_ray.monitoring.retained_traffic import Encode
from tests.unit.clustering.versions.made_run import encode, prompts_of, write_window

UPDATE = UpdateSpec("sw", "v0001", "v0002", "abc")
FILE = "windows/sw-000000020.parquet"
ASKED = prompts_of(["maji lugha", "mlima", "bahari fedha"], 20, seed=600)


def _no_model(prompts: object) -> np.ndarray:
    raise AssertionError("no text had to be embedded")


def _window(run: RunDir, place: str | None = None, *, kept: int = 20, clusters: list[int] | None = None) -> Window:
    """The monitor's window: the texts of the last ``kept`` prompts, in clusters of a space."""
    labels = clusters or load_space_clusterer(run, ClusterSpace(INITIAL_CLUSTERING)).assign(encode(ASKED)).tolist()
    entries = [
        {"row_id": f"p{i}", "cluster": label, "coarse": 0, "time": float(i), **({"prompt": prompt} if i >= 20 - kept else {})}
        for i, (label, prompt) in enumerate(zip(labels, ASKED, strict=True))
    ]
    write_window(run, "sw", entries, FILE, place)
    return load_ready_window(run, WindowReady("sw", FILE, 20, "v0001"))


def _placed(
    config: RunConfig, run: RunDir, window: Window, with_: Encode = encode, name: str = INITIAL_CLUSTERING
) -> ClusteredWindow:
    return cluster_window(config, run, window, UPDATE, name, with_)


def test_without_eta_the_window_is_as_it_was_collected_and_nothing_is_embedded(run: RunDir, config: RunConfig) -> None:
    window = _window(run)
    found = _placed(config, run, window, _no_model)
    assert (found.labels.tolist(), found.centroid_update, found.centroids_note) == (list(window.clusters), None, "as fitted")


def test_with_eta_centroids_move_by_equation_two_and_count_the_window(run: RunDir, config: RunConfig) -> None:
    window, fitted = _window(run), load_space_clusterer(run, ClusterSpace(INITIAL_CLUSTERING))
    found = _placed(with_overrides(config, ["update.centroid_step=0.4"]), run, window)
    assert isinstance(fitted, KMeansClusterer)
    assert found.centroid_update is not None
    vectors, labels = encode(ASKED), np.array(window.clusters)
    for k, centre in enumerate(fitted.centres):
        mine = vectors[labels == k]
        expected = 0.6 * centre + 0.4 * mine.mean(axis=0) if len(mine) else centre
        np.testing.assert_allclose(found.centroid_update.centres[k], expected, atol=1e-6)
    nearest = np.linalg.norm(vectors[:, None] - found.centroid_update.centres[None], axis=2).argmin(1)
    assert found.centroid_update.counts.tolist() == [*np.bincount(nearest, minlength=4).tolist(), 0]
    assert found.labels.tolist() == list(window.clusters)  # selection uses the space of the parent version
    assert found.centroids_note == "moved by 0.4 to 20 prompts"


@pytest.mark.parametrize("kept", [9, 0])
def test_centroids_do_not_move_if_too_little_of_the_window_is_retained(run: RunDir, config: RunConfig, kept: int) -> None:
    found = _placed(with_overrides(config, ["update.centroid_step=0.4"]), run, _window(run, kept=kept))
    fitted = load_space_clusterer(run, ClusterSpace(INITIAL_CLUSTERING))
    assert found.centroid_update is not None
    np.testing.assert_array_equal(found.centroid_update.centroids, fitted.centroids)
    assert found.centroid_update.counts[:-1].tolist() == np.bincount(found.labels, minlength=4).tolist()
    assert found.centroids_note == "those of the parent version: too little of the window is retained to move them"


def test_the_move_of_the_centroids_is_recorded(run: RunDir, config: RunConfig) -> None:
    window = _window(run)
    writer = run.selection("v0002", "sw").begin(Identity("update", {}, {}))
    _placed(with_overrides(config, ["update.centroid_step=0.4"]), run, window).store(writer, window)
    writer.publish()
    made = run.selection("v0002", "sw")
    assert made.read_json("window.json") == {
        "file": FILE,
        "prompts": 20,
        "place": INITIAL_CLUSTERING,
        "centroids": "moved by 0.4 to 20 prompts",
    }
    assert sum(made.read_json("moved_counts.json")) == 20
    assert {"centres.npy", "centroids.npy"} <= set(made.files())


def test_a_window_of_another_clustering_is_re_assigned(run: RunDir, config: RunConfig) -> None:
    _same_again(run)
    found = _placed(config, run, _window(run, INITIAL_CLUSTERING, kept=14, clusters=[1] * 20), name="c0002")
    assert found.labels.tolist() == load_space_clusterer(run, ClusterSpace("c0002")).assign(encode(ASKED[6:])).tolist()


def test_a_window_of_another_clustering_that_retains_too_little_is_rejected(run: RunDir, config: RunConfig) -> None:
    _same_again(run)
    with pytest.raises(ConfigError, match=r"recorded with clustering clusters, but c0002 is active\. Only 3 of its 20"):
        _placed(config, run, _window(run, kept=3), name="c0002")


def test_a_window_of_noise_is_rejected(run: RunDir, config: RunConfig) -> None:
    window = replace(_window(run), clusters=(-1,) * 20)
    with pytest.raises(ConfigError, match="All 20 prompts of the window of sw are noise in clustering clusters"):
        _placed(with_overrides(config, ["update.centroid_step=0.4"]), run, window)


def test_a_window_from_the_log_has_its_space_too(run: RunDir, config: RunConfig) -> None:
    registry.promote(run, "sw", "v0001")
    prompt = {
        "event": "prompt",
        "id": "a",
        "language": "sw",
        "cluster": 2,
        "coarse": 2,
        "version": None,
        "nll": None,
        "time": 1.0,
    }
    moved = {"event": "recluster", "language": "sw", "place": "c0002", "assigned": [{"cluster": 1, "coarse": 1, "distance": 0.5}]}
    jsonl_log.append(run, "traffic.jsonl", [prompt, moved])
    found = read_window(run, config, "sw", None)
    assert (found.space_id, found.clusters, found.file) == ("c0002", (1,), None)


def test_rows_selected_in_other_clusters_are_counted_by_their_ids(run: RunDir, config: RunConfig) -> None:
    _same_again(run, shift=1)
    first = run.selection("compass", "sw")
    stored = TrainedRows.read(config, [first], run.reclustering(INITIAL_CLUSTERING))
    there = TrainedRows.read(config, [first], run.reclustering("c0002"))
    assert there.row_ids == stored.row_ids
    assert there.clusters.tolist() == ((stored.clusters + 1) % 4).tolist()
    np.testing.assert_array_equal(there.held_out, stored.held_out)  # held-out rows do not depend on the clusters


def _same_again(run: RunDir, shift: int = 0) -> None:
    """Activate another clustering, with the same clusters but numbers shifted by ``shift``."""
    writer = run.reclustering("c0002").begin(Identity("cluster", {}, dict(run.clusters.require().inputs)))
    for file in run.clusters.files():
        writer.write_bytes(file, run.clusters.read_bytes(file))
    rows = run.clusters.map_table("assignments.arrow")
    at = rows.schema.get_field_index("cluster")
    moved = pa.array((rows["cluster"].to_numpy() + shift) % 4, pa.int32())
    writer.write_mappable("assignments.arrow", rows.set_column(at, rows.schema.field(at), moved))
    writer.publish({"clusters": 4, "noise_share": 0.0})
    set_active(run, read_active(run), "c0002", reason="stale")

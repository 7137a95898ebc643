"""Cluster cards: counts, nearest cluster and shares equal those of the source tables."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError
from compass_ray.report.cluster_cards import build_cluster_card
from compass_ray.report.explain import UnknownRowError, explain_row
from compass_ray.report.page import build_report
from tests.unit.fakes import record_contents


def test_a_card_shows_the_clustering_s_record_and_each_language_s_counts(run: RunDir) -> None:
    card = build_cluster_card(run, 9)
    assert card.cluster.subject == "subject 1"
    assert card.quotas["hi"].n_eval == 20
    assert list(card.quotas) == list(card.shares) == ["sw", "hi", "ar", "am"]
    assert card.coarse_with == (8,)
    assert card.pool_share == pytest.approx(69 / 600)


def test_shares_are_counts_over_counts(run: RunDir) -> None:
    made = run.selection("compass", "hi").read_json("allocation.json")
    shares = build_cluster_card(run, 2).shares["hi"]
    own = sum(c["n_target"] for c in made["clusters"]) + made["noise"]["target"]
    added = sum(c["selected"] for c in made["clusters"])
    assert shares.own == pytest.approx(20 / own)
    assert shares.trained == pytest.approx(25 / (own + added))


@pytest.mark.parametrize("cluster", [0, 9, 15])
def test_the_nearest_other_cluster_is_that_of_all_centroids(run: RunDir, cluster: int) -> None:
    centroids = run.clusters.read_array("centroids.npy").astype(np.float64)
    distances = {
        k: 1 - float(other @ centroids[cluster] / np.linalg.norm(other) / np.linalg.norm(centroids[cluster]))
        for k, other in enumerate(centroids)
        if k != cluster
    }
    nearest = build_cluster_card(run, cluster).nearest
    assert nearest is not None
    assert nearest.cluster == min(distances, key=lambda k: distances[k])
    assert nearest.distance == pytest.approx(min(distances.values()), abs=1e-5)


def test_noise_has_a_card_of_its_own(run: RunDir) -> None:
    rows = run.clusters.map_table("assignments.arrow")
    labels = np.where(np.arange(rows.num_rows) % 10 == 0, -1, rows["cluster"].to_numpy())
    noise = Counter(code for code, label in zip(rows["language"].to_pylist(), labels, strict=True) if label < 0)
    changed = rows.set_column(5, schemas.ASSIGNMENTS.field("cluster"), pa.array(labels, pa.int32()))
    run.clusters.store_mappable("assignments.arrow", changed)
    record_contents(run.clusters)
    card = build_cluster_card(run, -1)
    assert dict(card.cluster.languages) == dict(noise)
    assert card.cluster.size == 60
    assert card.nearest is None
    assert card.quotas["sw"].n_eval == 4
    assert card.lines()[0] == "noise (-1): 60 pool rows (10.0% of the pool) in no cluster; COMPASS never selects them"


def test_a_card_reads_as_lines(run: RunDir) -> None:
    lines = build_cluster_card(run, 9).lines()
    assert lines[0] == "cluster 9: 69 pool rows (11.5% of the pool), mostly subject 1"
    assert lines[1] == "coarse cluster 4, with 8"
    assert any(line.startswith("Hindi (hi): 20 guide prompts (") and " 0 own rows (0.0%), 5 added; " in line for line in lines)
    assert lines[-4] == "most central rows:"
    assert lines[-3].startswith("  ar-own-9 ar: ")


def test_unknown_clusters_and_methods_list_existing_ones(run: RunDir, empty: RunDir) -> None:
    with pytest.raises(UnknownRowError, match="cluster 99 does not exist; existing clusters: 0 to 15; noise: -1"):
        build_cluster_card(run, 99)
    with pytest.raises(ConfigError, match=r"no selection of method 'dsir'; existing methods: compass"):
        build_cluster_card(run, 9, "dsir")
    with pytest.raises(ArtifactError, match="no clustering"):
        build_cluster_card(empty, 0)


@pytest.fixture
def own_clusters(run: RunDir) -> RunDir:
    """The run with separate clusters for each language."""
    config = run.read_config()
    run.write_config(config.model_copy(update={"cluster": config.cluster.model_copy(update={"scope": "per_language"})}))
    for code in config.languages:
        shutil.copytree(run.clusters.path, run.clustering(code).path)
    run.clusters.remove()
    return run


def test_where_languages_have_their_own_clusters_the_card_is_of_one(own_clusters: RunDir) -> None:
    card = build_cluster_card(own_clusters, 9, language="hi")
    assert list(card.quotas) == ["hi"]
    assert card.cluster.size == 69
    with pytest.raises(ConfigError, match="for example --cluster sw:0"):
        build_cluster_card(own_clusters, 9)


def test_where_languages_have_their_own_clusters_a_row_is_explained_by_its_own(own_clusters: RunDir) -> None:
    assert explain_row(own_clusters, "sw", "bul-own-99").cluster == (4 * 100 + 99) % 16


def test_where_languages_have_their_own_clusters_the_page_shows_each_sweep(own_clusters: RunDir) -> None:
    config = own_clusters.read_config().model_copy(update={"languages": ("sw", "hi")})
    build_report(own_clusters, config)
    page = own_clusters.report.read_bytes("index.html").decode()
    assert "Clustering by HDBSCAN (Hindi (hi)) on cpu" in page
    assert "Cluster 9 of Swahili (sw): mostly subject 1" in page

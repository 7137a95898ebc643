"""Explanations of rows: they restate the selection's numbers, and neighbours equal those of a search over all pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from compass_ray import schemas
from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.config import ConfigError
from compass_ray.languages import UnknownLanguageError
from compass_ray.report import explain_text, nearest_rows
from compass_ray.report.explain import UnknownRowError, explain_row
from compass_ray.report.nearest_rows import find_neighbours, locate_row

TAU = 0.9
Publish = Callable[..., None]


def all_pairs(run: RunDir, row_id: str, language: str, test_question: str) -> tuple[list[str], list[str]]:
    """Suppressed and drawn neighbours of a row, nearest first, by comparing every row of the pool with every other."""
    rows = run.clusters.map_table("assignments.arrow").to_pylist()
    vectors = np.asarray(run.clusters.map_array("vectors.npy"), np.float64)
    cosines = (vectors @ vectors.T) / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    prompts = {r["row_id"]: r["prompt"] for r in run.pool.read_table("rows.parquet").to_pylist()}
    chosen = set(run.selection("compass", language).read_table("rows.parquet")["row_id"].to_pylist())
    position = next(i for i, row in enumerate(rows) if row["row_id"] == row_id)
    found = [
        (cosines[position, i], row["row_id"])
        for i, row in enumerate(rows)
        if i != position
        and row["cluster"] == rows[position]["cluster"]
        and row["language"] != language
        and cosines[position, i] > TAU
        if prompts[row["row_id"]] != test_question
    ]
    ordered = [name for _, name in sorted(found, reverse=True)]
    return [name for name in ordered if name not in chosen], [name for name in ordered if name in chosen]


def test_drawn_row(run: RunDir) -> None:
    chosen = run.selection("compass", "sw").read_table("rows.parquet").to_pylist()
    row = next(r for r in chosen if r["role"] == "auxiliary" and r["order"] == 20)
    found = explain_row(run, "sw", row["row_id"])
    quota = next(
        c for c in run.selection("compass", "sw").read_json("allocation.json")["clusters"] if c["cluster"] == row["cluster"]
    )
    gap, draw = found.sentences[:2]
    assert found.chosen
    assert found.source_language == row["language"]
    assert f"Cluster {row['cluster']} has {quota['n_eval']} guide prompts" in gap
    assert f"its quota is {quota['quota']} of the 80 rows" in gap
    assert "number 21 of 5 in its cluster. Scores:" in draw
    assert "prototype score 0.820, boundary score 0.310" in draw


def test_own_row(run: RunDir) -> None:
    found = explain_row(run, "sw", "sw-own-3")
    assert found.chosen
    assert found.sentences[1] == "It is one of the language's own rows. All of them are used."


def test_candidate_that_was_not_selected(run: RunDir) -> None:
    found = explain_row(run, "sw", "bul-own-99")
    assert not found.chosen
    assert "It was a candidate but was not selected: 5 of " in found.sentences[1]


def test_row_of_a_cluster_without_weight(run: RunDir) -> None:
    assignments = run.clusters.map_table("assignments.arrow").to_pylist()
    row_id = next(r["row_id"] for r in assignments if r["cluster"] == 0 and r["row_id"].startswith("bul-own-9"))
    assert "weight 0" in explain_row(run, "sw", row_id).sentences[1]


def test_neighbours_are_those_of_a_search_over_all_pairs(run: RunDir, evil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_rows, "_BLOCK_ROWS", 7)
    chosen = run.selection("compass", "sw").read_table("rows.parquet").to_pylist()
    counts = []
    for row in [r for r in chosen if r["role"] == "auxiliary"][::8]:
        found = explain_row(run, "sw", row["row_id"]).neighbours
        suppressed, drawn = all_pairs(run, row["row_id"], "sw", evil)
        assert found is not None
        assert (found.suppressed, found.drawn) == (len(suppressed), len(drawn))
        assert [each.row_id for each in found.closest_suppressed] == suppressed[:3]
        assert [each.row_id for each in found.closest_drawn] == drawn[:3]
        counts.append((len(suppressed), len(drawn)))
    assert max(counts)[0] > 3
    assert max(d for _, d in counts) > 0


def test_only_the_rows_of_the_cluster_are_read(run: RunDir) -> None:
    read: list[int] = []

    class RecordingArray(np.ndarray[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            read.extend(np.atleast_1d(key).tolist())
            return np.asarray(self)[key]

    location = locate_row(run.clusters, "hi-own-7")
    assert location is not None
    stored = np.asarray(run.clusters.map_array("vectors.npy")).view(RecordingArray)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.clusters), "map_array", lambda artifact, file: stored)
        find_neighbours(run, location, "sw", drawn=(), tau=TAU, delta=0.1)
    clusters = run.clusters.map_table("assignments.arrow")["cluster"].to_pylist()
    assert sorted(read) == [i for i, cluster in enumerate(clusters) if cluster == location.cluster]


def test_suppressed_neighbours_are_listed_with_language_and_text(run: RunDir) -> None:
    chosen = run.selection("compass", "sw").read_table("rows.parquet").to_pylist()
    explanations = (explain_row(run, "sw", row["row_id"]) for row in chosen if row["role"] == "auxiliary")
    found = next(each for each in explanations if each.neighbours and each.neighbours.suppressed > 3)
    near = found.neighbours
    assert near is not None
    first = near.closest_suppressed[0]
    counts = f"(cosine > 0.9): {near.drawn} selected, {near.suppressed} not selected."
    penalty = f" Selecting this row lowered the score of those {near.suppressed} by {near.delta:g} each." if near.delta else ""
    assert f"Near duplicates in the same cluster {counts}{penalty}" in found.lines()
    assert f"  cosine {first.cosine:.3f}, {first.language}: {explain_text.shorten(first.prompt)}" in found.lines()


def test_the_nearest_guide_prompt_is_that_of_a_plain_search(run: RunDir) -> None:
    found = explain_row(run, "hi", "bul-own-42").guide
    rows = run.clusters.map_table("assignments.arrow")["row_id"].to_pylist()
    vector = np.asarray(run.clusters.map_array("vectors.npy"), np.float64)[rows.index("bul-own-42")]
    cosines = [
        float(guide @ vector / np.linalg.norm(vector) / np.linalg.norm(guide))
        for guide in run.guide_embeddings("hi").read_embeddings().astype(np.float64)
    ]
    assert found is not None
    assert found.prompt == f"hi guide {int(np.argmax(cosines))}?"
    assert found.cosine == pytest.approx(max(cosines), abs=1e-5)


def test_shares_are_counts_over_counts(run: RunDir) -> None:
    made = run.selection("compass", "sw").read_json("allocation.json")
    found = explain_row(run, "sw", "bul-own-42")
    cluster = next(c for c in made["clusters"] if c["cluster"] == found.cluster)
    guides = sum(c["n_eval"] for c in made["clusters"]) + made["noise"]["guide"]
    assert found.shares is not None
    assert found.shares.guide == pytest.approx(cluster["n_eval"] / guides)


def as_method(run: RunDir, publish: Publish, method: str, **row: Any) -> str:
    """Publish one row added by another method; returns its row_id."""
    made = run.selection("compass", "sw").read_json("allocation.json") | {"method": method}
    made |= {"transfer": {"languages": ["ar", "hi", "am"], "similarity": [0.9, 0.875, 0.8]}}
    added = {"row_id": "hi-own-5", "role": "auxiliary", "language": "hi", "cluster": 9, "order": 0, "weight": 1.0, **row}
    rows = pa.Table.from_pylist([added], schema=schemas.SELECTED)
    publish(run.selection(method, "sw"), {"rows.parquet": rows, "allocation.json": made})
    return "hi-own-5"


@pytest.mark.parametrize(
    ("method", "score", "reason"),
    [
        ("random", 1.0, "drawn at random. All 790 candidates had the same probability"),
        (
            "langsim",
            0.875,
            "number 2 of the 3 languages most similar to Swahili (sw) by typological features. Similarity: 0.875",
        ),
        ("langrank", 0.5, "a row of Hindi (hi), number 2 of the 3 languages that the trained ranker put first for Swahili (sw)"),
        (
            "dsir",
            12.25,
            "in the guide set relative to the candidates. Log weight: 12.25",
        ),
        ("nearest", 0.75, "most similar to a guide prompt. Cosine: 0.75"),
        ("round_robin", 0.75, "in its turn: the most similar candidate that no prompt had taken. Cosine: 0.75"),
        ("oracle", 0.75, "within its subject, as COMPASS draws within a cluster"),
        ("quantile_2", 0.75, "at random from fifth 2 of the candidates by distance to the nearest guide prompt"),
        ("all", None, "uses the complete pool"),
        ("another", 0.25, "selected with a score of 0.25"),
    ],
)
def test_other_methods_state_their_criterion(
    run: RunDir, publish: Publish, method: str, score: float | None, reason: str
) -> None:
    found = explain_row(run, "sw", as_method(run, publish, method, score=score), method)
    assert reason in found.sentences[1]
    assert found.neighbours is None
    assert f"by {method}" in found.lines()[0]


def test_a_row_of_the_placebo_is_explained_by_its_permuted_quota(run: RunDir, publish: Publish) -> None:
    found = explain_row(run, "sw", as_method(run, publish, "placebo", score=0.5), "placebo")
    assert found.quota is not None
    assert f"Cluster 9 has the quota {found.quota.quota} of the 80 rows to add, by a random permutation" in found.sentences[0]
    assert "Its gap has no influence." in found.sentences[0]
    assert "It was selected as number 1 of" in found.sentences[1]


def test_a_selection_for_all_languages_is_explained_by_the_languages_part(run: RunDir, publish: Publish) -> None:
    part = run.selection("compass", "sw").read_json("allocation.json") | {"method": "all"}
    combined = part | {"language": "shared", "js_before": 0.5, "by_language": {"sw": part}}
    row = {"row_id": "hi-own-5", "role": "target", "language": "hi", "cluster": 9, "order": -1, "weight": 1.0}
    rows = pa.Table.from_pylist([row], schema=schemas.SELECTED)
    publish(run.selection("all", "sw"), {"rows.parquet": rows, "allocation.json": combined})
    found = explain_row(run, "sw", "hi-own-5", "all")
    assert found.sentences[1] == "The method uses the complete pool."
    assert found.quota is not None
    assert found.quota.n_eval == next(c["n_eval"] for c in part["clusters"] if c["cluster"] == found.cluster)


def test_a_row_that_another_method_did_not_select(run: RunDir, publish: Publish) -> None:
    as_method(run, publish, "random")
    assert "random added 80 of 790 candidates" in explain_row(run, "sw", "hi-own-6", "random").sentences[1]


def test_a_row_used_again_has_a_weight_for_each_use(run: RunDir, publish: Publish) -> None:
    rows = run.selection("compass", "sw").read_table("rows.parquet")
    repeated = rows.slice(rows.num_rows - 1).set_column(9, schemas.SELECTED.field("weight"), pa.array([0.5], pa.float32()))
    made = run.selection("compass", "sw").read_json("allocation.json")
    publish(run.selection("compass", "sw"), {"rows.parquet": pa.concat_tables([rows, repeated]), "allocation.json": made})
    found = explain_row(run, "sw", repeated["row_id"][0].as_py())
    assert found.uses == (1.0, 0.5)
    assert "It is used 2 times, with weights 1, 0.5, because its cluster has too few candidates." in found.sentences


def test_noise_is_not_a_candidate(run: RunDir, publish: Publish) -> None:
    files = {name: run.clusters.map_array(name) for name in ("vectors.npy", "centroids.npy")}
    rows = run.clusters.map_table("assignments.arrow")
    noise = rows.set_column(5, schemas.ASSIGNMENTS.field("cluster"), pa.array([-1] * rows.num_rows, pa.int32()))
    arrays = {name: np.array(array) for name, array in files.items()}
    publish(run.clusters, {"assignments.arrow": noise, "sweep.json": run.clusters.read_json("sweep.json"), **arrays})
    found = explain_row(run, "sw", "bul-own-99")
    assert found.sentences[0].startswith("The row is noise")
    assert found.neighbours is None


@pytest.mark.parametrize("row_id", ["sw-own-1", "bul-own-1"])
def test_a_test_question_is_excluded(run: RunDir, publish: Publish, row_id: str) -> None:
    artifact = run.selection("compass", "sw")
    rows, made = artifact.read_table("rows.parquet"), artifact.read_json("allocation.json")
    without = rows.filter(pc.not_equal(rows["row_id"], row_id))
    publish(artifact, {"rows.parquet": without, "allocation.json": made})
    found = explain_row(run, "sw", row_id)
    assert found.sentences[1] == "It was excluded: its prompt is a test question of the language."
    assert found.neighbours is None


def test_unknown_languages_and_methods_list_existing_ones(run: RunDir) -> None:
    with pytest.raises(UnknownLanguageError, match="unknown language 'swahilli'"):
        explain_row(run, "swahilli", "sw-own-3")
    with pytest.raises(ConfigError, match=r"method 'dsir' for language 'sw'.*existing methods: compass"):
        explain_row(run, "sw", "sw-own-3", "dsir")


def test_errors_for_an_unknown_row_and_a_missing_selection_state_the_remedy(run: RunDir) -> None:
    with pytest.raises(UnknownRowError, match=r"'nowhere' is not in the pool.*--rows sw"):
        explain_row(run, "sw", "nowhere")
    with pytest.raises(ArtifactError, match=r"no selection of method 'compass' for language 'yo'.*adapt"):
        explain_row(run, "yo", "sw-own-3")


def test_a_users_correction_has_its_own_error(run: RunDir, publish: Publish) -> None:
    as_method(run, publish, "v0002", row_id="of-a-user", role="traffic", language="sw")
    with pytest.raises(UnknownRowError, match=r"'of-a-user' is a user's correction .* in selections/v0002/sw/labelled.parquet"):
        explain_row(run, "sw", "of-a-user", "v0002")


def test_an_explanation_has_lines_for_a_terminal(run: RunDir) -> None:
    head, prompt, *reasons = explain_row(run, "sw", "sw-own-3").lines()
    assert head == "sw-own-3, Swahili (sw), selected for Swahili (sw) by compass"
    assert prompt == "Mji mkuu wa Kenya ni upi?"
    assert len(reasons) == 3
    assert reasons[-1].startswith("Nearest guide prompt (cosine ")

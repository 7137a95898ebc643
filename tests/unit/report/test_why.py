"""Why a row was chosen: the answer restates the selection's own numbers."""

from __future__ import annotations

import pytest

from compass_ray.artifacts import ArtifactError, RunDir
from compass_ray.report.why import UnknownRowError, cluster_card, why


def test_drawn_row(run: RunDir) -> None:
    chosen = run.selection("compass", "sw").read_table("rows.parquet").to_pylist()
    row = next(r for r in chosen if r["role"] == "auxiliary" and r["order"] == 20)
    found = why(run, "sw", row["row_id"])
    quota = next(
        c for c in run.selection("compass", "sw").read_json("allocation.json")["clusters"] if c["cluster"] == row["cluster"]
    )
    gap, draw = found.sentences
    assert found.chosen
    assert found.source_language == row["language"]
    assert f"Cluster {row['cluster']} holds {quota['n_eval']} guide prompts" in gap
    assert f"quota of {quota['quota']} of the 80 rows" in gap
    assert "number 21 in the order of drawing" in draw
    assert "prototype score 0.820, boundary score 0.310" in draw


def test_own_row(run: RunDir) -> None:
    found = why(run, "sw", "sw-own-3")
    assert found.chosen
    assert found.sentences[1] == "It is one of the language's own rows, all of which are used."


def test_candidate_that_was_not_drawn(run: RunDir) -> None:
    found = why(run, "sw", "bul-own-99")
    assert not found.chosen
    assert "It was a candidate and was not drawn: 5 of " in found.sentences[1]


def test_row_of_a_cluster_without_weight(run: RunDir) -> None:
    assignments = run.clusters.read_table("assignments.parquet").to_pylist()
    row_id = next(r["row_id"] for r in assignments if r["cluster"] == 0 and r["row_id"].startswith("bul-own-9"))
    assert "without weight" in why(run, "sw", row_id).sentences[1]


def test_unknown_row_and_missing_selection_say_what_to_do(run: RunDir) -> None:
    with pytest.raises(UnknownRowError, match=r"'nowhere' is not in the pool.*rows\.parquet"):
        why(run, "sw", "nowhere")
    with pytest.raises(ArtifactError, match=r"no selection of method 'compass' for language 'yo'.*adapt"):
        why(run, "yo", "sw-own-3")


def test_cluster_card(run: RunDir) -> None:
    card = cluster_card(run, 9)
    assert card.cluster.subject == "subject 1"
    assert card.quotas["hi"].n_eval == 20
    assert list(card.quotas) == ["sw", "hi", "ar", "am"]


def test_unknown_cluster(run: RunDir, empty: RunDir) -> None:
    with pytest.raises(UnknownRowError, match="cluster 99 does not exist; the clusters are 0 to 15"):
        cluster_card(run, 99)
    with pytest.raises(ArtifactError, match="no clustering"):
        cluster_card(empty, 0)


def test_answers_read_as_lines(run: RunDir) -> None:
    head, prompt, *reasons = why(run, "sw", "sw-own-3").lines()
    assert head == "sw-own-3 (Swahili (sw)), chosen for Swahili (sw) by compass"
    assert prompt == "Mji mkuu wa Kenya ni upi?"
    assert len(reasons) == 2
    assert "Hindi (hi): 20 guide prompts, 0 own rows, 5 added." in cluster_card(run, 9).lines()

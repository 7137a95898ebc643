"""``items.parquet`` of an evaluation: lengths, identity and families of the items, for both ways of scoring."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from compass_ray import schemas
from compass_ray.core.choice_measures import measure_items
from compass_ray.models.scorer import OptionScores
from compass_ray.stages.evaluate import build_scored_table

ITEMS = pa.Table.from_pylist(
    [
        {"item_id": "1", "language": "ja", "subject": "fact_P17", "question": "a?", "options": ["é", "ab", "日本"], "answer": 2},
        {"item_id": "2", "language": "ja", "subject": None, "question": "b?", "options": ["yes", "no"], "answer": 0},
    ],
    schemas.ITEMS,
)
SCORES = OptionScores(
    means=np.array([[-3.0, -1.0, -2.0], [-1.0, -2.0, -np.inf]], np.float32),
    sums=np.array([[-3.0, -1.0, -2.0], [-1.0, -2.0, -np.inf]], np.float32),
    ends=np.array([[-0.5, -0.25, np.nan], [-0.5, -0.5, np.nan]], np.float32),
    tokens=np.array([[1, 2, 3], [1, 1, 0]], np.int32),
    truncated=np.array([True, False]),
)


def test_lists_have_one_entry_for_each_option_of_the_item() -> None:
    table = build_scored_table(ITEMS, SCORES, "option", {"fact_P17"})
    assert table.schema == schemas.SCORED
    first, second = table.to_pylist()
    assert first["log_prob_sums"] == [-3.0, -1.0, -2.0]
    assert (first["characters"], first["bytes"], first["tokens"]) == ([1, 2, 2], [2, 2, 6], [1, 2, 3])
    assert first["end_log_probs"] == [-0.5, -0.25, None]
    assert (second["log_prob_sums"], second["bytes"], second["end_log_probs"]) == ([-1.0, -2.0], [3, 2], [-0.5, -0.5])
    assert second["log_probs"] == [-1.0, -2.0, -np.inf]  # as wide as the widest item, as before
    assert [each["predicted"] for each in (first, second)] == [1, 0]
    assert [each["thinned"] for each in (first, second)] == [True, False]
    assert [each["truncated"] for each in (first, second)] == [True, False]


def test_without_training_data_no_item_is_thinned_or_not() -> None:
    assert build_scored_table(ITEMS, SCORES, "option", None)["thinned"].to_pylist() == [None, None]
    assert build_scored_table(ITEMS, SCORES, "option", ())["thinned"].to_pylist() == [False, False]


def test_a_letter_is_one_byte_long() -> None:
    first, _ = build_scored_table(ITEMS, SCORES, "letter", ()).to_pylist()
    assert first["characters"] == first["bytes"] == [1, 1, 1]


def test_items_of_a_former_version_get_their_family_from_the_subject() -> None:
    former = ITEMS.drop_columns(["sample_id", "family"])
    table = build_scored_table(former, SCORES, "option", ())
    assert (table["sample_id"].to_pylist(), table["family"].to_pylist()) == ([None, None], ["fact", None])


def test_the_identity_of_the_items_is_kept() -> None:
    named = ITEMS.set_column(6, schemas.ITEMS.field("sample_id"), pa.array(["x/1", "x/2"]))
    named = named.set_column(7, schemas.ITEMS.field("family"), pa.array(["facts", "law"]))
    table = build_scored_table(named, SCORES, "option", ())
    assert (table["sample_id"].to_pylist(), table["family"].to_pylist()) == (["x/1", "x/2"], ["facts", "law"])


def test_the_columns_are_what_the_measures_take() -> None:
    table = build_scored_table(ITEMS, SCORES, "option", ())
    lists = (table[name].to_pylist() for name in ("log_prob_sums", "characters", "bytes"))
    found = measure_items(*lists, table["answer"].to_numpy())
    assert found.accuracy_by_sum.tolist() == [0.0, 1.0]
    assert found.accuracy_by_bytes.tolist() == [1.0, 1.0]  # 日本: -2 nats on 6 bytes

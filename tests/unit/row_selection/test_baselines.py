"""Each baseline on a pool of a few rows: which rows it takes, how many, and what it says of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compass_ray.config import ConfigError, SelectConfig
from compass_ray.core.baselines.transfer_ranking import MEASURED
from compass_ray.core.selection import QUANTILE_METHODS, Method
from compass_ray.row_selection import (
    BaselineFeatures,
    MethodSelection,
    PoolTexts,
    PoolView,
    SelectionProblem,
    method_settings,
    select_by_method,
    select_for_all_languages,
)
from compass_ray.sources.typology import load_language_vectors, uriel

BASELINES = ("langrank", "langsim", "dsir", "nearest", "round_robin")
SPOKEN = ("sw", "ny", "sn", "en", "ja", "ru", "bul")
TEXT = {
    "sw": "mji mkuu wa nchi {} ni upi",
    "ny": "likulu la dziko {} ndi chiyani",
    "sn": "guta guru re {} nderipi",
    "en": "what is the capital of {}",
    "ja": "{}の首都はどこですか",
    "ru": "столица страны {}",
    "bul": "столицата на {}",
}
ROWS = 20
CLUSTERS = 3
GUIDE = np.eye(8, dtype=np.float32)[:2]


def shuffled() -> tuple[list[str], list[str], list[str]]:
    """row_id, language and prompt of every row, in the order of the pool's own table."""
    rows = [(f"{code}{i:02d}", code, TEXT[code].format(i)) for code in SPOKEN for i in range(ROWS)]
    order = np.random.default_rng(0).permutation(len(rows))
    ids, languages, prompts = zip(*(rows[i] for i in order), strict=True)
    return list(ids), list(languages), list(prompts)


def subject_of(row_id: str) -> str | None:
    """Subjects that no cluster follows; some rows have none."""
    return (None, "law", "food", "law", "art", "art", "maths")[int(row_id[-2:]) % 7]


@pytest.fixture
def pool() -> PoolView:
    ids, languages, _ = shuffled()
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(ids), 8))
    label = np.array([int(row_id[-2:]) % (CLUSTERS + 1) - 1 for row_id in ids])
    order = np.array(sorted(range(len(ids)), key=lambda i: (label[i], ids[i])))
    return PoolView(
        row_id=pa.array([ids[i] for i in order]),
        position=order.astype(np.int32),
        prompt_key=np.arange(len(ids), dtype=np.uint64),
        language=pa.array([languages[i] for i in order]).dictionary_encode(),
        subject=pa.array([subject_of(ids[i]) for i in order], pa.string()).dictionary_encode(),
        cluster=label[order].astype(np.int32),
        proto=np.full(len(ids), 0.5, np.float32),
        margin=rng.random(len(ids)).astype(np.float32),
        vectors=vectors[order].astype(np.float16),
        n_clusters=CLUSTERS,
    )


@pytest.fixture
def problem(pool: PoolView) -> SelectionProblem:
    mine = pool.language_mask("sw")
    own = np.flatnonzero(mine)
    return SelectionProblem("sw", own, pool.cluster[own].astype(np.int64), np.flatnonzero(~mine), np.array([0, 1, 2]))


@pytest.fixture
def features() -> BaselineFeatures:
    _, languages, prompts = shuffled()
    texts = PoolTexts(prompts, languages)
    return BaselineFeatures(
        lambda: ["столица страны 77", "столица страны 78"], lambda: GUIDE, lambda: texts, lambda: ["art", None, "law"]
    )


@pytest.fixture
def select(pool: PoolView, problem: SelectionProblem, features: BaselineFeatures) -> Callable[..., MethodSelection]:
    def made(method: str, seed: int = 0, **settings: Any) -> MethodSelection:
        config = SelectConfig(**{"budget": 0.75, "methods": (method,), **settings})
        return select_by_method(config, method, problem, pool, seed=seed, features=features)

    return made


def added(chosen: MethodSelection) -> list[dict[str, Any]]:
    return [row for row in chosen.rows.to_pylist() if row["role"] == "auxiliary"]


@pytest.mark.parametrize("method", BASELINES)
def test_as_many_rows_as_compass_and_the_same_under_any_clustering(
    select: Callable[..., MethodSelection], method: str, pool: PoolView, problem: SelectionProblem, features: BaselineFeatures
) -> None:
    chosen = select(method)
    assert chosen.selected == select("compass").selected == 15
    rows = added(chosen)
    assert len({row["row_id"] for row in rows}) == 15
    assert "sw" not in {row["language"] for row in rows}
    assert chosen.allocation.to_json()["method"] == method
    assert select(method).rows.equals(chosen.rows)
    order = np.argsort(pool.position)
    columns = [name for name in pool.__dataclass_fields__ if name not in ("n_clusters", "earlier_keys")]
    moved = PoolView(**{name: _moved(getattr(pool, name), order) for name in columns}, n_clusters=CLUSTERS)
    place = np.argsort(order)
    other = SelectionProblem(
        "sw", place[problem.own], problem.trained_labels, np.sort(place[problem.others]), problem.guide_labels
    )
    config = SelectConfig(budget=0.75, methods=(method,))
    again = select_by_method(config, method, other, moved, seed=0, features=features)
    assert {row["row_id"] for row in added(again)} == {row["row_id"] for row in rows}


def _moved(column: Any, order: np.ndarray) -> Any:
    return column[order] if isinstance(column, np.ndarray) else column.take(pa.array(order))


def test_nearest_takes_the_rows_most_like_a_guide_prompt(
    select: Callable[..., MethodSelection], pool: PoolView, problem: SelectionProblem
) -> None:
    vectors = pool.unit_vectors(problem.others).astype(float)
    alike = dict(zip(pool.row_id.take(pa.array(problem.others)).to_pylist(), vectors[:, :2].max(axis=1), strict=True))
    expected = sorted(alike, key=lambda row_id: -alike[row_id])[:15]
    rows = added(select("nearest"))
    assert {row["row_id"] for row in rows} == set(expected)
    assert -1 in {row["cluster"] for row in rows}, "noise may be taken"
    for row in rows:
        assert row["score"] == pytest.approx(alike[row["row_id"]], abs=1e-5)
    assert select("nearest", seed=9).rows.equals(select("nearest").rows)


def test_dsir_takes_what_reads_like_the_guide_set(select: Callable[..., MethodSelection]) -> None:
    spoken = [row["language"] for row in added(select("dsir"))]
    assert spoken.count("ru") >= 12
    assert not select("dsir", seed=1).rows.equals(select("dsir").rows)


@pytest.mark.parametrize(("k", "expected"), [(1, ["ny"]), (2, ["ny", "sn"]), (3, ["ny", "sn", "en"])])
def test_langsim_takes_rows_of_the_k_most_similar_languages(
    select: Callable[..., MethodSelection], k: int, expected: list[str]
) -> None:
    chosen = select("langsim", transfer={"languages": k})
    record = chosen.allocation.to_json()["transfer"]
    assert record["languages"][:2] == expected[:2]
    assert len(record["languages"]) == k
    assert {row["language"] for row in added(chosen)} <= set(record["languages"])
    assert record["similarity"] == sorted(record["similarity"], reverse=True)
    alike = load_language_vectors(("sw", *record["languages"])).similarity("sw")[1:]
    assert record["similarity"] == pytest.approx(alike.tolist())
    assert (record["vectors"], record["rows"]) == ("lang2vec 1.1.2", "budget")


def test_all_rows_of_the_languages_can_be_taken(select: Callable[..., MethodSelection]) -> None:
    chosen = select("langsim", transfer={"languages": 2, "rows": "all"})
    assert sorted(row["language"] for row in added(chosen)) == ["ny"] * ROWS + ["sn"] * ROWS


def test_fewer_rows_than_the_budget_are_taken_where_the_languages_have_no_more(select: Callable[..., MethodSelection]) -> None:
    chosen = select("langsim", budget=2.0, transfer={"languages": 1})
    assert chosen.selected == ROWS < sum(each["quota"] for each in chosen.allocation.to_json()["clusters"])
    assert chosen.allocation.to_json()["matched"] == {"compass": 40, "taken": ROWS}


def test_without_lang2vec_the_table_is_used_and_named(
    select: Callable[..., MethodSelection], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_language_vectors.cache_clear()
    monkeypatch.setattr(uriel, "installed", lambda: None)
    record = select("langsim", transfer={"languages": 2}).allocation.to_json()["transfer"]
    load_language_vectors.cache_clear()
    assert record["languages"] == ["ny", "sn"]
    assert record["vectors"] == "compass_ray language table"
    assert record["without_vectors"] == ["bul"]


def test_a_pool_without_known_languages_is_told(
    pool: PoolView, features: BaselineFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uriel, "installed", lambda: None)
    load_language_vectors.cache_clear()
    bulgarian, own = np.flatnonzero(pool.language_mask("bul")), np.flatnonzero(pool.language_mask("sw"))
    problem = SelectionProblem("sw", own, pool.cluster[own].astype(np.int64), bulgarian, np.array([0]))
    with pytest.raises(ConfigError, match=r"bul\) has vectors in compass_ray language table"):
        select_by_method(SelectConfig(), "langsim", problem, pool, seed=0, features=features)
    load_language_vectors.cache_clear()


def transfers(folder: Path, best: str) -> str:
    """Measured transfers in which the language with the most overlap in words helps most, or least."""
    rng, path = np.random.default_rng(0), folder / "mine.csv"
    sign = 1.0 if best == "overlap" else -1.0
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["target", "transfer", "gain", *MEASURED])
        writer.writeheader()
        for target in ("yo", "tr", "hi", "id", "ko", "sw"):
            for transfer in ("en", "fr", "ru", "ja", "zh", "es", "pt", "de"):
                overlap = 0.2 * rng.random()
                row = dict.fromkeys(MEASURED, 0.1) | {"word_overlap": overlap, "gain": sign * overlap}
                writer.writerow({"target": target, "transfer": transfer, **row})
    return str(path)


def test_langrank_learns_from_the_transfers_it_is_given(select: Callable[..., MethodSelection], tmp_path: Path) -> None:
    found = {}
    for best in ("overlap", "difference"):
        chosen = select("langrank", transfer={"languages": 2, "results": transfers(tmp_path, best)})
        found[best] = chosen.allocation.to_json()["transfer"]
        assert {row["language"] for row in added(chosen)} <= set(found[best]["languages"])
    assert found["overlap"]["languages"] != found["difference"]["languages"]
    assert found["overlap"]["results"] == "mine.csv"
    assert found["overlap"]["transfers"] == 40, "what was measured on the target itself is left out"


def test_langrank_ranks_by_the_transfers_of_the_package(select: Callable[..., MethodSelection]) -> None:
    record = select("langrank").allocation.to_json()["transfer"]
    assert len(record["languages"]) == 3
    assert record["results"] == "atlas"
    json.dumps(record)


OTHERWISE: dict[str, Any] = {
    "methods": ("compass",),
    "budget": 0.3,
    "weights": "deficit",
    "overflow": "repeat",
    "mode": "uniform",
    "tau": 0.5,
    "delta": 0.2,
    "paper_boundary_score": True,
    "transfer": {"languages": 1, "rows": "all"},
}
COUNT = {"budget", "weights", "overflow"}
READ = {
    "target": set(),
    "all": set(),
    "random": COUNT,
    "dsir": COUNT,
    "nearest": COUNT,
    "round_robin": COUNT,
    "own_repeated": COUNT,
    **dict.fromkeys(QUANTILE_METHODS, COUNT),
    "langsim": {*COUNT, "transfer"},
    "langrank": {*COUNT, "transfer"},
    **{method: {*COUNT, "mode", "tau", "delta", "as_printed"} for method in ("compass", "placebo", "oracle")},
}
"""The settings that each method's selection depends on."""


def test_every_setting_of_a_selection_is_looked_at() -> None:
    assert set(OTHERWISE) == set(SelectConfig.model_fields)
    assert set(READ) == set(Method)


@pytest.mark.parametrize("name", OTHERWISE)
@pytest.mark.parametrize("method", READ)
def test_a_fingerprint_holds_only_what_a_method_depends_on(
    pool: PoolView, problem: SelectionProblem, features: BaselineFeatures, method: str, name: str
) -> None:
    """Where the fingerprint is the same, so are the rows and their record."""
    plain, other = SelectConfig(), SelectConfig.model_validate({name: OTHERWISE[name]})
    same = method_settings(plain, method) == method_settings(other, method)
    former = SelectConfig.model_fields[name].serialization_alias or name
    assert same == (former not in READ[method])
    if same and method == "all":
        made = [select_for_all_languages(config, [problem], pool, seed=0) for config in (plain, other)]
    elif same:
        made = [select_by_method(config, method, problem, pool, seed=0, features=features) for config in (plain, other)]
    assert not same or (made[0].rows.equals(made[1].rows) and made[0].allocation == made[1].allocation)


def test_a_fingerprint_holds_the_table_of_transfers_by_content_and_the_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, given = SelectConfig(), SelectConfig.model_validate({"transfer": {"results": transfers(tmp_path, "overlap")}})
    first = method_settings(given, "langrank")
    transfers(tmp_path, "difference")
    assert method_settings(given, "langrank") != first
    assert method_settings(given, "langsim") == method_settings(plain, "langsim")
    before = method_settings(plain, "langsim")
    monkeypatch.setattr(uriel, "installed", lambda: None)
    assert method_settings(plain, "langsim") != before

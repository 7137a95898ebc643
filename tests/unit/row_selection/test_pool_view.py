"""What the cluster stage leaves for selection, and how selection sees it: against the pool's own rows, one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig, parse_config
from compass_ray.core.instance_scores import InstanceScores
from compass_ray.row_selection import Guide, PoolView, WindowGuide, first_adapter_problem, prompt_keys, store_pool, update_problem

N, K, D = 60, 4, 5
RNG = np.random.default_rng(0)
LABELS = RNG.integers(-1, K, N).astype(np.int32)
COARSE = np.array([0, 1, 1, 0], np.int32)
VECTORS = RNG.normal(size=(N, D)).astype(np.float32)
SCORES = InstanceScores(RNG.random(N), RNG.normal(size=N))
ROWS = [
    {
        "row_id": f"{RNG.integers(1 << 60):016x}",
        "prompt": f"Question {i}?",
        "response": "-",
        "language": ("sw", "hi", "bul")[i % 3],
        "source": "made",
        "subject": None if i % 2 else f"subject {i % 5}",
    }
    for i in range(N)
]
NO_TEST = prompt_keys([])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with nothing but a clustered pool."""
    run = RunDir(str(tmp_path_factory.mktemp("view") / "run"))
    writer = run.clusters.begin(Identity("cluster", {}, {}))
    writer.write_array("centroids.npy", np.zeros((K, D), np.float32))
    store_pool(writer, pa.Table.from_pylist(ROWS, schemas.POOL), VECTORS, LABELS, COARSE, SCORES)
    return run


@pytest.fixture(scope="module")
def pool(run: RunDir) -> PoolView:
    return PoolView.read(run.clusters)


@pytest.fixture
def config() -> RunConfig:
    return parse_config({"languages": ["sw", "hi"], "pool": {"bias": None}})


def test_a_test_question_in_an_earlier_turn_excludes_the_row(tmp_path: Path) -> None:
    def turns(*questions: str) -> list[dict[str, str]]:
        return [turn for text in questions for turn in ({"role": "user", "content": text}, {"role": "assistant", "content": "-"})]

    rows = [dict(row) for row in ROWS]
    rows[3]["messages"] = turns("What is asked?", "And then?", rows[3]["prompt"])
    rows[4]["messages"] = [{"role": "system", "content": "What is asked?"}, *turns(rows[4]["prompt"])]
    writer = RunDir(str(tmp_path / "run")).clusters.begin(Identity("cluster", {}, {}))
    writer.write_array("centroids.npy", np.zeros((K, D), np.float32))
    store_pool(writer, pa.Table.from_pylist(rows, schemas.POOL), VECTORS, LABELS, COARSE, SCORES)
    pool = PoolView.read(writer.artifact)
    found = pool.prompt_mask(prompt_keys(["  what IS asked?", rows[7]["prompt"], "not asked"]))
    assert set(pool.row_id.filter(pa.array(found)).to_pylist()) == {rows[3]["row_id"], rows[7]["row_id"]}
    assert not pool.prompt_mask(NO_TEST).any()


def guide(tested: list[str]) -> Guide:
    return Guide(np.array([0, 1]), VECTORS[:2], ["a", "b"], prompt_keys(tested))


def test_every_row_keeps_what_belongs_to_it(pool: PoolView) -> None:
    assert sorted(pool.position.tolist()) == list(range(N))
    for i, at in enumerate(pool.position.tolist()):
        row = ROWS[at]
        assert pool.row_id[i].as_py() == row["row_id"]
        assert (pool.language[i].as_py(), pool.subject[i].as_py()) == (row["language"], row["subject"])
        assert pool.cluster[i] == LABELS[at]
        assert (pool.proto[i], pool.margin[i]) == (np.float32(SCORES.proto[at]), np.float32(SCORES.margin_raw[at]))
        assert pool.vectors[i].tolist() == VECTORS[at].astype(np.float16).tolist()
    assert pool.prompt_key.tolist() == prompt_keys(ROWS[at]["prompt"] for at in pool.position.tolist()).tolist()
    assert (len(pool), pool.n_clusters) == (N, K)


def test_rows_stand_by_cluster_and_then_by_row_id(pool: PoolView) -> None:
    keys = list(zip(pool.cluster.tolist(), pool.row_id.to_pylist(), strict=True))
    assert keys == sorted(keys)


def test_the_coarse_cluster_is_that_of_the_fine_one(run: RunDir) -> None:
    table = run.clusters.map_table("assignments.arrow")
    fine, coarse = table["cluster"].to_pylist(), table["coarse"].to_pylist()
    assert coarse == [COARSE[k] if k >= 0 else -1 for k in fine]


def test_embeddings_have_length_one_and_come_in_the_order_asked_for(pool: PoolView) -> None:
    asked = np.array([7, 3, 7])
    expected = VECTORS[pool.position[asked]]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert pool.unit_vectors(asked) == pytest.approx(expected, abs=2e-3)
    assert np.linalg.norm(pool.unit_vectors(asked), axis=1) == pytest.approx(1.0)


def test_nothing_is_read_before_it_is_asked_for(pool: PoolView) -> None:
    assert isinstance(pool.vectors.base, np.memmap)
    assert not pool.cluster.flags.owndata
    assert not pool.prompt_key.flags.owndata


def test_a_language_that_the_pool_has_not_is_spoken_by_no_row(pool: PoolView) -> None:
    assert pool.language_mask("sw").tolist() == [ROWS[at]["language"] == "sw" for at in pool.position]
    assert not pool.language_mask("yo").any()


def test_a_test_question_is_neither_kept_nor_chosen_however_it_is_spaced(pool: PoolView, config: RunConfig) -> None:
    free = first_adapter_problem(config, "sw", pool, guide([]))
    held = first_adapter_problem(config, "sw", pool, guide(["  QUESTION 3? ", "question  4?", "Something else"]))
    assert _ids(pool, free.own) - _ids(pool, held.own) == {ROWS[3]["row_id"]}
    assert _ids(pool, free.others) - _ids(pool, held.others) == {ROWS[4]["row_id"]}
    assert _ids(pool, free.own) | _ids(pool, free.others) == {row["row_id"] for row in ROWS}
    assert held.trained_labels.tolist() == [LABELS[pool.position[i]] for i in held.own]


def test_a_language_s_own_rows_come_by_row_id_whatever_their_clusters(pool: PoolView, config: RunConfig) -> None:
    own = pool.row_id.take(pa.array(first_adapter_problem(config, "sw", pool, guide([])).own)).to_pylist()
    assert own == sorted(own)


def test_an_update_chooses_from_other_languages_rows_that_were_not_used(pool: PoolView) -> None:
    used, tested = frozenset(r["row_id"] for r in ROWS[10:20]), prompt_keys([ROWS[25]["prompt"]])
    question = update_problem("hi", pool, WindowGuide(np.array([0]), used, np.array([1]), tested))
    expected = {r["row_id"] for i, r in enumerate(ROWS) if r["language"] != "hi" and not 10 <= i < 20 and i != 25}
    assert _ids(pool, question.others) == expected
    assert not len(question.own)


def test_an_object_store_gives_the_same_view(
    pool: PoolView, run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where files cannot be mapped they are copied to this disk, and the copy is gone once it is mapped."""
    from pyarrow import fs

    far = RunDir(run.uri)
    far.filesystem = fs.SubTreeFileSystem("/", fs.LocalFileSystem())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = PoolView.read(far.clusters)
    assert not list(tmp_path.iterdir())
    assert np.array_equal(found.vectors, pool.vectors)
    assert found.row_id.equals(pool.row_id)
    assert isinstance(found.vectors.base, np.memmap)


def _ids(pool: PoolView, rows: np.ndarray) -> set[str]:
    return set(pool.row_id.take(pa.array(rows)).to_pylist())

"""The embed stage's unit of work, without Ray: shards are the pool's row groups, whatever their size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch

from compass_ray import schemas
from compass_ray.artifacts import ArtifactError, Identity, RunDir
from compass_ray.config import RunConfig, load_run_config, with_overrides
from compass_ray.models.encoder import Encoder
from compass_ray.models.memory_watch import OutOfMemoryError
from compass_ray.records.memory import WorkerMemoryRecord
from compass_ray.stages import embed

PROMPTS = [f"Sarafu ya nchi namba {i} inaitwaje?" for i in range(10)]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _write_pool(run: RunDir, shard: int) -> None:
    ids = [f"{i:016x}" for i in range(len(PROMPTS))]
    same = {name: ["sw"] * len(ids) for name in ("response", "language", "source", "subject")}
    writer = run.pool.begin(Identity("pool", {}, {}))
    writer.write_table("rows.parquet", pa.table({"row_id": ids, "prompt": PROMPTS, **same}), row_group=shard)
    writer.publish()


@pytest.mark.parametrize("shard", [3, 4, 4096])
def test_a_pool_with_other_shards_is_continued_where_it_stopped(tmp_path: object, threads: None, shard: int) -> None:
    config, run = load_run_config("atlas-test"), RunDir(f"{tmp_path}/run")
    _write_pool(run, shard)
    identity = Identity("embed", config.embed.identity(), {})
    shards = embed._missing_shards(run, identity, force=False)
    assert len(shards) == -(-len(PROMPTS) // shard)
    _embed(run, config, shards[:1])
    assert embed._missing_shards(run, identity, force=False) == shards[1:]
    described = _embed(run, config, shards[1:]) or _embed(run, config, shards)
    assert '"dtype"' in described
    expected = Encoder(config.embed).encode(PROMPTS, batch_size=256)
    np.testing.assert_allclose(run.embeddings.read_embeddings(), expected, atol=1e-5)


def _embed(run: RunDir, config: RunConfig, shards: list[int]) -> str:
    actor = embed.ShardEmbedder(run.uri, config.model_dump(mode="json"), threads=1)
    found = [actor({"shard": np.array([each]), "language": np.array([""])}) for each in shards]
    return str(found[-1]["encoder"][0]) if found else ""


def test_a_shard_whose_worker_was_killed_for_memory_is_not_embedded_in_the_same_way(tmp_path: object, threads: None) -> None:
    config, run = load_run_config("atlas-test"), RunDir(f"{tmp_path}/run")
    _write_pool(run, 5)
    tokens = Encoder(config.embed).default_batch_tokens
    left = WorkerMemoryRecord(
        at=time.time(), peak_bytes=9, limit_bytes=10, free_bytes=0, setting="resources.embed_batch_tokens", tokens=tokens
    )
    run.embeddings.store_bytes(WorkerMemoryRecord.file_of("part-00001.parquet"), left.model_dump_json().encode())
    _embed(run, config, [0])
    with pytest.raises(OutOfMemoryError, match=f"set resources.embed_batch_tokens={tokens // 2} "):
        _embed(run, config, [1])
    _embed(run, with_overrides(config, [f"resources.embed_batch_tokens={tokens // 2}"]), [1])


OPTIONS = [["Nairobi", "Kampala"], None, ["shilingi"]]


def _write_guide(run: RunDir, options: Sequence[list[str] | None]) -> None:
    rows = [
        {"row_id": f"g{i}", "prompt": prompt, "language": "sw", "options": each}
        for i, (prompt, each) in enumerate(zip(PROMPTS, options, strict=False))
    ]
    writer = run.guide("sw").begin(Identity("pool", {}, {}))
    writer.write_table("guide.parquet", pa.Table.from_pylist(rows, schemas.GUIDES))
    writer.publish()


def _embed_guide(run: RunDir, weight: float) -> pa.Table:
    """The stored vectors of the guide set of three prompts."""
    config = load_run_config("atlas-test", overrides=[f"embed.guide_options={weight}"])
    actor = embed.ShardEmbedder(run.uri, config.model_dump(mode="json"), threads=1)
    actor({"shard": np.array([-1]), "language": np.array(["sw"])})
    return run.guide_embeddings("sw").read_table("part-00000.parquet")


def test_options_of_a_guide_prompt_join_the_vector_that_selection_reads(tmp_path: object, threads: None) -> None:
    run = RunDir(f"{tmp_path}/run")
    _write_guide(run, OPTIONS)
    _embed_guide(run, 0.5)
    encoder = Encoder(load_run_config("atlas-test").embed)
    plain = encoder.encode(PROMPTS[:3], batch_size=8)
    texts = [f"{PROMPTS[0]}\nA. Nairobi\nB. Kampala", f"{PROMPTS[2]}\nA. shilingi"]
    expected = plain.copy()
    expected[[0, 2]] += 0.5 * encoder.encode(texts, batch_size=8)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(run.guide_embeddings("sw").read_embeddings(), plain, atol=1e-6)
    np.testing.assert_allclose(run.guide_embeddings("sw").read_guide_vectors(), expected, atol=1e-6)
    assert np.abs(expected - plain)[[0, 2]].max() > 0.01


@pytest.mark.parametrize(("weight", "options"), [(0.0, OPTIONS), (0.5, [None] * 3)])
def test_without_a_weight_or_options_there_is_one_vector(
    tmp_path: object, threads: None, weight: float, options: list[list[str] | None]
) -> None:
    run = RunDir(f"{tmp_path}/run")
    _write_guide(run, options)
    assert _embed_guide(run, weight).column_names == ["row_id", "embedding"]
    same = run.guide_embeddings("sw")
    np.testing.assert_array_equal(same.read_guide_vectors(), same.read_embeddings())


def test_a_guide_set_that_was_read_without_options_is_refused_if_they_count(tmp_path: object) -> None:
    run = RunDir(f"{tmp_path}/run")
    writer = run.guide("sw").begin(Identity("pool", {}, {}))
    writer.write_table("guide.parquet", pa.table({"row_id": ["g"], "prompt": ["?"]}))
    writer.publish()
    config = load_run_config("atlas-test", overrides=["embed.guide_options=0.5"])
    with pytest.raises(ArtifactError, match=r"guides/sw was read by a former version.*--force pool.*embed\.guide_options=0"):
        embed._require_options(config, run, ["sw"])
    embed._require_options(load_run_config("atlas-test"), run, ["sw"])


def test_the_weight_changes_guide_sets_alone(tmp_path: object) -> None:
    run = RunDir(f"{tmp_path}/run")
    _write_pool(run, 4)
    _write_guide(run, OPTIONS)
    plain, mixed = load_run_config("atlas-test"), load_run_config("atlas-test", overrides=["embed.guide_options=0.5"])
    assert embed._identity(plain, run.pool).fingerprint == embed._identity(mixed, run.pool).fingerprint
    of_plain, of_mixed = (embed._guide_identity(config, run.guide("sw")).fingerprint for config in (plain, mixed))
    assert of_plain != of_mixed

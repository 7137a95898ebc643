"""The embed stage's unit of work, without Ray: shards are the pool's row groups, whatever their size."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from compass_ray.artifacts import Identity, RunDir
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

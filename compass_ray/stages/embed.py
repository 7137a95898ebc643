"""Stage: embed pool and guide prompts with Ray Data actors (COMPASS, section 3.2.1).

Key property: the unit of work is a fixed shard of the pool, written atomically. A killed run resumes with the next shard,
and its embeddings do not depend on the moment of the kill. Rows of a shard have similar length. Shards are the row groups of
the pool, so a pool of an earlier version is embedded in its own larger shards.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray import ray_session, schemas
from compass_ray.artifacts import Artifact, ArtifactError, Identity, Manifest, Output, RunDir, Writer
from compass_ray.config import RunConfig
from compass_ray.config.resources import EmbedWorkers
from compass_ray.core.array_checks import Float32Array
from compass_ray.core.guide_vectors import add_options
from compass_ray.models.memory_watch import forget_kill
from compass_ray.models.model_resolver import model_identity
from compass_ray.models.multiple_choice_prompts import format_options
from compass_ray.progress import Progress, silent
from compass_ray.schemas import WITH_OPTIONS


@dataclass(frozen=True)
class ShardOutput:
    """One file that an actor wrote: the name of its artifact, its manifest entry, and how it was made."""

    artifact: str
    output: Output
    seconds: float
    """Time of the actor, including reading and writing."""
    device: str
    encoder: Mapping[str, Any]
    """Type of the weights and prompts of the encoder."""


def run(config: RunConfig, run: RunDir, *, force: bool = False, progress: Progress = silent) -> list[Manifest]:
    """Write ``embeddings/pool`` and ``embeddings/guides/<language>``.

    Raises:
        ArtifactError: the pool or a guide set is missing, or was read without options although `embed.guide_options` is set.
    """
    pool, guides = _identity(config, run.pool), {c: _guide_identity(config, run.guide(c)) for c in config.languages}
    pending = [c for c in config.languages if not run.guide_embeddings(c).find_complete(guides[c], force=force)]
    shards = [] if run.embeddings.find_complete(pool, force=force) else _missing_shards(run, pool, force)
    _require_options(config, run, pending)
    if pending or not run.embeddings.manifest():
        writers = [run.guide_embeddings(c).begin(guides[c]) for c in pending]
        forget_kill(run.embeddings)  # a begun guide set is empty
        parts = _embed(config, run, shards, pending, progress) if shards or pending else []
        if not run.embeddings.manifest():
            writers.append(Writer(run.embeddings, pool))
        for writer in writers:
            written = [part for part in parts if part.artifact == writer.artifact.name]
            writer.artifact.add_outputs([part.output for part in written])
            device = ", ".join(sorted({part.device for part in written})) or None
            writer.publish(_metrics(written), device=device, encoder=written[0].encoder if written else None)
    return [run.embeddings.require(), *(run.guide_embeddings(c).require() for c in config.languages)]


def _identity(config: RunConfig, source: Artifact) -> Identity:
    return _embed_identity(config, config.embed.identity(), source)


def _guide_identity(config: RunConfig, source: Artifact) -> Identity:
    return _embed_identity(config, config.embed.guide_identity(), source)


def _embed_identity(config: RunConfig, settings: Mapping[str, Any], source: Artifact) -> Identity:
    encoder = {"encoder": model_identity(config.embed.encoder, config.embed.revision)}
    return Identity("embed", {**settings, **encoder}, {source.name: source.require().fingerprint})


def _require_options(config: RunConfig, run: RunDir, languages: Sequence[str]) -> None:
    """Refuse guide sets that a former version read, which have no column of options, if their options count."""
    for code in languages if config.embed.guide_options else ():
        guide = run.guide(code)
        if "options" not in guide.read_table("guide.parquet", ["row_id"], optional=("options",)).column_names:
            raise ArtifactError(
                f"{guide.name} was read by a former version, without the options that embed.guide_options "
                f"({config.embed.guide_options:g}) needs; run again with --force pool, or set embed.guide_options=0"
            )


def _missing_shards(run: RunDir, identity: Identity, force: bool) -> list[int]:
    """Numbers of the shards that an earlier attempt did not finish."""
    run.embeddings.begin(identity, keep_partial=not force)
    groups = run.pool.row_groups("rows.parquet")
    return [i for i in range(groups) if not run.embeddings.exists(_shard_file(i))]


def _shard_file(shard: int) -> str:
    return f"part-{shard:05d}.parquet"


def _metrics(parts: list[ShardOutput]) -> dict[str, float]:
    """Total seconds of the actors, and rows per second of one actor."""
    rows, seconds = sum(part.output.rows or 0 for part in parts), sum(part.seconds for part in parts)
    return {"seconds": round(seconds, 2), "rows_per_second": round(rows / seconds, 1) if seconds else 0.0}


def _embed(config: RunConfig, run: RunDir, shards: list[int], guides: list[str], progress: Progress) -> list[ShardOutput]:
    """Embed the missing shards and guide sets; return the files written."""
    ray_session.start(config.resources)
    import ray.data

    work = [{"shard": i, "language": ""} for i in shards] + [{"shard": -1, "language": c} for c in guides]
    resources, workers = config.resources, choose_workers(config)
    embedded = ray.data.from_items(work, override_num_blocks=len(work)).map_batches(
        ShardEmbedder,
        fn_constructor_args=(run.uri, config.model_dump(mode="json"), workers.threads),
        batch_size=1,
        # With more actors at the start, the pool could take every CPU and starve Ray Data's own tasks silently.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers.count),
        num_cpus=resources.cpus_per_worker,
        num_gpus=resources.gpus_per_worker,
        resources=dict(resources.worker_resources) or None,
    )
    parts = []
    for done, finished in enumerate(embedded.iter_rows(), start=1):
        output = Output.model_validate_json(finished["output"])
        encoder = json.loads(finished["encoder"])
        parts.append(ShardOutput(finished["artifact"], output, float(finished["seconds"]), finished["device"], encoder))
        progress("embed", done, len(work))
    return parts


def _usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_workers(config: RunConfig) -> EmbedWorkers:
    """Workers for the machines that the Ray session has now."""
    nodes = [node.resources for node in ray_session.read_capacity().nodes]
    return config.resources.choose_embed_workers(
        [node.get("CPU", 0.0) for node in nodes], sum(node.get("GPU", 0.0) for node in nodes)
    )


class ShardEmbedder:
    """Ray Data actor: loads the encoder once; each call embeds and stores one shard or guide set."""

    def __init__(self, uri: str, config: Mapping[str, Any], threads: int) -> None:
        """Load the encoder of a run, which computes on ``threads`` threads, at most one for each core."""
        import torch

        from compass_ray.models.encoder import Encoder

        self.run = RunDir(uri)
        self.config = RunConfig.model_validate(config)
        torch.set_num_threads(min(threads, _usable_cores()))
        self.encoder = Encoder(self.config.embed)
        self.batch_tokens = self.config.resources.embed_batch_tokens or self.encoder.default_batch_tokens

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Embed one unit of work; return only the manifest entry of its file."""
        from compass_ray.models.devices import device_name
        from compass_ray.models.memory_watch import watch_memory

        started = time.monotonic()
        shard, language = int(batch["shard"][0]), str(batch["language"][0])
        target = self.run.guide_embeddings(language) if language else self.run.embeddings
        rows = self._guide(language) if language else self._shard(shard)
        file = _shard_file(max(shard, 0))
        with watch_memory(target, "resources.embed_batch_tokens", self.batch_tokens, unit=file):
            vectors = self._embed_rows(rows)
        written = target.store_table(file, _table(rows["row_id"], vectors))
        return {
            "artifact": np.array([target.name]),
            "output": np.array([written.model_dump_json()]),
            "seconds": np.array([time.monotonic() - started]),
            "device": np.array([device_name(self.encoder.device)]),
            "encoder": np.array([json.dumps(self.encoder.describe())]),
        }

    def _shard(self, shard: int) -> pa.Table:
        return self.run.pool.read_row_group("rows.parquet", shard, ["row_id", "prompt"])

    def _guide(self, language: str) -> pa.Table:
        return self.run.guide(language).read_table("guide.parquet", ["row_id", "prompt"], optional=("options",))

    def _embed_rows(self, rows: pa.Table) -> dict[str, Float32Array]:
        """Vectors of the rows by column. The options of a guide set join where `embed.guide_options` counts them."""
        prompts, weight = rows["prompt"].to_pylist(), self.config.embed.guide_options
        vectors = {"embedding": self._encode(prompts)}
        if weight and any(options := _read_options(rows)):
            vectors[WITH_OPTIONS] = self._add_options(vectors["embedding"], prompts, options, weight)
        return vectors

    def _encode(self, texts: Sequence[str]) -> Float32Array:
        return self.encoder.encode(texts, batch_size=self.config.resources.embed_batch, batch_tokens=self.batch_tokens)

    def _add_options(self, plain: Float32Array, prompts: list[str], options: list[list[str]], weight: float) -> Float32Array:
        """Vectors of a guide set as selection reads them; ``options`` are those of each prompt, empty if it has none."""
        texts = [format_options(prompt, each) for prompt, each in zip(prompts, options, strict=True) if each]
        return add_options(plain, self._encode(texts), np.array([bool(each) for each in options]), weight)


def _read_options(rows: pa.Table) -> list[list[str]]:
    return [each or [] for each in rows["options"].to_pylist()] if "options" in rows.column_names else []


def _table(row_ids: pa.ChunkedArray, vectors: Mapping[str, Float32Array]) -> pa.Table:
    dimension = vectors["embedding"].shape[1]
    schema = schemas.embeddings_schema(dimension, *(name for name in vectors if name != "embedding"))
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(each.ravel(), pa.float32()), dimension) for each in vectors.values()]
    return pa.table([row_ids, *columns], schema=schema)

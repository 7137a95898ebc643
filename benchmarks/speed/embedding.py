"""The embed stage's Ray Data actors against the bare encoder: rows per second on the same cores and threads.

An encoder of MiniLM's shape with random weights embeds prompts of mixed length. ``stage`` is the complete stage with its
start. ``actors`` is the time from the first finished shard to the last, when the actor is warm. ``bare`` is the encoder called
with the same prompts in the driver process, while the stage does not run. Wall time, interleaved, because the cost of Ray is
waiting as well as work. Run it on an idle machine.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.random_encoder import MINILM, TINY, Shape, random_encoder
from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig, parse_config
from compass_ray.models.encoder import Encoder
from compass_ray.sources.atlas import SMALL, atlas_guide, atlas_pool
from compass_ray.sources.pool import SHARD_ROWS

SEED = 0
LANGUAGE = "sw"
GUIDE_PROMPTS = 8
MOST_JOINED = 8
"""Maximum number of atlas questions in one prompt: 10 to 200 tokens, as in prompts of users."""


@dataclass(frozen=True)
class Scale:
    """Size of the benchmark; ``shard`` is the number of rows that the stage embeds at once."""

    rows: int = 20_000
    shard: int = SHARD_ROWS
    shape: Shape = MINILM
    repeats: int = 2


SMALL_SCALE = Scale(120, 40, TINY, 1)


@dataclass(frozen=True)
class Round:
    """Seconds of one round: the stage, its part from the first shard to the last, and the bare encoder on all rows."""

    stage: float
    actors: float
    bare_first: float
    """The bare encoder on the first finished shard of the stage."""
    bare_others: float
    first: int
    """Rows of that shard."""


def prompts_of(rows: int) -> list[str]:
    """Prompts of mixed length in eight scripts, sorted by length as after the pool stage."""
    questions = atlas_pool(SMALL)["inputs"].to_pylist()
    rng = np.random.default_rng(SEED)
    joined = np.exp(rng.uniform(0.0, np.log(MOST_JOINED + 1), size=rows)).astype(int)
    return sorted((" ".join(questions[i] for i in rng.integers(len(questions), size=k)) for k in joined), key=len)


def settings_of(encoder: Path, threads: int) -> RunConfig:
    """Settings with one actor that may use the threads, plus Ray Data's own tasks."""
    resources = {"embed_workers": 1, "embed_batch": 256, "threads_per_worker": threads, "cpus": 2}
    return parse_config({"languages": [LANGUAGE], "embed": {"encoder": str(encoder)}, "resources": resources})


def write_run(run: RunDir, config: RunConfig, prompts: Sequence[str], shard: int) -> None:
    """Write the artifacts that the stage reads: a pool in shards, and a guide set of a few prompts."""
    run.write_config(config)
    ids = [f"{i:016x}" for i in range(len(prompts))]
    same = {name: [LANGUAGE] * len(ids) for name in ("response", "language", "source", "subject")}
    writer = run.pool.begin(Identity("pool", {}, {}))
    writer.write_table("rows.parquet", pa.table({"row_id": ids, "prompt": prompts, **same}), row_group=shard)
    writer.publish()
    guide = run.guide(LANGUAGE).begin(Identity("pool", {}, {}))
    guide_prompts = atlas_guide(LANGUAGE, SMALL)["question"].to_pylist()[:GUIDE_PROMPTS]
    same_language = [LANGUAGE] * len(guide_prompts)
    columns = {"row_id": ids[: len(guide_prompts)], "prompt": guide_prompts, "language": same_language, "subject": guide_prompts}
    columns["options"] = [None] * len(guide_prompts)
    guide.write_table("guide.parquet", pa.table(columns).cast(schemas.GUIDES))
    guide.publish()


def run_round(run: RunDir, config: RunConfig, encoder: Encoder, prompts: Sequence[str], shard: int) -> Round:
    """Run the stage once, then the bare encoder on the first finished shard and on all others."""
    from compass_ray.stages import embed

    started = time.monotonic()
    embed.run(config, run, force=True)
    stage = time.monotonic() - started
    finished = {path.stat().st_mtime: int(path.stem[-5:]) for path in Path(run.embeddings.path).glob("part-*.parquet")}
    first = finished[min(finished)]
    inside = slice(first * shard, (first + 1) * shard)
    early, others = prompts[inside], [*prompts[: inside.start], *prompts[inside.stop :]]
    return Round(stage, max(finished) - min(finished), _bare(encoder, early), _bare(encoder, others), len(early))


def _bare(encoder: Encoder, prompts: Sequence[str]) -> float:
    started = time.monotonic()
    encoder.encode(prompts, batch_size=256)
    return time.monotonic() - started


def measure(folder: Path, scale: Scale, threads: int) -> dict[str, Value]:
    """Rows per second of both, median over rounds, and their ratio in each round."""
    from compass_ray import ray_session

    # By default, Ray's workers have a lower priority than the bare encoder.
    os.environ.setdefault("RAY_worker_niceness", "0")
    prompts = prompts_of(scale.rows)
    config = settings_of(random_encoder(folder / "encoder", scale.shape, seed=SEED), threads)
    run, encoder = RunDir(str(folder / "run")), Encoder(config.embed)
    write_run(run, config, prompts, scale.shard)
    torch.set_num_threads(threads)
    encoder.encode(prompts[:: max(1, len(prompts) // 256)], batch_size=256)
    with ray_session.session(config.resources):
        turns = [run_round(run, config, encoder, prompts, scale.shard) for _ in range(scale.repeats)]
    return numbers_of(turns, scale.rows)


def numbers_of(turns: Sequence[Round], rows: int) -> dict[str, Value]:
    """Compute the numbers of the record."""
    return {
        "actors_rows_per_second": _median([(rows - turn.first) / turn.actors for turn in turns]),
        "bare_rows_per_second": _median([(rows - turn.first) / turn.bare_others for turn in turns]),
        "actors_share_of_bare": _median([turn.bare_others / turn.actors for turn in turns]),
        "actors_share_of_bare_by_turn": [turn.bare_others / turn.actors for turn in turns],
        "stage_rows_per_second": _median([rows / turn.stage for turn in turns]),
        "stage_share_of_bare": _median([(turn.bare_first + turn.bare_others) / turn.stage for turn in turns]),
    }


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--threads", type=int, default=1, help="torch threads of the actor and of the bare encoder")
    options.add_argument("--repeats", type=int, help="rounds of about eight minutes each on one thread (default: 2)")
    arguments = options.parse_args(argv)
    scale = SMALL_SCALE if arguments.small else Scale(repeats=arguments.repeats or Scale.repeats)
    before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:
            numbers = measure(Path(folder), scale, arguments.threads)
    finally:
        torch.set_num_threads(before)
    shape: dict[str, Value] = {"layers": scale.shape.layers, "hidden": scale.shape.hidden, "heads": scale.shape.heads}
    settings: dict[str, Value] = {
        "rows": scale.rows,
        "rows_per_shard": scale.shard,
        "threads": arguments.threads,
        "turns": scale.repeats,
        **shape,
    }
    return write_record("speed/embedding", arguments, seeds=[SEED], settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()

"""multilingual-e5-small on real prompts: the package's encoder against sentence-transformers with its defaults.

Each way runs in a process of its own, so that its peak memory is its own. Threads are one, and all cores. Rows are prompts of
the Aya data set of ``COMPASS_SHARED_DATA``; the model is that of ``COMPASS_REAL_MODELS``. With ``--small`` both come from the
package. Wall time, because threads wait for one another: run it on an idle machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.record import Record, Value, parser, write_record
from benchmarks.speed.random_encoder import TINY, random_encoder
from compass_ray.config import EmbedConfig
from compass_ray.sources.atlas import SMALL, atlas_pool

SEED = 0
PREFIX = "query: "
LIBRARY = "sentence_transformers"
WAYS = (LIBRARY, "float32", "bfloat16")
"""The library with its defaults (float32, 32 rows at once), and the package's encoder by type."""
MAX_ROWS = 256
Embed = Callable[[list[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Measurement:
    """Seconds of one way, its peak memory in MB, and the vectors float32[n, d]."""

    seconds: float
    peak_mb: float
    vectors: npt.NDArray[np.float32]


def prompts_of(rows: int, small: bool) -> list[str]:
    """Prompts of the pool, drawn at random and sorted by length as in the pool."""
    import pyarrow.parquet as pq

    if small:
        table = atlas_pool(SMALL)["inputs"]
    else:
        file = next((_folder("COMPASS_SHARED_DATA") / "aya_dataset" / "data").glob("train-*.parquet"))
        table = pq.read_table(file, columns=["inputs"])["inputs"]
    chosen = np.random.default_rng(SEED).choice(len(table), rows, replace=False)
    return sorted((table[int(i)].as_py() for i in chosen), key=len)


def measure(way: str, encoder: str, prompts: list[str], threads: int) -> Measurement:
    """Embed the prompts once, after a few to warm up."""
    import torch

    torch.set_num_threads(threads)
    embed = _library(encoder) if way == LIBRARY else _package(encoder, way)
    embed(prompts[: len(prompts) // 2 : 8])
    started = time.perf_counter()
    vectors = embed(prompts)
    seconds = time.perf_counter() - started
    return Measurement(seconds, _peak_mb(), vectors)


def _peak_mb() -> float:
    """Peak resident memory of this program, Linux only. ``ru_maxrss`` would include the process that started it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1e3


def _library(encoder: str) -> Embed:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(encoder, device="cpu")
    return lambda prompts: np.asarray(model.encode(prompts, prompt=PREFIX, normalize_embeddings=True), np.float32)


def _package(encoder: str, dtype: str) -> Embed:
    from compass_ray.models.encoder import Encoder

    settings = {"encoder": encoder, "prompt_prefix": PREFIX, "dtype": dtype}
    model = Encoder(EmbedConfig.model_validate(settings), device="cpu")
    return lambda prompts: model.encode(prompts, batch_size=MAX_ROWS)


def compare(encoder: str, prompts: list[str], threads: int) -> dict[str, Value]:
    """Rows per second, peak memory and cosine with the library, by way."""
    found: dict[str, Measurement] = {}
    for way in WAYS:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            found[way] = process.submit(measure, way, encoder, prompts, threads).result()
    library = found[LIBRARY]
    return {way: _numbers(each, library, len(prompts)) for way, each in found.items()}


def _numbers(each: Measurement, library: Measurement, rows: int) -> dict[str, Value]:
    cosine = (each.vectors * library.vectors).sum(axis=1)
    return {
        "rows_per_second": rows / each.seconds,
        "times_library": library.seconds / each.seconds,
        "peak_mb": each.peak_mb,
        "greatest_cosine_distance": float(1 - cosine.min()),
    }


def _folder(variable: str) -> Path:
    given = os.environ.get(variable)
    if not given:
        raise SystemExit(f"{variable} is not set; set it, or use --small")
    return Path(given)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--rows", type=int, default=300)
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _arguments(argv)
    rows = 24 if arguments.small else arguments.rows
    prompts = prompts_of(rows, arguments.small)
    with tempfile.TemporaryDirectory() as scratch:
        made = random_encoder(Path(scratch) / "encoder", TINY, seed=SEED) if arguments.small else None
        encoder = str(made or _folder("COMPASS_REAL_MODELS") / "e5-small")
        counts = [1] if arguments.small else sorted({1, os.cpu_count() or 1})
        numbers: dict[str, Value] = {f"threads_{threads}": compare(encoder, prompts, threads) for threads in counts}
    return write_record("speed/real_encoder", arguments, seeds=[SEED], settings={"rows": rows}, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()

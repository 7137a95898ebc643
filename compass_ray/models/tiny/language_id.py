"""A small fastText language identifier with GlotLID's labels, trained on prompts and answers of the atlas.

File format and labels are those of GlotLID, so the router treats both alike. It knows the 42 languages and short questions;
it is not suitable for web text.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa

from compass_ray.core.seeds import generator
from compass_ray.languages import get_language

FILE = "model.ftz"
THREADS = 10
"""fastText fills its input matrix in tenths, one per thread; with fewer, some stay uninitialized and training may diverge."""


def build_language_id(directory: Path, pool: pa.Table, *, seed: int) -> None:
    """Train on a pool with the columns ``prompt``, ``response`` and ``language``, quantize, and save."""
    import fasttext

    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "train.txt"
        text.write_text("\n".join(_lines(pool, seed)), "utf-8")
        model = fasttext.train_supervised(
            str(text),
            dim=16,
            lr=0.5,
            epoch=12,
            minn=1,
            maxn=4,
            bucket=50_000,
            thread=THREADS,
            seed=seed,
            verbose=0,
        )
        model.quantize(str(text), retrain=False, qnorm=True, verbose=False)
        directory.mkdir(parents=True, exist_ok=True)
        model.save_model(str(directory / FILE))


def _lines(pool: pa.Table, seed: int) -> list[str]:
    rows = zip(pool["language"].to_pylist(), pool["prompt"].to_pylist(), pool["response"].to_pylist(), strict=True)
    lines = [f"__label__{get_language(code).glotlid[0]} {text}" for code, prompt, reply in rows for text in (prompt, reply)]
    return [lines[i] for i in generator(seed, "language_id").permutation(len(lines))]

"""A sample of the data kit with known subjects: pool rows, guide prompts, and their embeddings with a cache.

Key property: rows are the first by a hash of language and prompt, so a larger sample contains a smaller one and vectors are
reused. Subjects and items only measure; no method sees them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from compass_ray.config import EmbedConfig, load_run_config
from compass_ray.models.encoder import Encoder
from compass_ray.models.multiple_choice_prompts import format_options
from compass_ray.sources.guides import read_guide_and_test
from compass_ray.sources.pool import read_pool

Float32 = npt.NDArray[np.float32]
_BATCH = 32


@dataclass(frozen=True)
class Texts:
    """Prompts with their languages, subjects, and items: rows of one item say the same in several languages ("" if none).

    ``with_options`` are guide prompts with the options of their question, "" for rows of the pool. ``responses`` are those of
    rows, and the right option of guide prompts.
    """

    prompts: tuple[str, ...]
    languages: tuple[str, ...]
    subjects: tuple[str, ...]
    items: tuple[str, ...]
    with_options: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class KitSample:
    """Pool rows and guide prompts of all target languages."""

    pool: Texts
    guides: Texts


@dataclass(frozen=True)
class SampleSize:
    """Pool rows of a target language, of any other language of the kit, and of a language without guide set."""

    target: int
    other: int
    auxiliary: int


def read_kit(folder: Path, targets: Sequence[str], size: SampleSize) -> KitSample:
    """Sample the kit in ``folder``; guide sets are those of ``targets``."""
    served = {path.name for path in (folder / "global_mmlu").iterdir() if path.is_dir()}
    rows = pq.read_table(folder / "aya_dataset_provenance.parquet").to_pylist()
    [file] = (folder / "aya_dataset" / "data").glob("train-*.parquet")
    prompts, responses = (pq.read_table(file, columns=[name])[name].to_pylist() for name in ("inputs", "targets"))
    found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for row in rows:
        if row["split"] == "train":
            prompt, code = prompts[row["row"]], row["language"]
            found[code][_key(code, prompt)] = (prompt, code, row["subject"], row["native_id"], "", responses[row["row"]])
    limits = {code: size.target if code in targets else size.other if code in served else size.auxiliary for code in found}
    pool = [found[code][key] for code in sorted(found) for key in sorted(found[code])[: limits[code]]]
    return KitSample(_texts(pool), _texts([each for code in targets for each in _guide(folder, code)]))


def read_atlas() -> KitSample:
    """The small atlas of the package, for a test of the benchmark."""
    config = load_run_config("atlas-test").pool
    rows = read_pool(config).rows.to_pylist()
    guides = [_guide_row(row, code) for code in ("sw", "hi") for row in read_guide_and_test(config, code).guide.to_pylist()]
    pool = [(row["prompt"], row["language"], row["subject"] or "", "", "", row["response"]) for row in rows]
    return KitSample(_texts(pool), _texts(guides))


def _guide_row(row: Mapping[str, Any], code: str) -> tuple[str, ...]:
    """A guide prompt of the package, whose right option is not known: the first stands for it."""
    options = row["options"]
    return row["prompt"], code, row["subject"] or "", "", format_options(row["prompt"], options), options[0]


def embed_texts(texts: Texts, config: EmbedConfig, cache: Path | None) -> Float32:
    """Unit vectors float32[n, d]; vectors in ``cache``, a file per language, are not computed again."""
    vectors: list[Float32] = [np.zeros(0, np.float32)] * len(texts)
    encoder: Encoder | None = None
    for code in dict.fromkeys(texts.languages):
        index = [i for i, each in enumerate(texts.languages) if each == code]
        keys = [_key(code, texts.prompts[i]) for i in index]
        file = cache / f"{_cache_name(config)}_{code}.npz" if cache else None
        known = _read_cache(file)
        missing = [(key, texts.prompts[i]) for key, i in zip(keys, index, strict=True) if key not in known]
        if missing:
            encoder = encoder or Encoder(config, device="cpu")
            rows = encoder.encode([prompt for _, prompt in missing], batch_size=_BATCH)
            known |= dict(zip((key for key, _ in missing), rows, strict=True))
            _write_cache(file, known)
        for key, i in zip(keys, index, strict=True):
            vectors[i] = known[key]
    return np.stack(vectors).astype(np.float32)


def _guide(folder: Path, code: str) -> list[tuple[str, ...]]:
    [file] = (folder / "global_mmlu" / code).glob("dev*.parquet")
    found: list[tuple[str, ...]] = []
    for row in pq.read_table(file).to_pylist():
        options = [row[f"option_{letter}"] for letter in "abcd"]
        text, answer = format_options(row["question"], options), options["ABCD".index(row["answer"])]
        found.append((row["question"], code, row["subject"], row["sample_id"], text, answer))
    return found


def _texts(rows: Sequence[tuple[str, ...]]) -> Texts:
    return Texts(*(tuple(column) for column in zip(*rows, strict=True)))


def _key(language: str, prompt: str) -> str:
    return hashlib.sha256(f"{language}\0{prompt}".encode()).hexdigest()


def _cache_name(config: EmbedConfig) -> str:
    return "_".join(filter(None, (Path(config.encoder).name, config.pooling)))


def _read_cache(file: Path | None) -> dict[str, Float32]:
    if file is None or not file.exists():
        return {}
    with np.load(file) as stored:
        return dict(zip(stored["keys"].tolist(), stored["vectors"].astype(np.float32), strict=True))


def _write_cache(file: Path | None, known: Mapping[str, Float32]) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, keys=np.array(list(known)), vectors=np.stack(list(known.values())).astype(np.float16))

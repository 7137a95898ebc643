"""Clusterers on real parallel text: a sentence and its translations should share a cluster.

The encoder is fitted here, on other lines of the same texts: letters of each language, mapped linearly into the latent
space of aligned lines (cross-lingual latent semantic indexing). The package's own small encoder has learnt the
atlas's questions alone, and hardly brings news in two languages together.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import adjusted_rand_score

from compass_ray.clustering import fit_clusters
from compass_ray.config import ClusterConfig, EmbedConfig

pytestmark = pytest.mark.shared_data

Rows = npt.NDArray[np.float32]
LANGUAGES = ("en", "de", "es", "fr", "it", "nl", "pt", "sv")
FITTED_ON = slice(0, 1000)
SENTENCES = slice(1900, 1960)
LATENT, RIDGE = 200, 0.3
COUNTS = (40, 50, 60, 70, 80)
TRUTH = np.tile(np.arange(60), len(LANGUAGES))


@pytest.fixture(scope="module")
def lines(shared_data: Path) -> dict[str, list[str]]:
    return {code: lzma.open(shared_data / "ntrex" / f"{code}.txt.xz", "rt").read().splitlines() for code in LANGUAGES}


@pytest.fixture(scope="module")
def embedded(lines: dict[str, list[str]]) -> Rows:
    """Unit rows float32[8 * 60, 200]: 60 sentences in each language, none of which the encoder was fitted on."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    seen, new = [], []
    for text in lines.values():
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=3, dtype=np.float32)
        known = letters.fit_transform(text[FITTED_ON])
        seen.append((known @ known.T).toarray())
        new.append((letters.transform(text[SENTENCES]) @ known.T).toarray())
    latent = np.linalg.eigh(sum(seen))[1][:, ::-1][:, :LATENT]
    identity = np.eye(len(latent))
    rows = [near @ np.linalg.solve(alike + RIDGE * identity, latent) for alike, near in zip(seen, new, strict=True)]
    return _unit(np.concatenate(rows))


def _unit(rows: npt.NDArray[np.floating]) -> Rows:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def agreement(rows: Rows, config: ClusterConfig) -> tuple[float, float]:
    """Adjusted Rand index of clusters and sentences, every noise row on its own; and the same of shuffled sentences."""
    labels = fit_clusters(config, rows, seed=0, strata=np.repeat(LANGUAGES, 60).tolist()).labels
    alone = np.where(labels >= 0, labels, len(labels) + np.arange(len(labels)))
    shuffled = np.random.default_rng(0).permutation(TRUTH)
    return adjusted_rand_score(TRUTH, alone), adjusted_rand_score(shuffled, alone)


@pytest.mark.parametrize(
    ("config", "floor"),
    [
        (ClusterConfig(method="hdbscan", min_cluster_size=(4, 6), min_samples=(1, 3), backend="cpu"), 0.60),
        (ClusterConfig(method="kmeans", n_clusters=COUNTS, n_init=3, backend="cpu"), 0.60),
        (ClusterConfig(method="ward", n_clusters=COUNTS), 0.65),
        (ClusterConfig(method="ward", n_clusters=COUNTS, metric="both", micro_clusters=240), 0.55),
        (ClusterConfig(method="butina"), 0.50),
    ],
    ids=["hdbscan", "kmeans", "ward", "ward-micro", "butina"],
)
def test_translations_share_a_cluster(embedded: Rows, config: ClusterConfig, floor: float) -> None:
    found, by_chance = agreement(embedded, config)
    print(config.method, round(found, 3), round(by_chance, 4))
    assert found > floor
    assert abs(by_chance) < 0.02


def test_the_small_encoder_brings_news_together_better_than_chance_and_no_more(lines: dict[str, list[str]]) -> None:
    from compass_ray.models.encoder import Encoder

    encoder = Encoder(EmbedConfig(encoder="atlas"))
    rows = np.concatenate([encoder.encode(text[SENTENCES], batch_size=60) for text in lines.values()])
    found, by_chance = agreement(rows, ClusterConfig(method="ward", n_clusters=COUNTS))
    print("atlas encoder", round(found, 3), round(by_chance, 4))
    assert 0.02 < found < 0.3
    assert abs(by_chance) < 0.02

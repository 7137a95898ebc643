"""Neighbours of one row: near duplicates among the candidates of its cluster, and the nearest guide prompt.

Key property: computed on demand for one row, as blockwise products of its cluster's embeddings with its own. Similarities
between other rows are never computed. Selects and scores nothing. COMPASS, section 3.2.3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import Artifact, RunDir
from compass_ray.core.array_checks import Float32Array, IntArray, unit_rows
from compass_ray.sources.guides import prompt_key

CLOSEST = 3
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Neighbour:
    """A row, and the cosine of its embedding with the row in question."""

    row_id: str
    language: str
    prompt: str
    cosine: float


@dataclass(frozen=True)
class Neighbours:
    """The candidates of a row's cluster with a cosine above ``tau`` to it, by whether they were drawn."""

    tau: float
    delta: float
    """Score penalty of a candidate for each selected near duplicate; 0 if the selection has no penalty."""
    suppressed: int
    """How many were not selected."""
    drawn: int
    closest_suppressed: tuple[Neighbour, ...]
    """The nearest of them, at most `CLOSEST`."""
    closest_drawn: tuple[Neighbour, ...]


@dataclass(frozen=True)
class NearestGuidePrompt:
    """The guide prompt nearest to a row."""

    prompt: str
    cosine: float


@dataclass(frozen=True)
class RowLocation:
    """A pool row's clustering, its cluster, and its unit embedding float32[d]."""

    clusters: Artifact
    row_id: str
    cluster: int
    vector: Float32Array


def locate_row(clusters: Artifact, row_id: str) -> RowLocation | None:
    """Find a pool row in a clustering. None if the clustering does not contain it."""
    rows = _assignments(clusters)
    index = pc.index(rows["row_id"], row_id).as_py()
    if index < 0:
        return None
    return RowLocation(clusters, row_id, rows["cluster"][index].as_py(), _vectors(clusters, np.array([index]))[0])


def find_neighbours(
    run: RunDir, location: RowLocation, language: str, drawn: Collection[str], tau: float, delta: float
) -> Neighbours:
    """Candidates for ``language`` near ``location``, given the row_ids that were ``drawn``.

    As in the selection, the language's own rows and its test questions are not candidates.
    """
    rows = _assignments(location.clusters)
    members = np.flatnonzero(rows["cluster"].to_numpy() == location.cluster)
    found = [(i, cosine) for i, cosine in _members_above(location, members, tau) if rows["row_id"][i].as_py() != location.row_id]
    texts = _texts(run, [rows["row_id"][i].as_py() for i, _ in found])
    excluded = keys_of_test_questions(run, language) if found else frozenset()
    near = [Neighbour(*texts[rows["row_id"][i].as_py()], cosine) for i, cosine in found]
    near = [each for each in near if each.language != language and prompt_key(each.prompt) not in excluded]
    near.sort(key=lambda each: (-each.cosine, each.row_id))
    selected = [each for each in near if each.row_id in drawn]
    suppressed = [each for each in near if each.row_id not in drawn]
    return Neighbours(tau, delta, len(suppressed), len(selected), tuple(suppressed[:CLOSEST]), tuple(selected[:CLOSEST]))


def find_nearest_guide_prompt(run: RunDir, language: str, location: RowLocation) -> NearestGuidePrompt | None:
    """The language's guide prompt nearest to a row. None if the run has no embedded guide set for it."""
    guide, embedded = run.guide(language), run.guide_embeddings(language)
    if guide.manifest() is None or embedded.manifest() is None:
        return None
    cosine = unit_rows(embedded.read_guide_vectors()) @ location.vector
    nearest = int(np.argmax(cosine))
    return NearestGuidePrompt(guide.read_table("guide.parquet", ["prompt"])["prompt"][nearest].as_py(), float(cosine[nearest]))


def _members_above(location: RowLocation, members: IntArray, tau: float) -> Iterator[tuple[int, float]]:
    """Members with a cosine above ``tau`` to the row, with that cosine."""
    for start in range(0, len(members), _BLOCK_ROWS):
        block = members[start : start + _BLOCK_ROWS]
        cosine = _vectors(location.clusters, block) @ location.vector
        yield from ((int(block[i]), float(cosine[i])) for i in np.flatnonzero(cosine > tau))


def _assignments(clusters: Artifact) -> pa.Table:
    return clusters.map_table("assignments.arrow").select(["row_id", "cluster"])


def _vectors(clusters: Artifact, rows: npt.NDArray[np.int64]) -> Float32Array:
    """Unit embeddings float32 (m, d) of rows of the assignments."""
    return unit_rows(clusters.map_array("vectors.npy")[rows])


def _texts(run: RunDir, row_ids: list[str]) -> dict[str, tuple[str, str, str]]:
    """row_id, language and prompt of pool rows."""
    table = run.pool.read_table("rows.parquet", ["row_id", "language", "prompt"])
    rows = table.filter(pc.is_in(table["row_id"], pa.array(row_ids, pa.string()))).to_pylist()
    return {row["row_id"]: (row["row_id"], row["language"], row["prompt"]) for row in rows}


def keys_of_test_questions(run: RunDir, language: str) -> frozenset[str]:
    """Keys of a language's test questions, which its selections must exclude (see `sources.guides.prompt_key`)."""
    guide = run.guide(language)
    if guide.manifest() is None:
        return frozenset()
    return frozenset(map(prompt_key, guide.read_table("test.parquet", ["question"])["question"].to_pylist()))

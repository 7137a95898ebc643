"""What lies near one row: the candidates of its cluster that its draw held back, and the guide prompt next to it.

Key property: found on demand for the one row, by the product of its cluster's stored embeddings with its own, block by
block; similarities among other rows are never made. COMPASS, section 3.2.3. It draws nothing and scores nothing.
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
    """A row, and the cosine of its embedding with the one asked about."""

    row_id: str
    language: str
    prompt: str
    cosine: float


@dataclass(frozen=True)
class Neighbours:
    """The candidates of a row's cluster with a cosine above ``tau`` to it, by whether they were drawn."""

    tau: float
    delta: float
    """What each of them costs a candidate's score once it is drawn; 0 where nothing was held back."""
    suppressed: int
    """How many were not drawn."""
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
    """Where a pool row lies: in which cluster of which clustering, and its unit embedding float32[d]."""

    clusters: Artifact
    row_id: str
    cluster: int
    vector: Float32Array


def locate_row(clusters: Artifact, row_id: str) -> RowLocation | None:
    """Where a pool row lies, None where the clustering does not hold it."""
    rows = _assignments(clusters)
    at = pc.index(rows["row_id"], row_id).as_py()
    if at < 0:
        return None
    return RowLocation(clusters, row_id, rows["cluster"][at].as_py(), _vectors(clusters, np.array([at]))[0])


def find_neighbours(run: RunDir, at: RowLocation, language: str, drawn: Collection[str], tau: float, delta: float) -> Neighbours:
    """The rows near ``at`` that could be drawn for ``language``, given the row_ids that were ``drawn``.

    As for the selection itself, the language's own rows and its test questions are no candidates.
    """
    rows = _assignments(at.clusters)
    members = np.flatnonzero(rows["cluster"].to_numpy() == at.cluster)
    found = [(i, cosine) for i, cosine in _members_above(at, members, tau) if rows["row_id"][i].as_py() != at.row_id]
    known = _texts(run, [rows["row_id"][i].as_py() for i, _ in found])
    forbidden = keys_of_test_questions(run, language) if found else frozenset()
    near = [Neighbour(*known[rows["row_id"][i].as_py()], cosine) for i, cosine in found]
    near = [each for each in near if each.language != language and prompt_key(each.prompt) not in forbidden]
    near.sort(key=lambda each: (-each.cosine, each.row_id))
    taken = [each for each in near if each.row_id in drawn]
    left = [each for each in near if each.row_id not in drawn]
    return Neighbours(tau, delta, len(left), len(taken), tuple(left[:CLOSEST]), tuple(taken[:CLOSEST]))


def find_nearest_guide_prompt(run: RunDir, language: str, at: RowLocation) -> NearestGuidePrompt | None:
    """The language's guide prompt nearest to a row, None where the run has no embedded guide set of it."""
    guide, embedded = run.guide(language), run.guide_embeddings(language)
    if guide.manifest() is None or embedded.manifest() is None:
        return None
    cosine = unit_rows(embedded.read_embeddings()) @ at.vector
    nearest = int(np.argmax(cosine))
    return NearestGuidePrompt(guide.read_table("guide.parquet", ["prompt"])["prompt"][nearest].as_py(), float(cosine[nearest]))


def _members_above(at: RowLocation, members: IntArray, tau: float) -> Iterator[tuple[int, float]]:
    """Members with a cosine above ``tau`` to the row, and that cosine."""
    for start in range(0, len(members), _BLOCK_ROWS):
        block = members[start : start + _BLOCK_ROWS]
        cosine = _vectors(at.clusters, block) @ at.vector
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
    """Keys of a language's test questions, which no selection for it may take; see `sources.guides.prompt_key`."""
    guide = run.guide(language)
    if guide.manifest() is None:
        return frozenset()
    return frozenset(map(prompt_key, guide.read_table("test.parquet", ["question"])["question"].to_pylist()))

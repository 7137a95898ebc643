"""Why a row was chosen, or was not, for one language by one method.

Key property: an answer restates what the selection wrote for the row and its cluster; the one thing found anew is which
rows lie near it. COMPASS, sections 3.2.2 and 3.2.3. It does not say how much a row helped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import CORRECTIONS_FILE, ArtifactError, RunDir, selection_method
from compass_ray.config import ConfigError
from compass_ray.core.sampling import TAU, SamplingMode
from compass_ray.languages import get_language as known_language
from compass_ray.records.allocation import AllocationRecord, ClusterShares, QuotaRecord
from compass_ray.report.explain_text import (
    COMPASS,
    TEST_QUESTION_REASON,
    describe_guide_prompt,
    describe_neighbours,
    explain_selection,
)
from compass_ray.report.nearest_rows import (
    NearestGuidePrompt,
    Neighbours,
    RowLocation,
    find_nearest_guide_prompt,
    find_neighbours,
    keys_of_test_questions,
    locate_row,
)
from compass_ray.report.run_reader import RunReader, is_version, language_name
from compass_ray.sources.guides import prompt_key


class UnknownRowError(ConfigError):
    """A row_id or cluster that the run does not hold."""


@dataclass(frozen=True)
class RowExplanation:
    """The answer for one row and one target language."""

    row_id: str
    language: str
    method: str
    prompt: str
    source_language: str
    chosen: bool
    cluster: int
    sentences: tuple[str, ...]
    """The reason, from the cluster's gap to the row's own draw and what lies near it."""
    row: Mapping[str, Any]
    """The row as the selection wrote it (tables.SELECTED); empty where it was not chosen."""
    uses: tuple[float, ...]
    """Weight of each of its uses: more than one only where rows are used again."""
    quota: QuotaRecord | None
    """Counts, weight and quota of its cluster."""
    shares: ClusterShares | None
    """Its cluster's place in the gap."""
    neighbours: Neighbours | None
    """None where it was no candidate of COMPASS: under other methods, own rows, noise, updates of an adapter."""
    guide: NearestGuidePrompt | None

    def lines(self) -> list[str]:
        """The answer for a terminal: the prompt, and why."""
        state = "chosen" if self.chosen else "not chosen"
        where = f"{state} for {language_name(self.language)} by {self.method}"
        return [f"{self.row_id}, {language_name(self.source_language)}, {where}", self.prompt, *self.sentences]


@dataclass(frozen=True)
class StoredSelection:
    """One method's selection for one language, as it was written."""

    method: str
    language: str
    allocation: AllocationRecord
    rows: pa.Table


def read_selection(evidence: RunReader, method: str, language: str) -> StoredSelection:
    """The selection of a method for a language.

    Raises:
        UnknownLanguageError: a code that is no target language's.
        ConfigError: the language has selections, but none of this method.
        ArtifactError: it has none at all.
    """
    known_language(language)
    method = selection_method(method)
    allocation, rows = evidence.allocation(method, language), evidence.selected_table(method, language)
    if allocation is not None and rows is not None:
        return StoredSelection(method, language, allocation, rows)
    run, held = evidence.run, evidence.run.selection_names(language)
    message = f"there is no selection of method {method!r} for language {language!r} in {run.uri}; "
    if held:
        raise ConfigError(f"{message}it holds those of {', '.join(held)}")
    raise ArtifactError(f"{message}run 'compass-ray adapt --run {run.uri} --languages {language}' for it first")


def explain_row(run: RunDir, language: str, row_id: str, method: str = COMPASS) -> RowExplanation:
    """Say why a pool row is in the training rows of a language, or is not.

    Raises:
        ArtifactError, ConfigError: the language's selection is not there; see `made_selection`.
        UnknownRowError: the pool has no such row.
    """
    evidence = RunReader(run)
    made, found = read_selection(evidence, method, language), evidence.prompts([row_id]).get(row_id)
    at = locate_row(evidence.clusters(language, method), row_id) if found else None
    if found is None and row_id in made.rows["row_id"].to_pylist():
        raise UnknownRowError(
            f"row_id {row_id!r} is a user's correction of a reply, which joined this selection; its text and key are in "
            f"{run.selection(method, language).name}/{CORRECTIONS_FILE}"
        )
    if found is None or at is None:
        raise UnknownRowError(
            f"row_id {row_id!r} is not in the pool of {run.uri}; "
            f"'compass-ray report {run.uri} --rows {language}' lists those that were chosen"
        )
    uses = made.rows.filter(pc.equal(made.rows["row_id"], row_id)).to_pylist()
    row: dict[str, Any] = uses[0] if uses else {}
    asked = not row and prompt_key(found[0]) in keys_of_test_questions(run, language)
    near = None if asked else _neighbours(run, made, at, row, found[1])
    guide = None if is_version(method) else find_nearest_guide_prompt(run, language, at)
    gap, draw = explain_selection(made.allocation, row, found[1], at.cluster)
    return RowExplanation(
        row_id=row_id,
        language=language,
        method=method,
        prompt=found[0],
        source_language=found[1],
        chosen=bool(row),
        cluster=at.cluster,
        sentences=(
            gap,
            TEST_QUESTION_REASON if asked else draw,
            *_describe_repeated_uses(uses),
            *describe_neighbours(near, bool(row)),
            *describe_guide_prompt(guide),
        ),
        row=row,
        uses=tuple(use["weight"] for use in uses),
        quota=made.allocation.quota(at.cluster),
        shares=made.allocation.shares(at.cluster),
        neighbours=near,
        guide=guide,
    )


def _neighbours(run: RunDir, made: StoredSelection, at: RowLocation, row: Mapping[str, Any], source: str) -> Neighbours | None:
    if made.method != COMPASS or at.cluster < 0 or source == made.language or row.get("role") == "target":
        return None
    settings = run.selection(made.method, made.language).require().config
    counted = settings.get("mode") != SamplingMode.UNIFORM
    return find_neighbours(
        run,
        at,
        made.language,
        drawn=frozenset(made.rows["row_id"].to_pylist()),
        tau=float(settings.get("tau", TAU)),
        delta=float(settings.get("delta", 0.0)) if counted else 0.0,
    )


def _describe_repeated_uses(uses: list[dict[str, Any]]) -> list[str]:
    if len(uses) < 2:
        return []
    weights = ", ".join(f"{use['weight']:g}" for use in uses)
    return [f"It is used {len(uses)} times, with weights {weights}, for want of other candidates."]

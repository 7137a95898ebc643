"""Explanation of why a method selected a row for a language, or did not.

Key property: it restates what the selection wrote for the row and its cluster. Only the near duplicates and the nearest guide
prompt are computed. It does not say how much a row helped. COMPASS, sections 3.2.2 and 3.2.3.
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
from compass_ray.languages import get_language
from compass_ray.records.allocation import AllocationRecord, ClusterShares, QuotaRecord
from compass_ray.report.explain_text import (
    COMPASS,
    TEST_QUESTION_REASON,
    describe_guide_prompt,
    describe_neighbours,
    explain_selection,
    format_turns,
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
    """A row_id or cluster that does not exist in the run."""


@dataclass(frozen=True)
class RowExplanation:
    """The explanation for one row and one target language."""

    row_id: str
    language: str
    method: str
    prompt: str
    source_language: str
    chosen: bool
    cluster: int
    sentences: tuple[str, ...]
    """The reason: the cluster's gap, the row's draw, its near duplicates and the nearest guide prompt."""
    row: Mapping[str, Any]
    """The row as the selection wrote it (schemas.SELECTED); empty if it was not selected."""
    uses: tuple[float, ...]
    """Weight of each use: more than one only if rows are repeated."""
    quota: QuotaRecord | None
    """Counts, weight and quota of its cluster."""
    shares: ClusterShares | None
    """Its cluster's shares of the guide set and of the training rows."""
    neighbours: Neighbours | None
    """None if the row was not a candidate of COMPASS: other methods, own rows, noise, adapter updates."""
    guide: NearestGuidePrompt | None
    messages: tuple[Mapping[str, str], ...] = ()
    """Role and content of every turn, if the row is a conversation."""

    def lines(self) -> list[str]:
        """Lines for a terminal: the prompt or the conversation, and the reason."""
        state = "selected" if self.chosen else "not selected"
        texts = [format_turns([message]) for message in self.messages] or [self.prompt]
        where = f"{state} for {language_name(self.language)} by {self.method}"
        return [f"{self.row_id}, {language_name(self.source_language)}, {where}", *texts, *self.sentences]


@dataclass(frozen=True)
class StoredSelection:
    """One method's selection for one language, as it was written."""

    method: str
    language: str
    allocation: AllocationRecord
    rows: pa.Table


def read_selection(reader: RunReader, method: str, language: str) -> StoredSelection:
    """Read the selection of a method for a language.

    Raises:
        UnknownLanguageError: the code is not of a target language.
        ConfigError: the language has selections, but none of this method.
        ArtifactError: the language has no selection.
    """
    get_language(language)
    method = selection_method(method)
    allocation, rows = reader.allocation(method, language), reader.selected_table(method, language)
    if allocation is not None and rows is not None:
        return StoredSelection(method, language, allocation, rows)
    run, existing = reader.run, reader.run.selection_names(language)
    message = f"{run.shown_uri} has no selection of method {method!r} for language {language!r}"
    if existing:
        raise ConfigError(f"{message}; existing methods: {', '.join(existing)}")
    raise ArtifactError(f"{message}; run 'compass-ray adapt --run {run.shown_uri} --languages {language}' first")


def explain_row(run: RunDir, language: str, row_id: str, method: str = COMPASS) -> RowExplanation:
    """Explain why a pool row was selected for a language, or was not.

    Raises:
        ArtifactError, ConfigError: the selection does not exist; see `read_selection`.
        UnknownRowError: the row is not in the pool.
    """
    reader = RunReader(run)
    selection, found = read_selection(reader, method, language), reader.prompts([row_id]).get(row_id)
    location = locate_row(reader.clusters(language, method), row_id) if found else None
    if found is None and row_id in selection.rows["row_id"].to_pylist():
        raise UnknownRowError(
            f"row_id {row_id!r} is a user's correction of a reply that was added to this selection; its text and key are in "
            f"{run.selection(method, language).name}/{CORRECTIONS_FILE}"
        )
    if found is None or location is None:
        raise UnknownRowError(
            f"row_id {row_id!r} is not in the pool of {run.shown_uri}; "
            f"'compass-ray report {run.shown_uri} --rows {language}' lists the selected rows"
        )
    uses = selection.rows.filter(pc.equal(selection.rows["row_id"], row_id)).to_pylist()
    row: dict[str, Any] = uses[0] if uses else {}
    is_test_question = not row and prompt_key(found[0]) in keys_of_test_questions(run, language)
    near = None if is_test_question else _neighbours(run, selection, location, row, found[1])
    guide = None if is_version(method) else find_nearest_guide_prompt(run, language, location)
    gap, draw = explain_selection(selection.allocation, row, found[1], location.cluster)
    return RowExplanation(
        row_id=row_id,
        language=language,
        method=method,
        prompt=found[0],
        source_language=found[1],
        chosen=bool(row),
        cluster=location.cluster,
        sentences=(
            gap,
            TEST_QUESTION_REASON if is_test_question else draw,
            *_describe_repeated_uses(uses),
            *describe_neighbours(near, bool(row)),
            *describe_guide_prompt(guide),
        ),
        row=row,
        uses=tuple(use["weight"] for use in uses),
        quota=selection.allocation.quota(location.cluster),
        shares=selection.allocation.shares(location.cluster),
        neighbours=near,
        guide=guide,
        messages=reader.conversations([row_id]).get(row_id, ()),
    )


def _neighbours(
    run: RunDir, selection: StoredSelection, location: RowLocation, row: Mapping[str, Any], source: str
) -> Neighbours | None:
    if selection.method != COMPASS or location.cluster < 0 or source == selection.language or row.get("role") == "target":
        return None
    settings = run.selection(selection.method, selection.language).require().config
    has_penalty = settings.get("mode") not in (SamplingMode.UNIFORM, SamplingMode.NEAREST)
    return find_neighbours(
        run,
        location,
        selection.language,
        drawn=frozenset(selection.rows["row_id"].to_pylist()),
        tau=float(settings.get("tau", TAU)),
        delta=float(settings.get("delta", 0.0)) if has_penalty else 0.0,
    )


def _describe_repeated_uses(uses: list[dict[str, Any]]) -> list[str]:
    if len(uses) < 2:
        return []
    weights = ", ".join(f"{use['weight']:g}" for use in uses)
    return [f"It is used {len(uses)} times, with weights {weights}, because its cluster has too few candidates."]

"""Reader of a run's complete artifacts as typed records, for tables, plots and the page.

Key property: anything that a run does not have reads as None or empty, never as an error. So a report can be built at any time
and names what is missing. Only complete artifacts are read. Nothing is computed here.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from compass_ray.artifacts import FULL_FINETUNING, SHARED, Artifact, RunDir, clustering_key, jsonl_log, owner, version_of
from compass_ray.clustering.versions import INITIAL_CLUSTERING, clustering_of
from compass_ray.config import RunConfig
from compass_ray.core.choice_measures import ItemMeasures, measure_items
from compass_ray.core.families import family_of
from compass_ray.languages import LANGUAGES
from compass_ray.records.allocation import AllocationRecord
from compass_ray.records.base import FileRecord, Record
from compass_ray.records.budgets import BudgetRecord
from compass_ray.records.checks import CheckRecord
from compass_ray.records.clustering import ClusterRecord, SweepRecord
from compass_ray.records.decisions import Decision, parse_decision
from compass_ray.records.evaluations import EvaluationRecord, ScoredItems
from compass_ray.records.harness import HarnessRecord
from compass_ray.records.training import HistoryRecord
from compass_ray.records.updates import GateRecord, UpdateRecord
from compass_ray.translations import ENGLISH, current_language, mark, translate

METHODS: Mapping[str, str] = {
    "zero_shot": mark("zero-shot"),
    "target": mark("target"),
    "all": mark("all data"),
    "random": mark("random"),
    "langrank": mark("LangRank"),
    "langsim": mark("LangSim"),
    "dsir": mark("DSIR"),
    "nearest": mark("nearest"),
    "round_robin": mark("round robin"),
    "placebo": mark("placebo"),
    "oracle": mark("oracle"),
    "own_repeated": mark("own rows repeated"),
    "quantile_1": mark("quantile 1"),
    "quantile_2": mark("quantile 2"),
    "quantile_3": mark("quantile 3"),
    "quantile_4": mark("quantile 4"),
    "quantile_5": mark("quantile 5"),
    "compass_fft": mark("COMPASS-FFT"),
    "compass": mark("COMPASS"),
}
"""Display names of the compared methods, in the order of the tables. `method_name` translates them."""
METHOD_DESCRIPTIONS: Mapping[str, str] = {
    "zero_shot": mark("the base model without an adapter"),
    "target": mark("an adapter of the language's own rows only"),
    "all": mark("one adapter of all rows of all languages"),
    "random": mark("own rows and rows of other languages drawn at random"),
    "langrank": mark("own rows and rows of the languages that a trained ranker puts first"),
    "langsim": mark("own rows and rows of the typologically most similar languages"),
    "dsir": mark("own rows and rows drawn by importance weights of their n-grams"),
    "nearest": mark("own rows and the rows most similar to a guide prompt"),
    "round_robin": mark("own rows and, in turn for each guide prompt, the most similar row left"),
    "placebo": mark("as COMPASS, with the quotas of the clusters permuted at random"),
    "oracle": mark("as COMPASS, with the true subjects instead of clusters"),
    "own_repeated": mark("own rows, some of them repeated"),
    **{
        f"quantile_{number}": mark("own rows and rows at random from one fifth by distance to the guide prompts")
        for number in range(1, 6)
    },
    "compass_fft": mark("the rows of COMPASS, with all parameters of the model trained"),
    "compass": mark("own rows and rows drawn from the clusters in which the language has too few"),
}
"""What each method trains, in one phrase."""

_SCORED_COLUMNS = ["item_id", "subject", "answer", "predicted", "log_probs"]
_MEASURED_COLUMNS = ("log_prob_sums", "characters", "bytes", "family", "truncated")
"""Columns that evaluations of former versions lack."""
_VERSION = re.compile(r"v\d+")


R = TypeVar("R", bound=Record)
F = TypeVar("F", bound=FileRecord)


def method_name(method: str) -> str:
    """Display name of a method in the current language; the method itself if it is unknown."""
    return translate(METHODS[method]) if method in METHODS else method


class RunReader:
    """Lazy reader of everything that a report can show of a run."""

    def __init__(self, run: RunDir) -> None:
        """Create a reader of ``run``. Reads nothing yet."""
        self.run = run
        self._cache: dict[tuple[str, str, str], Any] = {}

    def clusters(self, language: str, method: str | None = None) -> Artifact:
        """The clustering of a language's rows: its own, or the shared one.

        If ``method`` is the version of an update: the clustering that was active when its rows were selected.
        """
        selection = self.run.selection(method, language) if method else None
        if selection and selection.manifest() and clustering_of(selection) != INITIAL_CLUSTERING:
            return self.run.reclustering(clustering_of(selection))
        return self.run.clustering(clustering_key(self.config, language) if self.config else SHARED)

    @cached_property
    def config(self) -> RunConfig | None:
        """The configuration of the run; None if it has none yet."""
        return self.run.read_config() if self.run.read_config_bytes() is not None else None

    def sweep(self, language: str) -> SweepRecord | None:
        """The sweep of the clustering of a language's rows, and the clusters."""
        artifact = self.clusters(language)
        key = ("sweep", artifact.name, "")
        if key not in self._cache:
            self._cache[key] = _read_record(SweepRecord, artifact)
        return cast(SweepRecord | None, self._cache[key])

    def cluster(self, language: str, number: int) -> ClusterRecord | None:
        """One cluster of a language's clustering."""
        sweep = self.sweep(language)
        return next((c for c in sweep.clusters if c.cluster == number), None) if sweep else None

    def budget(self, language: str) -> BudgetRecord | None:
        """The tuned budget of a language, if its COMPASS selection uses it."""
        artifact, selection = self.run.budget(language), self.run.selection("compass", language).manifest()
        used = selection is not None and artifact.name in selection.inputs
        return _read_record(BudgetRecord, artifact) if used else None

    def allocation(self, method: str, language: str) -> AllocationRecord | None:
        """How the method's budget was allocated to clusters. Of a selection for all languages: this language's part."""
        key = ("allocation", method, language)
        if key not in self._cache:
            made = _read_record(AllocationRecord, self.run.selection(method, language))
            self._cache[key] = made.by_language.get(language, made) if made else None
        return cast(AllocationRecord | None, self._cache[key])

    def selected_table(self, method: str, language: str) -> pa.Table | None:
        """The method's training rows (schemas.SELECTED)."""
        return _read_table(self.run.selection(method, language), "rows.parquet")

    def histories(self, language: str) -> dict[str, HistoryRecord]:
        """Training history of every adapter version of a language, in order of version, then of the fully finetuned model."""
        found = {v: _read_record(HistoryRecord, self.run.adapter(language, v)) for v in self.versions(language)}
        found[FULL_FINETUNING] = _read_record(HistoryRecord, self.run.full_model(language, FULL_FINETUNING))
        return {version: history for version, history in found.items() if history}

    def first_trained(self, config: RunConfig, method: str, language: str) -> Artifact:
        """A method's first adapter for a language, or its adapter for all languages, or its model."""
        if method == FULL_FINETUNING:
            return self.run.full_model(language, method)
        return self.run.adapter(owner(method, language), version_of(config, method))

    def first_history(self, config: RunConfig, method: str, language: str) -> HistoryRecord | None:
        """Training history of `first_trained`."""
        return _read_record(HistoryRecord, self.first_trained(config, method, language))

    def versions(self, language: str) -> list[str]:
        """The adapter versions of a language: versions of the served method first, then other methods."""
        return sorted(self.run.adapter_versions(language), key=_version_sort_key)

    def scored_items(self, name: str, language: str) -> ScoredItems | None:
        """All answers of an evaluation."""
        key = ("scored", name, language)
        if key not in self._cache:
            self._cache[key] = self._read_scored(name, language)
        return cast(ScoredItems | None, self._cache[key])

    def _read_scored(self, name: str, language: str) -> ScoredItems | None:
        artifact = self.run.evaluation(name, language)
        table = _read_table(artifact, "items.parquet", _SCORED_COLUMNS, _MEASURED_COLUMNS)
        if table is None:
            return None
        results = _read_record(EvaluationRecord, artifact) or EvaluationRecord()
        return ScoredItems(
            method=name,
            language=language,
            item_ids=tuple(table["item_id"].to_pylist()),
            subjects=tuple(table["subject"].to_pylist()),
            correct=np.asarray(pc.equal(table["answer"], table["predicted"])).astype(bool),
            chance=np.array([1 / max(np.isfinite(each).sum(), 1) for each in table["log_probs"].to_pylist()], np.float64),
            families=tuple(_column(table, "family") or map(family_of, table["subject"].to_pylist())),
            truncated=np.array(_column(table, "truncated") or [False] * table.num_rows, np.bool_),
            measures=_read_measures(table),
            text=results.text,
            low_subjects=results.low_subjects,
        )

    def harness_results(self, languages: Sequence[str]) -> list[HarnessRecord]:
        """Results of lm-evaluation-harness, by language, task and method."""
        found = (_read_record(HarnessRecord, artifact) for artifact in self.run.harness_results(languages))
        order = {code: index for index, code in enumerate(languages)}
        return sorted(filter(None, found), key=lambda each: (order[each.language or ""], each.task, each.method or ""))

    @cached_property
    def checks(self) -> tuple[CheckRecord, ...]:
        """All drift checks of the monitor, as written."""
        return self._lines(CheckRecord.model_validate, "checks.jsonl")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions of the continual loop, as written."""
        return self._lines(parse_decision, "decisions.jsonl")

    def updates(self, language: str) -> tuple[UpdateRecord, ...]:
        """The outcome of every update of a language, oldest first."""
        named = {d.to_version for d in self.decisions if d.language == language and d.to_version}
        versions = sorted(named | set(self.versions(language)))
        return tuple(found for version in versions if (found := self._update(language, version)))

    def _update(self, language: str, version: str) -> UpdateRecord | None:
        """Measurements of an update. Only those of the gate if its items were not scored yet."""
        if found := _read_record(UpdateRecord, self.run.change(language, version)):
            return found
        gate = _read_record(GateRecord, self.run.update(language, version))
        if gate is None:
            return None
        return UpdateRecord(language=language, from_version=gate.from_version or "?", to_version=version, gate=gate)

    def prompts(self, row_ids: list[str]) -> dict[str, tuple[str, str]]:
        """Prompt and language of pool rows by row_id. Rows that are not in the pool are omitted."""
        return {row["row_id"]: (row["prompt"], row["language"]) for row in self._pool_rows(row_ids)}

    def conversations(self, row_ids: list[str]) -> dict[str, tuple[dict[str, str], ...]]:
        """All turns (role and content) of pool rows that are conversations, by row_id."""
        return {row["row_id"]: tuple(row["messages"]) for row in self._pool_rows(row_ids) if row.get("messages")}

    def responses(self, row_ids: list[str]) -> dict[str, str]:
        """Responses of pool rows by row_id. Rows that are not in the pool are omitted."""
        if not row_ids or not _has(self.run.pool, "rows.parquet"):
            return {}
        table = self.run.pool.read_table("rows.parquet", ["row_id", "response"])
        found = table.filter(pc.is_in(table["row_id"], pa.array(row_ids, pa.string()))).to_pylist()
        return {row["row_id"]: row["response"] for row in found}

    @cached_property
    def pool_languages(self) -> dict[str, int]:
        """Rows of the pool by language; empty without a pool."""
        if not _has(self.run.pool, "rows.parquet"):
            return {}
        return dict(Counter(self.run.pool.read_table("rows.parquet", ["language"])["language"].to_pylist()))

    def _pool_rows(self, row_ids: list[str]) -> list[dict[str, Any]]:
        if not row_ids or not _has(self.run.pool, "rows.parquet"):
            return []
        table = self.run.pool.read_table("rows.parquet", ["row_id", "prompt", "language"], optional=("messages",))
        rows: list[dict[str, Any]] = table.filter(pc.is_in(table["row_id"], pa.array(row_ids, pa.string()))).to_pylist()
        return rows

    def _lines(self, parse: Callable[[Any], R], file: str) -> tuple[R, ...]:
        """The records of a file. A line that is damaged, or that a killed writer left incomplete, is left out."""
        return tuple(record for line in jsonl_log.read(self.run, file) if (record := _parse_line(parse, line)) is not None)


def _parse_line(parse: Callable[[Any], R], line: Any) -> R | None:
    try:
        return parse(line)
    except ValidationError:
        return None


def is_version(name: str) -> bool:
    """Whether an adapter's name is a version such as v0002, and not a method."""
    return _VERSION.fullmatch(name) is not None


def _version_sort_key(version: str) -> tuple[bool, int, str]:
    return (
        not is_version(version),
        list(METHODS).index(version) if version in METHODS else len(METHODS),
        version,
    )


def language_name(code: str) -> str:
    """The name of a language in the current language, with its code; the code alone if the name is unknown.

    >>> language_name("sw"), language_name("bul"), language_name("xyz")
    ('Swahili (sw)', 'Bulgarian (bul)', 'xyz')
    """
    known = LANGUAGES.get(code)
    name = known.name if known and current_language() == ENGLISH else _cldr_name(code, current_language())
    return f"{name} ({code})" if name else code


@functools.cache
def _cldr_name(code: str, language: str) -> str | None:
    """The name of a language in another one, by CLDR."""
    from babel.core import Locale, get_global

    names = Locale.parse(language).languages
    short = get_global("language_aliases").get(code, code).split("_")[0]
    return cast(str | None, names.get(code) or names.get(short))


def format_time(time: float | str | None) -> str:
    """A time for display. A number of seconds is shown in UTC.

    >>> format_time(0.0), format_time(None)
    ('1970-01-01 00:00:00 UTC', '')
    """
    if time is None:
        return ""
    if isinstance(time, str):
        return time
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # a damaged time
        return ""


def _read_record(kind: type[F], artifact: Artifact) -> F | None:
    return kind.read(artifact) if _has(artifact, kind.FILE) else None


def _column(table: pa.Table, name: str) -> list[Any]:
    """The values of a column; empty if the table is of a former version."""
    return list(table[name].to_pylist()) if name in table.column_names else []


def _read_measures(table: pa.Table) -> ItemMeasures | None:
    if any(name not in table.column_names or table[name].null_count for name in _MEASURED_COLUMNS[:3]):
        return None
    sums, characters, sizes = (table[name].to_pylist() for name in _MEASURED_COLUMNS[:3])
    return measure_items(sums, characters, sizes, table["answer"].to_numpy())


def _read_table(
    artifact: Artifact, file: str, columns: list[str] | None = None, optional: tuple[str, ...] = ()
) -> pa.Table | None:
    return artifact.read_table(file, columns, optional) if _has(artifact, file) else None


def _has(artifact: Artifact, file: str) -> bool:
    """Whether an artifact is complete and lists the file. A listed file that does not exist is an error of its reader."""
    manifest = artifact.manifest()
    return manifest is not None and any(output.path == file for output in manifest.outputs)

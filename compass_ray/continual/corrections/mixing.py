"""Accepted corrections as rows of an update's selection.

Key property: of the rows of an update they are at most `update.corrections_share`, every key in its turn. What enters is in the
selection's identity; a selection that stands keeps what entered it, so feedback that comes in the meantime never makes a killed
update begin again. Beyond COMPASS, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from compass_ray import schemas
from compass_ray.artifacts import CORRECTIONS_FILE, Identity, Manifest, RunDir, Writer, content_hash
from compass_ray.config import RunConfig, UpdateConfig
from compass_ray.continual.corrections.filter import FilterModels, FilterResult, filter_corrections
from compass_ray.continual.corrections.rules import row_id
from compass_ray.continual.corrections.verdicts import CorrectionState, CorrectionVerdict
from compass_ray.core.round_robin import max_corrections

QUARANTINE_FILE = "quarantine.parquet"
_IDENTITY_KEY = "corrections"


@dataclass(frozen=True)
class MixedSelection:
    """A selection with the corrections that joined it."""

    rows: pa.Table
    """tables.SELECTED"""
    corrections: pa.Table
    """tables.LABELLED: the texts of the rows with role ``traffic``."""
    withheld: pa.Table
    """tables.WITHHELD: every other correction, without its text."""

    @property
    def mark(self) -> str:
        """What entered, as a hash."""
        return content_hash(*sorted(self.corrections["row_id"].to_pylist()))

    def write(self, writer: Writer) -> None:
        """Put texts and quarantine into the artefact beside the rows."""
        writer.write_table(CORRECTIONS_FILE, self.corrections)
        writer.write_table(QUARANTINE_FILE, self.withheld)


def list_accepted(
    config: RunConfig, run: RunDir, language: str, *, means: FilterModels | None = None, now: float | None = None
) -> pa.Table:
    """The corrections that may join, in order of turn: row_id, prompt, response, cluster, proto and key.

    None of them where ``update.corrections`` is none. For what it raises see `judged`.
    """
    if config.update.corrections == "none":
        return _accepted_table(FilterResult())
    return _accepted_table(filter_corrections(config, run, language, means=means, now=now))


def mix_corrections(
    config: RunConfig, run: RunDir, language: str, rows: pa.Table, *, means: FilterModels | None = None, now: float | None = None
) -> MixedSelection | None:
    """Let corrections join selected ``rows`` (tables.SELECTED); None where ``update.corrections`` is none."""
    if config.update.corrections == "none":
        return None
    judgement = filter_corrections(config, run, language, means=means, now=now)
    may_enter, most = _accepted_table(judgement), max_corrections(rows.num_rows, config.update.corrections_share)
    entered = may_enter.slice(0, most)
    over = f"corrections are at most {config.update.corrections_share:g} of the update's rows (update.corrections_share)"
    late = {pair.id for pair in judgement.accepted[most:]}
    withheld = [CorrectionVerdict(v.pair, CorrectionState.LEFT_OUT, over) if v.pair.id in late else v for v in judgement.verdicts]
    return MixedSelection(
        rows=pa.concat_tables([rows, _selection_rows(entered, language)]),
        corrections=entered.select(schemas.CORRECTIONS.names).cast(schemas.CORRECTIONS),
        withheld=_withheld_table(withheld),
    )


def bind_identity(identity: Identity, update: UpdateConfig, mark: str | None) -> Identity:
    """The identity of a selection that corrections with this mark joined; the selection's own where none may."""
    if update.corrections == "none":
        return identity
    told = {"from": update.corrections, "share": update.corrections_share, "per_key": update.corrections_per_key, "rows": mark}
    return Identity(identity.stage, {**identity.config, _IDENTITY_KEY: told}, identity.inputs)


def read_mark(manifest: Manifest) -> str | None:
    """The mark of what joined a selection that stands."""
    told = manifest.config.get(_IDENTITY_KEY) or {}
    return told.get("rows")


def _accepted_table(judgement: FilterResult) -> pa.Table:
    pairs = judgement.accepted
    columns = {
        "row_id": pa.array([row_id(pair) for pair in pairs], pa.string()),
        "prompt": pa.array([pair.prompt for pair in pairs], pa.string()),
        "response": pa.array([pair.correction.strip() for pair in pairs], pa.string()),
        "cluster": pa.array(judgement.cluster, pa.int32()),
        "proto": pa.array(judgement.proto, pa.float32()),
        "key": pa.array([pair.key for pair in pairs], pa.string()),
    }
    return pa.table(columns)


def _selection_rows(entered: pa.Table, language: str) -> pa.Table:
    n = entered.num_rows
    columns = {
        "row_id": entered["row_id"],
        "role": pa.array(["traffic"] * n, pa.string()),
        "language": pa.array([language] * n, pa.string()),
        "cluster": entered["cluster"],
        "order": pa.array([-1] * n, pa.int32()),
        "proto": entered["proto"],
        "weight": pa.array([1.0] * n, pa.float32()),
    }
    absent = {field.name: pa.nulls(n, field.type) for field in schemas.SELECTED if field.name not in columns}
    return pa.table({**columns, **absent}).select(schemas.SELECTED.names).cast(schemas.SELECTED)


def _withheld_table(verdicts: Sequence[CorrectionVerdict]) -> pa.Table:
    kept = [v for v in verdicts if v.state is not CorrectionState.ACCEPTED]
    rows = [{"correction": v.pair.id, "state": v.state.value, "reason": v.reason} for v in kept]
    return pa.Table.from_pylist(rows, schema=schemas.WITHHELD_CORRECTIONS)

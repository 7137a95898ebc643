"""Add accepted corrections to the rows of an update's selection.

They are at most ``update.corrections_share`` of an update's rows, taken from the keys in turn. A hash of them is part of
the selection's identity. A complete selection keeps its corrections, so new feedback never invalidates a killed update.
Extends COMPASS, section 3.3.
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
    """A selection with added corrections."""

    rows: pa.Table
    """Schema `schemas.SELECTED`."""
    corrections: pa.Table
    """Schema `schemas.CORRECTIONS`: the texts of the rows with role ``traffic``."""
    withheld: pa.Table
    """Schema `schemas.WITHHELD_CORRECTIONS`: every other correction, without its text."""

    @property
    def corrections_hash(self) -> str:
        """Hash of the added corrections, independent of their order."""
        return content_hash(*sorted(self.corrections["row_id"].to_pylist()))

    def write(self, writer: Writer) -> None:
        """Write the texts and the withheld corrections into the selection's artifact."""
        writer.write_table(CORRECTIONS_FILE, self.corrections, private=True)
        writer.write_table(QUARANTINE_FILE, self.withheld, private=True)


def list_accepted(
    config: RunConfig, run: RunDir, language: str, *, models: FilterModels | None = None, now: float | None = None
) -> pa.Table:
    """The accepted corrections in round-robin order: row_id, prompt, response, cluster, proto and key.

    Empty if ``update.corrections`` is none. Raises as `filter_corrections`.
    """
    if config.update.corrections == "none":
        return _accepted_table(FilterResult())
    return _accepted_table(filter_corrections(config, run, language, models=models, now=now))


def mix_corrections(
    config: RunConfig, run: RunDir, language: str, rows: pa.Table, *, models: FilterModels | None = None, now: float | None = None
) -> MixedSelection | None:
    """Add corrections to selected ``rows`` (`schemas.SELECTED`); None if ``update.corrections`` is none."""
    if config.update.corrections == "none":
        return None
    result = filter_corrections(config, run, language, models=models, now=now)
    accepted, limit = _accepted_table(result), max_corrections(rows.num_rows, config.update.corrections_share)
    added = accepted.slice(0, limit)
    over = f"corrections are at most {config.update.corrections_share:g} of the update's rows (update.corrections_share)"
    surplus = {pair.id for pair in result.accepted[limit:]}
    withheld = [CorrectionVerdict(v.pair, CorrectionState.LEFT_OUT, over) if v.pair.id in surplus else v for v in result.verdicts]
    return MixedSelection(
        rows=pa.concat_tables([rows, _selection_rows(added, language)]),
        corrections=added.select(schemas.CORRECTIONS.names).cast(schemas.CORRECTIONS),
        withheld=_withheld_table(withheld),
    )


def bind_identity(identity: Identity, update: UpdateConfig, corrections_hash: str | None) -> Identity:
    """The identity of a selection with these corrections added; unchanged if ``update.corrections`` is none."""
    if update.corrections == "none":
        return identity
    rule = {"from": update.corrections, "share": update.corrections_share, "per_key": update.corrections_per_key}
    return Identity(identity.stage, {**identity.config, _IDENTITY_KEY: {**rule, "rows": corrections_hash}}, identity.inputs)


def read_corrections_hash(manifest: Manifest) -> str | None:
    """The hash of the corrections in a complete selection."""
    return (manifest.config.get(_IDENTITY_KEY) or {}).get("rows")


def _accepted_table(result: FilterResult) -> pa.Table:
    pairs = result.accepted
    columns = {
        "row_id": pa.array([row_id(pair) for pair in pairs], pa.string()),
        "prompt": pa.array([pair.prompt for pair in pairs], pa.string()),
        "response": pa.array([pair.correction.strip() for pair in pairs], pa.string()),
        "cluster": pa.array(result.cluster, pa.int32()),
        "proto": pa.array(result.proto, pa.float32()),
        "key": pa.array([pair.key for pair in pairs], pa.string()),
    }
    return pa.table(columns)


def _selection_rows(corrections: pa.Table, language: str) -> pa.Table:
    n = corrections.num_rows
    columns = {
        "row_id": corrections["row_id"],
        "role": pa.array(["traffic"] * n, pa.string()),
        "language": pa.array([language] * n, pa.string()),
        "cluster": corrections["cluster"],
        "order": pa.array([-1] * n, pa.int32()),
        "proto": corrections["proto"],
        "weight": pa.array([1.0] * n, pa.float32()),
    }
    absent = {field.name: pa.nulls(n, field.type) for field in schemas.SELECTED if field.name not in columns}
    return pa.table({**columns, **absent}).select(schemas.SELECTED.names).cast(schemas.SELECTED)


def _withheld_table(verdicts: Sequence[CorrectionVerdict]) -> pa.Table:
    withheld = [v for v in verdicts if v.state is not CorrectionState.ACCEPTED]
    rows = [{"correction": v.pair.id, "state": v.state.value, "reason": v.reason} for v in withheld]
    return pa.Table.from_pylist(rows, schema=schemas.WITHHELD_CORRECTIONS)

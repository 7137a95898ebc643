"""Section "How was it made?": settings, clustering sweep, artifacts with fingerprints, versions and times."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from compass_ray.artifacts import SHARED, Manifest, clustering_keys
from compass_ray.config import BudgetRule, RunConfig
from compass_ray.records.clustering import CellRecord, SweepRecord
from compass_ray.report.blocks import Block, CodeBlock, ReportSection, TableBlock, TextBlock, format_number, missing_note
from compass_ray.report.run_reader import RunReader, language_name
from compass_ray.translations import mark
from compass_ray.translations import translate as _

_MAX_CELLS = 20
_CLUSTERERS = {"hdbscan": "HDBSCAN", "kmeans": "k-means", "ward": "Ward", "butina": "Taylor-Butina"}
_WEIGHTS = {"ratio": mark("by ratio"), "deficit": mark("by deficit"), "none": mark("equal")}
_MODES = {
    "stochastic": mark("stochastic"),
    "deterministic": mark("deterministic"),
    "uniform": mark("uniform"),
    "nearest": mark("nearest"),
}
"""Display names of settings. Others are shown as they are."""
_SHOWN_ELSEWHERE = {"finished", "seconds"}


def section(reader: RunReader, config: RunConfig, manifests: Mapping[str, Manifest]) -> ReportSection:
    """Everything that is needed to reproduce the run and to compare the results."""
    blocks: list[Block] = [_describe_settings(config), *_sweeps(reader, config), *_stages(manifests), *_versions(manifests)]
    tree = config.model_dump(mode="json", exclude={"resources"})
    blocks.append(CodeBlock(_("All settings"), json.dumps(tree, indent=2, ensure_ascii=False)))
    return ReportSection("made", _("How was it made?"), blocks)


def _describe_settings(config: RunConfig) -> TextBlock:
    names = ", ".join(language_name(code) for code in config.languages)
    select, train = config.select, config.train
    return TextBlock(
        _(
            "Languages: {languages}. Seed: {seed}. Base model: {model}. Encoder: {encoder}. Adapters: {kind}, r = {rank}. "
            "Budget: {budget}. Cluster weights: {weights}. Sampling: {mode}.",
            languages=names,
            seed=config.seed,
            model=train.base_model,
            encoder=config.embed.encoder,
            kind=str(train.adapter.kind).replace("dora", "DoRA").replace("lora", "LoRA"),
            rank=train.adapter.r,
            budget=_budget(select.budget),
            weights=_(_WEIGHTS.get(select.weights, select.weights)),
            mode=_(_MODES.get(select.mode, select.mode)),
        )
    )


def _budget(budget: float | BudgetRule) -> str:
    return (
        _("{rule} for each language", rule=_(budget))
        if isinstance(budget, str)
        else _("{factor} times the language's own rows", factor=f"{budget:g}")
    )


def _sweeps(reader: RunReader, config: RunConfig) -> Iterator[Block]:
    found = {owner: sweep for owner in clustering_keys(config) if (sweep := reader.sweep(owner))}
    if not found:
        yield missing_note(_("This run has no clustering yet."))
    for owner, sweep in found.items():
        yield _sweep(sweep, "" if owner == SHARED else f" ({language_name(owner)})")


def _sweep(sweep: SweepRecord, owner: str) -> TableBlock:
    ranked = sorted(sweep.cells, key=lambda cell: (not cell.chosen, -_score(cell)))
    keys = sorted({key for cell in sweep.cells for key in cell.parameters})
    details = sorted({key for cell in ranked[:_MAX_CELLS] for key in cell.details})
    rows = [_cell(cell, keys, details) for cell in ranked[:_MAX_CELLS]]
    shown = _("the best {shown} of {count} cells", shown=min(_MAX_CELLS, len(ranked)), count=len(ranked))
    return TableBlock(
        caption=_(
            "Clustering by {method}{owner} on {backend}: {shown} of the sweep, the chosen one first",
            method=_CLUSTERERS.get(sweep.method, sweep.method),
            owner=owner,
            backend=sweep.backend,
            shown=shown,
        ),
        header=(
            *(key.replace("_", " ") for key in keys),
            _("score"),
            _("clusters"),
            _("noise, %"),
            *(key.replace("_", " ") for key in details),
            _("chosen"),
        ),
        rows=rows,
        numbers=0,
        strong=[index for index, cell in enumerate(ranked[:_MAX_CELLS]) if cell.chosen],
    )


def _score(cell: CellRecord) -> float:
    return float("-inf") if cell.score is None else cell.score


def _cell(cell: CellRecord, keys: Sequence[str], details: Sequence[str]) -> tuple[str, ...]:
    noise = None if cell.noise_share is None else 100 * cell.noise_share
    settings = (str(cell.parameters.get(key, "–")) for key in keys)
    return (
        *settings,
        format_number(cell.score, 4),
        format_number(cell.n_clusters),
        format_number(noise, 1),
        *(_format_detail(cell.details.get(key)) for key in details),
        _("yes") if cell.chosen else "",
    )


def _format_detail(value: float | None) -> str:
    """Rounded to 4 decimals, without trailing zeros; a dash for None.

    >>> _format_detail(0.93071), _format_detail(2000.0), _format_detail(0.0), _format_detail(None)
    ('0.9307', '2,000', '0', '–')
    """
    text = format_number(value, 4)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _stages(manifests: Mapping[str, Manifest]) -> Iterator[Block]:
    if not manifests:
        yield missing_note(_("This run has no complete artifact yet."))
        return
    rows = [
        (
            name,
            m.fingerprint,
            format_number(_rows(m)),
            format_number(sum(o.bytes for o in m.outputs) / 1e6, 2),
            format_number(m.metrics.get("seconds", m.provenance.get("seconds")), 1),
            str(m.provenance.get("finished", "–")),
        )
        for name, m in manifests.items()
    ]
    header = (_("artifact"), _("fingerprint"), _("rows"), "MB", _("seconds"), _("finished"))
    yield TableBlock(
        _("The {count} artifacts of this run that the page shows", count=len(rows)),
        header,
        rows,
        numbers=2,
        folded=len(rows) > 12,
    )


def _rows(manifest: Manifest) -> int | None:
    counted = [output.rows for output in manifest.outputs if output.rows is not None]
    return sum(counted) if counted else None


def _versions(manifests: Mapping[str, Manifest]) -> Iterator[Block]:
    found: dict[str, set[str]] = {}
    for manifest in manifests.values():
        for key, value in _flatten(manifest.provenance):
            found.setdefault(key, set()).add(value)
    rows = [(key, ", ".join(sorted(values))) for key, values in sorted(found.items())]
    if rows:
        yield TableBlock(_("Versions and devices"), (_("name"), _("value")), rows, numbers=2, folded=True)


def _flatten(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif key not in _SHOWN_ELSEWHERE:
            yield f"{prefix}{key}", str(value)

"""Adapter versions as rows of a table, as JSON, and in full. It reads nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from compass_ray.cli.output import to_json

if TYPE_CHECKING:
    from compass_ray.registry import AdapterEntry, LivePointer

COLUMNS = ("language", "version", "", "made (UTC)", "from", "rows", "accuracy", "loss on its window")


def to_row(entry: AdapterEntry) -> list[Any]:
    """What the list says of a version, in the order of `COLUMNS`."""
    accuracy = "" if entry.accuracy is None else f"{entry.accuracy:.3f}"
    return [
        entry.name.language,
        entry.name.version,
        "damaged" if entry.problem and not entry.fingerprint else describe_state(entry),
        format_time(entry.finished),
        entry.lineage.parent or "",
        entry.metrics.get("rows", ""),
        accuracy,
        _losses(entry, "window"),
    ]


def describe_state(entry: AdapterEntry) -> str:
    """What a version does at present, in a word or two.

    Such as ``live, pinned``, ``canary 5%``, ``refused`` by the gate, or nothing.
    """
    words = [
        "live" if entry.live else "",
        "pinned" if entry.pinned else "",
        f"canary {100 * entry.canary:.3g}%" if entry.canary else "",
        "shadow" if entry.shadow else "",
        "refused" if entry.gate.get("accepted") is False else "",
    ]
    return ", ".join(word for word in words if word)


def to_flat_json(entry: AdapterEntry) -> dict[str, Any]:
    """An entry as JSON, its name apart and its lineage beside the rest."""
    tree: dict[str, Any] = to_json(entry)
    name, lineage = tree.pop("name"), tree.pop("lineage")
    return {**name, **tree, **lineage}


def describe(entry: AdapterEntry, live: LivePointer | None) -> list[str]:
    """All that is known of a version, in lines; ``live`` is what its language serves."""
    lineage = entry.lineage
    facts = {
        "state": describe_state(entry) or "at rest",
        "made": format_time(entry.finished),
        "fingerprint": entry.fingerprint,
        "base model": lineage.base_model,
        "updated from": lineage.parent or "nothing: a first version",
        "trained on": ", ".join(f"{name} ({mark})" for name, mark in lineage.trained_on.items()),
        "software": lineage.commit or "",
        "accuracy": "" if entry.accuracy is None else f"{entry.accuracy:.3f} on the language's test set",
        "gate": entry.gate.get("reason", ""),
        **{name.replace("_", " "): value for name, value in entry.metrics.items()},
        "problem": entry.problem,
    }
    lines = [str(entry.name), *(f"  {name}: {value}" for name, value in facts.items() if value not in ("", None))]
    return [*lines, *_history(live)] if live else lines


def format_time(moment: str) -> str:
    """A time as a manifest holds it, to the minute and in UTC."""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return moment


def _history(live: LivePointer) -> list[str]:
    told = [f"  {past.version}{_since(past.since)}: {past.reason or 'no reason kept'}" for past in (*live.history, live)]
    pinned = [f"pinned{_since(live.pinned.since)}: {live.pinned.reason}"] if live.pinned else []
    return ["live so far, the latest last", *told, *pinned]


def _since(moment: float | None) -> str:
    return "" if not moment else f" since {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def _losses(entry: AdapterEntry, what: str) -> str:
    before, after = entry.gate.get(f"{what}_before"), entry.gate.get(f"{what}_after")
    return "" if before is None or after is None else f"{before:.3f} -> {after:.3f}"

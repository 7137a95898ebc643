"""Formats adapter versions as table rows, as JSON and as a full description. It reads no files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from compass_ray.cli.output import state_text, to_json

if TYPE_CHECKING:
    from compass_ray.registry import AdapterEntry, LivePointer

COLUMNS = (
    "language",
    "version",
    "state",
    "created (UTC)",
    "parent",
    "rows",
    "accuracy (chance)",
    "window loss (before -> after)",
)


def to_row(entry: AdapterEntry) -> list[Any]:
    """Table row of a version, in the order of `COLUMNS`."""
    return [
        entry.name.language,
        entry.name.version,
        state_text("damaged" if entry.problem and not entry.fingerprint else describe_state(entry)),
        format_time(entry.finished),
        entry.lineage.parent or "",
        entry.metrics.get("rows", ""),
        _accuracy(entry),
        _losses(entry, "window"),
    ]


def describe_state(entry: AdapterEntry) -> str:
    """Current state of a version, for example ``live, pinned``, ``canary 5%`` or ``rejected`` by the gate; empty if none."""
    states = [
        "live" if entry.live else "",
        "pinned" if entry.pinned else "",
        f"canary {100 * entry.canary:.3g}%" if entry.canary else "",
        "shadow" if entry.shadow else "",
        "rejected" if entry.gate.get("accepted") is False else "",
    ]
    return ", ".join(state for state in states if state)


def to_flat_json(entry: AdapterEntry) -> dict[str, Any]:
    """An entry as flat JSON: the fields of its name and lineage are at the top level."""
    tree: dict[str, Any] = to_json(entry)
    name, lineage = tree.pop("name"), tree.pop("lineage")
    return {**name, **tree, **lineage}


def describe(entry: AdapterEntry, live: LivePointer | None) -> list[str]:
    """Full description of a version, in lines; ``live`` is the live pointer of its language."""
    lineage = entry.lineage
    facts = {
        "state": describe_state(entry) or "inactive",
        "created": format_time(entry.finished),
        "fingerprint": entry.fingerprint,
        "base model": lineage.base_model,
        "updated from": lineage.parent or "none (first version)",
        "trained on": ", ".join(f"{name} ({fingerprint})" for name, fingerprint in lineage.trained_on.items()),
        "software": lineage.commit or "",
        "accuracy": f"{_accuracy(entry)} on the test set of the language" if _accuracy(entry) else "",
        "gate": entry.gate.get("reason", ""),
        **{name.replace("_", " "): value for name, value in entry.metrics.items()},
        "problem": entry.problem,
    }
    lines = [str(entry.name), *(f"  {name}: {value}" for name, value in facts.items() if value not in ("", None))]
    return [*lines, *_history(live)] if live else lines


def format_time(moment: str) -> str:
    """A manifest's time to the minute, in UTC."""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return moment


def _history(live: LivePointer) -> list[str]:
    lines = [f"  {past.version}{_since(past.since)}: {past.reason or 'no reason recorded'}" for past in (*live.history, live)]
    pinned = [f"pinned{_since(live.pinned.since)}: {live.pinned.reason}"] if live.pinned else []
    return ["live versions, latest last", *lines, *pinned]


def _since(moment: float | None) -> str:
    return "" if not moment else f" since {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def _accuracy(entry: AdapterEntry) -> str:
    """The accuracy with its chance level, if both are known; empty if the version was not evaluated."""
    chance = "" if entry.chance is None else f" ({entry.chance:.3f})"
    return "" if entry.accuracy is None else f"{entry.accuracy:.3f}{chance}"


def _losses(entry: AdapterEntry, what: str) -> str:
    before, after = entry.gate.get(f"{what}_before"), entry.gate.get(f"{what}_after")
    return "" if before is None or after is None else f"{before:.3f} -> {after:.3f}"

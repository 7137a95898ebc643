"""The command that makes an artifact of a run again."""

from __future__ import annotations

import re

_UPDATED = re.compile(r"v(?!0001$)\d{4,}")
"""Versions that an update made."""
_BY_UPDATE = ("updates", "changes")
_BY_RECLUSTER = ("clusterings", "references")


def command_for(name: str, uri: str) -> str:
    """The command for an artifact by its name, the path in the run.

    >>> command_for("pool", "runs/mine"), command_for("adapters/sw/v0002", "runs/mine")
    ('compass-ray adapt --run runs/mine', 'compass-ray update runs/mine')
    """
    kind, *parts = name.split("/")
    if kind in _BY_UPDATE or (kind in ("adapters", "selections", "evaluations") and any(map(_UPDATED.fullmatch, parts))):
        return f"compass-ray update {uri}"
    if kind in _BY_RECLUSTER:
        return f"compass-ray recluster {uri}"
    if kind == "simulations":
        return f"compass-ray simulate --run {uri}"
    if kind == "report":
        return f"compass-ray report {uri}"
    return f"compass-ray adapt --run {uri}"

"""What people decided about corrections, as a file of the monitor's folder.

Key property: durable on return, and the last word on a correction counts. A review names a correction by its id alone, which
says nothing of its text, and which other words would not have: what is edited is reviewed anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import ConfigError
from compass_ray.monitoring.corrections import CorrectionPair

FILE = "reviews.jsonl"


def read_reviews(run: RunDir) -> dict[str, bool]:
    """Whether each reviewed correction was accepted, by its id."""
    return {record["correction"]: record["accepted"] for record in jsonl_log.read(run, FILE)}


def record_reviews(
    run: RunDir,
    accept: Collection[CorrectionPair],
    reject: Collection[CorrectionPair] = (),
    clock: Callable[[], float] = time.time,
) -> None:
    """Keep a person's word on some corrections.

    Raises:
        ConfigError: a correction is both accepted and rejected.
        ArtifactError, OSError: it could not be written.
    """
    if both := {pair.id for pair in accept} & {pair.id for pair in reject}:
        raise ConfigError(f"{', '.join(sorted(both))} cannot be accepted and rejected at once; decide on one")
    words = [(pair, True) for pair in accept] + [(pair, False) for pair in reject]
    now = clock()
    jsonl_log.append_shared(run, FILE, [{"correction": pair.id, "accepted": word, "time": now} for pair, word in words])


def find_corrections(pairs: Sequence[CorrectionPair], ids: Sequence[str]) -> list[CorrectionPair]:
    """The corrections that ids, or beginnings of ids, name.

    Raises:
        ConfigError: one names none, or several.
    """
    return [_find_correction(pairs, name.strip()) for name in ids]


def _find_correction(pairs: Sequence[CorrectionPair], name: str) -> CorrectionPair:
    found = [pair for pair in pairs if name and pair.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    several = f"is the beginning of {len(found)}" if found else "is none, or was erased since"
    raise ConfigError(f"correction {name!r} {several}; give the id of one as 'compass-ray corrections RUN --json' lists it")

"""Decisions of people about corrections: a log in the monitor's folder.

A review is on disk on return, and the last review of a correction counts. It contains only the correction's id, a keyed
hash of its texts. So it reveals no text, and an edited correction needs a new review.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import ConfigError
from compass_ray.monitoring.corrections import CorrectionPair
from compass_ray.monitoring.journal import read_valid_lines
from compass_ray.records.feedback import REVIEW_LINE

FILE = "reviews.jsonl"


def read_reviews(run: RunDir) -> dict[str, bool]:
    """Whether each reviewed correction was accepted, by its id."""
    return {record["correction"]: record["accepted"] for record in read_valid_lines(run, FILE, REVIEW_LINE)}


def record_reviews(
    run: RunDir,
    accept: Collection[CorrectionPair],
    reject: Collection[CorrectionPair] = (),
    clock: Callable[[], float] = time.time,
) -> None:
    """Store a person's decisions on corrections.

    Raises:
        ConfigError: a correction is both accepted and rejected.
        ArtifactError, OSError: it could not be written.
    """
    if both := {pair.id for pair in accept} & {pair.id for pair in reject}:
        raise ConfigError(f"{', '.join(sorted(both))} cannot be both accepted and rejected; choose one")
    reviews = [(pair, True) for pair in accept] + [(pair, False) for pair in reject]
    now = clock()
    jsonl_log.append_shared(run, FILE, [{"correction": pair.id, "accepted": accepted, "time": now} for pair, accepted in reviews])


def find_corrections(pairs: Sequence[CorrectionPair], ids: Sequence[str]) -> list[CorrectionPair]:
    """The corrections with the given ids or id prefixes.

    Raises:
        ConfigError: an id matches no correction, or several.
    """
    return [_find_correction(pairs, name.strip()) for name in ids]


def _find_correction(pairs: Sequence[CorrectionPair], name: str) -> CorrectionPair:
    matches = [pair for pair in pairs if name and pair.id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    problem = f"matches {len(matches)} corrections" if matches else "does not exist or was deleted"
    raise ConfigError(f"correction {name!r} {problem}; pass an id from 'compass-ray corrections RUN --json'")

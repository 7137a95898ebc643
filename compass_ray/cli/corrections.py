"""Lists users' corrections with the filter's verdicts, and records a person's reviews."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compass_ray.cli.app import app
from compass_ray.cli.options import Json, RunArgument, Settings, apply_overrides, open_run, parse_languages, require_language
from compass_ray.cli.output import emit, err, print_rows, state_text

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig
    from compass_ray.continual.corrections import CorrectionVerdict

_TEXT = 160
"""Maximum characters of a prompt or a correction in the table; JSON has the complete text."""


@app.command(epilog="Example: `compass-ray corrections runs/mine --language sw`, then add `--accept 3f2a9c01d4e7`")
def corrections(
    run: RunArgument,
    language: Annotated[str, typer.Option(help="Language of the corrected replies.")],
    accept: Annotated[str | None, typer.Option(metavar="ID,ID", help="Accept these corrections for training.")] = None,
    reject: Annotated[str | None, typer.Option(metavar="ID,ID", help="Reject these corrections: never train on them.")] = None,
    set_: Settings = None,
    json_: Json = False,
) -> None:
    """List users' corrections of replies, and whether and why the next update uses each; accept or reject pending ones."""
    where = open_run(run)
    settings = apply_overrides(where.read_config(), set_)
    require_language(where, language)
    from compass_ray.continual import corrections as review

    verdicts = review.filter_corrections(settings, where, language).verdicts
    if accept is not None or reject is not None:
        pairs = [verdict.pair for verdict in verdicts]
        accepted, rejected = (review.find_corrections(pairs, parse_languages(ids) or ()) for ids in (accept, reject))
        _require_acceptable(verdicts, accepted)
        review.record_reviews(where, accepted, rejected)
        verdicts = review.filter_corrections(settings, where, language).verdicts
    emit(json_, [_to_json(verdict) for verdict in verdicts], lambda: _print(verdicts))
    for note in () if json_ else _notes(settings, where, language):
        err.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _require_acceptable(verdicts: Sequence[CorrectionVerdict], accepted: Sequence[Any]) -> None:
    from compass_ray.config import ConfigError
    from compass_ray.continual.corrections import CorrectionState

    for verdict in verdicts:
        if verdict.pair in accepted and verdict.state in (CorrectionState.REFUSED, CorrectionState.TRAINED):
            raise ConfigError(f"correction {verdict.pair.id} is {verdict.state} and cannot be accepted: {verdict.reason}")


def _to_json(verdict: CorrectionVerdict) -> dict[str, Any]:
    pair = verdict.pair
    return {
        "id": pair.id,
        "language": pair.language,
        "key": pair.key or None,
        "state": verdict.state.value,
        "reason": verdict.reason,
        "prompt": pair.prompt,
        "correction": pair.correction,
    }


def _print(verdicts: Sequence[CorrectionVerdict]) -> None:
    from compass_ray.continual.corrections import SHOWN_ID_DIGITS
    from compass_ray.report.explain_text import shorten

    texts = [[shorten(text, _TEXT) for text in (v.pair.prompt, v.pair.correction)] for v in verdicts]
    rows = [
        [v.pair.id[:SHOWN_ID_DIGITS], v.pair.key or "-", state_text(v.state), *pair, v.reason]
        for v, pair in zip(verdicts, texts, strict=True)
    ]
    print_rows(["id", "key", "state", "prompt", "correction", "reason"], rows)


def _notes(config: RunConfig, run: RunDir, language: str) -> list[str]:
    from compass_ray.monitoring.feedback import count_without_prompt

    without_prompt, retention = count_without_prompt(run, language), config.drift.retention
    return [
        *(["update.corrections is none, so no update trains on corrections"] if config.update.corrections == "none" else []),
        *([f"drift.retention is {retention}, but corrections are stored with text only"] if retention != "text" else []),
        *([f"unusable corrections, because their prompt is no longer stored: {without_prompt}"] if without_prompt else []),
    ]

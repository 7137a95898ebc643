"""What users corrected: a list of it with verdicts, and the word of a person on what waits for one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli.app import app
from compass_ray.cli.options import Json, RunArgument, Settings, apply_overrides, parse_languages, require_language
from compass_ray.cli.output import emit, err, print_rows
from compass_ray.config import ConfigError, RunConfig

if TYPE_CHECKING:
    from compass_ray.continual.corrections import CorrectionVerdict

_TEXT = 160
"""Characters of a prompt or a correction in the list; JSON has all."""
_MISLEADING = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What would act on a terminal, or show a text in another order than it is trained on."""


@app.command(epilog="Example: `compass-ray corrections runs/mine --language sw`, then with `--accept 3f2a9c01d4e7`")
def corrections(
    run: RunArgument,
    language: Annotated[str, typer.Option(help="Language whose replies were corrected.")],
    accept: Annotated[str | None, typer.Option(metavar="ID,ID", help="Let these be trained on.")] = None,
    reject: Annotated[str | None, typer.Option(metavar="ID,ID", help="Never train on these.")] = None,
    set_: Settings = None,
    json_: Json = False,
) -> None:
    """Users' corrections of replies: what the next update makes of each, and why; accept or reject those that wait."""
    from compass_ray.continual import corrections as labelled

    where = RunDir(run)
    settings = apply_overrides(where.read_config(), set_)
    found = labelled.filter_corrections(settings, where, require_language(where, language)).verdicts
    if accept is not None or reject is not None:
        pairs = [verdict.pair for verdict in found]
        yes, no = (labelled.find_corrections(pairs, parse_languages(ids) or ()) for ids in (accept, reject))
        _require_acceptable(found, yes)
        labelled.record_reviews(where, yes, no)
        found = labelled.filter_corrections(settings, where, language).verdicts
    emit(json_, [_flat(verdict) for verdict in found], lambda: _print(found))
    for note in () if json_ else _notes(settings, where, language):
        err.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _require_acceptable(found: Sequence[CorrectionVerdict], accepted: Sequence[Any]) -> None:
    from compass_ray.continual.corrections import CorrectionState

    for verdict in found:
        if verdict.pair in accepted and verdict.state in (CorrectionState.REFUSED, CorrectionState.TRAINED):
            raise ConfigError(f"correction {verdict.pair.id} is {verdict.state}, whoever accepts it: {verdict.reason}")


def _flat(verdict: CorrectionVerdict) -> dict[str, Any]:
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


def _print(found: Sequence[CorrectionVerdict]) -> None:
    from compass_ray.continual.corrections import SHOWN_ID_DIGITS
    from compass_ray.report.explain_text import shorten

    texts = [[_MISLEADING.sub("\ufffd", shorten(t, _TEXT)) for t in (v.pair.prompt, v.pair.correction)] for v in found]
    rows = [
        [v.pair.id[:SHOWN_ID_DIGITS], v.pair.key or "-", v.state, *each, v.reason] for v, each in zip(found, texts, strict=True)
    ]
    print_rows(["id", "key", "state", "prompt", "correction", "why"], rows)


def _notes(config: RunConfig, run: RunDir, language: str) -> list[str]:
    from compass_ray.monitoring.feedback import count_without_prompt

    alone, keeps = count_without_prompt(run, language), config.drift.retention
    return [
        *(["update.corrections is none, so no update trains on any of them"] if config.update.corrections == "none" else []),
        *([f"drift.retention is {keeps}, and corrections are kept under text only"] if keeps != "text" else []),
        *([f"corrections whose prompt was not kept any more, and which are of no use: {alone}"] if alone else []),
    ]

"""What users corrected: a list of it with verdicts, and the word of a person on what waits for one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli.options import Json, RunArgument, Settings, changed, language_of, named
from compass_ray.cli.output import err, print_rows, show
from compass_ray.cli.root import app
from compass_ray.config import ConfigError, RunConfig

if TYPE_CHECKING:
    from compass_ray.continual.labelled import Verdict

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
    from compass_ray.continual import labelled

    where = RunDir(run)
    settings = changed(where.recorded(), set_)
    found = labelled.judged(settings, where, language_of(where, language)).verdicts
    if accept is not None or reject is not None:
        pairs = [verdict.pair for verdict in found]
        yes, no = (labelled.named(pairs, named(ids) or ()) for ids in (accept, reject))
        _require_open(found, yes)
        labelled.review(where, yes, no)
        found = labelled.judged(settings, where, language).verdicts
    show(json_, [_flat(verdict) for verdict in found], lambda: _print(found))
    for note in () if json_ else _notes(settings, where, language):
        err.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _require_open(found: Sequence[Verdict], accepted: Sequence[Any]) -> None:
    from compass_ray.continual.labelled import State

    for verdict in found:
        if verdict.pair in accepted and verdict.state in (State.REFUSED, State.TRAINED):
            raise ConfigError(f"correction {verdict.pair.id} is {verdict.state}, whoever accepts it: {verdict.reason}")


def _flat(verdict: Verdict) -> dict[str, Any]:
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


def _print(found: Sequence[Verdict]) -> None:
    from compass_ray.continual.labelled import SHOWN
    from compass_ray.report.reasons import shortened

    texts = [[_MISLEADING.sub("\ufffd", shortened(t, _TEXT)) for t in (v.pair.prompt, v.pair.correction)] for v in found]
    rows = [[v.pair.id[:SHOWN], v.pair.key or "-", v.state, *each, v.reason] for v, each in zip(found, texts, strict=True)]
    print_rows(["id", "key", "state", "prompt", "correction", "why"], rows)


def _notes(config: RunConfig, run: RunDir, language: str) -> list[str]:
    from compass_ray.serving.monitoring.feedback import without_prompt

    alone, keeps = without_prompt(run, language), config.drift.retention
    return [
        *(["update.corrections is none, so no update trains on any of them"] if config.update.corrections == "none" else []),
        *([f"drift.retention is {keeps}, and corrections are kept under text only"] if keeps != "text" else []),
        *([f"corrections whose prompt was not kept any more, and which are of no use: {alone}"] if alone else []),
    ]

"""The command that runs tasks of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from compass_ray.cli.app import app
from compass_ray.cli.options import Json, Languages, RunArgument, Settings, open_run, parse_languages
from compass_ray.cli.output import emit, out, print_rows
from compass_ray.cli.progress_display import progress_bars
from compass_ray.cli.session import open_session

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.config import RunConfig
    from compass_ray.harness.planned_tasks import HarnessTask
    from compass_ray.records.harness import HarnessRecord


def _list(shown: bool) -> None:
    if not shown:
        return
    from compass_ray.harness.layouts import task_layouts

    layouts = task_layouts().values()
    rows = [[each.name, each.title, each.source or "the run", ", ".join(next(iter(each.files.values())))] for each in layouts]
    print_rows(["task", "benchmark", "rows of", "files in its folder"], rows)
    out.print("Every other name is a task of lm-evaluation-harness, whose rows come from the cache of its data sets.")
    raise typer.Exit


@app.command(
    "eval",
    epilog="Example: `compass-ray eval runs/mine --tasks global_mmlu,belebele --method compass,target,base --data /data/{task}`",
)
def evaluate_tasks(
    run: RunArgument,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks", help="Tasks, for example belebele,mgsm; --list shows them. Also tasks, groups and tags of lm-eval."
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Methods of the run, versions such as v0002, or base; all and base if unset.")
    ] = None,
    languages: Languages = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="TASK=FOLDER with the rows of a task, or one FOLDER for all. Can be repeated."),
    ] = None,
    include: Annotated[
        str | None,
        typer.Option("--include", help="Folder with task files of your own. Python code that they name with !function is run."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most items of each task.")] = None,
    set_: Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Evaluate again what is complete.")] = False,
    list_: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="List the tasks with rows on disk, and stop.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run tasks of lm-evaluation-harness under methods of a run; results are kept beside those of the run."""
    where = open_run(run)
    settings = _settings(where.read_config(), languages, data, limit, set_)
    from compass_ray.config import ConfigError
    from compass_ray.config.paths import absolute_path
    from compass_ray.harness import planned_tasks
    from compass_ray.stages import harness

    names = _split(tasks) or settings.evaluate.harness.tasks
    if not names:
        raise ConfigError("no task is given; give --tasks, for example --tasks belebele, or set evaluate.harness.tasks")
    methods = _split(method) or (planned_tasks.BASE, *settings.select.methods)
    own = None if include is None else absolute_path(include)
    planned = planned_tasks.plan(settings, where, tasks=names, methods=methods, data=_folders(data), include=own)
    wanted = planned_tasks.expand_tags(planned)
    if harness.find_pending(settings, where, wanted, force=force):
        with progress_bars(quiet=json_) as progress, open_session(settings.resources, quiet=json_):
            harness.run_tasks(settings, where, wanted, force=force, progress=progress)
    records = [_read(where, each) for each in wanted]
    emit(json_, {"run": where.shown_uri, "results": [each.to_json() for each in records]}, lambda: _print(records))


def _settings(
    recorded: RunConfig, languages: str | None, data: Sequence[str] | None, limit: int | None, set_: Sequence[str] | None
) -> RunConfig:
    """The settings of the run with those of the options."""
    from compass_ray import config as configuration

    every = [value for value in data or () if "=" not in value]
    given = [f"evaluate.harness.data={every[-1]}"] if every else []
    given += [f"evaluate.harness.limit={limit}"] if limit else []
    return configuration.with_overrides(recorded, [*given, *(set_ or ())], parse_languages(languages))


def _split(names: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())


def _folders(data: Sequence[str] | None) -> dict[str, str]:
    from compass_ray.config.paths import absolute_path

    pairs = (value.partition("=") for value in data or () if "=" in value)
    return {task: absolute_path(folder) for task, _, folder in pairs}


def _read(run: RunDir, task: HarnessTask) -> HarnessRecord:
    from compass_ray.records.harness import HarnessRecord

    return HarnessRecord.read(run.harness(task.method, task.language, task.task))


def _print(records: Sequence[HarnessRecord]) -> None:
    header = ["task", "language", "method", "metric", "value", "± error", "chance", "items"]
    print_rows(header, [_row(part) for each in records for part in each.parts])
    for each in records:
        if each.truncated:
            where = escape(f"{each.task} ({each.language}, {each.method})")
            note = f"{each.truncated:,} requests of {where} were longer than the model's context; their start was cut."
            out.print(f"[bold]note:[/] {note}", highlight=False, soft_wrap=True)


def _row(record: HarnessRecord) -> list[str]:
    numbers = [_format(value, percent=record.is_share) for value in (record.value, record.stderr, record.chance)]
    names = [record.task, record.language or "", record.method or "", record.metric or "–"]
    return [*names, *numbers, "–" if record.items is None else f"{record.items:,}"]


def _format(value: float | None, *, percent: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}%" if percent else f"{value:.4g}"

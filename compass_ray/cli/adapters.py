"""Commands about the versions of each language's adapter: look at them, change what is live, try one on traffic."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from compass_ray.artifacts import RunDir
from compass_ray.cli.adapter_table import COLUMNS, describe, to_flat_json, to_row
from compass_ray.cli.app import adapters
from compass_ray.cli.options import Json, LanguageArgument, RunArgument, require_language
from compass_ray.cli.output import emit, err, out, print_lines, print_rows, to_json
from compass_ray.config import ConfigError

Version = Annotated[str, typer.Argument(help="Version of the language's adapter, as in v0002.")]
CandidateVersion = Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Version to try, as in v0002.")]
Why = Annotated[str, typer.Option("--reason", help="Kept in the log of decisions.")]
DEFAULT_REASON = "by hand"


@adapters.command("list", epilog="Example: `compass-ray adapters list runs/mine`")
def list_(
    run: RunArgument,
    language: Annotated[str | None, typer.Option("--language", help="Only this language's versions.")] = None,
    json_: Json = False,
) -> None:
    """Every adapter version: which is live, pinned or on trial, where it came from, and what it scored."""
    from compass_ray import registry

    where = RunDir(run)
    found = registry.list_versions(where, _languages(where, language))
    emit(json_, [to_flat_json(entry) for entry in found], lambda: print_rows(list(COLUMNS), [to_row(entry) for entry in found]))
    for problem in () if json_ else dict.fromkeys(entry.problem for entry in found if entry.problem):
        err.print(f"note: {problem}", markup=False, highlight=False, soft_wrap=True)


@adapters.command("show", epilog="Example: `compass-ray adapters show runs/mine sw v0002`")
def show_(
    run: RunArgument,
    language: LanguageArgument,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="The live one if unset.")] = None,
    json_: Json = False,
) -> None:
    """All that is known of one version, and what its language served before."""
    from compass_ray import registry

    where = _open_run(run, language)
    live = registry.read_pointer(where, language).live
    chosen = version or (live.version if live else None)
    found = [entry for entry in registry.list_versions(where, [language]) if entry.name.version == chosen]
    if not found:
        raise ConfigError(
            f"{language} has no whole version {chosen!r}; see 'compass-ray adapters list {run} --language {language}'"
            if chosen
            else f"{language} serves no version, so name one; see 'compass-ray adapters list {run} --language {language}'"
        )
    history = to_json(live.history) if live else []
    emit(json_, to_flat_json(found[0]) | {"history": history}, lambda: print_lines(describe(found[0], live)))


@adapters.command(epilog="Example: `compass-ray adapters promote runs/mine sw v0002`")
def promote(
    run: RunArgument,
    language: LanguageArgument,
    version: Version,
    reason: Why = DEFAULT_REASON,
    force: Annotated[bool, typer.Option("--force", help="Also if the language is pinned or its pointer damaged.")] = False,
    json_: Json = False,
) -> None:
    """Serve this version from now on; it also concludes its canary."""
    from compass_ray import registry

    pointer = registry.promote(_open_run(run, language), language, version, reason=reason, force=force)
    _emit_pointer(json_, pointer, f"{language} now serves {version}")


@adapters.command(epilog="Example: `compass-ray adapters rollback runs/mine sw`")
def rollback(run: RunArgument, language: LanguageArgument, reason: Why = DEFAULT_REASON, json_: Json = False) -> None:
    """Serve the version that was live before."""
    from compass_ray import registry

    pointer = registry.roll_back(_open_run(run, language), language, reason=reason)
    _emit_pointer(json_, pointer, f"{language} now serves {pointer['version']}")


@adapters.command(epilog="Example: `compass-ray adapters pin runs/mine sw --reason 'exams until June'`")
def pin(run: RunArgument, language: LanguageArgument, reason: Why = DEFAULT_REASON, json_: Json = False) -> None:
    """Keep the version that is live: no update, promotion or roll-back replaces it until it is unpinned."""
    from compass_ray import registry

    pointer = registry.pin(_open_run(run, language), language, reason=reason)
    _emit_pointer(json_, pointer, f"{language} stays at {pointer['version']}")


@adapters.command(epilog="Example: `compass-ray adapters unpin runs/mine sw`")
def unpin(run: RunArgument, language: LanguageArgument, reason: Why = DEFAULT_REASON, json_: Json = False) -> None:
    """Let the live version change again."""
    from compass_ray import registry

    pointer = registry.unpin(_open_run(run, language), language, reason=reason)
    _emit_pointer(json_, pointer, f"{language} serves {pointer['version']}, which may be replaced")


@adapters.command(
    epilog="Example: `compass-ray adapters canary runs/mine sw v0002 --share 0.05`; ends with `promote` or `--stop`"
)
def canary(
    run: RunArgument,
    language: LanguageArgument,
    version: CandidateVersion = None,
    share: Annotated[float | None, typer.Option("--share", help="Share of the language's requests, as in 0.05.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the canary: the live version answers all again.")] = False,
    reason: Why = DEFAULT_REASON,
    json_: Json = False,
) -> None:
    """Let a version answer a share of a language's requests, until it is promoted or stopped."""
    from compass_ray import registry

    where = _open_run(run, language)
    if stop:
        _only_stop("canary", version, share)
        pointer = registry.stop_canary(where, language, reason=reason)
        _emit_pointer(json_, pointer, f"{pointer['version']} answers all requests of {language}")
        return
    if version is None or share is None:
        raise ConfigError("a canary needs a VERSION and its --share, as in 'v0002 --share 0.05'; or give --stop to end one")
    pointer = registry.set_canary(where, language, version, share, reason=reason)
    _emit_pointer(json_, pointer, f"{version} answers {share:.3g} of the requests of {language}, {pointer['version']} the others")


@adapters.command(epilog="Example: `compass-ray adapters shadow runs/mine sw v0002`, later with `--stop`")
def shadow(
    run: RunArgument,
    language: LanguageArgument,
    version: CandidateVersion = None,
    stop: Annotated[bool, typer.Option("--stop", help="Copy requests no longer.")] = False,
    reason: Why = DEFAULT_REASON,
    json_: Json = False,
) -> None:
    """Let a version answer a copy of each request of a language, which no client sees."""
    from compass_ray import registry

    where = _open_run(run, language)
    if stop:
        _only_stop("shadow", version)
        pointer = registry.stop_shadow(where, language, reason=reason)
        _emit_pointer(json_, pointer, f"requests of {language} go to {pointer['version']} alone")
        return
    if version is None:
        raise ConfigError("a shadow needs a VERSION, as in 'v0002'; or give --stop to end one")
    _emit_pointer(
        json_, registry.set_shadow(where, language, version, reason=reason), f"{version} answers copies of what {language} asks"
    )


def _languages(run: RunDir, language: str | None) -> list[str]:
    return list(run.read_config().languages) if language is None else [require_language(run, language)]


def _open_run(run: str, language: str) -> RunDir:
    where = RunDir(run)
    require_language(where, language)
    return where


def _only_stop(trial: str, *given: object) -> None:
    if any(value is not None for value in given):
        raise ConfigError(f"--stop ends whatever {trial} there is; give it without a version or share")


def _emit_pointer(as_json: bool, pointer: dict[str, Any], sentence: str) -> None:
    emit(as_json, to_json(pointer), lambda: out.print(sentence, highlight=False))

"""Commands on adapter versions: list and show them, change the live version, start a canary or a shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from compass_ray.cli.adapter_table import COLUMNS, describe, to_flat_json, to_row
from compass_ray.cli.app import adapters
from compass_ray.cli.options import Json, LanguageArgument, RunArgument, open_run, require_language
from compass_ray.cli.output import emit, err, out, print_lines, print_rows, to_json

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir

Version = Annotated[str, typer.Argument(help="Version of the adapter, for example v0002.")]
CandidateVersion = Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Version to try, for example v0002.")]
Why = Annotated[str, typer.Option("--reason", help="Reason to write into the decision log.")]
DEFAULT_REASON = "by hand"


@adapters.command("list", epilog="Example: `compass-ray adapters list runs/mine`")
def list_(
    run: RunArgument,
    language: Annotated[str | None, typer.Option("--language", help="List the versions of this language only.")] = None,
    json_: Json = False,
) -> None:
    """List all adapter versions with state, parent and scores."""
    from compass_ray import registry

    where = open_run(run)
    entries = registry.list_versions(where, _languages(where, language))
    emit(json_, [to_flat_json(entry) for entry in entries], lambda: print_rows(list(COLUMNS), [to_row(e) for e in entries]))
    for problem in () if json_ else dict.fromkeys(entry.problem for entry in entries if entry.problem):
        err.print(f"note: {problem}", markup=False, highlight=False, soft_wrap=True)


@adapters.command("show", epilog="Example: `compass-ray adapters show runs/mine sw v0002`")
def show_(
    run: RunArgument,
    language: LanguageArgument,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Version to show. Default: the live one.")] = None,
    json_: Json = False,
) -> None:
    """Show one version in full, with the history of the live version of its language."""
    from compass_ray import registry
    from compass_ray.config import ConfigError

    where = _open_language(run, language)
    live = registry.read_pointer(where, language).live
    chosen = version or (live.version if live else None)
    entries = [entry for entry in registry.list_versions(where, [language]) if entry.name.version == chosen]
    if not entries:
        raise ConfigError(
            f"{language} has no complete version {chosen!r}; see 'compass-ray adapters list {run} --language {language}'"
            if chosen
            else f"{language} has no live version; give a VERSION from 'compass-ray adapters list {run} --language {language}'"
        )
    history = to_json(live.history) if live else []
    emit(json_, to_flat_json(entries[0]) | {"history": history}, lambda: print_lines(describe(entries[0], live)))


@adapters.command(epilog="Example: `compass-ray adapters promote runs/mine sw v0002`")
def promote(
    run: RunArgument,
    language: LanguageArgument,
    version: Version,
    reason: Why = DEFAULT_REASON,
    force: Annotated[
        bool, typer.Option("--force", help="Promote even if the language is pinned or its pointer is damaged.")
    ] = False,
    json_: Json = False,
) -> None:
    """Make this version live; this also ends its canary."""
    from compass_ray import registry

    pointer = registry.promote(_open_language(run, language), language, version, reason=reason, force=force)
    _emit_pointer(json_, pointer, f"{language} now serves {version}")


@adapters.command(epilog="Example: `compass-ray adapters rollback runs/mine sw`")
def rollback(run: RunArgument, language: LanguageArgument, reason: Why = DEFAULT_REASON, json_: Json = False) -> None:
    """Make the previous live version live again."""
    from compass_ray import registry

    pointer = registry.roll_back(_open_language(run, language), language, reason=reason)
    _emit_pointer(json_, pointer, f"{language} now serves {pointer['version']}")


@adapters.command(epilog="Example: `compass-ray adapters pin runs/mine sw --reason 'exams until June'`")
def pin(run: RunArgument, language: LanguageArgument, reason: Why = DEFAULT_REASON, json_: Json = False) -> None:
    """Pin the live version: no update, promotion or rollback replaces it until it is unpinned."""
    from compass_ray import registry

    pointer = registry.pin(_open_language(run, language), language, reason=reason)
    _emit_pointer(json_, pointer, f"{language} is pinned to {pointer['version']}")


@adapters.command(epilog="Example: `compass-ray adapters unpin runs/mine sw`")
def unpin(run: RunArgument, language: LanguageArgument, reason: Why = DEFAULT_REASON, json_: Json = False) -> None:
    """Unpin the live version, so that it can be replaced."""
    from compass_ray import registry

    pointer = registry.unpin(_open_language(run, language), language, reason=reason)
    _emit_pointer(json_, pointer, f"{language} is unpinned and serves {pointer['version']}")


@adapters.command(
    epilog="Example: `compass-ray adapters canary runs/mine sw v0002 --share 0.05`; end it with `promote` or `--stop`"
)
def canary(
    run: RunArgument,
    language: LanguageArgument,
    version: CandidateVersion = None,
    share: Annotated[float | None, typer.Option("--share", help="Fraction of the language's requests, for example 0.05.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the canary: the live version answers all requests.")] = False,
    reason: Why = DEFAULT_REASON,
    json_: Json = False,
) -> None:
    """Start a canary: this version answers a share of the language's requests until it is promoted or stopped."""
    from compass_ray import registry
    from compass_ray.config import ConfigError

    where = _open_language(run, language)
    if stop:
        _only_stop("canary", version, share)
        pointer = registry.stop_canary(where, language, reason=reason)
        _emit_pointer(json_, pointer, f"{pointer['version']} answers all requests of {language}")
        return
    if version is None or share is None:
        raise ConfigError("a canary needs a VERSION and --share, for example 'v0002 --share 0.05'; to end one, give --stop")
    pointer = registry.set_canary(where, language, version, share, reason=reason)
    _emit_pointer(json_, pointer, f"{version} answers {share:.3g} of the requests of {language}, {pointer['version']} the rest")


@adapters.command(epilog="Example: `compass-ray adapters shadow runs/mine sw v0002`; end it with `--stop`")
def shadow(
    run: RunArgument,
    language: LanguageArgument,
    version: CandidateVersion = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the shadow: stop copying requests.")] = False,
    reason: Why = DEFAULT_REASON,
    json_: Json = False,
) -> None:
    """Start a shadow: this version answers copies of the language's requests. Clients do not see these replies."""
    from compass_ray import registry
    from compass_ray.config import ConfigError

    where = _open_language(run, language)
    if stop:
        _only_stop("shadow", version)
        pointer = registry.stop_shadow(where, language, reason=reason)
        _emit_pointer(json_, pointer, f"requests of {language} go to {pointer['version']} only")
        return
    if version is None:
        raise ConfigError("a shadow needs a VERSION, for example 'v0002'; to end one, give --stop")
    pointer = registry.set_shadow(where, language, version, reason=reason)
    _emit_pointer(json_, pointer, f"{version} answers copies of the requests of {language}")


def _languages(run: RunDir, language: str | None) -> list[str]:
    return list(run.read_config().languages) if language is None else [require_language(run, language)]


def _open_language(run: str, language: str) -> RunDir:
    where = open_run(run)
    require_language(where, language)
    return where


def _only_stop(kind: str, *given: object) -> None:
    from compass_ray.config import ConfigError

    if any(value is not None for value in given):
        raise ConfigError(f"--stop ends the current {kind}; give it without a version or share")


def _emit_pointer(as_json: bool, pointer: dict[str, Any], sentence: str) -> None:
    emit(as_json, to_json(pointer), lambda: out.print(sentence, markup=False, highlight=False))

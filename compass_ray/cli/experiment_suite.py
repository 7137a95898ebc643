"""Suites in the command ``experiment``: reading, listing with cost, and reporting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from compass_ray.cli.options import load_raw_config
from compass_ray.cli.output import emit, err, out, print_rows, to_json

if TYPE_CHECKING:
    from compass_ray.artifacts import RunDir
    from compass_ray.evaluation.experiments import Experiment, VariantAttempt
    from compass_ray.evaluation.experiments.run_variants import ProgressFactory
    from compass_ray.evaluation.suites import EntryCost, Suite, SuiteEntry


@dataclass(frozen=True)
class SuiteRequest:
    """A suite, the entries that are asked for, and the preset."""

    suite: Suite
    only: tuple[str, ...]
    preset: str | None

    @property
    def entries(self) -> dict[str, SuiteEntry]:
        """The entries by name, in the order of the paper."""
        return self.suite.chosen(self.only, self.preset)

    @property
    def last_stage(self) -> str | None:
        """The last stage that the entries need; None is every stage."""
        from compass_ray.evaluation import suites

        return suites.find_last_stage(self.entries.values())

    def check(self, experiment: Experiment) -> None:
        """Check what the entries need beside the stages, before anything runs.

        Raises:
            ConfigError: tasks without a folder of rows, without lm-evaluation-harness, or with an invalid setting.
        """
        from compass_ray.evaluation import suites

        suites.check_entries(self.entries, experiment.variants[0].config)

    @property
    def page_entries(self) -> dict[str, SuiteEntry]:
        """The entries of the page and of the list: all for the preset, and those that are asked for."""
        shown = {*self.suite.shown(self.preset), *self.only}
        return {name: entry for name, entry in self.suite.entries.items() if name in shown}

    def read(
        self,
        entries: Mapping[str, SuiteEntry],
        tree: Mapping[str, Any],
        vary: Sequence[str],
        overrides: Sequence[str],
        languages: Sequence[str] | None,
    ) -> Experiment:
        """The variants of entries.

        Raises:
            ConfigError: an invalid setting, or another setting than the seed is varied.
        """
        from compass_ray.evaluation import suites

        seeds = _parse_seeds(vary)
        return suites.build_experiment(
            self.suite, entries, tree, self.preset, seeds=seeds, overrides=overrides, languages=languages
        )


def open_suite(name: str | None, only: Sequence[str], preset: str | None) -> SuiteRequest | None:
    """The suite of the options; None without one.

    Raises:
        ConfigError: no such suite or entry, or entries without a suite.
    """
    from compass_ray.config import ConfigError

    if name is None:
        if only:
            raise ConfigError("--only chooses entries of a suite; add --suite paper")
        return None
    from compass_ray.evaluation import suites

    request = SuiteRequest(suites.load_suite(name), tuple(only), preset)
    request.suite.chosen(only, preset)
    return request


def require_suite(request: SuiteRequest | None) -> SuiteRequest:
    """The request, if there is one.

    Raises:
        ConfigError: there is none.
    """
    from compass_ray.config import ConfigError

    if request is None:
        raise ConfigError("--list lists the entries of a suite; add --suite paper")
    return request


def require_run(run: str | None) -> str:
    """The folder for the runs.

    Raises:
        ConfigError: it is not given.
    """
    from compass_ray.config import ConfigError

    if run is None:
        raise ConfigError("no folder is given for the runs; add --run FOLDER")
    return run


def _parse_seeds(vary: Sequence[str]) -> list[int]:
    from compass_ray.config import ConfigError

    seeds: list[int] = []
    for text in vary:
        key, _, values = text.partition("=")
        try:
            seeds += [int(value) for value in values.split(",")] if key.strip() == "seed" else [int(text)]
        except ValueError:
            raise ConfigError(f"--vary {text!r}: a suite varies seeds only, for example --vary seed=0,1") from None
    return seeds


def list_entries(
    request: SuiteRequest,
    config: Path | None,
    overrides: Sequence[str],
    languages: Sequence[str] | None,
    *,
    json_: bool,
) -> None:
    """Print the entries with their cost: with the preset or file, or else with each preset that the suite names."""
    found = {}
    for preset in [request.preset] if request.preset or config else [*request.suite.config.presets]:
        named = SuiteRequest(request.suite, request.only, preset)
        found[preset or str(config)] = _costs(named, config, overrides, languages)
    entries = request.suite.entries
    listed = {preset: [_as_json(name, entries[name], cost) for name, cost in costs.items()] for preset, costs in found.items()}
    emit(json_, listed, lambda: _print_lists(entries, found))


def _costs(
    request: SuiteRequest, config: Path | None, overrides: Sequence[str], languages: Sequence[str] | None
) -> dict[str, EntryCost]:
    from compass_ray.evaluation import suites

    entries = request.entries if request.only else request.page_entries
    experiment = request.read(entries, load_raw_config(request.preset, config), (), overrides, languages)
    return suites.estimate_costs(request.suite, entries, experiment, request.preset)


def _as_json(name: str, entry: SuiteEntry, cost: EntryCost) -> dict[str, Any]:
    return {"name": name, "title": entry.title, "where": entry.where, "kind": entry.kind, "cost": to_json(cost)}


def _print_lists(entries: Mapping[str, SuiteEntry], found: Mapping[str, Mapping[str, EntryCost]]) -> None:
    from compass_ray.evaluation.suites.costs import format_cost

    for preset, costs in found.items():
        out.print(f"\n[bold]{preset}[/]", highlight=False)
        rows = [
            [
                name,
                entries[name].where,
                entries[name].title,
                str(cost.adapters or "–"),
                format_cost(cost.cpu),
                format_cost(cost.gpu),
            ]
            for name, cost in costs.items()
        ]
        print_rows(["name", "paper", "title", "adapters", "CPU", "GPU"], rows)
        notes = {unit.note: None for cost in costs.values() for unit in (cost.cpu, cost.gpu) if unit}
        for note in notes:
            out.print(note, markup=False, highlight=False, soft_wrap=True)
    out.print("\nCosts of an entry leave out what entries above it already have.", markup=False, highlight=False)
    if named := [name for name, entry in entries.items() if entry.on_request]:
        out.print(f"These run only if --only names them: {', '.join(named)}.", markup=False, highlight=False, soft_wrap=True)


def run_entries(request: SuiteRequest, ended: Sequence[VariantAttempt], watch: ProgressFactory) -> list[VariantAttempt]:
    """Simulate, and evaluate other benchmarks, as the entries ask, in the first run. A failure is one of that run."""
    from compass_ray.evaluation import suites
    from compass_ray.evaluation.experiments import BASE

    first = next((each for each in ended if each.variant.group == BASE), None)
    if first is None or first.failure:
        return list(ended)
    preset = request.suite.preset(request.preset)
    failures = suites.run_entries(request.entries, preset, first.variant.config, first.run, watch)
    failed = replace(first, failure="; ".join(f"{name}: {reason}" for name, reason in failures.items()) or None)
    return [failed if each is first else each for each in ended]


def report_suite(
    request: SuiteRequest, where: RunDir, whole: Experiment, ended: Sequence[VariantAttempt], *, json_: bool
) -> None:
    """Write the page of the suite and say where it is. It also shows what earlier calls ran, if it is in ``whole``.

    Raises:
        typer.Exit: a variant failed.
    """
    from compass_ray.evaluation import suites

    attempts = _with_earlier(where, whole, ended)
    compared = suites.write_page(where, request.suite, request.page_entries, whole, attempts, request.preset)
    page = f"{where.shown_uri}/index.html"
    emit(
        json_,
        {"run": where.shown_uri, "entries": to_json(compared)},
        lambda: out.print(f"\nreport: {page}", soft_wrap=True, highlight=False),
    )
    for failed in (each for each in attempts if each.failure):
        err.print(f"failed: {failed.variant.name}: {failed.failure}", markup=False, highlight=False, soft_wrap=True)
    if any(each.failure for each in attempts):
        raise typer.Exit(1)


def _with_earlier(where: RunDir, whole: Experiment, ended: Sequence[VariantAttempt]) -> list[VariantAttempt]:
    """An attempt for each variant of the experiment: that of this call, or the run that an earlier call may have left."""
    from compass_ray.evaluation.experiments import VariantAttempt, variant_run_dir

    done = {attempt.variant.name: attempt for attempt in ended}
    return [done.get(v.name) or VariantAttempt(v, variant_run_dir(where, v), None) for v in whole.variants]

"""A whole simulation: every trigger along every stream, scored, and kept in the run with its pictures.

Key property: streams differ by seed alone and are the same for every trigger, so triggers are compared in pairs; the result
is a function of the placed prompts, the run's settings and the plan. COMPASS, appendix D.2. It trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import RunConfig
from compass_ray.continual.simulation import pictures
from compass_ray.continual.simulation.contenders import Contender, contenders
from compass_ray.continual.simulation.detection import Check, Monitor, Updates, accept_all
from compass_ray.continual.simulation.plan import Plan
from compass_ray.continual.simulation.preparing import first_references, prepare, read_prompts
from compass_ray.continual.simulation.scenarios import Period, scenario
from compass_ray.continual.simulation.scoring import Outcome, Summary, score, summarise
from compass_ray.continual.simulation.traffic import Prompts, shifts, stream
from compass_ray.core.seeding import generator
from compass_ray.progress import Progress, silent
from compass_ray.report.style import png

TABLE = (
    "trigger", "bits", "updates", "mean delay", "9 in 10 within", "detected", "missed", "of the large",
    "false alarms", "of updates",
)  # fmt: skip
"""``updates`` of a stream; delays in prompts; the large changes move the traffic by more than the configured floor."""


@dataclass(frozen=True)
class Line:
    """One trigger over all streams; ``threshold`` in bits."""

    trigger: str
    threshold: float
    summary: Summary


@dataclass(frozen=True)
class Example:
    """One stream under one trigger, to look at."""

    trigger: str
    threshold: float
    checks: Sequence[Check]


@dataclass(frozen=True)
class Detection:
    """What a simulation found for a language; the first line and the first example are of the configured trigger."""

    language: str
    scenario: str
    periods: tuple[Period, ...]
    """Of the first stream."""
    shifts: tuple[float, ...]
    """How far the traffic moves at each change, in bits: the mean over streams."""
    lines: tuple[Line, ...]
    examples: tuple[Example, ...]
    """The first stream under every trigger."""

    def table(self) -> list[list[str]]:
        """Cells in the order of `TABLE`."""
        return [_cells(line) for line in self.lines]


def simulate(config: RunConfig, run: RunDir, language: str, plan: Plan, *, progress: Progress = silent) -> Detection:
    """Place the prompts if need be, walk every stream, and write ``simulations/<language>/detection``.

    Raises:
        ArtifactError: the run has no clusters or guide set yet.
        ConfigError: a plan that cannot be carried out with this run.
    """
    plan.require(config.drift.window)
    prompts = prepare(config, run, language, plan).require()
    found = detect(config, run, language, plan, progress=progress)
    settings = plan.as_json() | {"drift": config.drift.model_dump(), "seed": config.seed}
    writer = run.simulation(language, "detection").begin(Identity("simulate", settings, {"prompts": prompts.fingerprint}))
    writer.json("results.json", as_json(found))
    writer.bytes("divergence.png", png(pictures.divergence(found, plan.period)))
    writer.bytes("delay.png", png(pictures.delay(found)))
    writer.publish({"scenario": found.scenario, **asdict(found.lines[0].summary)})
    return found


def detect(
    config: RunConfig, run: RunDir, language: str, plan: Plan, *, updates: Updates = accept_all, progress: Progress = silent
) -> Detection:
    """Walk every stream under every trigger; ``updates`` decides what is served after an alarm."""
    prompts = read_prompts(run, language)
    outcomes: dict[tuple[str, float], list[Outcome]] = {}
    examples: list[Example] = []
    moved: list[list[float]] = []
    for seed in range(plan.seeds):
        asked = scenario(plan.scenario, prompts.asked.keys(), seed)
        periods = asked.periods()
        moved.append(shifts(prompts, periods, plan.fresh_share))
        drawn = stream(prompts, periods, plan.period, plan.fresh_share, seed)
        for each in _contenders(config, run, language, plan, prompts, periods[0], seed):
            checks = Monitor(each.trigger, each.drift, prompts, seed, language, updates).walk(drawn, each.reference)
            found = score(checks, periods, plan.period, config.drift.window)
            outcomes.setdefault((each.name, each.threshold), []).append(found)
            if seed == 0:
                examples.append(Example(each.name, each.threshold, checks))
                shown = periods
        progress("simulate", seed + 1, plan.seeds)
    lines = tuple(Line(*key, summarise(found, moved, config.drift.floor)) for key, found in outcomes.items())
    return Detection(language, asked.name, shown, tuple(np.mean(moved, axis=0).tolist()), lines, tuple(examples))


def as_json(found: Detection) -> dict[str, object]:
    """What was found, without the examples' checks."""
    lines = [{"trigger": line.trigger, "threshold": line.threshold, **asdict(line.summary)} for line in found.lines]
    periods = {each.name: list(each.fresh or each.usual) for each in found.periods}
    about = {"language": found.language, "scenario": found.scenario, "periods": periods, "shifts_bits": list(found.shifts)}
    return {**about, "lines": lines}


def _contenders(
    config: RunConfig, run: RunDir, language: str, plan: Plan, prompts: Prompts, first: Period, seed: int
) -> list[Contender]:
    rng = generator(seed, "first", language)
    guide = prompts.guide_of(first.usual)
    asked, printed = first_references(config, run, language, prompts, guide, rng)
    return contenders(config.drift, asked, printed, plan.thresholds)


def _cells(line: Line) -> list[str]:
    found = line.summary
    return [
        line.trigger,
        f"{line.threshold:.2f}",
        f"{found.updates:.2f}",
        _prompts(found.mean_delay),
        _prompts(found.late_delay),
        f"{found.detected} of {found.transitions}",
        str(found.missed),
        f"{found.large_missed} of {found.large}",
        str(found.false_alarms),
        f"{found.false_share:.1%}",
    ]


def _prompts(delay: float | None) -> str:
    return "-" if delay is None else f"{delay:.0f}"

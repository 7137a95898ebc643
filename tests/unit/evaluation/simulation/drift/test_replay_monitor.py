"""The replay of a stream: equal to the service's monitor, and the scores of its alarms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from compass_ray.artifacts import RunDir, jsonl_log
from compass_ray.config import DriftConfig, RunConfig
from compass_ray.core.distribution import cluster_counts
from compass_ray.core.drift import FixedThresholdTrigger, PermutationTestTrigger, Trigger
from compass_ray.evaluation.simulation.drift.metrics import DetectionOutcome, score_alarms, summarize_outcomes
from compass_ray.evaluation.simulation.drift.reference_policies import PromptsOnly
from compass_ray.evaluation.simulation.drift.replay_monitor import ReplayMonitor, SimulatedCheck, UpdateProposal
from compass_ray.evaluation.simulation.drift.scenarios import Scenario
from compass_ray.evaluation.simulation.drift.streams import PromptBank, TrafficStream, draw_stream
from compass_ray.evaluation.simulation.drift.triggers import build_trigger_variants
from compass_ray.monitoring.drift_check import build_trigger
from compass_ray.monitoring.language_monitor import ReferenceDistribution
from compass_ray.monitoring.monitor import TrafficMonitor
from compass_ray.monitoring.observations import Observation
from compass_ray.monitoring.window_store import read_window
from tests.unit.fakes import Clock, WordAssigner

SCENARIO = Scenario("two", (tuple("abc"), tuple("de")))
LENGTH = 500


def first(prompts: PromptBank) -> PromptsOnly:
    clusters = draw_stream(prompts, SCENARIO.periods()[:1], 90, 0.5, seed=99).clusters
    return PromptsOnly().after_update(prompts, clusters, np.random.default_rng(0))


def walk(
    prompts: PromptBank, drift: DriftConfig, trigger: Trigger, verdicts: Iterable[bool] = (), seed: int = 0
) -> list[SimulatedCheck]:
    answers = iter(verdicts)
    traffic = draw_stream(prompts, SCENARIO.periods(), LENGTH, 0.5, seed)
    monitor = ReplayMonitor(trigger, drift, prompts, 0, "sw", lambda proposal: next(answers, True))
    return monitor.replay(traffic, first(prompts))


def served(prompts: PromptBank, config: RunConfig, run: RunDir, traffic: TrafficStream, verdicts: Sequence[bool]) -> list[int]:
    """Prompts at each alarm of the service's monitor. It gets the next reference as soon as a window is ready."""
    references, answers = {"v1": first(prompts).counts}, list(verdicts)
    run.set_live("sw", {"version": "v1"})
    monitor = TrafficMonitor(
        run, config, WordAssigner(), Clock(), references=lambda _, version: ReferenceDistribution(version, references[version])
    )
    for number, cluster in enumerate(prompts.to_coarse(traffic.clusters).tolist()):
        monitor.record([Observation(f"id-{number}", "sw", f"swali {cluster}", None, None, 1000.0)])
        for ready in monitor.ready():
            if answers and not answers.pop(0):
                monitor.discard_window("sw")
                continue
            version = f"v{len(references) + 1}"
            labels = read_window(run, ready)["cluster"].to_numpy()
            references[version] = cluster_counts(labels, prompts.num_coarse)
            run.set_live("sw", {"version": version})
            monitor.reset_reference("sw", version)
    return [line["prompts"] for line in jsonl_log.read(run, "decisions.jsonl") if line["kind"] == "drift"]


@pytest.mark.parametrize(
    "verdicts", [(False, False, True, False), *(pytest.param(each, marks=pytest.mark.slow) for each in ((), (False,)))]
)
def test_alarms_occur_where_the_services_monitor_raises_them(
    prompts: PromptBank, config: RunConfig, run: RunDir, verdicts: tuple[bool, ...]
) -> None:
    traffic = draw_stream(prompts, SCENARIO.periods(), LENGTH, 0.5, seed=0)
    checks = walk(prompts, config.drift, build_trigger(config.drift), verdicts)
    alarms = [check.prompts for check in checks if check.alarm]
    assert len(alarms) >= 2
    assert alarms == served(prompts, config, run, traffic, verdicts)


def test_every_change_is_detected_without_false_alarms(prompts: PromptBank, config: RunConfig) -> None:
    outcomes = [
        score_alarms(
            walk(prompts, config.drift, PermutationTestTrigger(), seed=seed), SCENARIO.periods(), LENGTH, config.drift.window
        )
        for seed in range(5)
    ]
    found = summarize_outcomes(outcomes, [[0.3, 0.02]] * 5, 0.05)
    assert (found.large, found.large_missed) == (5, 0)
    assert (found.detected, found.missed, found.false_alarms, found.transitions) == (10, 0, 0, 10)
    assert found.mean_delay is not None
    assert 0 < found.mean_delay <= 100


def test_the_update_policy_receives_a_window_of_new_prompts(prompts: PromptBank, config: RunConfig) -> None:
    proposals: list[UpdateProposal] = []
    traffic = draw_stream(prompts, SCENARIO.periods(), LENGTH, 0.5, seed=0)

    def record(proposal: UpdateProposal) -> bool:
        proposals.append(proposal)
        return True

    ReplayMonitor(PermutationTestTrigger(), config.drift, prompts, 0, "sw", record).replay(traffic, first(prompts))
    for each in proposals:
        assert each.window_end == each.alarmed_at + config.drift.window
        assert (each.clusters == traffic.clusters[each.alarmed_at : each.window_end]).all()
        assert each.period == traffic.period[each.window_end - 1]
    assert [each.period for each in proposals] == [1, 2]


def test_a_threshold_of_zero_gives_false_alarms(prompts: PromptBank, config: RunConfig) -> None:
    without_cooldown = config.drift.model_copy(update={"cooldown": 0})
    found = score_alarms(
        walk(prompts, without_cooldown, FixedThresholdTrigger(0.0)), SCENARIO.periods(), LENGTH, config.drift.window
    )
    assert found.updates > 8
    assert found.false_alarms >= found.updates - 4


def test_a_threshold_of_one_misses_every_change(prompts: PromptBank, config: RunConfig) -> None:
    found = score_alarms(walk(prompts, config.drift, FixedThresholdTrigger(1.0)), SCENARIO.periods(), LENGTH, config.drift.window)
    assert found == DetectionOutcome(0, 0, (None, None))
    together = summarize_outcomes([found], [[0.3, 0.04]], 0.05)
    assert (together.mean_delay, together.false_share) == (None, 0.0)
    assert (together.missed, together.large, together.large_missed) == (2, 1, 1)


def _alarm(check: SimulatedCheck, prompts: int, since: int) -> SimulatedCheck:
    return SimulatedCheck(prompts, (prompts - 1) // LENGTH, True, True, since, check.decision)


def test_an_alarm_is_false_if_the_reference_has_the_same_traffic(prompts: PromptBank, config: RunConfig) -> None:
    some = walk(prompts, config.drift, FixedThresholdTrigger(1.0))[0]
    cases = {(300, -1): 1, (700, -1): 0, (1200, -1): 1, (900, 520): 1, (900, 450): 0, (1100, 520): 0, (1400, 1050): 1}
    for (at, since), false in cases.items():
        found = score_alarms([_alarm(some, at, since)], SCENARIO.periods(), LENGTH, 100)
        assert found.false_alarms == false, (at, since)


def test_delays_count_from_the_change_to_the_first_true_alarm(prompts: PromptBank, config: RunConfig) -> None:
    some = walk(prompts, config.drift, FixedThresholdTrigger(1.0))[0]
    alarms = [_alarm(some, 300, -1), _alarm(some, 640, 310), _alarm(some, 980, 660)]
    found = score_alarms(alarms, SCENARIO.periods(), LENGTH, 100)
    assert found == DetectionOutcome(3, 2, (140, None))


def test_trigger_variants_differ_in_one_property_at_a_time(config: RunConfig) -> None:
    prompts_only, paper = PromptsOnly(np.array([1, 0])), PromptsOnly(np.array([2, 0]))
    configured, *others = build_trigger_variants(config.drift, prompts_only, paper, [0.1, 0.2])
    assert configured.trigger == build_trigger(config.drift)
    assert configured.reference is prompts_only
    assert [(each.threshold, each.reference is paper, each.drift.cooldown) for each in others] == [
        (0.1, True, 0),
        (0.2, True, 0),
        (0.1, False, 100),
        (0.2, False, 100),
    ]
    fixed = config.drift.model_copy(update={"trigger": "fixed_threshold"})
    assert build_trigger_variants(fixed, prompts_only, paper, [])[0].reference is paper

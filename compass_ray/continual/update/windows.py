"""Traffic windows for updates: a ready window of the monitor, the last prompts of its log, or a file of prompts.

A window is named by its content, so an update for it never runs twice. COMPASS, section 3.3.2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from compass_ray.adapters.lineage import live_version
from compass_ray.artifacts import RunDir, content_hash
from compass_ray.clustering.versions import INITIAL_CLUSTERING, read_active, resolve_space
from compass_ray.config import ConfigError, DailyTimeWindow, RunConfig, SourceConfig
from compass_ray.monitoring.cluster_assigner import load_prompt_assigner
from compass_ray.monitoring.observations import WindowReady
from compass_ray.monitoring.traffic_log import read_language_state, read_ready_windows
from compass_ray.monitoring.window_store import read_window as read_stored_window
from compass_ray.monitoring.window_store import window_table
from compass_ray.sources.column_mapping import load_rows
from compass_ray.sources.source_paths import missing_path_error
from compass_ray.texts import is_blank


def require_scheduled_time(config: RunConfig, moment: datetime) -> None:
    """Raise if ``moment`` (timezone-aware) is outside ``update.schedule_utc``. A started update continues past its end.

    Raises:
        ConfigError: updates are not allowed now; the message says when they are.
    """
    schedule = DailyTimeWindow.parse(config.update.schedule_utc) if config.update.schedule_utc else None
    opens = schedule.next_opening(moment) if schedule else moment
    if opens == moment:
        return
    minutes = -(-(opens - moment).total_seconds() // 60)
    raise ConfigError(
        f"Updates start only between {schedule} UTC (update.schedule_utc); it is {moment.astimezone(UTC):%H:%M} UTC. Try again "
        f"at {opens:%Y-%m-%d %H:%M} UTC (in {minutes // 60:.0f} h {minutes % 60:.0f} min), or pass --now."
    )


@dataclass(frozen=True)
class Window:
    """The prompts of one language that an update selects rows for, with their clusters."""

    language: str
    clusters: tuple[int, ...]
    name: str
    """Content hash; it identifies the update."""
    space_id: str = INITIAL_CLUSTERING
    """The cluster space of ``clusters`` (see `clustering.versions.ClusterSpace`)."""
    file: str | None = None
    """The window's file in the monitor's folder, if it is a ready window."""
    prompts: pa.Table | None = field(default=None, compare=False, repr=False)
    """The prompts, schema `window_store.WINDOW_SCHEMA`."""

    def __len__(self) -> int:
        return len(self.clusters)


def load_ready_window(run: RunDir, ready: WindowReady) -> Window:
    """A window that the monitor reported as ready after an alarm.

    Raises:
        ConfigError: it cannot be read, or all its prompts are noise.
    """
    prompts = read_stored_window(run, ready)
    return replace(_window(ready.language, prompts, ready.file), file=ready.file)


def load_ready_windows(run: RunDir, config: RunConfig) -> tuple[list[Window], dict[str, str]]:
    """Every window that is ready for an update, read from the monitor's log; no monitor has to run.

    Returns:
        The windows, and by language why other ready windows cannot be used.
    """
    windows: list[Window] = []
    unusable: dict[str, str] = {}
    for ready in read_ready_windows(run, config):
        try:
            windows.append(load_ready_window(run, ready))
        except ConfigError as error:
            unusable[ready.language] = str(error)
    return windows, unusable


def read_window(run: RunDir, config: RunConfig, language: str, prompts: Path | None) -> Window:
    """Prompts from a file with a ``prompt`` column, or without a file the monitor's last window.

    Raises:
        ConfigError: an unknown language, an unreadable file, or no traffic.
    """
    if language not in config.languages:
        raise ConfigError(f"{language!r} is not a language of this run; it has {', '.join(config.languages)}")
    if prompts is not None:
        return _cluster_prompts(run, config, language, _read_prompts(prompts))
    state = read_language_state(run, config, language)
    if not state.window:
        raise ConfigError(f"no traffic of {language} has been recorded; pass prompts with --prompts FILE.jsonl")
    return _window(language, window_table(language, state.window, state.space_id), "traffic")


def _window(language: str, prompts: pa.Table, source: str) -> Window:
    """A window of prompts.

    Raises:
        ConfigError: all prompts are noise, so no rows could be selected.
    """
    clusters, space_id = prompts["cluster"].to_pylist(), prompts["place"][0].as_py() or INITIAL_CLUSTERING
    if all(cluster < 0 for cluster in clusters):
        raise ConfigError(
            f"All {len(clusters)} prompts of the window of {language} are noise, so no rows can be selected. Re-cluster with "
            f"similar rows in the pool, or with cluster.method=kmeans."
        )
    return Window(language, tuple(clusters), content_hash(language, source, json.dumps(clusters)), space_id, prompts=prompts)


def _read_prompts(file: Path) -> list[str]:
    if not file.exists():
        raise missing_path_error(str(file))
    source = SourceConfig(path=str(file).replace("$", "$$"))
    prompts: list[str | None] = load_rows(source, ("prompt",))["prompt"].to_pylist()
    if not prompts:
        raise ConfigError(f"{file} contains no prompts; an update needs at least one")
    for row, prompt in enumerate(prompts, start=1):
        if is_blank(prompt):
            raise ConfigError(f"{file}: row {row} has no prompt but {prompt!r}; correct or remove the row")
    return [prompt or "" for prompt in prompts]


def _cluster_prompts(run: RunDir, config: RunConfig, language: str, prompts: list[str]) -> Window:
    """Assign prompts in the cluster space of the live version."""
    space = resolve_space(run, read_active(run).name, language, live_version(run, language))
    assigned = load_prompt_assigner(run, config, space).assign(prompts)
    rows = zip(prompts, assigned.cluster.tolist(), assigned.coarse.tolist(), strict=True)
    entries = [{"prompt": prompt, "cluster": fine, "coarse": coarse} for prompt, fine, coarse in rows]
    return _window(language, window_table(language, entries, space.space_id), "file")

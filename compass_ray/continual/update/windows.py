"""Traffic windows that updates are made for: offered by the monitor, read from its log, or from a file of prompts.

Key property: a window is named by its content, so that an update for it is never made twice. COMPASS, section 3.3.2.
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
from compass_ray.config import ConfigError, DailyTimeWindow, RunConfig
from compass_ray.monitoring.cluster_assigner import load_prompt_assigner
from compass_ray.monitoring.observations import WindowReady
from compass_ray.monitoring.traffic_log import read_language_state, read_ready_windows
from compass_ray.monitoring.window_store import read_window as read_offered
from compass_ray.monitoring.window_store import window_table


def require_scheduled_time(config: RunConfig, moment: datetime) -> None:
    """Stop where updates are kept to hours of little traffic and ``moment``, an aware time, is none of them.

    An update that has begun goes on past their end: what it holds is its own (see `update`).

    Raises:
        ConfigError: they are closed; says when they open.
    """
    hours = DailyTimeWindow.parse(config.update.schedule_utc) if config.update.schedule_utc else None
    opens = hours.next_opening(moment) if hours else moment
    if opens == moment:
        return
    minutes = -(-(opens - moment).total_seconds() // 60)
    raise ConfigError(
        f"updates start only between {hours} UTC (update.schedule_utc), and it is {moment.astimezone(UTC):%H:%M} UTC; try again "
        f"at {opens:%Y-%m-%d %H:%M} UTC, in {minutes // 60:.0f} h {minutes % 60:.0f} min, or give --now"
    )


@dataclass(frozen=True)
class Window:
    """Prompts of one language that an update is to serve: their clusters, and how many traffic had come."""

    language: str
    clusters: tuple[int, ...]
    name: str
    """Content hash: an update is never made twice for the same window."""
    space_id: str = INITIAL_CLUSTERING
    """Mark of the clusters and centroids that its prompts were found in (see `watched_clusters.places`)."""
    file: str | None = None
    """Of the monitor's folder, where the monitor offered it."""
    prompts: pa.Table | None = field(default=None, compare=False, repr=False)
    """Its prompts, of schema `offers.WINDOW`."""

    def __len__(self) -> int:
        return len(self.clusters)


def load_ready_window(run: RunDir, ready: WindowReady) -> Window:
    """The window that the monitor offers after an alarm.

    Raises:
        ConfigError: it cannot be read, or nothing would be selected for it.
    """
    kept = read_offered(run, ready)
    return replace(_window(ready.language, kept, ready.file), file=ready.file)


def load_ready_windows(run: RunDir, config: RunConfig) -> tuple[list[Window], dict[str, str]]:
    """Every window that waits for an update, as the monitor's log has it, whether or not a monitor runs.

    Returns:
        The windows, and why no update can be made for those of some other languages.
    """
    found: list[Window] = []
    unusable: dict[str, str] = {}
    for ready in read_ready_windows(run, config):
        try:
            found.append(load_ready_window(run, ready))
        except ConfigError as error:
            unusable[ready.language] = str(error)
    return found, unusable


def read_window(run: RunDir, config: RunConfig, language: str, prompts: Path | None) -> Window:
    """Prompts from a JSON Lines file with a ``prompt`` field, or the last window that the monitor kept.

    Raises:
        ConfigError: an unknown language, an unreadable file, or no traffic.
    """
    if language not in config.languages:
        raise ConfigError(f"{language!r} is not a language of this run; it has {', '.join(config.languages)}")
    if prompts is not None:
        return _cluster_prompts(run, config, language, _read_prompts(prompts))
    watch = read_language_state(run, config, language)
    if not watch.window:
        raise ConfigError(f"no traffic of {language} has been collected; give prompts with --prompts FILE.jsonl")
    return _window(language, window_table(language, watch.window, watch.place), "traffic")


def _window(language: str, kept: pa.Table, source: str) -> Window:
    """A window to update for.

    Raises:
        ConfigError: nothing would be selected for it.
    """
    clusters, place = kept["cluster"].to_pylist(), kept["place"][0].as_py() or INITIAL_CLUSTERING
    if all(cluster < 0 for cluster in clusters):
        raise ConfigError(
            f"all {len(clusters)} prompts of the window of {language} are noise to the clusters, so no cluster has a weight "
            f"and nothing would be selected; cluster again with such rows in the pool, or with cluster.method=kmeans"
        )
    return Window(language, tuple(clusters), content_hash(language, source, json.dumps(clusters)), place, prompts=kept)


def _read_prompts(file: Path) -> list[str]:
    try:
        records = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
        prompts = [record["prompt"] for record in records]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: cannot be read as JSON Lines with a 'prompt' in each ({error})") from None
    if not prompts:
        raise ConfigError(f"{file} holds no prompts; an update needs some")
    for number, prompt in enumerate(prompts, start=1):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ConfigError(f"{file}: line {number} holds no prompt but {prompt!r}; correct it or take it out")
    return prompts


def _cluster_prompts(run: RunDir, config: RunConfig, language: str, prompts: list[str]) -> Window:
    """Where the live version's traffic would be placed."""
    place = resolve_space(run, read_active(run).name, language, live_version(run, language))
    placed = load_prompt_assigner(run, config, place).assign(prompts)
    rows = zip(prompts, placed.cluster.tolist(), placed.coarse.tolist(), strict=True)
    entries = [{"prompt": prompt, "cluster": fine, "coarse": coarse} for prompt, fine, coarse in rows]
    return _window(language, window_table(language, entries, place.space_id), "file")

"""Traffic windows that updates are made for: offered by the monitor, read from its log, or from a file of prompts.

Key property: a window is named by its content, so that an update for it is never made twice. COMPASS, section 3.3.2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from compass_ray.artifacts import RunDir, content_hash
from compass_ray.config import ConfigError, RunConfig
from compass_ray.serving.monitoring.observations import WindowReady
from compass_ray.serving.monitoring.offers import read_window as read_offered
from compass_ray.serving.monitoring.traffic_log import kept_window, waiting_windows


@dataclass(frozen=True)
class Window:
    """Prompts of one language that an update is to serve: their clusters, and how many traffic had come."""

    language: str
    clusters: tuple[int, ...]
    name: str
    """Content hash: an update is never made twice for the same window."""

    def __len__(self) -> int:
        return len(self.clusters)


def offered_window(run: RunDir, ready: WindowReady) -> Window:
    """The window that the monitor offers after an alarm."""
    return _window(ready.language, read_offered(run, ready)["cluster"].to_pylist(), ready.file)


def offered_windows(run: RunDir, config: RunConfig) -> list[Window]:
    """Every window that waits for an update, as the monitor's log has it, whether or not a monitor runs."""
    return [offered_window(run, ready) for ready in waiting_windows(run, config)]


def read_window(run: RunDir, config: RunConfig, language: str, prompts: Path | None) -> Window:
    """Prompts from a JSON Lines file with a ``prompt`` field, or the last window that the monitor kept.

    Raises:
        ConfigError: an unknown language, an unreadable file, or no traffic.
    """
    if language not in config.languages:
        raise ConfigError(f"{language!r} is not a language of this run; it has {', '.join(config.languages)}")
    if prompts is not None:
        return _placed(run, config, language, _lines(prompts))
    found = [event["cluster"] for event in kept_window(run, config, language)]
    if not found:
        raise ConfigError(f"no traffic of {language} has been collected; give prompts with --prompts FILE.jsonl")
    return _window(language, found, "traffic")


def _window(language: str, clusters: list[int], source: str) -> Window:
    """A window to update for.

    Raises:
        ConfigError: nothing would be selected for it.
    """
    if all(cluster < 0 for cluster in clusters):
        raise ConfigError(
            f"all {len(clusters)} prompts of the window of {language} are noise to the clusters, so no cluster has a weight "
            f"and nothing would be selected; cluster again with such rows in the pool, or with cluster.method=kmeans"
        )
    return Window(language, tuple(int(c) for c in clusters), content_hash(language, source, json.dumps(clusters)))


def _lines(file: Path) -> list[str]:
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


def _placed(run: RunDir, config: RunConfig, language: str, prompts: list[str]) -> Window:
    from compass_ray.serving.monitoring.placing import load_placer

    placed = load_placer(run, config).place(prompts)
    return _window(language, [int(c) for c in placed.cluster], "file")

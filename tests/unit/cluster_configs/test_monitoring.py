"""Grafana can import the dashboard, and it queries only metrics of the installed Ray or of the endpoint.

What Ray has is read off the dashboards that it brings itself, what the endpoint has off its table; no cluster is started here.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from compass_ray.serving.metrics.definitions import METRICS
from tests.unit.cluster_configs.config_files import CONFIGS, load

_METRIC = re.compile(r"\b(?:ray|autoscaler)_[a-z0-9_]+(?=\{)")
PREFIX = "ray_"
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _board() -> dict[str, Any]:
    board: dict[str, Any] = json.loads((CONFIGS / "grafana/compass-ray.json").read_text("utf-8"))
    return board


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in _board()["panels"] if panel["type"] != "row"]


def _metrics(panel: dict[str, Any]) -> set[str]:
    return {name for target in panel["targets"] for name in _METRIC.findall(target["expr"])}


@cache
def _known() -> frozenset[str]:
    from ray.dashboard.modules.metrics import dashboards

    (folder,) = dashboards.__path__
    texts = [path.read_text("utf-8") for path in Path(folder).glob("*_dashboard_panels.py")]
    rays = {name for text in texts for name in _METRIC.findall(text)}
    return frozenset(rays | _own())


def _own() -> set[str]:
    return {f"{PREFIX}{name}" for metric in METRICS for name in metric.series_names}


def test_grafana_can_import_it() -> None:
    board = _board()
    assert isinstance(board["schemaVersion"], int)
    assert re.fullmatch(r"[\w-]{1,40}", board["uid"])
    assert "id" not in board  # it would overwrite whatever has that number
    first = board["templating"]["list"][0]
    assert (first["type"], first["query"], first["name"]) == ("datasource", "prometheus", "datasource")


@pytest.mark.parametrize("panel", _panels(), ids=lambda panel: panel["title"])
def test_a_panel_has_a_description_and_queries_existing_metrics(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"]
    assert panel["datasource"] == _DATASOURCE
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) >= 1
    assert all(target["datasource"] == _DATASOURCE for target in panel["targets"])
    assert _metrics(panel)
    assert _metrics(panel) <= _known()


@pytest.mark.parametrize("panel", _panels(), ids=lambda panel: panel["title"])
def test_brackets_close_and_variables_exist(panel: dict[str, Any]) -> None:
    variables = {variable["name"] for variable in _board()["templating"]["list"]}
    for target in panel["targets"]:
        for opened, closed in ("()", "{}", "[]"):
            assert target["expr"].count(opened) == target["expr"].count(closed)
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables


def test_every_metric_of_the_endpoint_is_shown() -> None:
    shown = {name for panel in _panels() for name in _metrics(panel)}
    for metric in METRICS:
        assert shown & {f"{PREFIX}{name}" for name in metric.series_names}, metric.name


def test_labels_are_those_of_the_metric() -> None:
    labels = {f"{PREFIX}{name}": {*metric.labels, "le"} for metric in METRICS for name in metric.series_names}
    for panel in _panels():
        for target in panel["targets"]:
            own = _metrics({"targets": [target]}) & labels.keys()
            for name in own:
                for group in re.findall(r"by \(([^)]*)\)", target["expr"]):
                    assert set(group.split(", ")) <= labels[name]
                assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels[name]


def test_panels_have_unique_ids_and_positions() -> None:
    panels = _board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_prometheus_reads_the_file_that_ray_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    (job,) = load("prometheus.yml")["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]}]

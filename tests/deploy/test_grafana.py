"""The dashboards ask only for what is counted, in the shape that Grafana imports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateway_metrics import samples

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "gateway.json").read_text()))


def queries(dashboard: dict[str, Any]) -> list[str]:
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    notes = [note["expr"] for note in dashboard["annotations"]["list"]]
    return [
        *panels,
        *notes,
        *(each["query"]["query"] for each in dashboard["templating"]["list"] if "datasource" in each),
    ]


def test_every_metric_of_the_dashboard_exists(dashboard: dict[str, Any]) -> None:
    known = samples()
    asked = {name for query in queries(dashboard) for name in re.findall(r"perpetune_\w+", query)}
    assert asked
    assert asked <= set(known)


def test_every_label_of_the_dashboard_exists(dashboard: dict[str, Any]) -> None:
    known = samples()
    for query in queries(dashboard):
        [name] = set(re.findall(r"perpetune_\w+", query))
        grouped = [label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")]
        chosen = re.findall(r"[{,]\s*(\w+)=", query)
        assert set(grouped) | set(chosen) <= known[name] | {"job"}, query
        assert query.count("(") == query.count(")")


def test_the_dashboard_shows_the_main_metrics(dashboard: dict[str, Any]) -> None:
    everything = " ".join(queries(dashboard))
    for name in ("http_requests", "first_token", "tokens", "confidence", "in_flight", "log_rows_lost", "rate_limited"):
        assert f"perpetune_{name}" in everything or f"_{name}" in everything
    assert [panel["type"] for panel in dashboard["panels"] if "release_serving" in str(panel)] == ["state-timeline"]
    assert any("release_swaps" in note["expr"] for note in dashboard["annotations"]["list"])


@pytest.mark.parametrize("name", ["gateway", "services"])
def test_the_shape_that_grafana_imports(name: str) -> None:
    dashboard = json.loads((FOLDER / f"{name}.json").read_text())
    assert {"uid", "title", "schemaVersion", "panels", "templating", "annotations", "time"} <= set(dashboard)
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    positions: set[tuple[int, int]] = set()
    for panel in panels:
        assert {"id", "type", "title", "gridPos", "targets", "datasource", "fieldConfig", "options"} <= set(panel)
        position = panel["gridPos"]
        assert position["x"] + position["w"] <= 24
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & positions
        positions |= cells
        assert all({"refId", "expr", "datasource"} <= set(target) for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_dashboard_of_services_asks_for_what_prometheus_has() -> None:
    dashboard = json.loads((FOLDER / "services.json").read_text())
    named = {
        name for query in queries(dashboard) for name in re.findall(r"\b(?:haproxy|probe|perpetune)_\w+|ALERTS", query)
    }
    assert named == {
        "ALERTS",
        "probe_success",
        "probe_duration_seconds",
        "haproxy_server_status",
        "haproxy_frontend_http_responses_total",
        "haproxy_server_http_responses_total",
        "haproxy_frontend_current_sessions",
        "haproxy_backend_current_queue",
        "haproxy_backend_retry_warnings_total",
        "haproxy_backend_redispatch_warnings_total",
    }


def test_grafana_finds_the_dashboards_and_prometheus() -> None:
    services = yaml.safe_load((FOLDER.parents[2] / "docker-compose.yml").read_text())["services"]
    mounts = dict(each.removesuffix(":ro").split(":") for each in services["grafana"]["volumes"])
    [provider] = yaml.safe_load((FOLDER.parent / "provisioning/dashboards/perpetune.yaml").read_text())["providers"]
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    sources = yaml.safe_load((FOLDER.parent / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert [source["url"] for source in sources] == ["http://prometheus:9090"]
    assert "prometheus" in services

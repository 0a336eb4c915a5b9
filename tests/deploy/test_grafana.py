"""The dashboard asks only for what the gateway counts, in the shape that Grafana imports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from perpetune.gateway.telemetry.metrics import Metrics

FILE = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboard.json"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


def queries(dashboard: dict[str, Any]) -> list[str]:
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    notes = [note["expr"] for note in dashboard["annotations"]["list"]]
    return [
        *panels,
        *notes,
        *(each["query"]["query"] for each in dashboard["templating"]["list"] if "datasource" in each),
    ]


def samples() -> dict[str, set[str]]:
    """Every sample that the gateway may show, by name, with its labels."""
    endings = {"counter": ("_total",), "gauge": ("",), "info": ("_info",), "histogram": ("_bucket", "_count", "_sum")}
    found = {}
    for family in Metrics().registry.collect():
        labels = {"version", "python"} if family.type == "info" else set(_labels()[family.name])
        for ending in endings[family.type]:
            found[family.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def _labels() -> dict[str, tuple[str, ...]]:
    return {each._name: each._labelnames for each in vars(Metrics()).values() if hasattr(each, "_labelnames")}


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


def test_the_shape_that_grafana_imports(dashboard: dict[str, Any]) -> None:
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

"""Prometheus watches every service of docker-compose.yml, and each alert fires when it should and not before."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from compose_file import read_compose
from gateway_metrics import samples

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
# What others than the gateway count.
OTHERS = {"up", "probe_success", "haproxy_server_status"}
WORDS = {
    "by",
    "le",
    "on",
    "or",
    "path",
    "job",
    "instance",
    "task",
    "version",
    "status",
    "reason",
    "proxy",
    "state",
    "code",
}
FUNCTIONS = {"sum", "rate", "increase", "count", "absent", "unless", "histogram_quantile"}
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's prometheus)")


@pytest.fixture(scope="module")
def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "prometheus.yml").read_text()))


def test_every_metric_of_an_alert_exists(alerts: list[dict[str, Any]]) -> None:
    known = set(samples()) | OTHERS
    for alert in alerts:
        named = set(re.findall(r"\b[a-z_]{2,}\b", re.sub(r'"[^"]*"', "", alert["expr"]))) - WORDS - FUNCTIONS
        assert named and named <= known, alert["alert"]


def test_every_alert_says_what_to_do(alerts: list[dict[str, Any]]) -> None:
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["labels"]["severity"] in {"warn", "page"}
        assert alert["annotations"]["summary"] and alert["annotations"]["do"]


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alerts: list[dict[str, Any]]) -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    quiet = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == quiet == {alert["alert"] for alert in alerts}


@promtool
def test_alerts_fire_as_their_cases_say() -> None:
    done = subprocess.run(["promtool", "test", "rules", "alerts_test.yml"], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_configuration_is_valid(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "alerts.yml"):
        (tmp_path / name).write_text((FOLDER / name).read_text().replace("/etc/prometheus/", f"{tmp_path}/"))
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_watched(config: dict[str, Any]) -> None:
    targets = {
        target
        for job in config["scrape_configs"]
        for group in job.get("static_configs", ())
        for target in group["targets"]
    }
    watched = {urlsplit(target if "//" in target else f"//{target}").hostname for target in targets} - {"localhost"}
    watched |= {
        name for job in config["scrape_configs"] for each in job.get("dns_sd_configs", ()) for name in each["names"]
    }
    # Those that end, the two that watch, and Grafana, which only shows.
    services = set(read_compose({})["services"]) - {"bucket", "keys", "backup", "prometheus", "blackbox", "grafana"}
    assert watched == services

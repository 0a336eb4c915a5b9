"""What the gateway may show to Prometheus."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase

from perpetune.gateway.telemetry.metrics import Metrics

_ENDINGS = {"counter": ("_total",), "gauge": ("",), "info": ("_info",), "histogram": ("_bucket", "_count", "_sum")}


def samples() -> dict[str, set[str]]:
    """Every sample, by name, with its labels."""
    found = {}
    for family in Metrics().registry.collect():
        labels = {"version", "python"} if family.type == "info" else set(_labels()[family.name])
        for ending in _ENDINGS[family.type]:
            found[family.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def _labels() -> dict[str, tuple[str, ...]]:
    collectors = [*Metrics().registry._collector_to_names]
    return {each._name: each._labelnames for each in collectors if isinstance(each, MetricWrapperBase)}

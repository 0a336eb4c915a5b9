"""The metrics of all tasks on one page, each series with the label `task`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from perpetune.gateway.telemetry.metrics import Metrics

_OF_REQUESTS = "perpetune_http_"


def text_of(tasks: Mapping[str, Metrics], gateway: Metrics) -> bytes:
    """Prometheus' text format. Requests that were for no task are those of `gateway`, with an empty label."""
    registry = CollectorRegistry()
    registry.register(_Labelled(tasks, gateway))
    return generate_latest(registry)


class _Labelled(Collector):
    def __init__(self, tasks: Mapping[str, Metrics], gateway: Metrics) -> None:
        self._tasks = tasks
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for task, metrics in {**self._tasks, "": self._gateway}.items():
            for found in metrics.registry.collect():
                if task == "" and not found.name.startswith(_OF_REQUESTS):
                    continue
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                family.samples += [each._replace(labels={"task": task, **each.labels}) for each in found.samples]
        yield from families.values()

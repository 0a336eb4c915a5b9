"""The metrics of all workers as one, so that Prometheus may scrape any of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

# States that all workers have, and not amounts.
_SAME = ("perpetune_release_serving", "perpetune_release_trial", "perpetune_build_info")
_ADD_UP = ("counter", "histogram")  # which count for ever, also what an ended process has counted

_Sample = tuple[str, tuple[tuple[str, str], ...]]


def summed(own: bytes, alive: Sequence[str] = (), ended: Sequence[str] = ()) -> bytes:
    """The sums over all workers, in Prometheus' text format. Of ended processes only what counts for ever is added."""
    if not alive and not ended:
        return own
    now = chain.from_iterable(map(text_string_to_metric_families, (own.decode(), *alive)))
    before = chain.from_iterable(map(text_string_to_metric_families, ended))
    families = [*now, *(family for family in before if family.type in _ADD_UP)]
    registry = CollectorRegistry()
    registry.register(_Families(list(_merged(families))))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _merged(families: Sequence[Metric]) -> Iterator[Metric]:
    for name in dict.fromkeys(family.name for family in families):
        same = [family for family in families if family.name == name]
        values: dict[_Sample, float] = {}
        for sample in chain.from_iterable(family.samples for family in same):
            key = (sample.name, tuple(sample.labels.items()))
            values[key] = _joined(name, values[key], sample.value) if key in values else sample.value
        merged = Metric(name, same[0].documentation, same[0].type)
        for (sample_name, labels), value in values.items():
            merged.add_sample(sample_name, dict(labels), value)
        yield merged


def _joined(name: str, one: float, other: float) -> float:
    if name.endswith("_created"):
        return min(one, other)
    return max(one, other) if name in _SAME else one + other
